"""What a client accepts of a log that is signed, witnessed, fresh and only grows, and what it refuses of any other."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import stamina

from client.errors import InvalidSetting, LogContradicted, VerificationFailed
from client.log_memory import RECORDS, REGISTRY
from client.session import Session
from client.state import ClientState
from shared.crypto.signing import SigningKey
from shared.did import did_from_key
from shared.encoding import b64url, sha256
from shared.errors import PcehrError
from shared.transparency.checkpoints import parse_checkpoint
from shared.transparency.merkle import leaf_hash
from shared.wire import Role
from tests.unit.client.memory_log import MemoryLog, MemoryWitness
from tests.unit.client.world import DAY, Answer, Problem, World
from tests.unit.client.world import REGISTRY as REGISTRY_URL


@pytest.fixture(autouse=True)
def no_patience() -> Iterator[None]:
    with stamina.set_testing(True, attempts=1):
        yield


@pytest.fixture
async def session(world: World, tmp_path: Path) -> Session:
    """Somebody who has accepted the log's checkpoint of the three proxies and itself."""
    session = world.session(state=ClientState(tmp_path / "state.db"))
    await session.sign_up(Role.PATIENT)
    assert accepted(session) == 4
    return session


def accepted(session: Session) -> int:
    known = session.state.logs.log(REGISTRY)
    assert known is not None
    return known.size


def again(world: World, session: Session) -> Session:
    """The same party in another process, which asks the registry anew where everything is."""
    return world.session(session.keyring, session.state)


def grow(world: World, number: int = 3) -> None:
    """Entries of others."""
    for _ in range(number):
        world.key_log.append(sha256(bytes([len(world.key_log.datas)])) * 2)


def cosigned(world: World, size: int, witnesses: Sequence[MemoryWitness] | None = None) -> list[str]:
    """Cosignatures of this size by witnesses that sign whatever they are handed."""
    text = world.key_log.signed(size)
    return [one.sign(text) for one in (world.key_log.witnesses if witnesses is None else witnesses)]


def stranger(world: World) -> MemoryWitness:
    key = SigningKey.generate()
    return MemoryWitness(did_from_key(bytes(key.verify_key)), key, world.clock)


async def refused(session: Session, code: str) -> PcehrError:
    """The refusal of the newest checkpoint; the one accepted before stays."""
    before = session.state.logs.log(REGISTRY)
    with pytest.raises(VerificationFailed) as caught:
        await session.logs.refresh(REGISTRY, REGISTRY_URL)
    assert caught.value.code == code
    assert session.state.logs.log(REGISTRY) == before
    return caught.value


# --- growing --------------------------------------------------------------------------------------------------------


async def test_a_log_that_grows_is_accepted_from_state_to_state(world: World, session: Session) -> None:
    for size in (5, 8, 9, 16, 17):
        grow(world, size - accepted(session))
        checkpoint = await session.logs.refresh(REGISTRY, REGISTRY_URL)
        assert (checkpoint.size, accepted(session)) == (size, size)
    known = session.state.logs.log(REGISTRY)
    assert known is not None
    assert known.note == world.key_log.note
    assert session.state.logs.log(RECORDS) is None


async def test_the_same_state_again_is_accepted(world: World, session: Session) -> None:
    before = session.state.logs.log(REGISTRY)
    world.clock.now += 60
    assert (await again(world, session).logs.refresh(REGISTRY, REGISTRY_URL)).size == 4
    assert session.state.logs.log(REGISTRY) == before


async def test_an_older_state_is_a_log_rolled_back(world: World, session: Session) -> None:
    world.key_log.publish_as(3, cosigned(world, 3))
    failed = await refused(session, "log_rolled_back")
    assert isinstance(failed, LogContradicted)
    assert failed.evidence is not None
    assert [parse_checkpoint(text).size for text in notes_in(failed.evidence)] == [4, 3]


