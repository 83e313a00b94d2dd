"""Fixtures of the whole suite: one real Postgres for the session, and new databases in it as often as wanted.

The server is the embedded one, in a temporary folder, with real commits. `PCEHR_TEST_POSTGRES_URL`, a superuser's
URL, makes the suite use another server instead; what the tests make there is dropped at the end. Under pytest-xdist
each worker has a server of its own.
"""

from __future__ import annotations

import asyncio
import gc
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
from hypothesis import HealthCheck, settings

from client.embedded.postgres import EmbeddedPostgres, create_role_and_database
from shared.db import migrate

ROOM_IN_MEMORY = 12 * 1024**3
"""Bytes; two workers of pytest-xdist have hundreds of databases of 8 MB each at the end."""


# How long an example takes, or its making, says how busy the machine is.
settings.register_profile("without-clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("without-clock")


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the collector would go through all of it again and again."""
    gc.collect()
    gc.freeze()


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
    """Call it for the URL of a new database of its own, owned by a role that may do nothing else.

    With the name of a service the database is at the head of its migrations, with `script_location` at the head of
    the migrations in that folder. The migrations run once for a session, into a template that is then copied; all
    copies of a template belong to its role.
    """

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._templates: dict[str, tuple[str, str]] = {}
        self._databases: list[str] = []
        self._roles: list[str] = []
        self._lock = asyncio.Lock()
        self._superuser: asyncpg.Connection | None = None

    async def __call__(self, service: str | None = None, *, script_location: Path | None = None) -> str:
        async with self._lock:
            if service is None:
                return self._server.url_for(*await self._made())
            key = f"{service} {script_location}"
            if key not in self._templates:
                self._templates[key] = template = await self._made()
                await migrate.upgrade(service, self._server.url_for(*template), script_location=script_location)
            role, password = self._templates[key]
            name = f"t_{secrets.token_hex(8)}"
            connection = await self._connection()
            # Copying files takes half as long as writing their pages through the log, which is the default.
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{role}" OWNER "{role}" STRATEGY file_copy')
            self._databases.append(name)
        return urlunsplit(urlsplit(self._server.url_for(role, password))._replace(path=f"/{name}"))

    async def _made(self) -> tuple[str, str]:
        """The name of a new role, and of its empty database, and the password."""
        name, password = f"t_{secrets.token_hex(8)}", secrets.token_urlsafe(16)
        await self._server.create_role_and_database(name, password)
        self._databases.append(name)
        self._roles.append(name)
        connection = await self._connection()
        # A connection takes half the time when the password is hashed once and not 4096 times.
        await connection.execute(f"SET scram_iterations = 1; ALTER ROLE \"{name}\" PASSWORD '{password}'")
        return name, password

    async def _connection(self) -> asyncpg.Connection:
        if self._superuser is None:
            self._superuser = await asyncpg.connect(self._server.superuser_url)
        return self._superuser

    async def close(self) -> None:
        if self._superuser is not None:
            await self._superuser.close()

    async def drop_all(self) -> None:
        connection = await self._connection()
        for name in self._databases:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        for name in self._roles:
            await connection.execute(f'DROP ROLE IF EXISTS "{name}"')


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Not pytest's: root's is closed to the user that Postgres runs as.

    It lies in memory where there is room, since tests make, and remove, databases of hundreds of files each.
    """
    folder = Path(tempfile.mkdtemp(prefix="pcehr-test-", dir=_memory()))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _memory() -> Path | None:
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > ROOM_IN_MEMORY else None


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
            await _set_for_tests(server.superuser_url)
            yield server


_FOR_TESTS = (
    # Nobody pulls this machine's plug, and what a process acknowledged before it was killed the kernel writes anyway.
    "fsync = off",
    "full_page_writes = off",
    "max_wal_size = '4GB'",
    "checkpoint_timeout = '1h'",
    # It goes round among all databases, and there are hundreds that no test looks at any more.
    "autovacuum = off",
)


async def _set_for_tests(superuser_url: str) -> None:
    """Tests of crashes have servers of their own, set up as `pcehr up` does it."""
    connection = await asyncpg.connect(superuser_url)
    try:
        for setting in _FOR_TESTS:
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
    await databases.close()
