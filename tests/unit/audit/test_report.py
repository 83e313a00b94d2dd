"""What people and programs are told of an audit, and the same in FHIR R4."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from pydantic import ValidationError
from rich.console import Console

from client.audit import chain
from client.audit.chain import RECORDS
from client.audit.events import WORDS, purpose_in_words, words_for
from client.audit.fhir import bundle_of
from client.audit.gathered import Gathered
from client.audit.report import Audit, audit_of, document_of
from client.audit.story import SENTENCES
from client.cli.audit import _for_people
from client.reports import Problem
from shared.wire import Action, Purpose
from tests.unit.audit.logs import NOW, Case, hashed


def gathered(case: Case, **members: Any) -> Gathered:
    """What an audit of this case gathers, with other members where they are given."""
    material = case.material()
    assert material.records is not None
    whole = Gathered(
        patient=case.patient.party,
        began=case.now,
        now=case.now,
        logs={RECORDS: material.records, **material.proxies},
        away={},
        broken={},
        grants=case.grants,
        parties={one.did: one.party for one in (case.patient, case.recipient, *case.proxies)},
        titles={case.capsules[0]: "Penicillin allergy"},
        scopes={case.patient.keyring.scope_id("allergies"): "Allergies"},
    )
    return replace(whole, **members)


def printed(audit: Audit, limit: int = 200) -> str:
    console = Console(width=300, force_terminal=False)
    with console.capture() as capture:
        for renderable in _for_people(audit, limit):
            console.print(renderable)
    return capture.get()


# --- for people -----------------------------------------------------------------------------------------------------


def test_a_whole_story_closes_with_how_many_logs_agree() -> None:
    audit = audit_of(gathered(Case()))
    assert audit.closing == "4 logs agree: 10 events, all proven."
    assert audit.findings == ()


def test_a_disclosure_is_told_with_who_what_why_and_who_confirms_it() -> None:
    case = Case()
    text = printed(audit_of(gathered(case)))
    row = next(line for line in text.splitlines() if "records disclosed" in line)
    assert "Demo Hospital" in row
    assert "treatment" in row
    assert "Penicillin allergy and 1 more" in row
    assert "✓ 2 of 2 needed" in row


def test_what_two_logs_have_is_one_line() -> None:
    audit = audit_of(gathered(Case()))
    assert [line.event for line in audit.lines].count("disclosed") == 1
    assert "reencrypted" not in [line.event for line in audit.lines]
    assert [line.event for line in audit.lines].count("stored") == 3
    assert all(len(line.agreeing) == 2 for line in audit.lines if line.event == "stored")


def test_what_only_a_proxy_has_is_a_line_of_its_own() -> None:
    case = Case()
    case.release(case.proxies[2], statement=hashed("behind its back"))
    audit = audit_of(gathered(case))
    (line,) = [line for line in audit.lines if line.event == "reencrypted"]
    assert line.service == case.proxies[2].did
    assert "released_without_event" in printed(audit)
    assert audit.closing == "The logs do not agree: 1 finding in 11 events of 4 logs."


def test_what_a_recipient_received_is_summed_up() -> None:
    case = Case()
    case.disclose(case.proxies[:2], statement=hashed("again"), at=NOW + 60)
    (received,) = audit_of(gathered(case)).received
    assert received.recipient == case.recipient.did
    assert received.capsules == 2
    assert received.last == NOW + 60
    assert received.purpose == "treatment"


def test_purpose_and_recipient_are_those_of_the_patients_own_grant() -> None:
    case = Case()
    case.grant = case.give(purpose=Purpose.HRESCH)
    case.disclose(case.proxies[:2], statement=hashed("research"))
    line = next(line for line in audit_of(gathered(case)).lines if line.grant == case.grant.id)
    assert line.why == "research"
    assert line.recipient == case.recipient.did


def test_a_service_that_is_away_is_a_gap_and_one_that_lies_a_finding() -> None:
    case = Case()
    whole = gathered(case)
    without = {service: log for service, log in whole.logs.items() if service != case.proxies[0].did}
    away = audit_of(
        replace(whole, logs=without, away={case.proxies[0].did: Problem("service_unreachable", "no answer")})
    )
    assert away.findings == ()
    assert [gap.code for gap in away.gaps] == ["log_away", "disclosure_unconfirmed"]
    assert away.closing == "3 logs agree as far as they could be compared: 8 events, all proven."
    broken = audit_of(
        replace(whole, logs=without, broken={case.proxies[0].did: Problem("log_rewritten", "another end")})
    )
    assert [finding.code for finding in broken.findings] == ["log_rewritten"]
    assert broken.findings[0].services == (case.proxies[0].did,)


@pytest.mark.parametrize("code", ["checkpoint_stale", "not_enough_cosignatures"])
def test_a_head_that_nobody_vouches_for_is_a_gap_only_while_the_witnesses_are_away(code: str) -> None:
    case = Case()
    whole = gathered(
        case, witnesses=tuple(proxy.did for proxy in case.proxies), broken={RECORDS: Problem(code, "head")}
    )
    logs = {service: log for service, log in whole.logs.items() if service != RECORDS}
    there = audit_of(replace(whole, logs=logs))
    assert [finding.code for finding in there.findings] == [code]
    unreachable = {proxy.did: Problem("service_unreachable", "no answer") for proxy in case.proxies[:2]}
    away = audit_of(replace(whole, logs={case.proxies[2].did: logs[case.proxies[2].did]}, away=unreachable))
    assert away.findings == ()
    assert [gap.code for gap in away.gaps] == ["log_away", "log_away", code]


def test_without_any_log_nothing_is_claimed() -> None:
    audit = audit_of(gathered(Case(), logs={}, away={RECORDS: Problem("service_unreachable", "no answer")}))
    assert audit.closing == "No log could be had: nothing has been checked."
    assert printed(audit)


def test_receipts_that_do_not_hold_are_said() -> None:
    audit = audit_of(gathered(Case(), problems=(Problem("receipt_invalid", "no receipt"),)))
    assert [gap.code for gap in audit.gaps] == ["receipt_invalid"]


def test_alike_events_are_one_row_for_people_and_each_one_for_programs() -> None:
    case = Case()
    for _ in range(30):
        case.say("listed", actor=case.recipient.did, grant=case.grant.id, at=NOW + 60)
    audit = audit_of(gathered(case))
    assert "records listed ×30" in printed(audit)
    assert len([event for event in document_of(audit)["events"] if event["event"] == "listed"]) == 30


def test_the_limit_is_on_rows_and_not_on_what_is_checked() -> None:
    case = Case()
    for number in range(5):
        case.say("listed" if number % 2 else "log_read", actor=case.recipient.did, at=NOW + 60)
    audit = audit_of(gathered(case))
    assert "granted" not in printed(audit, limit=2)
    assert "15 events" in audit.closing


def test_every_event_has_words() -> None:
    assert words_for("disclosed") == "records disclosed"
    assert words_for("some_new_thing") == "some new thing"
    assert len(set(WORDS.values())) == len(WORDS)
    assert all(purpose_in_words(purpose.value) != purpose.value for purpose in Purpose)


def test_the_document_is_json_and_names_every_log() -> None:
    case = Case()
    document = document_of(audit_of(gathered(case)))
    assert json.loads(json.dumps(document)) == document
    assert document["agree"] is True
    assert {log["service"] for log in document["logs"]} == {RECORDS, *(proxy.did for proxy in case.proxies)}
    assert all(log["proven"] == log["events"] for log in document["logs"])


def test_the_manual_says_what_each_finding_means() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "audit.md").read_text("utf-8")
    faults = [
        kind.code for kind in (chain.EventChanged, chain.EventMissing, chain.EventsOutOfOrder, chain.LogRewritten)
    ]
    for code in (*SENTENCES, *faults):
        assert f"`{code}`" in manual


# --- FHIR -----------------------------------------------------------------------------------------------------------


def everything() -> Case:
    """One event of every kind that a service writes, refusals, a limited grant, and one that has ended."""
    case = Case()
    for number, event in enumerate(WORDS):
        if event not in ("granted", "stored", "disclosed", "reencrypted", "revoked", "erased"):
            case.say(event, actor=case.recipient.did, at=NOW + number)
    case.say("disclosed", **(case._terms() | {"outcome": "capsule_not_granted"}))
    case.say("stored", case.proxies[0], outcome="kfrag_rejected", grant=case.grant.id)
    case.revoke()
    scope = case.grant.payload.scopes[0]
    case.give(
        scopes=(scope.model_copy(update={"capsules": case.capsules}),),
        actions=(Action.AMEND, Action.APPEND, Action.READ),
        purpose=Purpose.ETREAT,
    )
    return case


@pytest.fixture(scope="module")
def bundle() -> dict[str, Any]:
    return bundle_of(audit_of(gathered(everything())))


def resources(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


def test_the_bundle_is_valid_fhir(bundle: dict[str, Any]) -> None:
    parsed = Bundle.model_validate_json(json.dumps(bundle))
    assert parsed.type == "collection"
    assert parsed.entry is not None
    assert len(parsed.entry) == len(bundle["entry"])


def test_the_definitions_refuse_what_is_no_fhir(bundle: dict[str, Any]) -> None:
    """The library does look: without a required member, or with one that FHIR does not know, nothing passes."""
    for change in ({"recorded": None}, {"agent": None}, {"mood": "good"}, {"recorded": "yesterday"}):
        event = {**resources(bundle, "AuditEvent")[0], **change}
        event = {name: value for name, value in event.items() if value is not None}
        with pytest.raises(ValidationError):
            Bundle.model_validate({**bundle, "entry": [{"resource": event}]})
    consent = {name: value for name, value in resources(bundle, "Consent")[0].items() if name != "category"}
    with pytest.raises(ValidationError):
        Bundle.model_validate({**bundle, "entry": [{"resource": consent}]})


def test_every_event_has_its_audit_event(bundle: dict[str, Any]) -> None:
    events = resources(bundle, "AuditEvent")
    assert len(events) == len(audit_of(gathered(everything())).lines)
    assert len({event["id"] for event in events}) == len(events)
    assert {event["outcome"] for event in events} == {"0", "4"}


def test_every_reference_leads_to_an_entry(bundle: dict[str, Any]) -> None:
    known = {entry["fullUrl"] for entry in bundle["entry"]}
    assert len(known) == len(bundle["entry"])

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["reference"]] if isinstance(value.get("reference"), str) else []
            return own + [found for child in value.values() for found in references(child)]
        return [found for child in value for found in references(child)] if isinstance(value, list) else []

    assert references(bundle)
    assert set(references(bundle)) <= known


def test_a_disclosure_has_the_shape_of_a_privacy_disclosure() -> None:
    """IHE BALP, IHE.BasicAudit.PrivacyDisclosure.Source."""
    case = Case()
    bundle = bundle_of(audit_of(gathered(case)))
    (event,) = [one for one in resources(bundle, "AuditEvent") if one["type"]["code"] == "110106"]
    assert event["type"]["system"] == "http://dicom.nema.org/resources/ontology/DCM"
    assert event["action"] == "R"
    assert event["subtype"][0]["code"] == "disclose"
    assert event["subtype"][0]["system"] == "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
    assert event["recorded"] == "2027-01-15T08:00:00Z"
    assert event["purposeOfEvent"][0]["coding"][0]["code"] == "TREAT"
    source, recipient, authorizer = event["agent"]
    assert source["type"]["coding"][0]["code"] == "110153"
    assert source["who"] == event["source"]["observer"]
    assert source["requestor"] is False
    assert recipient["type"]["coding"][0]["code"] == "110152"
    assert recipient["who"]["identifier"]["value"] == case.recipient.did
    assert recipient["who"]["display"] == "Demo Hospital"
    assert recipient["purposeOfUse"][0]["coding"][0]["code"] == "TREAT"
    assert authorizer["who"]["reference"] == bundle["entry"][0]["fullUrl"]
    patient, first, second, consent = event["entity"]
    assert patient["type"]["code"] == "1"
    assert patient["role"]["code"] == "1"
    assert patient["what"]["reference"] == bundle["entry"][0]["fullUrl"]
    assert first["name"] == "Penicillin allergy"
    assert "name" not in second
    assert [first["what"]["identifier"]["value"], second["what"]["identifier"]["value"]] == list(case.capsules)
    assert consent["what"]["reference"] == bundle["entry"][1]["fullUrl"]


def test_reading_has_the_shape_of_a_restful_read(bundle: dict[str, Any]) -> None:
    read = [event for event in resources(bundle, "AuditEvent") if event.get("subtype", [{}])[0].get("code") == "read"]
    assert read
    assert all(event["type"]["code"] == "rest" and event["action"] == "R" for event in read)


def test_every_grant_has_its_consent(bundle: dict[str, Any]) -> None:
    ended, standing = sorted(resources(bundle, "Consent"), key=lambda one: str(one["status"]), reverse=True)
    assert (standing["status"], ended["status"]) == ("active", "inactive")
    for consent in (ended, standing):
        assert consent["scope"]["coding"][0]["code"] == "patient-privacy"
        assert consent["provision"]["type"] == "permit"
        assert consent["provision"]["actor"][0]["role"]["coding"][0]["code"] == "IRCP"
        assert consent["dateTime"] == "2027-01-15T08:00:00Z"
    assert ended["provision"]["period"]["end"] == "2027-01-15T08:10:00Z"
    assert ended["provision"]["data"][0]["meaning"] == "related"
    assert ended["provision"]["data"][0]["reference"]["display"] == "Allergies"
    assert [data["meaning"] for data in standing["provision"]["data"]] == ["instance", "instance"]
    assert [action["coding"][0]["code"] for action in standing["provision"]["action"]] == [
        "correct",
        "collect",
        "access",
    ]
    assert standing["provision"]["purpose"][0]["code"] == "ETREAT"


def test_a_grant_that_has_lapsed_is_inactive() -> None:
    case = Case(now=NOW + 91 * 86_400)
    (consent,) = resources(bundle_of(audit_of(gathered(case))), "Consent")
    assert consent["status"] == "inactive"


def test_the_same_audit_is_the_same_bundle() -> None:
    audit = audit_of(gathered(Case()))
    assert bundle_of(audit) == bundle_of(audit)


def test_a_bundle_names_nobody_but_who_is_in_the_log(bundle: dict[str, Any]) -> None:
    text = json.dumps(bundle)
    assert "name" not in resources(bundle, "Patient")[0]
    assert "sealed" not in text
    assert "eyJ" not in text