@pytest.mark.parametrize("size", [4, 5, 8, 11])
async def test_another_history_is_a_log_forked(world: World, session: Session, size: int) -> None:
    honest = world.key_log
    world.key_log = honest.branch(3)
    grow(world, size - 3)
    world.key_log.publish_as(size, cosigned(world, size))
    failed = await refused(session, "log_forked")
    assert isinstance(failed, LogContradicted)
    assert failed.evidence is not None
    assert failed.evidence.name in failed.hint
    assert stat.S_IMODE(failed.evidence.stat().st_mode) == 0o600
    shown, new = (parse_checkpoint(text) for text in notes_in(failed.evidence))
    assert (shown.size, new.size, shown.origin) == (4, size, new.origin)
    assert new.text() == parse_checkpoint(world.key_log.note).text()
    # A second fault in the same second does not take the place of the first.
    other = await refused(session, "log_forked")
    assert isinstance(other, LogContradicted)
    assert other.evidence not in (None, failed.evidence)
    # The honest history goes on.
    world.key_log = honest
    grow(world)
    assert (await session.logs.refresh(REGISTRY, REGISTRY_URL)).size == 7


def notes_in(path: Path) -> list[str]:
    """The two notes of a file of evidence: each begins with the name of the log."""
    origin, rest = path.read_text("utf-8").split("\n", 1)
    first, second = rest.split(f"\n{origin}\n")
    return [f"{origin}\n{first}", f"{origin}\n{second}"]


@pytest.mark.parametrize("how", ["changed", "missing", "none"])
async def test_a_wrong_proof_that_it_only_grew_is_refused(world: World, session: Session, how: str) -> None:
    grow(world, 9)

    def tamper(route: str, answer: Answer) -> Answer:
        if not route.endswith("/consistency"):
            return answer
        path = answer["path"]
        return {"path": {"changed": [b64url(bytes(32)), *path[1:]], "missing": path[:-1], "none": []}[how]}

    world.tamper = tamper
    await refused(session, "log_forked")
    world.tamper = lambda _, answer: answer
    assert (await session.logs.refresh(REGISTRY, REGISTRY_URL)).size == 13


async def test_of_two_commands_that_accept_at_once_the_second_asks_again(world: World, session: Session) -> None:
    """Each has a proof that its checkpoint extends the old one, and none that the two agree."""
    logs = session.logs
    known = await logs.known(REGISTRY)
    fork = world.key_log.branch(4)
    grow(world)
    other = ClientState(session.state.path)
    assert (await world.session(session.keyring, other).logs.refresh(REGISTRY, REGISTRY_URL)).size == 7
    honest, world.key_log = world.key_log, fork
    grow(world, 5)
    fork.append(bytes(64))
    fork.publish_as(10, cosigned(world, 10))
    assert await logs.accept(REGISTRY, fork.note, fork.consistency(4, 10), known=known) is None
    assert accepted(session) == 7
    world.key_log = honest
    assert (await logs.refresh(REGISTRY, REGISTRY_URL)).size == 7


# --- whose log ------------------------------------------------------------------------------------------------------


async def test_a_log_with_another_key_is_refused(world: World, session: Session) -> None:
    honest = world.key_log
    world.key_log = MemoryLog("registry", honest.witnesses, world.clock)
    for data in honest.datas:
        world.key_log.append(data)
    # Where the address book names the other log by now, and where it does not.
    await refused(again(world, session), "log_replaced")
    await refused(session, "log_replaced")
    world.key_log = honest
    assert (await again(world, session).logs.refresh(REGISTRY, REGISTRY_URL)).size == 4


async def test_the_log_of_another_service_is_refused(world: World) -> None:
    world.key_log = MemoryLog("records", world.key_log.witnesses, world.clock)
    for proxy in world.proxies:
        world.log_key(proxy.did, world.parties[proxy.did][0])
    with pytest.raises(VerificationFailed) as caught:
        await world.session().logs.refresh(REGISTRY, REGISTRY_URL)
    assert caught.value.code == "log_replaced"


