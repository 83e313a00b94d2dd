"""The sequencer: one tree, whoever writes, whoever sequences, and wherever it is interrupted."""

# ruff: noqa: PT012  What raises here is the end of a whole `async with` block, so that is what stands in `raises`.

import asyncio
import secrets
from itertools import pairwise

import pytest
from sqlalchemy.exc import DBAPIError

from shared.db import log
from shared.db.engine import Database
from shared.db.log import Log, LogDamaged, LogHalted
from shared.transparency.checkpoints import sign_checkpoint, verify_checkpoint
from shared.transparency.errors import BadCheckpointSignature, NoSuchTree
from shared.transparency.merkle import EMPTY_ROOT, Frontier, leaf_hash, verify_consistency
from tests.services.log.conftest import KEY, PATIENTS, World, Worlds, happened, naive_root

ALICE, BOB, *_ = PATIENTS


async def sound(world: World) -> None:
    """Places without a gap, the root the one that RFC 6962 defines, and every checkpoint ever signed its prefix."""
    places = [row["index"] for row in await world.fetch('SELECT "index" FROM log_entries ORDER BY "index"')]
    assert places == list(range(len(places)))
    leaves = await world.leaves()
    signed = await world.signed()
    assert [checkpoint.size for checkpoint in signed] == sorted({checkpoint.size for checkpoint in signed})
    assert signed[-1].size == len(leaves)
    for checkpoint in signed:
        assert checkpoint.root == naive_root(leaves[: checkpoint.size])
    for old, new in [*pairwise(signed), (signed[0], signed[-1])]:
        path = await world.log.consistency(old.size, new.size)
        verify_consistency(old.size, old.root, new.size, new.root, path)


async def test_the_first_run_signs_the_empty_tree(world: World) -> None:
    assert await world.log.sequence(publish=True) == 0
    checkpoint = verify_checkpoint(await world.log.checkpoint(), world.log.origin)
    assert (checkpoint.size, checkpoint.root) == (0, EMPTY_ROOT)


async def test_nothing_new_is_signed_when_there_is_nothing_new(world: World) -> None:
    await world.keep_all_checkpoints()
    await world.append(happened(ALICE))
    assert [await world.log.sequence(publish=True) for _ in range(3)] == [1, 0, 0]
    assert [checkpoint.size for checkpoint in await world.signed()] == [1]


async def test_every_size_has_the_root_of_the_definition(world: World) -> None:
    await world.keep_all_checkpoints()
    await world.log.sequence(publish=True)
    for number in range(34):
        await world.append(happened(PATIENTS[number % 3]))
        assert await world.log.sequence(publish=True) == 1
    assert [checkpoint.size for checkpoint in await world.signed()] == list(range(35))
    await sound(world)


async def test_writers_and_sequencers_at_once_make_one_tree(world: World) -> None:
    await world.keep_all_checkpoints()
    replicas = [
        Log(Database(world.url, application_name=f"replica {number}", pool_size=2), key=KEY, kind="records")
        for number in range(3)
    ]
    writing = True

    async def write(number: int) -> None:
        for step in range(20):
            try:
                async with world.database.transaction() as session:
                    await log.append_event(session, happened(PATIENTS[number % 4]))
                    if step % 7 == 3:
                        raise LookupError
            except LookupError:
                continue

    async def keep_sequencing(replica: Log) -> None:
        while writing:
            await replica.sequence(limit=5, publish=True)

    sequencers = [asyncio.create_task(keep_sequencing(replica)) for replica in replicas]
    await asyncio.gather(*(write(number) for number in range(8)))
    writing = False
    await asyncio.gather(*sequencers)
    while await world.log.sequence(limit=5, publish=True):
        pass
    assert await world.count("log_entries") == 8 * 17
    await sound(world)
    for replica in replicas:
        await replica._database.dispose()


async def test_one_replica_at_a_time_and_the_others_do_not_wait(world: World) -> None:
    await world.append(happened(ALICE))
    async with world.database.transaction() as session:
        assert await log.tree.try_lock(session)
        assert await world.log.sequence() == 0
    assert await world.log.sequence() == 1


async def test_whoever_commits_late_gets_a_later_place(world: World) -> None:
    async with world.database.transaction() as session:
        late = await log.append_event(session, happened(ALICE))
        (early,) = await world.append(happened(BOB))
        assert early.entry > late.entry
        assert await world.log.sequence(publish=True) == 1
    assert await world.log.sequence(publish=True) == 1
    leaves = [leaf_hash(early.commitment), leaf_hash(late.commitment)]
    proven = await world.log.inclusion(leaves, 0)
    assert [index for index, _ in proven.items] == [0, 1]


