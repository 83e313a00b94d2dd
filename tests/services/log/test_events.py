"""Events: no effect without its event, chains without a gap, erasure that leaves the tree whole."""

# ruff: noqa: PT012, ASYNC110  What raises here is the end of a whole `async with` block, so that is what stands in
# `raises`; and nobody but Postgres knows when a lock is waited for.

import asyncio
import hashlib
from itertools import pairwise

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from shared.db import log, migrate
from shared.db.engine import violated_constraint
from shared.encoding import b64url
from shared.transparency.entries import commitment, parse_event
from shared.transparency.merkle import verify_inclusion
from tests.services.log.conftest import KEY, MIGRATIONS, NOW, PATIENTS, World, happened, naive_root, party

ALICE, BOB, CAROL, DORA = PATIENTS


async def test_the_migration_makes_what_is_declared(world: World) -> None:
    await migrate.check_models("log", world.url, script_location=MIGRATIONS)


async def test_events_form_a_chain_for_each_subject(world: World) -> None:
    logged = await world.append(happened(BOB), happened(ALICE, "grant", BOB), happened(BOB, "grant"))
    logged += await world.append(happened(BOB, "disclosure"))
    assert [(event.subject, event.n) for event in logged] == [(BOB, 1), (ALICE, 1), (BOB, 2), (BOB, 3)]
    for event in logged:
        assert event.text is not None
        assert event.salt is not None
        assert event.commitment == hashlib.sha256(b"pcehr/v1/event\x00" + event.salt + event.text.encode()).digest()
    of_bob = [parse_event(event.text or "") for event in logged if event.subject == BOB]
    assert [event.prev for event in of_bob] == [None, b64url(logged[0].commitment), b64url(logged[2].commitment)]
    assert [event.event for event in of_bob] == ["request", "grant", "disclosure"]


async def test_all_members_are_in_the_event_and_the_cause_is_not(world: World) -> None:
    digest = b64url(bytes(32))
    (logged,) = await world.append(
        log.NewEvent(
            subject=ALICE,
            at=NOW,
            event="reencrypted",
            outcome="grant_revoked",
            actor=BOB,
            grant=digest,
            statement=digest,
            capsules=(digest, digest),
            cause="looked-at",
        )
    )
    event = parse_event(logged.text or "")
    assert (event.subject, event.at, event.event, event.outcome) == (ALICE, NOW, "reencrypted", "grant_revoked")
    assert (event.actor, event.grant, event.statement, event.capsules) == (BOB, digest, digest, (digest, digest))
    assert "looked-at" not in (logged.text or "")
    assert [row["cause"] for row in await world.fetch("SELECT cause FROM log_events")] == ["looked-at"]


async def test_salts_are_all_different(world: World) -> None:
    logged = await world.append(*[happened(ALICE) for _ in range(50)])
    assert len({event.salt for event in logged}) == 50


async def test_a_transaction_that_is_undone_leaves_nothing(world: World) -> None:
    with pytest.raises(LookupError):
        async with world.database.transaction() as session:
            await log.append_event(session, happened(ALICE))
            raise LookupError
    for table in ("log_entries", "log_events", "log_heads"):
        assert await world.count(table) == 0
    assert [event.n for event in await world.append(happened(ALICE))] == [1]


@pytest.mark.parametrize("table", ["log_entries", "log_events", "log_heads"])
async def test_no_effect_without_its_event(world: World, table: str) -> None:
    await world.run("CREATE TABLE effects (id int)")
    await world.break_(table, "BEFORE INSERT")
    with pytest.raises(DBAPIError, match="broken"):
        async with world.database.transaction() as session:
            await session.execute(text("INSERT INTO effects VALUES (1)"))
            await log.append_event(session, happened(ALICE))
    assert await world.count("effects") == 0
    await world.mend(table)
    async with world.database.transaction() as session:
        await session.execute(text("INSERT INTO effects VALUES (1)"))
        await log.append_event(session, happened(ALICE))
    assert await world.count("effects") == 1


async def test_chains_have_no_gap_whatever_is_written_at_once(world: World) -> None:
    async def write(number: int) -> None:
        subjects = [PATIENTS[number % 4], PATIENTS[(number * 3 + 1) % 4]]
        try:
            async with world.database.transaction() as session:
                await log.append_events(session, [happened(subject) for subject in subjects])
                if number % 5 == 0:
                    raise LookupError
        except LookupError:
            pass

    await asyncio.gather(*(write(number) for number in range(100)))
    total = 0
    for subject in PATIENTS:
        async with world.database.transaction() as session:
            chain = (await log.events(session, subject, None, 1000))[::-1]
        assert [event.n for event in chain] == list(range(1, len(chain) + 1))
        for before, after in pairwise(chain):
            assert parse_event(after.text or "").prev == b64url(before.commitment)
        total += len(chain)
    assert total == 160