async def test_a_checkpoint_that_the_log_has_not_signed_is_refused(world: World, session: Session) -> None:
    grow(world)
    root = world.key_log.signed(6).split("\n")[2]
    false = world.key_log.signed(7).replace(world.key_log.signed(7).split("\n")[2], root, 1)
    world.key_log.frozen, world.key_log.size, world.key_log.note = True, 7, false
    await refused(session, "bad_checkpoint_signature")


async def test_what_is_no_checkpoint_is_refused(world: World, session: Session) -> None:
    world.key_log.frozen, world.key_log.note = True, "nothing"
    await refused(session, "malformed")


# --- witnesses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("away", "enough"), [(0, True), (1, True), (2, False), (3, False)])
async def test_most_witnesses_must_have_cosigned(world: World, session: Session, away: int, enough: bool) -> None:
    for proxy in world.proxies[:away]:
        proxy.witness.away = True
    grow(world)
    if enough:
        assert (await session.logs.refresh(REGISTRY, REGISTRY_URL)).size == 7
    else:
        await refused(session, "not_enough_cosignatures")


@pytest.mark.parametrize(
    ("witnesses", "faults", "needed"), [(1, 0, 1), (2, 0, 2), (3, 0, 2), (3, 1, 3), (4, 0, 3), (4, 1, 3), (5, 2, 4)]
)
async def test_two_accepted_states_have_an_honest_witness_in_common(witnesses: int, faults: int, needed: int) -> None:
    world = World(proxies=witnesses, threshold=1)
    world.witness_faults = faults
    session = world.session()
    assert await session.logs.witnesses_needed() == needed
    assert 2 * needed - witnesses > faults
    size = len(world.key_log.datas)
    world.key_log.publish_as(size, cosigned(world, size)[: needed - 1])
    with pytest.raises(VerificationFailed) as caught:
        await session.logs.refresh(REGISTRY, REGISTRY_URL)
    assert caught.value.code == "not_enough_cosignatures"
    world.key_log.publish_as(size, cosigned(world, size)[:needed])
    assert (await session.logs.refresh(REGISTRY, REGISTRY_URL)).size == size


async def test_nobody_talks_down_how_many_may_lie(world: World) -> None:
    world.witness_faults = 1
    session = world.session()
    assert await session.logs.witnesses_needed() == 3
    world.witness_faults = 0
    assert await again(world, session).logs.witnesses_needed() == 3


async def test_whoever_trusts_the_witnesses_less_than_the_platform_does_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCEHR_WITNESS_FAULTS", "1")
    assert await world.session().logs.witnesses_needed() == 3
    monkeypatch.setenv("PCEHR_WITNESS_FAULTS", "few")
    with pytest.raises(InvalidSetting):
        await world.session().logs.witnesses_needed()


async def test_a_witness_cosigns_for_itself_only_once(world: World, session: Session) -> None:
    grow(world)
    world.key_log.publish_as(7, cosigned(world, 7, [world.proxies[0].witness] * 3))
    await refused(session, "not_enough_cosignatures")


async def test_strangers_vouch_for_nothing(world: World, session: Session) -> None:
    grow(world)
    one = world.proxies[0].witness
    strangers = [stranger(world) for _ in range(3)]
    world.key_log.publish_as(7, cosigned(world, 7, [one, *strangers]))
    await refused(session, "not_enough_cosignatures")
    world.key_log.publish_as(7, cosigned(world, 7, [one, *strangers, world.proxies[1].witness]))
    assert (await session.logs.refresh(REGISTRY, REGISTRY_URL)).size == 7


async def test_a_proxy_that_came_later_vouches_for_nothing(world: World, session: Session) -> None:
    late = World(proxies=1).proxies[0]
    world.proxies.append(late)
    world.parties[late.did] = [late.key_entry()]
    world.log_key(late.did, world.parties[late.did][0])
    world.key_log.publish_as(5, cosigned(world, 5, [world.proxies[0].witness, late.witness]))
    await refused(again(world, session), "not_enough_cosignatures")


