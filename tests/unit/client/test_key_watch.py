"""Watching the registry's log finds keys in one's own name, and keys that are hidden; and an honest one is quiet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import stamina

from client import key_watch
from client.errors import ServiceRefused, VerificationFailed
from client.key_watch import CHECKPOINT_WITHHELD, FOREIGN, FORKED, WITHHELD
from client.log_memory import REGISTRY
from client.patient import Patient
from client.recipient import Recipient
from client.state import ClientState
from shared.encoding import b64url, sha256
from shared.statements import ScopeKey
from shared.transparency.entries import key_entry_data, key_label, scope_label
from shared.transparency.witnessing import Known
from shared.wire import REGISTRY_AUDIENCE
from tests.unit.client.hiding import note, sent, share
from tests.unit.client.world import Answer, Problem, World, id_of

NAMES = ["allergies", "medications"]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(key_watch, "_PAUSE", 0.0)
    with stamina.set_testing(True, attempts=1):
        yield


@pytest.fixture
async def owner(world: World, tmp_path: Path) -> Patient:
    """A patient that knows a recipient, and has watched once."""
    owner = Patient(world.session(state=ClientState(tmp_path / "state.db")), known_scopes=NAMES)
    await owner.sign_up()
    await owner.add_records([note("a")])
    return owner


@pytest.fixture
async def reader(world: World, owner: Patient) -> Recipient:
    reader = await world.recipient()
    await share(owner, reader)
    report = await owner.session.watch(NAMES)
    assert (report.findings, set(report.witnesses.values())) == ((), {"agrees"})
    return reader


def statement(number: int = 0) -> str:
    return b64url(sha256(bytes([number])))


async def test_an_honest_log_is_quiet_and_only_what_is_new_is_read(
    world: World, owner: Patient, reader: Recipient
) -> None:
    assert (await owner.session.watch(NAMES)).read == 0
    await owner.session.rotate_keys()
    await owner.add_scope("medications")
    await world.recipient("Demo Insurer")
    report = await owner.session.watch(NAMES)
    assert (report.findings, report.read, report.size) == ((), 3, len(world.key_log.datas))
    assert set(report.witnesses) == {proxy.did for proxy in world.proxies}


async def test_a_long_log_is_read_in_pieces(world: World, owner: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_watch, "MAX_ENTRIES", 3)
    report = await owner.session.watch(NAMES)
    assert (report.findings, report.read) == ((), len(world.key_log.datas))
    assert sent(world, "GET /v1/log/entries") == -(-report.read // 3)


async def test_a_key_entry_in_ones_own_name_is_found(world: World, owner: Patient, reader: Recipient) -> None:
    place = len(world.key_log.datas)
    world.key_log.append(key_entry_data(key_label(owner.session.did), statement()))
    for _ in range(2):
        # Not for once only: whoever misses the first alarm gets another.
        (found,) = (await owner.session.watch(NAMES)).findings
        assert (found.code, found.did, found.scope) == (FOREIGN, owner.session.did, None)
        assert (found.statement, found.place) == (statement(), place)


async def test_a_scope_key_in_ones_own_name_is_found(world: World, owner: Patient, reader: Recipient) -> None:
    scope_id = owner.session.keyring.scope_id("medications")
    world.key_log.append(key_entry_data(scope_label(owner.session.did, scope_id), statement()))
    (found,) = (await owner.session.watch(NAMES)).findings
    assert (found.code, found.did, found.scope) == (FOREIGN, owner.session.did, scope_id)


async def test_a_scope_key_that_the_words_do_not_give_is_found(world: World, owner: Patient, reader: Recipient) -> None:
    """Signed with the right key, by whoever has stolen it."""
    session = owner.session
    scope_id = session.keyring.scope_id("allergies")
    token = (
        await session.sign(
            ScopeKey,
            REGISTRY_AUDIENCE,
            scope=scope_id,
            epoch=1,
            delegating_key=session.keyring.delegating("medications", 0).public_key().b64,
        )
    ).token
    world.scope_keys[session.did].append(token)
    world.log_key(session.did, token)
    (found,) = (await session.watch(NAMES)).findings
    assert (found.code, found.scope, found.statement) == (FOREIGN, scope_id, id_of(token))


async def test_a_key_of_a_known_party_that_the_registry_hides_is_found(
    world: World, owner: Patient, reader: Recipient
) -> None:
    await reader.session.rotate_keys()
    hidden = world.parties[reader.session.did].pop()
    (found,) = (await owner.session.watch(NAMES)).findings
    assert (found.code, found.did, found.statement) == (WITHHELD, reader.session.did, id_of(hidden))
    world.parties[reader.session.did].append(hidden)
    assert (await owner.session.watch(NAMES)).findings == ()


async def test_a_known_party_that_the_registry_denies_is_found(world: World, owner: Patient, reader: Recipient) -> None:
    await reader.session.rotate_keys()
    world.parties.pop(reader.session.did)
    found = (await owner.session.watch(NAMES)).findings
    assert {(one.code, one.did) for one in found} == {(WITHHELD, reader.session.did)}


async def test_a_scope_key_of_a_patient_one_writes_for_is_found_when_hidden(
    world: World, owner: Patient, reader: Recipient
) -> None:
    scope_id = owner.session.keyring.scope_id("allergies")
    await reader.fetch()
    reader.session.state.note_epoch(owner.session.did, scope_id, 0)
    assert (await reader.session.watch()).findings == ()
    newer = statement(1)
    world.key_log.append(key_entry_data(scope_label(owner.session.did, scope_id), newer))
    (found,) = (await reader.session.watch()).findings
    assert (found.code, found.did, found.scope, found.statement) == (WITHHELD, owner.session.did, scope_id, newer)


async def test_what_was_hidden_before_one_knew_the_party_is_found_too(
    world: World, owner: Patient, reader: Recipient
) -> None:
    """Its entries were read over at the last visit, when nobody looked for them."""
    other = await world.recipient("Demo Insurer")
    await other.session.rotate_keys()
    assert (await owner.session.watch(NAMES)).findings == ()
    world.parties[other.session.did].pop()
    owner.session.state.contacts["insurer"] = other.session.did
    report = await owner.session.watch(NAMES)
    assert [(one.code, one.did) for one in report.findings] == [(WITHHELD, other.session.did)]
    assert report.read == report.size


async def test_strangers_are_no_concern(world: World, owner: Patient, reader: Recipient) -> None:
    other = await world.recipient("Demo Insurer")
    world.key_log.append(key_entry_data(key_label(other.session.did), statement()))
    assert (await owner.session.watch(NAMES)).findings == ()


@pytest.mark.parametrize("how", ["changed", "swapped", "left out"])
async def test_entries_that_are_not_those_of_the_tree_are_refused(
    world: World, owner: Patient, reader: Recipient, how: str
) -> None:
    place = len(world.key_log.datas)
    for number in range(3):
        world.key_log.append(bytes([number]) * 64)

    def tamper(route: str, answer: Answer) -> Answer:
        if route.endswith("/entries"):
            items: list[Any] = answer["items"]
            if how == "changed":
                items[0] = b64url(bytes([7]) * 64)
            elif how == "swapped":
                items.reverse()
            else:
                items[1:] = items[:1] * (len(items) - 1)
        return answer

    world.tamper = tamper
    with pytest.raises(VerificationFailed) as caught:
        await owner.session.watch(NAMES)
    assert caught.value.code == "log_forked"
    world.tamper = lambda _, answer: answer
    assert (await owner.session.watch(NAMES)).read == len(world.key_log.datas) - place


# --- witnesses ------------------------------------------------------------------------------------------------------


async def test_a_checkpoint_that_the_registry_withholds_is_found(
    world: World, owner: Patient, reader: Recipient
) -> None:
    """Two of three have cosigned it, so that it could have been published."""
    log = world.key_log
    log.publish()
    size, text = log.size, log.note
    await reader.session.rotate_keys()
    log.publish()
    log.frozen, log.size, log.note = True, size, text
    report = await owner.session.watch(NAMES)
    assert {one.code for one in report.findings} == {CHECKPOINT_WITHHELD}
    assert {one.did for one in report.findings} == {proxy.did for proxy in world.proxies}
    assert set(report.witnesses.values()) == {"ahead"}
    evidence = report.findings[0].evidence
    assert evidence is not None
    assert evidence.read_text("utf-8").count(log.origin + "\n") == 2
    log.frozen = False
    assert (await owner.session.watch(NAMES)).findings == ()


async def test_a_registry_that_cannot_publish_withholds_nothing(
    world: World, owner: Patient, reader: Recipient
) -> None:
    log = world.key_log
    log.publish()
    size, text = log.size, log.note
    for proxy in world.proxies[1:]:
        proxy.away = proxy.witness.away = True
    log.append(bytes(64))
    log.publish()
    log.frozen, log.size, log.note = True, size, text
    report = await owner.session.watch(NAMES)
    assert report.findings == ()
    assert [report.witnesses[proxy.did] for proxy in world.proxies] == ["ahead", "away", "away"]


@pytest.mark.parametrize("more", [0, 2])
async def test_a_witness_that_has_seen_another_history_is_evidence(
    world: World, owner: Patient, reader: Recipient, more: int
) -> None:
    log, witness = world.key_log, world.proxies[0].witness
    fork = log.branch(len(log.datas) - 1)
    fork.append(bytes(64))
    text = fork.signed(len(fork.datas))
    witness.known[log.origin], witness.notes[log.origin] = Known(len(fork.datas), sha256(b"")), text
    for number in range(more):
        log.append(bytes([number + 1]) * 64)
    (found,) = (await owner.session.watch(NAMES)).findings
    assert (found.code, found.did) == (FORKED, witness.did)
    assert found.evidence is not None
    assert text in found.evidence.read_text("utf-8")


@pytest.mark.parametrize("status", [422, 503])
async def test_a_registry_that_does_not_prove_what_a_witness_has_seen_is_found_out(
    world: World, owner: Patient, reader: Recipient, status: int
) -> None:
    late = world.proxies[0].witness
    late.away = True
    await world.recipient("Demo Insurer")
    await owner.session.logs.refresh(REGISTRY, owner.session.platform.registry_url)

    answer = world._route

    def refusing(request: httpx.Request) -> Answer | bytes:
        if request.url.path.endswith("/consistency"):
            raise Problem("refused", status)
        return answer(request)

    world._route = refusing  # type: ignore[method-assign]
    if status == 503:
        # It is away, which says nothing about the log.
        with pytest.raises(ServiceRefused):
            await owner.session.watch(NAMES)
    else:
        (found,) = (await owner.session.watch(NAMES)).findings
        assert (found.code, found.did) == (FORKED, late.did)
        assert found.evidence is not None
    world._route = answer  # type: ignore[method-assign]
    assert (await owner.session.watch(NAMES)).findings == ()


async def test_a_witness_that_is_only_late_is_no_finding(world: World, owner: Patient, reader: Recipient) -> None:
    late = world.proxies[0].witness
    late.away = True
    await world.recipient("Demo Insurer")
    report = await owner.session.watch(NAMES)
    assert report.findings == ()
    assert report.witnesses[late.did] == "behind"


async def test_a_witness_that_talks_nonsense_is_no_finding(world: World, owner: Patient, reader: Recipient) -> None:
    """Without the log's own signature anybody could make up another history."""
    origin, notes = world.key_log.origin, world.proxies[0].witness.notes
    notes[origin] = notes[origin].replace("\n", "\n0", 1)
    report = await owner.session.watch(NAMES)
    assert report.findings == ()
    assert report.witnesses[world.proxies[0].did] == "silent"
