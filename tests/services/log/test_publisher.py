"""The publisher against witnesses that answer, and against those that are dead, slow or lie."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import httpx
import pytest
from prometheus_client import CollectorRegistry

from shared.crypto.signing import VerifyKey
from shared.db import log
from shared.db.log import Log
from shared.errors import RegistryUnavailable
from shared.log_publisher import Pace, Publisher
from shared.transparency.checkpoints import sign_checkpoint, verify_checkpoint, verify_cosignatures
from shared.transparency.merkle import verify_consistency
from shared.witness_client import Witness, WitnessClient, WitnessFailure
from tests.services.log import witnesses as behaviours
from tests.services.log.conftest import KEY, PATIENTS, World, Worlds, happened
from tests.services.log.witnesses import TestWitness, always_size, always_status, honest, served

ALICE, BOB, *_ = PATIENTS
FAST = Pace(poll=0.05, rest=0.01, whole=1.0, grace=0.02, patience=0.3, first_backoff=0.02, max_backoff=0.1)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=5) as client:
        yield client


def panel_of(*panel: TestWitness) -> Callable[[], Awaitable[Sequence[Witness]]]:
    async def witnesses() -> Sequence[Witness]:
        return [witness.entry for witness in panel]

    return witnesses


def four(world: World, *bad: behaviours.Behaviour) -> list[TestWitness]:
    """Four witnesses: the honest ones first."""
    kinds = [honest] * (4 - len(bad)) + list(bad)
    return [TestWitness(number + 1, world.log.origin, kind) for number, kind in enumerate(kinds)]


@asynccontextmanager
async def running(publisher: Publisher) -> AsyncIterator[Publisher]:
    task = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            held = condition()
            if await held if isinstance(held, Awaitable) else held:
                return
            await asyncio.sleep(0.01)


async def cosigners(world: World, panel: Sequence[TestWitness], size: int) -> set[str]:
    """Who has cosigned the published checkpoint, if it is of this size; its signatures are verified."""
    async with world.database.transaction() as session:
        published = await log.tree.newest_published(session)
    if published is None or published.size != size:
        return set()
    note = await world.log.checkpoint()
    assert verify_checkpoint(note, world.log.origin).size == size
    keys: dict[str, frozenset[VerifyKey]] = {member.did: frozenset({member.key.verify_key}) for member in panel}
    return set(verify_cosignatures(note, keys))


def cosigned_by(
    world: World, panel: Sequence[TestWitness], size: int, by: Sequence[TestWitness]
) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return await cosigners(world, panel, size) >= {witness.did for witness in by}

    return holds


async def test_without_witnesses_every_checkpoint_is_published(world: World) -> None:
    await world.append(happened(ALICE))
    async with running(Publisher(world.log, pace=FAST)) as publisher:
        await until(lambda: publisher.published_size == 1)
        await world.append(happened(ALICE), happened(BOB))
        publisher.kick()
        await until(lambda: publisher.published_size == 3)
    assert verify_checkpoint(await world.log.checkpoint(), world.log.origin).size == 3


async def test_a_kick_is_not_needed_since_it_looks_by_itself(world: World) -> None:
    async with running(Publisher(world.log, pace=FAST)) as publisher:
        await until(lambda: publisher.size == 0)
        await world.append(happened(ALICE))
        await until(lambda: publisher.published_size == 1)


async def test_between_two_looks_it_rests_however_often_it_is_kicked(world: World) -> None:
    await world.keep_all_checkpoints()
    await world.append(happened(ALICE))
    async with running(Publisher(world.log, pace=Pace(rest=3600))) as publisher:
        await until(lambda: publisher.published_size == 1)
        for _ in range(10):
            await world.append(happened(ALICE))
            publisher.kick()
            await asyncio.sleep(0.01)
    assert [checkpoint.size for checkpoint in await world.signed()] == [1]


async def test_while_the_directory_has_no_proxies_it_publishes_without(world: World, http: httpx.AsyncClient) -> None:
    await world.append(happened(ALICE))
    async with running(Publisher(world.log, http, panel_of(), pace=FAST)) as publisher:
        await until(lambda: publisher.published_size == 1)


async def test_all_witnesses_cosign_and_what_grows_is_consistent(world: World, http: httpx.AsyncClient) -> None:
    panel = four(world)
    await world.append(happened(ALICE))
    async with served(*panel), running(Publisher(world.log, http, panel_of(*panel), pace=FAST)) as publisher:
        await until(cosigned_by(world, panel, 1, panel))
        for size in range(2, 8):
            await world.append(happened(ALICE))
            publisher.kick()
            await until(cosigned_by(world, panel, size, panel))
    heads = {(witness.known.size, witness.known.root) for witness in panel if witness.known}
    checkpoint = verify_checkpoint(await world.log.checkpoint(), world.log.origin)
    assert heads == {(checkpoint.size, checkpoint.root)} == {(7, checkpoint.root)}


async def test_nothing_is_published_with_half_of_the_witnesses_or_less(world: World, http: httpx.AsyncClient) -> None:
    panel = four(world, always_status(503), always_status(503))
    await world.append(happened(ALICE))
    async with served(*panel), running(Publisher(world.log, http, panel_of(*panel), pace=FAST)) as publisher:
        await until(lambda: panel[2].asked > 3 and panel[3].asked > 3)
        await world.append(happened(ALICE))
        await until(lambda: publisher.size == 2)
        assert publisher.published_size == 0
        assert await world.fetch("SELECT FROM log_checkpoints WHERE published") == []
        # The third makes it more than half.
        panel[2].behaviour = honest
        await until(cosigned_by(world, panel, 2, panel[:3]))


BAD = {
    "says nothing": behaviours.silent,
    "answers without end": behaviours.endless,
    "drips": behaviours.dripping,
    "signs something else": behaviours.other_signature,
    "signs in another's name": behaviours.anothers_name,
    "answers garbage": behaviours.garbage,
    "speaks no HTTP": behaviours.no_http,
    "redirects": behaviours.redirecting,
    "compresses": behaviours.compressed,
    "refuses": always_status(403),
    "knows no such log": always_status(404),
    "fails": always_status(500),
    "claims inconsistency": always_status(422),
    "claims a later size": always_size(10**15),
    "claims one size, then another": always_size(1, 0, 2, 1),
    "claims its own size again": always_size(0),
    "claims an endless number": always_size(10**30),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_one_bad_witness_stops_nobody(world: World, http: httpx.AsyncClient, bad: behaviours.Behaviour) -> None:
    panel = four(world, bad)
    await world.append(happened(ALICE))
    registry = CollectorRegistry()
    publisher = Publisher(world.log, http, panel_of(*panel), pace=FAST, metrics=registry)
    async with served(*panel), running(publisher):
        await until(cosigned_by(world, panel, 1, panel[:3]))
        for size in (2, 3, 4):
            await world.append(happened(ALICE))
            publisher.kick()
            await until(cosigned_by(world, panel, size, panel[:3]))
        await until(lambda: registry.get_sample_value("pcehr_log_failing_witnesses") == 1)
        assert panel[3].did not in await cosigners(world, panel, 4)
        assert not publisher.halted
        # It is let in again as soon as it behaves.
        panel[3].behaviour = honest
        panel[3].known = None
        await until(cosigned_by(world, panel, 4, panel))
    assert registry.get_sample_value("pcehr_log_published_size") == 4
    assert registry.get_sample_value("pcehr_log_halted") == 0


async def test_an_answer_is_not_read_beyond_its_bound(world: World, http: httpx.AsyncClient) -> None:
    witness = TestWitness(1, world.log.origin, behaviours.endless)
    checkpoint = verify_checkpoint(sign_checkpoint(KEY, "records", 1, bytes(32)), world.log.origin)
    client = WitnessClient(http)
    async with served(witness), asyncio.timeout(20):
        with pytest.raises(WitnessFailure, match="witness_answer_invalid"):
            await client.add_checkpoint(witness.entry, checkpoint, 0, ())
        with pytest.raises(WitnessFailure, match="witness_answer_invalid"):
            await client.checkpoints(witness.entry)


async def test_a_redirect_is_not_followed(world: World, http: httpx.AsyncClient) -> None:
    seen = []

    async def redirect(witness: TestWitness, request: str, _: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        await behaviours.redirecting(witness, request, b"", writer)

    panel = four(world, redirect)
    await world.append(happened(ALICE))
    async with served(*panel), running(Publisher(world.log, http, panel_of(*panel), pace=FAST)):
        await until(cosigned_by(world, panel, 1, panel[:3]))
        await until(lambda: len(seen) > 2)
    assert set(seen) == {"POST /v1/witness/add-checkpoint"}


async def test_a_dead_witness_stops_nobody_and_may_come_back(world: World, http: httpx.AsyncClient) -> None:
    panel = four(world)
    async with served(panel[3]):
        pass
    await world.append(happened(ALICE))
    async with served(*panel[:3]), running(Publisher(world.log, http, panel_of(*panel), pace=FAST)):
        await until(cosigned_by(world, panel, 1, panel[:3]))
        async with served(panel[3]):
            await until(cosigned_by(world, panel, 1, panel))


async def test_a_witness_that_knows_an_older_tree_is_brought_up_to_date(world: World, http: httpx.AsyncClient) -> None:
    panel = four(world)
    for _ in range(3):
        await world.append(happened(ALICE))
    async with served(*panel):
        async with running(Publisher(world.log, http, panel_of(*panel[:1]), pace=FAST)):
            await until(cosigned_by(world, panel, 3, panel[:1]))
        for _ in range(4):
            await world.append(happened(ALICE))
        # A new process remembers nothing of the first, and asks a witness that remembers and three that never heard.
        async with running(Publisher(Log(world.database, key=KEY, kind="records"), http, panel_of(*panel), pace=FAST)):
            await until(cosigned_by(world, panel, 7, panel))


async def test_two_replicas_publish_one_log(world: World, http: httpx.AsyncClient) -> None:
    panel = four(world)
    await world.keep_all_checkpoints()
    second = Log(world.database, key=KEY, kind="records")
    async with (
        served(*panel),
        running(Publisher(world.log, http, panel_of(*panel), pace=FAST)) as one,
        running(Publisher(second, http, panel_of(*panel), pace=FAST)) as two,
    ):
        for number in range(40):
            await world.append(happened(PATIENTS[number % 4]))
            (one if number % 2 else two).kick()
        await until(cosigned_by(world, panel, 40, panel))
        assert not one.halted
        assert not two.halted
    signed = await world.signed()
    for old, new in pairwise(signed):
        path = await world.log.consistency(old.size, new.size)
        verify_consistency(old.size, old.root, new.size, new.root, path)
    assert len({checkpoint.size for checkpoint in signed}) == len(signed)


async def test_a_witness_that_another_replica_has_brought_further_is_not_taken_for_a_liar(
    world: World, http: httpx.AsyncClient
) -> None:
    panel = four(world)
    await world.append(happened(ALICE))
    publisher = Publisher(world.log, http, panel_of(*panel), pace=FAST)
    async with served(*panel), running(publisher):
        await until(cosigned_by(world, panel, 1, panel))
        async with world.database.transaction() as session:
            await log.append_events(session, [happened(ALICE), happened(BOB)])
        # As the other replica would: it signs, and hands over to two, before this one looks.
        other = Publisher(Log(world.database, key=KEY, kind="records"), http, panel_of(*panel[:2]), pace=FAST)
        async with running(other):
            await until(cosigned_by(world, panel, 3, panel))
        assert all(courier.failures == 0 for courier in publisher._couriers.values())


async def test_under_load_something_is_published_all_the_time(world: World, http: httpx.AsyncClient) -> None:
    panel = four(world)

    async def slowly(witness: TestWitness, request: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02 * panel.index(witness))
        await honest(witness, request, body, writer)

    for witness in panel:
        witness.behaviour = slowly
    sizes = set()
    async with served(*panel), running(Publisher(world.log, http, panel_of(*panel), pace=FAST)) as publisher:
        for _ in range(60):
            await world.append(happened(ALICE))
            publisher.kick()
            await asyncio.sleep(0.01)
            sizes.add(publisher.published_size)
        await until(cosigned_by(world, panel, 60, panel))
    assert len(sizes) > 2


async def test_a_checkpoint_that_waits_for_cosignatures_is_not_overtaken(world: World, http: httpx.AsyncClient) -> None:
    panel = four(world)
    gate = asyncio.Event()

    async def behind_the_gate(witness: TestWitness, request: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await honest(witness, request, body, writer)

    pace = Pace(poll=0.02, whole=20, grace=0.02, patience=20, first_backoff=0.02)
    async with served(*panel), running(Publisher(world.log, http, panel_of(*panel), pace=pace)) as publisher:
        await world.append(happened(ALICE))
        await until(cosigned_by(world, panel, 1, panel))
        for witness in panel[1:]:
            witness.behaviour = behind_the_gate
        await world.keep_all_checkpoints()
        await world.append(happened(ALICE))
        await until(lambda: panel[0].seen[-1] == 2)
        for _ in range(5):
            await world.append(happened(BOB))
            publisher.kick()
            await asyncio.sleep(0.05)
        assert [checkpoint.size for checkpoint in await world.signed()] == [2]
        gate.set()
        await until(cosigned_by(world, panel, 7, panel))


async def test_what_cannot_be_published_is_overtaken_in_the_end(world: World, http: httpx.AsyncClient) -> None:
    panel = four(world, *[always_status(500)] * 2)
    async with served(*panel), running(Publisher(world.log, http, panel_of(*panel), pace=FAST)) as publisher:
        await world.append(happened(ALICE))
        await until(lambda: publisher.size == 1)
        await world.append(happened(ALICE))
        await until(lambda: publisher.size == 2)
        assert publisher.published_size == 0


async def test_a_cosignature_that_has_grown_old_is_asked_for_anew(world: World, http: httpx.AsyncClient) -> None:
    panel = four(world)
    pace = Pace(poll=0.02, whole=1, grace=0.02, patience=0.3, first_backoff=0.02, refresh=0.1)
    await world.append(happened(ALICE))
    keys = {witness.did: frozenset({witness.key.verify_key}) for witness in panel}
    async with served(*panel), running(Publisher(world.log, http, panel_of(*panel), pace=pace)):
        await until(cosigned_by(world, panel, 1, panel))
        for witness in panel:
            witness.now += 1000

        async def renewed() -> bool:
            times = verify_cosignatures(await world.log.checkpoint(), keys)
            return set(times.values()) == {panel[0].now}

        await until(renewed)


async def test_who_the_witnesses_are_must_have_been_known_once(world: World, http: httpx.AsyncClient) -> None:
    panel = four(world)
    away = True

    async def witnesses() -> Sequence[Witness]:
        if away:
            raise RegistryUnavailable
        return [witness.entry for witness in panel]

    await world.append(happened(ALICE))
    async with served(*panel), running(Publisher(world.log, http, witnesses, pace=FAST)) as publisher:
        await until(lambda: world.count_is("log_checkpoints", 1))
        await asyncio.sleep(0.2)
        # Nothing but the empty tree, and that not published: that there are no witnesses is not known.
        assert publisher.published_size == publisher.size == 0
        assert await world.fetch("SELECT FROM log_checkpoints WHERE published OR size > 0") == []
        away = False
        await until(cosigned_by(world, panel, 1, panel))
        away = True
        await world.append(happened(ALICE))
        await until(cosigned_by(world, panel, 2, panel))


async def test_who_is_in_no_directory_any_more_does_not_count(world: World, http: httpx.AsyncClient) -> None:
    panel = four(world, always_status(500), always_status(500))
    members = list(panel)

    async def witnesses() -> Sequence[Witness]:
        return [witness.entry for witness in members]

    await world.append(happened(ALICE))
    async with served(*panel), running(Publisher(world.log, http, witnesses, pace=FAST)) as publisher:
        await until(lambda: panel[2].asked > 2 and panel[3].asked > 2)
        assert publisher.published_size == 0
        del members[2:]
        await until(cosigned_by(world, panel, 1, panel[:2]))


# A database that is an old copy.


async def restored(worlds: Worlds, http: httpx.AsyncClient, panel: list[TestWitness]) -> World:
    """A log of four leaves, restored from a backup; the witnesses in `panel` have cosigned its fifth."""
    original, copy = await worlds(), await worlds()
    for world in (original, copy):
        async with world.database.transaction() as session:
            await log.append(session, [bytes([number]) * 32 for number in range(4)])
        await world.log.sequence(publish=True)
    async with original.database.transaction() as session:
        await log.append(session, [b"a" * 32])
    async with running(Publisher(original.log, http, panel_of(*panel), pace=FAST)):
        await until(cosigned_by(original, panel, 5, panel))
    return copy


async def test_a_restored_backup_is_noticed_before_anything_is_signed(
    worlds: Worlds, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    panel = four(await worlds())
    # Only one of the witnesses is up, and it is enough.
    dead = [TestWitness(number, panel[0].origin, honest) for number in (8, 9)]
    for witness in dead:
        witness.port = 1
    async with served(*panel):
        world = await restored(worlds, http, panel)
        await world.keep_all_checkpoints()
        await world.append(happened(ALICE))
        registry = CollectorRegistry()
        publisher = Publisher(world.log, http, panel_of(panel[0], *dead), pace=FAST, metrics=registry)
        with caplog.at_level(logging.CRITICAL, logger="pcehr.log"):
            async with running(publisher):
                await until(lambda: publisher.halted)
                await world.append(happened(ALICE))
                publisher.kick()
                await asyncio.sleep(0.3)
    assert registry.get_sample_value("pcehr_log_halted") == 1
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["log_halted"]
    assert await world.signed() == []
    assert verify_checkpoint(await world.log.checkpoint(), world.log.origin).size == 4
    # The next start knows without any witness.
    async with running(Publisher(Log(world.database, key=KEY, kind="records"), pace=FAST)) as publisher:
        await until(lambda: publisher.halted)
    assert await world.signed() == []


async def test_a_lost_database_is_noticed_before_anything_but_the_empty_tree_is_signed(
    worlds: Worlds, http: httpx.AsyncClient
) -> None:
    panel = four(await worlds())
    async with served(*panel):
        await restored(worlds, http, panel)
        empty = await worlds()
        await empty.keep_all_checkpoints()
        await empty.append(happened(ALICE))
        async with running(Publisher(empty.log, http, panel_of(*panel), pace=FAST)) as publisher:
            await until(lambda: publisher.halted)
    assert [checkpoint.size for checkpoint in await empty.signed()] == [0]


async def test_a_fork_that_has_overtaken_what_the_witness_knows_halts_too(
    worlds: Worlds, http: httpx.AsyncClient
) -> None:
    panel = four(await worlds())
    async with served(*panel):
        world = await restored(worlds, http, panel)
        # The witnesses could not be reached when it went on.
        await world.append(*[happened(ALICE) for _ in range(6)])
        await world.log.sequence()
        async with running(Publisher(world.log, http, panel_of(*panel), pace=FAST)) as publisher:
            await until(lambda: publisher.halted)
    assert verify_checkpoint(await world.log.checkpoint(), world.log.origin).size == 4


async def test_another_root_of_the_same_size_halts_too(worlds: Worlds, http: httpx.AsyncClient) -> None:
    panel = four(await worlds())
    async with served(*panel):
        world = await restored(worlds, http, panel)
        await world.append(happened(ALICE))
        await world.log.sequence()
        async with running(Publisher(world.log, http, panel_of(*panel), pace=FAST)) as publisher:
            await until(lambda: publisher.halted)


async def test_a_witness_that_shows_what_the_log_has_not_signed_halts_nothing(
    world: World, http: httpx.AsyncClient
) -> None:
    forger = type(KEY).from_bytes(bytes(32))
    panel = four(world, honest)

    async def lying(witness: TestWitness, request: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if request.startswith("POST"):
            await behaviours.answer(writer, 409, "text/x.tlog.size", b"99\n")
        else:
            # Names the right log, is signed by a wrong key.
            genuine = sign_checkpoint(KEY, "records", 99, bytes(32)).split("\n\n")[0]
            forged = sign_checkpoint(forger, "records", 99, bytes(32)).split("\n\n")[1]
            forged = forged.replace(forged.split(" ")[1], witness.origin)
            witness.note = f"{genuine}\n\n{forged}"
            await behaviours.answer(writer, 200, "application/json", witness.shown())

    panel[3].behaviour = lying
    await world.append(happened(ALICE))
    async with served(*panel), running(Publisher(world.log, http, panel_of(*panel), pace=FAST)) as publisher:
        await until(cosigned_by(world, panel, 1, panel[:3]))
        await until(lambda: panel[3].asked > 4)
        await world.append(happened(ALICE))
        await until(cosigned_by(world, panel, 2, panel[:3]))
        assert not publisher.halted
    assert await world.count("log_evidence") == 0


async def test_it_outlives_a_database_that_fails(world: World) -> None:
    await world.append(happened(ALICE))
    await world.break_("log_checkpoints", "BEFORE INSERT")
    async with running(Publisher(world.log, pace=FAST)) as publisher:
        await asyncio.sleep(0.2)
        assert publisher.published_size == 0
        await world.mend("log_checkpoints")
        await until(lambda: publisher.published_size == 1)


async def test_no_did_reaches_the_log(world: World, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    panel = four(world, *[always_status(500)] * 2)
    await world.append(happened(ALICE))
    with caplog.at_level(logging.DEBUG, logger="pcehr"):
        async with served(*panel), running(Publisher(world.log, http, panel_of(*panel), pace=FAST)):
            await until(lambda: panel[3].asked > 2)
    assert any("witness_refused" in record.getMessage() for record in caplog.records)
    assert not any("did:key" in record.getMessage() for record in caplog.records if record.name.startswith("pcehr"))


def test_witnesses_need_a_way_to_them(world: World) -> None:
    with pytest.raises(ValueError, match="over HTTP"):
        Publisher(world.log, None, panel_of())