async def test_a_line_in_a_witnesss_name_that_it_did_not_sign_spoils_the_note(world: World, session: Session) -> None:
    grow(world)
    lines = cosigned(world, 7)
    other = world.proxies[0].witness.sign(world.key_log.signed(6))
    world.key_log.publish_as(7, [other, *lines[1:]])
    await refused(session, "bad_checkpoint_signature")
    world.key_log.publish_as(7, lines)
    assert (await session.logs.refresh(REGISTRY, REGISTRY_URL)).size == 7


@pytest.mark.parametrize(
    ("ages", "code"),
    [
        ((DAY, DAY, DAY), None),
        ((DAY + 1, DAY + 1, DAY + 1), "checkpoint_stale"),
        ((DAY + 1, 0, 0), None),
        ((DAY + 1, DAY + 1, 0), "checkpoint_stale"),
        ((-60, -60, -60), None),
        ((-61, -61, -61), "checkpoint_stale"),
        ((-61, DAY + 1, 0), "checkpoint_stale"),
    ],
)
async def test_the_quorum_is_of_today(world: World, session: Session, ages: tuple[int, ...], code: str | None) -> None:
    grow(world)
    now, lines = world.clock.now, []
    for proxy, age in zip(world.proxies, ages, strict=True):
        world.clock.now = now - age
        lines += cosigned(world, 7, [proxy.witness])
    world.clock.now = now
    world.key_log.publish_as(7, lines)
    if code is None:
        assert (await session.logs.refresh(REGISTRY, REGISTRY_URL)).size == 7
    else:
        await refused(session, code)


async def test_without_proxies_there_is_nobody_to_vouch_until_there_are_some() -> None:
    world = World(proxies=0)
    session = world.session()
    await session.sign_up(Role.PATIENT)
    assert await session.logs.witnesses_needed() == 0
    assert accepted(session) == 1
    world.proxies = World(proxies=1).proxies
    late = world.proxies[0]
    world.parties[late.did] = [late.key_entry()]
    world.log_key(late.did, world.parties[late.did][0])
    later = again(world, session)
    await refused(later, "not_enough_cosignatures")
    assert list(await later.logs.witnesses()) == [late.did]
    late.witness.clock = world.clock
    world.key_log.witnesses.append(late.witness)
    assert (await later.logs.refresh(REGISTRY, REGISTRY_URL)).size == 2


async def test_the_witnesses_of_the_first_look_stay(world: World, session: Session) -> None:
    pinned = [proxy.did for proxy in world.proxies]
    intruder = World(proxies=1).proxies[0]
    for did in pinned:
        world.parties[did + "x"] = world.parties.pop(did)
    world.parties = {did.removesuffix("x"): chain for did, chain in world.parties.items()}
    world.parties = {intruder.did: [intruder.key_entry()]} | world.parties
    assert sorted(await again(world, session).logs.witnesses()) == sorted(pinned)


async def test_pinned_proxies_are_the_witnesses(world: World, session: Session) -> None:
    chosen = [proxy.did for proxy in world.proxies[:2]]
    session.state.pin(chosen)
    assert list(await again(world, session).logs.witnesses()) == chosen


async def test_a_listed_proxy_whose_keys_do_not_verify_is_not_pinned(world: World) -> None:
    """It would stand in the way of every checkpoint for ever."""
    false = World(proxies=1).proxies[0]
    world.parties[did_from_key(bytes(SigningKey.generate().verify_key))] = [false.key_entry()]
    assert sorted(await world.session().logs.witnesses()) == sorted(proxy.did for proxy in world.proxies)


