"""What a profile remembers: high-water marks that only rise, in a file that is whole or refused."""

from __future__ import annotations

import contextlib
import sqlite3
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
    state = ClientState.load(tmp_path / "state.db")
    assert state.role is None
    assert state.proxies == []
    assert not (tmp_path / "state.db").exists()


def test_round_trip(tmp_path: Path) -> None:
    patient, recipient = Party(Role.PATIENT), Party(Role.RECIPIENT)
    state = ClientState(tmp_path / "state.db")
    state.role, state.registry_url, state.display_name = Role.PATIENT, "http://r", "Ä name"
    state.contacts["doctor"] = recipient.did
    state.pin([patient.did])
    state.note_chain(recipient.party)
    state.note_record(manifest_of(patient))
    state.note_epoch(patient.did, "A" * 22, 3)
    state.save()
    again = ClientState.load(tmp_path / "state.db")
    for member in ("role", "registry_url", "display_name", "contacts", "proxies"):
        assert getattr(again, member) == getattr(state, member)
    assert again.proxies == [patient.did]
    assert again.epochs_of(patient.did) == {"A" * 22: 3}
    assert again.has_seen_record(patient.did, manifest_of(patient).payload.record)
    assert again.contact("doctor") == recipient.did
    assert again.contact("did:other") == "did:other"


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    state = ClientState(tmp_path / "state.db")
    state.save()
    assert stat.S_IMODE((tmp_path / "state.db").stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.db"]


def test_a_state_without_a_file_lives_in_memory() -> None:
    state = ClientState()
    state.note_epoch("did:a", "A" * 22, 0)
    state.save()
    state.note_epoch("did:a", "A" * 22, 1)
    state.save_if_changed()
    assert state.epoch("did:a", "A" * 22) == 1


@pytest.mark.parametrize(
    "damage",
    [
        "PRAGMA user_version = 1",
        "PRAGMA user_version = 3",
        "PRAGMA application_id = 0",
        "DROP TABLE profile",
        "DROP TABLE contacts",
        "INSERT INTO profile VALUES (1, 'proxy-of-proxies', NULL, NULL)",
    ],
)
def test_a_file_of_another_layout_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.db"
    ClientState(path).save()
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("DELETE FROM profile")
        file.execute(damage)
        file.commit()
    with pytest.raises(StateDamaged) as refusal:
        ClientState.load(path)
    assert refusal.value.hint


@pytest.mark.parametrize("text", ["", "{}", '{"v":1}', "SQLite format 3"])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.db"
    path.write_text(text)
    with pytest.raises(StateDamaged) as refusal:
        ClientState.load(path)
    assert refusal.value.hint


def test_a_file_cut_short_is_refused_where_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    state = ClientState(path)
    for number in range(2_000):
        state.raise_epoch("did:a", f"{number:022}", 1)
    state.save()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(StateDamaged):
        ClientState.load(path).epochs_of("did:a")


def test_a_text_that_is_no_unicode_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    ClientState(path).save()
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE profile SET display_name = CAST(x'ff' AS TEXT)")
    with pytest.raises(StateDamaged):
        ClientState.load(path)


def test_a_file_that_another_program_holds_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.state_file._LOCK_SECONDS", 0.05)
    path = tmp_path / "state.db"
    ClientState(path).save()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        state = ClientState(path)
        state.role = Role.PATIENT
        with pytest.raises(OSError, match="locked") as refusal:
            state.save()
        assert refusal.value.filename == str(path)
        other.execute("ROLLBACK")
    state.save()
    assert ClientState.load(path).role is Role.PATIENT


def test_what_could_not_be_saved_is_saved_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.state_file._LOCK_SECONDS", 0.05)
    path = tmp_path / "state.db"
    ClientState(path).save()
    state = ClientState.load(path)
    state.raise_epoch("did:a", "A" * 22, 4)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match="locked"):
            state.save_if_changed()
        other.execute("ROLLBACK")
    state.save_if_changed()
    assert ClientState.load(path).epoch("did:a", "A" * 22) == 4


def test_save_if_changed_writes_only_what_is_new(tmp_path: Path) -> None:
    state = ClientState(tmp_path / "state.db")
    state.save_if_changed()
    assert not (tmp_path / "state.db").exists()
    state.note_epoch("did:a", "A" * 22, 0)
    state.save_if_changed()
    before = (tmp_path / "state.db").read_bytes()
    state.note_epoch("did:a", "A" * 22, 0)
    state.save_if_changed()
    # Each transaction counts up in the header, so that the same bytes mean that there was none.
    assert (tmp_path / "state.db").read_bytes() == before
    assert ClientState.load(tmp_path / "state.db").epochs_of("did:a") == {"A" * 22: 0}


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
    state.note_epoch("did:a", "A" * 22, 2)
    state.note_epoch("did:a", "A" * 22, 2)
    state.note_epoch("did:a", "A" * 22, 5)
    with pytest.raises(ScopeKeyRolledBack):
        state.note_epoch("did:a", "A" * 22, 4)
    state.raise_epoch("did:a", "A" * 22, 4)
    assert state.epoch("did:a", "A" * 22) == 5


def test_one_patients_scope_does_not_stand_in_the_way_of_anothers() -> None:
    state = ClientState()
    state.note_epoch("did:a", "A" * 22, 9)
    state.note_epoch("did:b", "A" * 22, 0)
    assert (state.epochs_of("did:a"), state.epochs_of("did:b")) == ({"A" * 22: 9}, {"A" * 22: 0})
    assert state.epoch("did:c", "A" * 22) is None