@pytest.mark.parametrize("known", [True, False], ids=["known subjects", "new subjects"])
async def test_subjects_are_locked_in_one_order_whatever_the_order_of_the_events(world: World, known: bool) -> None:
    if known:
        await world.append(happened(ALICE), happened(BOB))
    async with world.database.transaction() as session:
        await log.append_event(session, happened(ALICE))
        waiting = asyncio.create_task(world.append(happened(BOB), happened(ALICE)))
        await until_a_lock_is_waited_for(world)
        # Whoever waits for the first subject holds no later one yet: nobody can come to wait for a waiting one.
        async with asyncio.timeout(10):
            await world.append(happened(BOB))
    assert sorted(event.n for event in await waiting) == ([3, 3] if known else [2, 2])


async def test_batches_in_opposite_order_all_get_through(world: World) -> None:
    subjects = [party(number) for number in range(100, 110)]
    await asyncio.gather(
        *(world.append(*(happened(subject) for subject in subjects[:: (-1) ** number])) for number in range(40))
    )
    assert await world.count("log_events") == 400


async def until_a_lock_is_waited_for(world: World) -> None:
    while not await world.fetch("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
        await asyncio.sleep(0.01)


async def test_the_lock_is_on_the_subject_and_on_nobody_else(world: World) -> None:
    await world.append(happened(ALICE), happened(BOB))
    async with world.database.transaction() as session:
        await log.append_event(session, happened(ALICE))
        # Were there one lock for all, this would wait for a transaction that waits for it.
        async with asyncio.timeout(10):
            await world.append(happened(BOB), happened(CAROL))
        waiting = asyncio.create_task(world.append(happened(ALICE)))
        await until_a_lock_is_waited_for(world)
    assert [event.n for event in await waiting] == [3]


async def test_a_chain_is_read_newest_first_page_by_page(world: World) -> None:
    await world.append(*[happened(ALICE) for _ in range(5)], happened(BOB))
    async with world.database.transaction() as session:
        first = await log.events(session, ALICE, None, 2)
        second = await log.events(session, ALICE, first[-1].n, 10)
    assert [event.n for event in first] == [5, 4]
    assert [event.n for event in second] == [3, 2, 1]


async def test_erasure_leaves_chain_and_tree_verifiable(world: World) -> None:
    before = await world.append(*[happened(ALICE, "request", DORA) for _ in range(4)], happened(BOB))
    await world.log.sequence(publish=True)
    async with world.database.transaction() as session:
        assert await log.erase(session, ALICE, 3) == 3
    async with world.database.transaction() as session:
        assert await log.erase(session, ALICE, 3) == 0
        chain = (await log.events(session, ALICE, None, 10))[::-1]
    assert [event.text is None for event in chain] == [True, True, True, False]
    assert [event.salt is None for event in chain] == [True, True, True, False]
    assert [event.commitment for event in chain] == [event.commitment for event in before[:4]]
    assert parse_event(chain[3].text or "").prev == b64url(chain[2].commitment)
    assert chain[3].salt is not None
    assert commitment(chain[3].salt, (chain[3].text or "").encode()) == chain[3].commitment
    leaves = [hashlib.sha256(b"\x00" + event.commitment).digest() for event in chain]
    proven = await world.log.inclusion(leaves, 0)
    root = naive_root(await world.leaves())
    for leaf, (index, path) in zip(leaves, proven.items, strict=True):
        verify_inclusion(leaf, index, 5, path, root)
    # The log goes on over the erased part as if nothing had happened.
    (after,) = await world.append(happened(ALICE, "erasure"))
    assert after.n == 5
    assert await log.Log(world.database, key=KEY, kind="records").sequence(publish=True) == 1
    # And of what was erased nothing is left beside it.
    rows = await world.fetch(f"SELECT * FROM log_events WHERE subject = '{ALICE}' AND n <= 3")
    assert {(row["actor"], row["salt"], row["text"], row["cause"]) for row in rows} == {(None, None, None, None)}


async def test_one_subjects_erasure_is_not_anothers(world: World) -> None:
    await world.append(happened(ALICE), happened(BOB))
    async with world.database.transaction() as session:
        await log.erase(session, ALICE, 100)
        (kept,) = await log.events(session, BOB, None, 10)
    assert kept.text is not None


async def test_data_of_another_length_is_refused(world: World) -> None:
    for size in (0, 31, 65):
        with pytest.raises(ValueError, match="32 to 64"):
            async with world.database.transaction() as session:
                await log.append(session, [bytes(size)])
    async with world.database.transaction() as session:
        assert await log.append(session, []) == []
        assert await log.append_events(session, []) == []


async def test_the_same_data_cannot_stand_in_the_tree_twice(world: World) -> None:
    async with world.database.transaction() as session:
        first, second = await log.append(session, [b"a" * 64, b"b" * 64])
    assert first < second
    with pytest.raises(IntegrityError) as caught:
        async with world.database.transaction() as session:
            await log.append(session, [b"a" * 64])
    assert violated_constraint(caught.value) == "uq_log_entries_leaf"
