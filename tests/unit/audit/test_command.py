"""`pcehr audit`, `pcehr export --evidence` and `pcehr verify`, over a platform in memory."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import stamina
from fhir.resources.R4B.bundle import Bundle
from typer.testing import CliRunner, Result

from client import config
from client.cli import app, context
from client.cli.audit import FOUND
from client.cli.evidence import REJECTED
from client.keyring import Keyring
from client.keystore import LIGHT, create
from client.patient import Patient
from client.state import ClientState
from client.transport import Platform
from shared.wire import Action, Purpose, Role
from tests.unit.audit.logs import hashed
from tests.unit.audit.world import LoggingWorld, logging_world
from tests.unit.client.hiding import note
from tests.unit.client.world import DAY, REGISTRY
from tests.unit.evidence.files import Evidence


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoggingWorld:
    for name in [name for name in os.environ if name.startswith("PCEHR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PCEHR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PCEHR_PASSPHRASE", "a passphrase")
    world = logging_world()
    # Two minutes ago: the commands go by the clock of the machine, and nothing is on its way any more.
    world.clock.now = int(time.time()) - 120

    def platform(_: str) -> Platform:
        return Platform(REGISTRY, clock=world.clock, transport=httpx.MockTransport(world.answer))

    monkeypatch.setattr(context, "Platform", platform)
    return world


@pytest.fixture
def did(world: LoggingWorld) -> str:
    """A patient with a profile on this machine, one of whose two records a recipient has opened."""
    keyring = Keyring.generate()
    profile = config.profile("default")
    profile.make_folder()
    create(profile.keystore, keyring, "a passphrase", cost=LIGHT)

    async def live() -> None:
        with stamina.set_testing(True, attempts=2):
            state = ClientState.load(profile.state)
            owner = Patient(world.session(keyring, state), known_scopes=["allergies", "medications"])
            await owner.sign_up()
            await owner.add_records([note("penicillin"), note("aspirin", "medications")])
            reader = await world.recipient()
            grant = await owner.share(
                reader.session.did,
                scopes=["allergies"],
                actions=[Action.READ],
                purpose=Purpose.TREAT,
                expires=world.clock() + 30 * DAY,
            )
            await reader.fetch(grant.id)
            state.role = Role.PATIENT
            state.save()

    asyncio.run(live())
    return keyring.did


def invoke(*arguments: str) -> Result:
    with stamina.set_testing(True, attempts=2):
        return CliRunner().invoke(app, list(arguments))


def document(*arguments: str) -> dict[str, Any]:
    result = invoke(*arguments, "--json")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def lie(world: LoggingWorld, did: str) -> None:
    """The records service discloses something that no proxy has re-encrypted."""
    grant = next(iter(world.grants))
    world.say(did, "disclosed", grant=grant, statement=hashed("in secret"), capsules=(hashed("x"),))


def test_an_honest_platform_is_shown_and_agrees(world: LoggingWorld, did: str) -> None:
    result = invoke("audit")
    assert result.exit_code == 0, result.output
    assert "4 logs agree: 10 events, all proven." in result.output
    assert "penicillin" in result.output
    assert "aspirin" not in result.output
    assert "Demo Practice" in result.output
    assert "treatment" in result.output
    shown = document("audit")
    assert shown["agree"] is True
    assert shown["patient"] == did
    assert shown["findings"] == []
    assert {"granted", "stored", "disclosed"} <= {event["event"] for event in shown["events"]}


def test_a_finding_is_shown_and_ends_with_its_own_status(world: LoggingWorld, did: str) -> None:
    lie(world, did)
    result = invoke("audit")
    assert result.exit_code == FOUND
    assert "disclosed_without_proxies" in result.output
    shown = document("audit")
    assert shown["agree"] is False
    assert "disclosed_without_proxies" in [finding["code"] for finding in shown["findings"]]


def test_the_log_is_written_as_fhir(world: LoggingWorld, did: str, tmp_path: Path) -> None:
    file = tmp_path / "audit.json"
    assert invoke("audit", "--fhir", str(file)).exit_code == 0
    bundle = Bundle.model_validate_json(file.read_bytes())
    assert bundle.entry is not None
    assert {entry.resource.get_resource_type() for entry in bundle.entry} == {"Patient", "Consent", "AuditEvent"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert did in file.read_text("utf-8")


def test_a_recipient_has_no_patients_audit(world: LoggingWorld, did: str) -> None:
    state = ClientState.load(config.profile("default").state)
    state.role = Role.RECIPIENT
    state.save()
    for command in (["audit"], ["export", "--evidence", "evidence.json"]):
        assert document(*command)["error"]["code"] == "wrong_role"


def test_evidence_is_written_and_verified(world: LoggingWorld, did: str, tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    written = invoke("export", "--evidence", str(file))
    assert written.exit_code == 0, written.output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    verified = invoke("verify", str(file))
    assert verified.exit_code == 0, verified.output
    assert "The file holds" in verified.output
    found = document("verify", str(file), "--patient", did)
    assert found["holds"] is True
    assert found["patient"] == did
    assert found["events"] == found["proven"] > 0


def test_evidence_of_a_lie_verifies_and_ends_with_its_own_status(world: LoggingWorld, did: str, tmp_path: Path) -> None:
    lie(world, did)
    file = tmp_path / "evidence.json"
    assert document("export", "--evidence", str(file))["findings"]
    result = invoke("verify", str(file))
    assert result.exit_code == FOUND
    assert "disclosed_without_proxies" in result.output


def test_without_any_log_no_file_is_written(world: LoggingWorld, did: str, tmp_path: Path) -> None:
    world.closed |= {"records.test", *(f"proxy-{number}.test" for number in range(3))}
    file = tmp_path / "evidence.json"
    result = invoke("export", "--evidence", str(file), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "nothing_to_prove"
    assert not file.exists()


# --- verify needs nothing but the file ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return Evidence()


def test_a_file_is_verified_without_profile_or_platform(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCEHR_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PCEHR_REGISTRY_URL", "http://127.0.0.1:1")
    file = tmp_path / "evidence.json"
    file.write_bytes(evidence.data)
    assert invoke("verify", str(file)).exit_code == 0
    assert not (tmp_path / "nowhere").exists()


def test_a_changed_file_is_rejected_and_the_fault_named(evidence: Evidence, tmp_path: Path) -> None:
    def change(body: dict[str, Any]) -> None:
        body["logs"][0]["events"][0]["salt"] = hashed("x")

    file = tmp_path / "evidence.json"
    file.write_bytes(evidence.tampered(change))
    result = invoke("verify", str(file))
    assert result.exit_code == REJECTED
    assert "event_changed" in result.output
    found = document("verify", str(file))
    assert found["holds"] is False
    assert [fault["code"] for fault in found["faults"]] == ["event_changed", "seal_broken"]
    assert found["patient"] is None


def test_another_patients_file_is_rejected(evidence: Evidence, tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    file.write_bytes(evidence.data)
    other = Keyring.generate().did
    assert document("verify", str(file), "--patient", other)["faults"][0]["code"] == "foreign_patient"


def test_a_patients_id_that_is_none_is_refused(evidence: Evidence, tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    file.write_bytes(evidence.data)
    assert document("verify", str(file), "--patient", "somebody")["error"]["code"] == "invalid_value"


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert document("verify", str(tmp_path / "missing.json"))["error"]["code"] == "usage"
