"""The checked audit over real processes: a whole flow agrees, is told in order, and can be proven to anybody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fhir.resources.R4B.bundle import Bundle

from client.audit.gather import gather
from client.audit.report import Audit, audit_of
from client.embedded.platform import EmbeddedPlatform
from client.errors import GrantEnded
from client.evidence.verify import verify
from client.evidence.write import write_evidence
from shared.schemas.records import GrantState
from shared.wire import Action
from tests.e2e.actors import Actor, ActorMaker, grant_in_state, granted, note
from tests.e2e.test_command_line import BUNDLE, Terminal


async def audit_of_all(owner: Actor) -> Audit:
    """The audit once every event has its place under a published checkpoint; waits up to half a minute."""
    for _ in range(30):
        audit = audit_of(await gather(owner.patient))
        if not audit.unproven:
            return audit
        await asyncio.sleep(1)
    raise AssertionError(f"{audit.unproven} events have no place in the tree")


async def test_a_whole_flow_has_no_finding(make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("penicillin", title="Penicillin"), note("hazelnut", title="Hazelnut")])
    grant = await granted(owner, reader, scopes=["allergies"], actions=(Action.APPEND, Action.READ))
    await grant_in_state(owner, grant.id, GrantState.COMPLETE)
    fetched = await reader.recipient.fetch(grant.id)
    assert len(fetched.opened) == 2
    await owner.patient.revoke(grant.id)
    with pytest.raises(GrantEnded):
        await reader.recipient.fetch(grant.id)

    audit = await audit_of_all(owner)
    assert audit.findings == ()
    assert {gap.code for gap in audit.gaps} <= {"settling"}
    assert len(audit.gathered.logs) == 4
    assert audit.closing.startswith("4 logs agree")
    (disclosed,) = [line for line in audit.lines if line.event == "disclosed" and line.outcome == "done"]
    assert sorted(disclosed.records) == ["Hazelnut", "Penicillin"]
    assert disclosed.why == "treatment"
    assert len(disclosed.agreeing) - 1 >= disclosed.needed == grant.threshold
    order = [line.event for line in reversed(audit.lines)]
    assert order.index("granted") < order.index("disclosed") < order.index("revoked")
    assert order.count("stored") == order.count("erased") == 3


async def test_the_evidence_of_a_flow_verifies_offline(make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("penicillin")])
    grant = await granted(owner, reader, scopes=["allergies"])
    await reader.recipient.fetch(grant.id)
    audit = await audit_of_all(owner)
    data = await write_evidence(owner.session, audit.gathered)
    verdict = verify(data, patient=owner.did)
    assert verdict.faults == ()
    assert verdict.findings == ()
    assert verdict.events == verdict.proven
    place = len(data) // 2
    assert not verify(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]).holds


async def test_the_audit_goes_on_from_what_was_seen(make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("penicillin")])
    first = await audit_of_all(owner)
    await granted(owner, reader, scopes=["allergies"])
    second = await audit_of_all(owner)
    assert second.findings == ()
    assert second.events > first.events
    assert owner.session.state.logs.end("records", owner.did) is not None


async def test_the_commands_agree_and_the_file_verifies(platform: EmbeddedPlatform, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "home", platform.registry_url)
    await terminal.run("init", "patient", "--yes", profile="alice")
    await terminal.run("init", "recipient", "--name", "Demo Practice", "--yes", profile="practice")
    await terminal.run("records", "add", str(BUNDLE), profile="alice")
    did = (await terminal.run("card", profile="alice"))["did"]
    await terminal.run("requests", "new", did, "--scope", "allergies", "--reason", "Treatment", profile="practice")
    [request] = (await terminal.run("requests", "list", profile="alice"))["requests"]
    await terminal.run("approve", request["id"], "--expires", "30d", profile="alice")
    await terminal.run("fetch", "-o", str(tmp_path / "opened.json"), profile="practice")

    fhir, evidence = tmp_path / "audit.json", tmp_path / "evidence.json"
    shown = await terminal.run("audit", "--fhir", str(fhir), profile="alice")
    assert shown["agree"] is True
    assert {"requested", "granted", "disclosed", "log_read"} <= {event["event"] for event in shown["events"]}
    entries = Bundle.model_validate_json(fhir.read_bytes()).entry
    assert entries is not None
    # The patient, a consent for the one grant, and an event for each line.
    assert len(entries) == 2 + len(shown["events"])

    await terminal.run("export", "--evidence", str(evidence), profile="alice")
    verdict = await terminal.run("verify", str(evidence), "--patient", did)
    assert verdict["holds"] is True
    assert verdict["findings"] == []
    evidence.write_bytes(evidence.read_bytes().replace(b"disclosed", b"disclosee", 1))
    rejected = await terminal.run("verify", str(evidence), status=1)
    assert rejected["faults"][0]["code"]
