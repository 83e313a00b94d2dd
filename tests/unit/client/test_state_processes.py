"""Several commands of one profile at the same time: none loses what another has seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from client.state import ClientState
from shared import statements as st
from shared.wire import Role
from tests.unit.client.parties import NOW, Party, grant_to, manifest_of

ROOT = Path(__file__).parents[3]
PROCESSES = 4
ROUNDS = 15
PATIENT = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"
SHARED, OWN = "S" * 22, "O" * 21

COMMAND = f"""
import sys
from pathlib import Path
from client.state import ClientState

path, number = Path(sys.argv[1]), int(sys.argv[2])
sys.stdin.readline()
for turn in range({ROUNDS}):
    state = ClientState.load(path)
    state.raise_epoch("{PATIENT}", "{SHARED}", turn * {PROCESSES} + number)
    state.raise_epoch("{PATIENT}", "{OWN}" + str(number), turn)
    state.contacts[f"alias-{{number}}"] = "{PATIENT}"
    state.save()
    assert state.epoch("{PATIENT}", "{SHARED}") >= turn * {PROCESSES} + number
"""


def test_marks_of_commands_that_run_at_once_only_rise(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    commands = [
        subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(path), str(number)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for command in commands:
        assert command.stdin is not None
        command.stdin.write("go\n")
        command.stdin.flush()
    errors = [command.communicate(timeout=120)[1] for command in commands]
    assert [command.returncode for command in commands] == [0] * PROCESSES, errors
    state = ClientState.load(path)
    assert state.epochs_of(PATIENT) == {SHARED: ROUNDS * PROCESSES - 1} | {
        f"{OWN}{number}": ROUNDS - 1 for number in range(PROCESSES)
    }
    assert state.contacts == {f"alias-{number}": PATIENT for number in range(PROCESSES)}
    # Nothing is left lying about.
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.db"]


def two(tmp_path: Path) -> tuple[ClientState, ClientState]:
    """Two commands that have read the same state and go their ways."""
    path = tmp_path / "state.db"
    ClientState(path).save()
    return ClientState.load(path), ClientState.load(path)


def test_the_later_save_does_not_take_back_the_earlier(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    patient, recipient = Party(Role.PATIENT), Party(Role.RECIPIENT)
    first = manifest_of(patient)
    second = manifest_of(patient, version=2, prev=first.id)
    short = recipient.party
    recipient.rotate()
    for state, manifest, party, epoch in ((one, second, recipient.party, 5), (other, first, short, 4)):
        state.note_record(manifest)
        state.note_chain(party)
        state.note_epoch(patient.did, SHARED, epoch)
    one.save_if_changed()
    other.save_if_changed()
    merged = ClientState.load(tmp_path / "state.db")
    # Each is taken for what it is: the newest is no surprise, and anything older would be refused.
    merged.note_record(second)
    merged.note_chain(recipient.party)
    merged.note_epoch(patient.did, SHARED, 5)
    assert merged._records == merged._chains == merged._epochs == {}


def test_grants_and_revocations_are_the_union_of_what_commands_know(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    patient, recipient = Party(Role.PATIENT), Party(Role.RECIPIENT)
    grants = [st.verify_stored(grant_to(patient, recipient), st.Grant, patient.party) for _ in range(2)]
    early, late = (
        patient.verified(st.Revocation, recipient.did, grant=grants[0].id, epochs=(), iat=at) for at in (NOW, NOW + 9)
    )
    one.consents.remember_grant(grants[0], acknowledged=True)
    one.consents.remember_revocation(late)
    other.consents.remember_grant(grants[0], acknowledged=False)
    other.consents.remember_grant(grants[1], acknowledged=False)
    other.consents.remember_revocation(early)
    one.save_if_changed()
    other.save_if_changed()
    merged = ClientState.load(tmp_path / "state.db").consents
    known = {grant.id: grant for grant in merged.given_by(patient.did)}
    assert {grant_id: grant.acknowledged for grant_id, grant in known.items()} == {
        grants[0].id: True,
        grants[1].id: False,
    }
    assert [known[grant.id].token for grant in grants] == [grant.token for grant in grants]
    assert merged.ended() == {grants[0].id: NOW}
    assert merged.given_by(recipient.did) == []


def test_what_another_command_has_seen_is_seen_at_once(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    one.raise_epoch(PATIENT, SHARED, 3)
    one.save_if_changed()
    assert other.epoch(PATIENT, SHARED) == 3
    assert other.epochs_of(PATIENT) == {SHARED: 3}


def test_the_first_choice_of_proxies_is_made_once(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    chosen, late = Party(Role.PROXY).did, Party(Role.PROXY).did
    assert one.pin([chosen], first=True) == [chosen]
    assert other.pin([late], first=True) == [chosen]
    assert other.pin([late]) == [late] == one.proxies


@pytest.mark.parametrize("kept", ["role", "display_name"])
def test_marks_are_saved_without_the_rest(tmp_path: Path, kept: str) -> None:
    """A long command that ends with its marks does not undo what a short one has changed meanwhile."""
    one, other = two(tmp_path)
    other.role, other.display_name = Role.PATIENT, "A name"
    other.save()
    one.raise_epoch(PATIENT, SHARED, 1)
    one.save_if_changed()
    assert getattr(ClientState.load(tmp_path / "state.db"), kept) == getattr(other, kept)