async def test_what_is_not_committed_has_no_place(world: World) -> None:
    with pytest.raises(LookupError):
        async with world.database.transaction() as session:
            await log.append_event(session, happened(ALICE))
            assert await world.log.sequence(publish=True) == 0
            raise LookupError
    assert verify_checkpoint(await world.log.checkpoint(), world.log.origin).size == 0


@pytest.mark.parametrize(
    ("table", "when"),
    [
        ("log_entries", "BEFORE UPDATE"),
        ("log_nodes", "BEFORE INSERT"),
        ("log_nodes", "AFTER INSERT"),
        ("log_checkpoints", "BEFORE INSERT"),
        ("log_checkpoints", "AFTER INSERT"),
        ("log_checkpoints", "BEFORE DELETE"),
        ("log_checkpoints", "COMMIT"),
    ],
)
async def test_a_run_that_is_interrupted_anywhere_has_not_happened(world: World, table: str, when: str) -> None:
    await world.keep_all_checkpoints()
    await world.append(*[happened(ALICE) for _ in range(5)])
    await world.log.sequence(publish=True)
    await world.append(*[happened(BOB) for _ in range(6)])
    await (world.break_commit(table) if when == "COMMIT" else world.break_(table, when))
    for _ in range(2):
        with pytest.raises(DBAPIError, match="broken"):
            await world.log.sequence(publish=True)
    assert verify_checkpoint(await world.log.checkpoint(), world.log.origin).size == 5
    assert len(await world.leaves()) == 5
    await world.mend(table)
    # One that goes on with what it has in memory, or one that starts with nothing: the same tree.
    restarted = Log(world.database, key=KEY, kind="records") if when.startswith("AFTER") else world.log
    assert await restarted.sequence(publish=True) == 6
    await sound(world)


async def test_a_replica_whose_memory_is_behind_goes_by_the_database(world: World) -> None:
    await world.keep_all_checkpoints()
    other = Log(world.database, key=KEY, kind="records")
    for number in range(12):
        await world.append(*[happened(ALICE) for _ in range(number % 3 + 1)])
        await (world.log if number % 2 else other).sequence(publish=True)
    await sound(world)


async def test_a_memory_that_is_wrong_is_not_used(world: World) -> None:
    await world.keep_all_checkpoints()
    await world.append(happened(ALICE), happened(ALICE), happened(ALICE))
    await world.log.sequence(publish=True)
    wrong = Frontier()
    for _ in range(3):
        wrong.append(secrets.token_bytes(32))
    world.log._cache = wrong
    await world.append(happened(ALICE))
    await world.log.sequence(publish=True)
    await sound(world)


