"""Bring a service's database to the newest form of its tables: `python -m shared.db.migrate registry|records|proxy`.

With `--check` nothing is changed, and the exit status says whether the database is up to date: 0 if so, 1 if not.
2 means that the question could not be answered, or the upgrade not be done. The URL comes from `PCEHR_DATABASE_URL`
or, where that is not set, from `DATABASE_URL`; with `registry=FILE` it stands in that file. Several services may be
named, and are upgraded one after the other until one cannot be.

A lock in the database itself keeps two replicas that start at once apart: the second one waits and then finds
nothing left to do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, pool, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.engine import means_away, new_engine
from shared.errors import DatabaseUnavailable

Result = TypeVar("Result")

SERVICES = ("registry", "records", "proxy")

LOCK_SECONDS = 60.0
"""How long to wait for another replica's migration."""

TABLE_LOCK_SECONDS = 5
"""How long to wait for a table that is in use. Meanwhile whatever else wants the table waits behind the migration."""

STATEMENT_SECONDS = 600.0
"""How long one statement of a migration may take; rewriting a large table takes minutes."""

_LOCK_KEY = 0x5043_4548_5200
"""Any number, as long as it never changes; advisory locks are counted for each database apart."""

_LOCK_POLL_SECONDS = 0.2

_ALEMBIC = threading.Lock()
"""Alembic keeps its current context in a global variable, so that only one thread at a time may be inside it."""


async def upgrade(service: str, url: str, *, script_location: Path | None = None) -> None:
    """Upgrade to head; does nothing to a database that is there already.

    Raises DatabaseUnavailable when Postgres is away or another migration holds the lock for `LOCK_SECONDS`, and
    ValueError for a service without migrations or a database of a newer release, which stays as it is.
    """
    config = _config(service, script_location)
    await asyncio.to_thread(_blocking, config, url, _upgrade, locked=True)


async def is_at_head(service: str, url: str, *, script_location: Path | None = None) -> bool:
    """Whether every migration of this release, and no other, has been applied. Raises as `upgrade` does."""
    config = _config(service, script_location)
    return await asyncio.to_thread(_blocking, config, url, _is_at_head, locked=False)


async def check_models(service: str, url: str, *, script_location: Path | None = None) -> None:
    """For tests: raises alembic's `CommandError` that names what the models have and the migrated tables have not."""
    config = _config(service, script_location)
    await asyncio.to_thread(_blocking, config, url, _compare, locked=True)


def database_url() -> str:
    """The URL from the environment. Raises KeyError if neither variable is set, with a name that may be shown."""
    for name in ("PCEHR_DATABASE_URL", "DATABASE_URL"):
        if os.environ.get(name):
            return os.environ[name]
    raise KeyError("PCEHR_DATABASE_URL")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m shared.db.migrate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("services", nargs="+", metavar="SERVICE[=FILE]", help=", ".join(SERVICES))
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a database is not at head")
    parser.add_argument("--script-location", type=Path, help="the folder of migrations, if not the service's own")
    options = parser.parse_args(arguments)
    for wanted in options.services:
        service, _, file = wanted.partition("=")
        if service not in SERVICES:
            parser.error(f"{service} is none of {', '.join(SERVICES)}")
        status = _one(service, Path(file) if file else None, options.script_location, check=options.check)
        if status != 0:
            return status
    return 0


def _one(service: str, file: Path | None, script_location: Path | None, *, check: bool) -> int:
    try:
        url = database_url() if file is None else file.read_text("utf-8").strip()
        if check:
            if asyncio.run(is_at_head(service, url, script_location=script_location)):
                return 0
            sys.stderr.write(f"The database of the {service} service is not at head.\n")
            return 1
        asyncio.run(upgrade(service, url, script_location=script_location))
    except KeyError as error:
        sys.stderr.write(f"Set {error.args[0]} to the URL of the database.\n")
        return 2
    except (OSError, ValueError, CommandError, DatabaseUnavailable) as error:
        sys.stderr.write(f"{service}: {error}\n")
        return 2
    except (SQLAlchemyError, asyncpg.PostgresError) as error:
        reason = str(error).partition(chr(10))[0]
        sys.stderr.write(f"{service}: Postgres refused: {type(error).__name__}: {reason}\n")
        return 2
    return 0


def _config(service: str, script_location: Path | None) -> Config:
    if script_location is None:
        if re.fullmatch(r"[a-z][a-z_]*", service) is None:
            raise ValueError("a service's name is lower-case letters and underscores")
        # By path, for shared code must not know the services.
        script_location = Path(__file__).parents[2] / "services" / service / "migrations"
    if not (script_location / "env.py").is_file():
        raise ValueError(f"there are no migrations in {script_location}")
    config = Config()
    # Alembic reads options through configparser, where % begins an interpolation.
    config.set_main_option("script_location", str(script_location.absolute()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _blocking(config: Config, url: str, work: Callable[[Connection, Config], Result], *, locked: bool) -> Result:
    """In a thread of its own, with a loop of its own, since Alembic blocks and is not to be re-entered."""
    with _ALEMBIC:
        return asyncio.run(_run(config, url, work, locked=locked))


async def _run(config: Config, url: str, work: Callable[[Connection, Config], Result], *, locked: bool) -> Result:
    engine = new_engine(
        url, application_name="pcehr-migrate", command_timeout=STATEMENT_SECONDS, poolclass=pool.NullPool
    )
    try:
        async with engine.connect() as connection:
            if locked:
                await _take_lock(connection)
            # Leaving the block closes the connection and with it gives the lock back, whatever happened.
            return await connection.run_sync(work, config)
    except (OSError, TimeoutError, DatabaseUnavailable) as error:
        raise DatabaseUnavailable(error.detail if isinstance(error, DatabaseUnavailable) else None) from None
    except (SQLAlchemyError, asyncpg.PostgresError) as error:
        if means_away(error):
            raise DatabaseUnavailable from None
        raise
    finally:
        await engine.dispose()


async def _take_lock(connection: AsyncConnection) -> None:
    await connection.execute(text(f"SET lock_timeout = '{TABLE_LOCK_SECONDS}s'"))
    deadline = time.monotonic() + LOCK_SECONDS
    # Asked for again and again in transactions of their own: one that waited inside Postgres would hold up the other
    # migration's CREATE INDEX CONCURRENTLY, which waits for every transaction there is, and neither would get on.
    while not await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK_KEY}):
        await connection.commit()
        if time.monotonic() > deadline:
            raise DatabaseUnavailable(
                f"Another migration of this database has been running for {LOCK_SECONDS:.0f} s; try again when it is"
                " done."
            )
        await asyncio.sleep(_LOCK_POLL_SECONDS)
    # The lock belongs to the connection and outlives this transaction; Alembic wants to begin its own.
    await connection.commit()


def _upgrade(connection: Connection, config: Config) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if newer := set(MigrationContext.configure(connection).get_current_heads()) - known:
        raise ValueError(
            f"The tables are of a newer release (revision {', '.join(sorted(newer))}); nothing was changed."
        )
    # What asked for the revision is a transaction too, and Alembic wants to begin its own.
    connection.rollback()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _compare(connection: Connection, config: Config) -> None:
    config.attributes["connection"] = connection
    command.check(config)


def _is_at_head(connection: Connection, config: Config) -> bool:
    applied = MigrationContext.configure(connection).get_current_heads()
    return set(applied) == set(ScriptDirectory.from_config(config).get_heads())


if __name__ == "__main__":
    sys.exit(main())
