"""Counters of what is kept for a party, on real Postgres: bounded, also when two would both be the last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.records.models import Usage
from shared.db.engine import Database
from shared.db.quotas import Bound, Quotas
from shared.errors import QuotaExceeded
from tests.conftest import FreshDatabases

BOUNDS = {"things": Bound(3, "things of one party")}


@pytest.fixture
async def database(fresh_database: FreshDatabases) -> AsyncIterator[Database]:
    database = Database(await fresh_database("records"), application_name="test")
    yield database
    await database.dispose()


async def change(database: Database, amount: int, party: str = "did:key:zA", kind: str = "things") -> None:
    async with database.transaction() as session:
        await Quotas(session, Usage, BOUNDS).change({(party, kind): amount})


async def room(database: Database, amount: int, party: str = "did:key:zA") -> bool:
    async with database.transaction() as session:
        try:
            await Quotas(session, Usage, BOUNDS).check(party, "things", amount)
        except QuotaExceeded:
            return False
    return True


async def test_up_to_the_bound_and_not_beyond(database: Database) -> None:
    await change(database, 2)
    assert await room(database, 1)
    assert not await room(database, 2)
    with pytest.raises(QuotaExceeded, match="at most 3 things of one party"):
        await change(database, 2)
    await change(database, 1)
    with pytest.raises(QuotaExceeded):
        await change(database, 1)
    await change(database, 3, party="did:key:zB")


async def test_more_than_the_bound_at_once_is_refused_in_an_empty_table(database: Database) -> None:
    with pytest.raises(QuotaExceeded):
        await change(database, 4)
    assert await room(database, 3)


async def test_what_is_taken_away_makes_room_and_never_more_than_there_was(database: Database) -> None:
    await change(database, 3)
    await change(database, -1)
    assert await room(database, 1)
    await change(database, -100)
    await change(database, -1, party="did:key:zNobody")
    assert await room(database, 3)
    assert not await room(database, 4)


async def test_a_kind_without_a_bound_is_only_counted(database: Database) -> None:
    for _ in range(5):
        await change(database, 10**9, kind="others")


async def test_of_many_that_would_be_the_last_as_many_pass_as_there_is_room_for(database: Database) -> None:
    outcomes = await asyncio.gather(*(change(database, 1) for _ in range(12)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 3
    assert all(outcome is None or isinstance(outcome, QuotaExceeded) for outcome in outcomes)


async def test_transactions_that_change_the_same_counters_do_not_wait_for_each_other_for_ever(
    database: Database,
) -> None:
    keys = [("did:key:zA", "others"), ("did:key:zB", "others")]

    async def both(order: int) -> None:
        async with database.transaction() as session:
            await Quotas(session, Usage, BOUNDS).change(dict.fromkeys(keys[::order], 1))

    async with asyncio.timeout(60):
        await asyncio.gather(*(both(order) for order in (1, -1) * 20))


async def test_what_is_rolled_back_is_not_counted(database: Database) -> None:
    async def in_vain() -> None:
        async with database.transaction() as session:
            await Quotas(session, Usage, BOUNDS).change({("did:key:zA", "things"): 3})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await in_vain()
    assert await room(database, 3)