DAMAGE = {
    "a leaf changed": "UPDATE log_entries SET leaf = sha256(leaf) WHERE index = 4",
    "a node changed": "UPDATE log_nodes SET hash = sha256(hash) WHERE level = 2",
    "a node deleted": "DELETE FROM log_nodes WHERE level = 2",
    "the last leaf deleted": "DELETE FROM log_entries WHERE index = 4",
    "the last leaf given up": "UPDATE log_entries SET index = NULL WHERE index = 4",
    "a leaf added": "UPDATE log_entries SET index = 5 WHERE index IS NULL",
    "the checkpoints deleted": "DELETE FROM log_checkpoints",
    "another root": "UPDATE log_checkpoints SET root = sha256(root)",
    "a smaller checkpoint": "UPDATE log_checkpoints SET size = 4",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
async def test_nothing_is_signed_over_tables_that_contradict_the_last_checkpoint(world: World, damage: str) -> None:
    await world.append(*[happened(ALICE) for _ in range(5)])
    await world.log.sequence(publish=True)
    await world.append(happened(BOB))
    await world.run(damage)
    await world.append(happened(BOB))
    await world.keep_all_checkpoints()
    with pytest.raises(LogDamaged):
        await Log(world.database, key=KEY, kind="records").sequence(publish=True)
    assert await world.signed() == []


async def test_a_size_is_never_signed_twice(world: World) -> None:
    await world.append(happened(ALICE))
    await world.log.sequence()
    with pytest.raises(DBAPIError, match="pk_log_checkpoints"):
        async with world.database.transaction() as session:
            await log.tree.add_checkpoint(session, 1, bytes(32), "another", published=False)


async def test_limits_are_kept_and_the_rest_follows(world: World) -> None:
    await world.append(*[happened(ALICE) for _ in range(7)])
    assert [await world.log.sequence(3, publish=True) for _ in range(4)] == [3, 3, 1, 0]


# Publishing.


async def test_older_checkpoints_go_when_a_younger_one_is_published(world: World) -> None:
    for _ in range(3):
        await world.append(happened(ALICE))
        await world.log.sequence()
    assert await world.count("log_checkpoints") == 3
    assert (await world.log.cosign(2, {}, witnesses=["a", "b"])) is not None
    assert await world.count("log_checkpoints") == 3
    published = await world.log.cosign(2, {}, witnesses=[])
    assert published is not None
    assert published.published
    assert [row["size"] for row in await world.fetch("SELECT size FROM log_checkpoints ORDER BY size")] == [2, 3]
    assert await world.log.cosign(1, {}, witnesses=[]) is None
    assert verify_checkpoint(await world.log.checkpoint(), world.log.origin).size == 2


async def test_consistency_is_proven_between_sizes_of_the_published_tree_only(world: World) -> None:
    await world.append(*[happened(ALICE) for _ in range(6)])
    await world.log.sequence(4, publish=True)
    await world.log.sequence()
    assert len(await world.log.consistency(3, 4)) > 0
    for old, new in [(3, 5), (4, 3), (-1, 2), (6, 6)]:
        with pytest.raises(NoSuchTree):
            await world.log.consistency(old, new)


@pytest.mark.parametrize(
    ("cosigners", "witnesses", "enough"),
    [
        ("", "", True),
        ("", "a", False),
        ("a", "a", True),
        ("a", "ab", False),
        ("ab", "abc", True),
        ("ab", "abcd", False),
        ("abc", "abcd", True),
        ("abxyz", "abcd", False),
    ],
)
def test_more_than_half_of_the_witnesses_are_enough(cosigners: str, witnesses: str, enough: bool) -> None:
    assert log.is_enough(cosigners, witnesses) is enough


def test_a_note_that_is_full_is_enough() -> None:
    witnesses = [str(number) for number in range(200)]
    assert not log.is_enough(witnesses[:62], witnesses)
    assert log.is_enough(witnesses[:63], witnesses)


# What contradicts the tree.


async def test_a_restored_backup_signs_nothing_once_its_own_signature_shows_it(worlds: Worlds) -> None:
    original, restored = await worlds(), await worlds()
    for world in (original, restored):
        async with world.database.transaction() as session:
            await log.append(session, [bytes([number]) * 32 for number in range(4)])
        await world.log.sequence(publish=True)
    assert await original.log.checkpoint() == await restored.log.checkpoint()
    async with original.database.transaction() as session:
        await log.append(session, [b"a" * 32])
    await original.log.sequence(publish=True)
    beyond = await original.log.checkpoint()
    assert await restored.log.refute(beyond)
    await restored.append(happened(ALICE))
    await restored.keep_all_checkpoints()
    for instance in (restored.log, Log(restored.database, key=KEY, kind="records")):
        for attempt in (instance.sequence(), instance.newest(), instance.cosign(4, {}, witnesses=[])):
            with pytest.raises(LogHalted):
                await attempt
    assert await restored.signed() == []
    # What was published stays readable, and what has been written waits.
    assert verify_checkpoint(await restored.log.checkpoint(), restored.log.origin).size == 4
    assert await restored.count("log_events") == 1


async def test_another_root_of_a_size_in_the_tree_halts_as_well(world: World) -> None:
    await world.append(*[happened(ALICE) for _ in range(4)])
    await world.log.sequence(publish=True)
    assert await world.log.refute(sign_checkpoint(KEY, "records", 3, bytes(32)))
    with pytest.raises(LogHalted):
        await world.log.sequence()


async def test_what_the_log_has_really_signed_does_not_halt_it(world: World) -> None:
    await world.keep_all_checkpoints()
    for _ in range(5):
        await world.append(happened(ALICE))
        await world.log.sequence()
    for row in await world.fetch("SELECT note FROM signed"):
        assert not await world.log.refute(row["note"])
    await world.append(happened(ALICE))
    assert await world.log.sequence() == 1


async def test_what_others_have_signed_does_not_halt_it(world: World) -> None:
    await world.log.sequence()
    other = type(KEY).from_bytes(bytes(32))
    for note in (sign_checkpoint(other, "records", 9, bytes(32)), sign_checkpoint(KEY, "proxy", 9, bytes(32))):
        with pytest.raises(BadCheckpointSignature):
            await world.log.refute(note)
    assert await world.log.newest() is not None
