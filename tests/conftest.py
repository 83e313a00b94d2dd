"""Fixtures of the whole suite: one real Postgres for the session, and new databases in it as often as wanted.

The server is the embedded one, in a temporary folder, with real commits. `PCEHR_TEST_POSTGRES_URL`, a superuser's
URL, makes the suite use another server instead; what the tests make there is dropped at the end. Under pytest-xdist
each worker has a server of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import pytest

from client.embedded.postgres import EmbeddedPostgres, create_role_and_database
from shared.db import migrate


class PostgresServer(Protocol):
    """What tests may ask of a server, be it the embedded one or another."""

    @property
    def superuser_url(self) -> str: ...

    def url_for(self, name: str, password: str) -> str: ...

    async def create_role_and_database(self, name: str, password: str) -> None: ...


class ExternalPostgres:
    """A server that somebody else runs; `superuser_url` is what the environment says."""

    def __init__(self, superuser_url: str) -> None:
        self.superuser_url = superuser_url

    def url_for(self, name: str, password: str) -> str:
        parts = urlsplit(self.superuser_url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{name}:{quote(password, safe='')}@{host}", path=f"/{name}"))

    async def create_role_and_database(self, name: str, password: str) -> None:
        await create_role_and_database(self.superuser_url, name, password)


class FreshDatabases:
    """Call it for the URL of a new database of its own, owned by a new role that may do nothing else.

    With the name of a service the database is at the head of its migrations, with `script_location` at the head of
    the migrations in that folder. The migrations run once for a session, into a template that is then copied.
    """

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._templates: dict[str, str] = {}
        self._made: list[str] = []
        self._lock = asyncio.Lock()

    async def __call__(self, service: str | None = None, *, script_location: Path | None = None) -> str:
        name, password = f"t_{secrets.token_hex(8)}", secrets.token_urlsafe(16)
        if service is None:
            await self._server.create_role_and_database(name, password)
            self._made.append(name)
            return self._server.url_for(name, password)
        template = await self._template(service, script_location)
        connection = await asyncpg.connect(self._server.superuser_url)
        try:
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        finally:
            await connection.close()
        self._made.append(name)
        # The database is there already, so this makes the role and hands the database over to it.
        await self._server.create_role_and_database(name, password)
        parts = urlsplit(self._server.superuser_url)
        connection = await asyncpg.connect(urlunsplit(parts._replace(path=f"/{name}")))
        try:
            await connection.execute(f'REASSIGN OWNED BY "{template}" TO "{name}"')
        finally:
            await connection.close()
        return self._server.url_for(name, password)

    async def _template(self, service: str, script_location: Path | None) -> str:
        key = f"{service} {script_location}"
        async with self._lock:
            if key not in self._templates:
                name, password = f"template_{secrets.token_hex(8)}", secrets.token_urlsafe(16)
                await self._server.create_role_and_database(name, password)
                self._made.append(name)
                await migrate.upgrade(service, self._server.url_for(name, password), script_location=script_location)
                connection = await asyncpg.connect(self._server.superuser_url)
                try:
                    # Otherwise REASSIGN OWNED in a copy would give the template itself away as well.
                    await connection.execute(f'ALTER DATABASE "{name}" OWNER TO CURRENT_USER')
                finally:
                    await connection.close()
                self._templates[key] = name
        return self._templates[key]

    async def drop_all(self) -> None:
        connection = await asyncpg.connect(self._server.superuser_url)
        try:
            for name in self._made:
                await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            for name in self._made:
                await connection.execute(f'DROP ROLE IF EXISTS "{name}"')
        finally:
            await connection.close()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Not pytest's: root's is closed to the user that Postgres runs as."""
    folder = Path(tempfile.mkdtemp(prefix="pcehr-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """What a composition root does to the logging of its process ends with the test."""
    names = (None, "pcehr", "uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access")
    kept = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in map(logging.getLogger, names)]
    raises = logging.raiseExceptions
    yield
    logging.raiseExceptions = raises
    for logger, handlers, level, propagate in kept:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture
def postgres_dir() -> Iterator[Path]:
    """A folder, not made yet, for a server of a test's own."""
    with temporary_folder() as folder:
        yield folder / "postgres"


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[PostgresServer]:
    """The session's server. A test that stops or kills its server makes one of its own, in `postgres_dir`."""
    url = os.environ.get("PCEHR_TEST_POSTGRES_URL")
    if url:
        yield ExternalPostgres(url)
        return
    with temporary_folder() as folder:
        async with EmbeddedPostgres(folder / "postgres") as server:
            await _without_waiting_for_the_disk(server.superuser_url)
            yield server


async def _without_waiting_for_the_disk(superuser_url: str) -> None:
    """Nobody pulls this machine's plug, and what a process acknowledged before it was killed the kernel writes anyway.

    Tests of crashes have servers of their own, set up as `pcehr up` does it.
    """
    connection = await asyncpg.connect(superuser_url)
    try:
        for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '4GB'", "checkpoint_timeout = '1h'"):
            await connection.execute(f"ALTER SYSTEM SET {setting}")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


@pytest.fixture(scope="session")
async def fresh_database(postgres: PostgresServer) -> AsyncIterator[FreshDatabases]:
    """`await fresh_database()` or `await fresh_database("registry")`: the URL of a new database."""
    databases = FreshDatabases(postgres)
    yield databases
    if isinstance(postgres, ExternalPostgres):
        await databases.drop_all()
