"""What a profile remembers: high-water marks that only rise, in a file that is whole or refused."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from client.errors import KeyChainRolledBack, RecordRolledBack, ScopeKeyRolledBack, StateDamaged
from client.state import ClientState
from shared.identity import verify_chain
from shared.statements import Manifest, Verified
from shared.wire import Role
from tests.unit.client.parties import Party, manifest_of


def test_a_missing_file_is_an_empty_state(tmp_path: Path) -> None:
    state = ClientState.load(tmp_path / "state.json")
    assert state.role is None
    assert state.proxies == []
    assert not (tmp_path / "state.json").exists()


def test_round_trip(tmp_path: Path) -> None:
    patient, recipient = Party(Role.PATIENT), Party(Role.RECIPIENT)
    state = ClientState(tmp_path / "state.json")
    state.role, state.registry_url, state.display_name = Role.PATIENT, "http://r", "Ä name"
    state.contacts["doctor"] = recipient.did
    state.proxies = [patient.did]
    state.note_chain(recipient.party)
    state.note_record(manifest_of(patient))
    state.note_epoch("A" * 22, 3)
    state.save()
    again = ClientState.load(tmp_path / "state.json")
    for member in ("role", "registry_url", "display_name", "contacts", "proxies", "chains", "records", "epochs"):
        assert getattr(again, member) == getattr(state, member)
    assert again.contact("doctor") == recipient.did
    assert again.contact("did:other") == "did:other"


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    state = ClientState(tmp_path / "state.json")
    state.save()
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_a_state_without_a_file_lives_in_memory() -> None:
    state = ClientState()
    state.note_epoch("A" * 22, 0)
    state.save()
    state.save_if_changed()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "null",
        '{"v":2}',
        '{"v":1,"extra":1}',
        '{"v":1,"v":1}',
        '{"epochs":{"AAAAAAAAAAAAAAAAAAAAAA":-1},"v":1}',
        '{"proxies":["nobody"],"v":1}',
        '{"records":{"x":{"manifest":"AA","version":1}},"v":1}',
        '{"role":"proxy-of-proxies","v":1}',
        '{ "v": 1 }',
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(StateDamaged) as refusal:
        ClientState.load(path)
    assert refusal.value.hint


def test_save_if_changed_writes_only_what_is_new(tmp_path: Path) -> None:
    state = ClientState(tmp_path / "state.json")
    state.save_if_changed()
    assert not (tmp_path / "state.json").exists()
    state.note_epoch("A" * 22, 0)
    state.save_if_changed()
    before = (tmp_path / "state.json").stat().st_ino
    state.note_epoch("A" * 22, 0)
    state.save_if_changed()
    assert (tmp_path / "state.json").stat().st_ino == before
    assert json.loads((tmp_path / "state.json").read_text())["epochs"] == {"A" * 22: 0}


def test_a_shorter_chain_is_refused() -> None:
    party = Party(Role.RECIPIENT)
    short = party.party
    party.rotate()
    state = ClientState()
    state.note_chain(short)
    state.note_chain(party.party)
    state.note_chain(party.party)
    with pytest.raises(KeyChainRolledBack):
        state.note_chain(short)


def test_a_different_chain_is_refused() -> None:
    party = Party(Role.RECIPIENT)
    first = party.tokens[0]
    party.rotate()
    state = ClientState()
    state.note_chain(party.party)
    fork = verify_chain(party.did, [first, party.next_entry(1)])
    with pytest.raises(KeyChainRolledBack):
        state.note_chain(fork)


def note(*manifests: Verified[Manifest]) -> ClientState:
    state = ClientState()
    for manifest in manifests:
        state.note_record(manifest)
    return state


def test_an_earlier_version_is_refused() -> None:
    patient = Party(Role.PATIENT)
    first = manifest_of(patient)
    second = manifest_of(patient, version=2, prev=first.id)
    with pytest.raises(RecordRolledBack):
        note(first, second, first)


def test_another_manifest_for_the_same_version_is_refused() -> None:
    patient = Party(Role.PATIENT)
    with pytest.raises(RecordRolledBack):
        note(manifest_of(patient), manifest_of(patient))


def test_a_version_that_does_not_follow_the_one_seen_is_refused() -> None:
    patient = Party(Role.PATIENT)
    first, other = manifest_of(patient), manifest_of(patient)
    with pytest.raises(RecordRolledBack):
        note(first, manifest_of(patient, version=2, prev=other.id))


def test_the_same_and_later_versions_are_accepted() -> None:
    patient = Party(Role.PATIENT)
    first = manifest_of(patient)
    third = manifest_of(patient, version=3, prev=first.id)
    state = note(first, first, third)
    assert state.has_seen_record(patient.did, first.payload.record)


def test_one_patients_record_does_not_stand_in_the_way_of_anothers() -> None:
    note(manifest_of(Party(Role.PATIENT), version=2, prev="A" * 43), manifest_of(Party(Role.PATIENT)))


def test_an_earlier_epoch_is_refused() -> None:
    state = ClientState()
    state.note_epoch("A" * 22, 2)
    state.note_epoch("A" * 22, 2)
    state.note_epoch("A" * 22, 5)
    with pytest.raises(ScopeKeyRolledBack):
        state.note_epoch("A" * 22, 4)
