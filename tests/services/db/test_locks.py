"""Locks on names, on real Postgres: they keep out whom they should, and nobody overtakes whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from random import Random

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.db import locks
from shared.db.engine import Database
from tests.conftest import FreshDatabases

Lock = Callable[[AsyncSession, Iterable[str]], Awaitable[None]]


@pytest.fixture
async def database(fresh_database: FreshDatabases) -> AsyncIterator[Database]:
    database = Database(await fresh_database(), application_name="test")
    yield database
    await database.dispose()


class Holder:
    """A transaction that takes locks and notes in `order` when it has them; `release` ends it."""

    def __init__(self, database: Database, order: list[str], lock: Lock, *names: str) -> None:
        self._released = asyncio.Event()
        self._task = asyncio.create_task(self._hold(database, order, lock, names))

    async def _hold(self, database: Database, order: list[str], lock: Lock, names: tuple[str, ...]) -> None:
        async with database.transaction() as session:
            await lock(session, names)
            order.append(f"{lock.__name__} {' '.join(names)}")
            await self._released.wait()

    async def release(self) -> None:
        self._released.set()
        await self._task


async def waiting(database: Database, count: int) -> None:
    query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    async with asyncio.timeout(30):
        while True:
            async with database.reading() as session:
                if (await session.scalar(query)) == count:
                    return
            await asyncio.sleep(0.01)


async def has(order: list[str], length: int) -> None:
    async with asyncio.timeout(30):
        while len(order) < length:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_many_share_a_lock_and_one_alone_waits_for_all_of_them(database: Database) -> None:
    order: list[str] = []
    sharing = [Holder(database, order, locks.share, "a") for _ in range(3)]
    await has(order, 3)
    alone = Holder(database, order, locks.take, "a")
    await waiting(database, 1)
    for holder in sharing:
        assert len(order) == 3
        await holder.release()
    await has(order, 4)
    await alone.release()


async def test_whoever_shares_later_does_not_overtake_one_who_waits_to_be_alone(database: Database) -> None:
    order: list[str] = []
    first = Holder(database, order, locks.share, "a")
    await has(order, 1)
    alone = Holder(database, order, locks.take, "a")
    await waiting(database, 1)
    late = Holder(database, order, locks.share, "a")
    await waiting(database, 2)
    await first.release()
    await has(order, 2)
    assert order == ["share a", "take a"]
    await alone.release()
    await has(order, 3)
    await late.release()


async def test_other_names_are_other_locks(database: Database) -> None:
    order: list[str] = []
    held = [Holder(database, order, locks.take, name) for name in ("a", "b", "c d")]
    await has(order, 3)
    for holder in held:
        await holder.release()


async def test_no_name_is_no_lock(database: Database) -> None:
    async with database.transaction() as session:
        await locks.take(session, [])
        await locks.share(session, [])


async def test_several_are_taken_in_one_order_whatever_order_they_are_named_in(database: Database) -> None:
    """Postgres would undo one of two transactions that wait for each other, and this would raise."""
    names = [f"name {number}" for number in range(12)]
    chance = Random(1)

    async def take_all(lock: Lock) -> None:
        for _ in range(20):
            async with database.transaction() as session:
                await lock(session, chance.sample(names, len(names)))

    await asyncio.gather(*[take_all(lock) for lock in (locks.take, locks.share) for _ in range(3)])
