"""A database with a log in it, and what to look at the tree with that is not the code under test."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from shared.crypto.signing import SigningKey
from shared.db.engine import Database
from shared.db.log import Log, append_events
from shared.db.log.chains import LoggedEvent, NewEvent
from shared.did import did_from_key
from shared.transparency.checkpoints import VerifiedCheckpoint, verify_checkpoint

MIGRATIONS = Path(__file__).parent / "migrations"
KEY = SigningKey(bytes(range(32)))
NOW = 1_760_000_000


def party(number: int) -> str:
    """The DID of a party that has a key, and a place in the order of DIDs that nothing depends on."""
    return did_from_key(bytes(SigningKey(number.to_bytes(32, "big")).verify_key))


PATIENTS = sorted(party(number) for number in range(1, 5))


def happened(subject: str, word: str = "request", actor: str | None = None) -> NewEvent:
    return NewEvent(subject=subject, at=NOW, event=word, actor=actor)


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """The Merkle tree hash as RFC 6962 section 2.1 writes it down, over leaf hashes."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


@dataclass
class World:
    """One database, one log in it, and a way around both."""

    url: str
    database: Database
    log: Log

    async def append(self, *events: NewEvent) -> list[LoggedEvent]:
        async with self.database.transaction() as session:
            return await append_events(session, events)

    async def leaves(self) -> list[bytes]:
        """The leaf hashes in the order of the tree, computed from the data."""
        return [
            hashlib.sha256(b"\x00" + row["data"]).digest()
            for row in await self.fetch('SELECT data FROM log_entries WHERE "index" IS NOT NULL ORDER BY "index"')
        ]

    async def signed(self) -> list[VerifiedCheckpoint]:
        """Every checkpoint that was ever committed, in order of size; needs `keep_all_checkpoints`."""
        rows = await self.fetch("SELECT note FROM signed ORDER BY size, note")
        return [verify_checkpoint(row["note"], self.log.origin) for row in rows]

    async def keep_all_checkpoints(self) -> None:
        """Have the database copy each checkpoint that is signed, since older ones are deleted."""
        await self.run(
            "CREATE TABLE signed (size bigint, note text);"
            "CREATE FUNCTION copy_signed() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN INSERT INTO signed VALUES (NEW.size, NEW.note); RETURN NEW; END $$;"
            "CREATE TRIGGER copy_signed AFTER INSERT ON log_checkpoints FOR EACH ROW EXECUTE FUNCTION copy_signed()"
        )

    async def break_(self, table: str, when: str) -> None:
        """Have every statement of this kind on the table fail; `when` is such as `BEFORE INSERT`."""
        await self.run(
            "CREATE OR REPLACE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'broken'; END $$;"
            f"CREATE TRIGGER broken {when} ON {table} FOR EACH ROW EXECUTE FUNCTION broken()"
        )

    async def break_commit(self, table: str) -> None:
        """Have every transaction that inserts into the table fail when it is committed."""
        await self.run(
            "CREATE OR REPLACE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'broken'; END $$;"
            f"CREATE CONSTRAINT TRIGGER broken AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION broken()"
        )

    async def mend(self, table: str) -> None:
        await self.run(f"DROP TRIGGER broken ON {table}")

    async def fetch(self, query: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetch(query)
        finally:
            await connection.close()

    async def run(self, statements: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statements)
        finally:
            await connection.close()

    async def count(self, table: str) -> int:
        async with self.database.transaction() as session:
            return int(await session.scalar(text(f"SELECT count(*) FROM {table}")) or 0)

    async def count_is(self, table: str, expected: int) -> bool:
        return await self.count(table) == expected


Worlds = Callable[[], Awaitable[World]]


CLEAN = (
    "DROP TABLE IF EXISTS signed, effects; DROP FUNCTION IF EXISTS broken, copy_signed CASCADE;"
    "TRUNCATE log_entries, log_nodes, log_checkpoints, log_evidence, log_heads, log_events RESTART IDENTITY"
)
"""What makes a database as good as new, in a tenth of the time that a new one takes."""


@pytest.fixture(scope="session")
def used_databases() -> list[str]:
    """URLs of databases that tests of this session are done with."""
    return []


@pytest.fixture
async def worlds(fresh_database: Callable[..., Awaitable[str]], used_databases: list[str]) -> AsyncIterator[Worlds]:
    """Call it for a database of the test's own with an empty log."""
    made: list[World] = []

    async def new() -> World:
        url = used_databases.pop() if used_databases else await fresh_database("log", script_location=MIGRATIONS)
        database = Database(url, application_name="test", pool_size=10)
        made.append(World(url, database, Log(database, key=KEY, kind="records")))
        return made[-1]

    yield new
    for world in made:
        await world.database.dispose()
        await world.run(CLEAN)
        used_databases.append(world.url)


@pytest.fixture
async def world(worlds: Worlds) -> World:
    return await worlds()