async def test_hiding_a_witness_does_not_take_its_word_away(world: World, session: Session) -> None:
    answer = world._registry
    hidden = {proxy.did for proxy in world.proxies}

    def hiding(method: str, parts: list[str], *rest: object) -> object:
        if parts[:2] == ["v1", "parties"] and parts[2] in hidden:
            raise Problem("unknown_party", 404)
        return answer(method, parts, *rest)  # type: ignore[arg-type]

    world._registry = hiding  # type: ignore[method-assign, assignment]
    grow(world)
    fresh = ClientState()
    fresh.logs.pin_witnesses(sorted(hidden))
    # With its keys remembered, and with nothing but its id.
    for other in (again(world, session), world.session(session.keyring, fresh)):
        assert (await other.logs.refresh(REGISTRY, REGISTRY_URL)).size == 7
    world.proxies[0].witness.away = world.proxies[1].witness.away = True
    grow(world)
    await refused(again(world, session), "not_enough_cosignatures")


# --- inclusion ------------------------------------------------------------------------------------------------------


async def test_every_leaf_is_proven_at_its_place(world: World, session: Session) -> None:
    grow(world, 5)
    leaves = [leaf_hash(data) for data in world.key_log.datas]
    checkpoint, proofs = await session.logs.prove(REGISTRY, REGISTRY_URL, leaves)
    assert checkpoint.size == 9
    assert [place for place, _ in proofs] == list(range(9))


@pytest.mark.parametrize("how", ["path", "index", "one missing", "swapped"])
async def test_a_leaf_that_is_not_proven_is_not_in_the_log(world: World, session: Session, how: str) -> None:
    grow(world, 5)
    leaves = [leaf_hash(data) for data in world.key_log.datas[2:4]]

    def tamper(route: str, answer: Answer) -> Answer:
        if route.endswith("/inclusion"):
            items = answer["items"]
            if how == "path":
                items[1]["path"][0] = b64url(bytes(32))
            elif how == "index":
                items[1]["index"] += 1
            elif how == "one missing":
                items.pop()
            else:
                items.reverse()
        return answer

    world.tamper = tamper
    with pytest.raises(VerificationFailed) as caught:
        await session.logs.prove(REGISTRY, REGISTRY_URL, leaves)
    assert caught.value.code == "not_in_log"
    world.tamper = lambda _, answer: answer
    assert (await session.logs.prove(REGISTRY, REGISTRY_URL, leaves))[0].size == 9


async def test_a_leaf_that_nobody_logged_is_not_in_the_log(session: Session) -> None:
    with pytest.raises(VerificationFailed) as caught:
        await session.logs.prove(REGISTRY, REGISTRY_URL, [leaf_hash(bytes(64))])
    assert caught.value.code == "not_in_log"


# --- a proxy's own log ----------------------------------------------------------------------------------------------


async def test_a_proxys_own_log_is_pinned_and_only_grows(world: World, session: Session) -> None:
    did, log = world.proxies[0].did, MemoryLog("proxy", [], world.clock)
    for number in range(5):
        log.append(bytes([number]) * 64)
    accept, memory = session.logs.accept, session.state.logs
    log.publish_as(2, [])
    assert (await accept(did, log.signed(2), [], known=None)) is not None
    log.publish_as(5, [])
    assert (await accept(did, log.signed(5), log.consistency(2, 5), known=memory.log(did))) is not None
    none: list[bytes] = []
    for text, path, code in (
        (log.signed(3), none, "log_rolled_back"),
        (log.branch(1).signed(1), none, "log_rolled_back"),
        (MemoryLog("proxy", [], world.clock).signed(0), none, "log_replaced"),
        (MemoryLog("records", [], world.clock).signed(0), none, "log_replaced"),
    ):
        with pytest.raises(VerificationFailed) as caught:
            await accept(did, text, path, known=memory.log(did))
        assert caught.value.code == code
    fork = log.branch(4)
    fork.append(b"x" * 64)
    fork.append(b"y" * 64)
    fork.publish_as(6, [])
    with pytest.raises(VerificationFailed) as caught:
        await accept(did, fork.note, fork.consistency(5, 6), known=memory.log(did))
    assert caught.value.code == "log_forked"
