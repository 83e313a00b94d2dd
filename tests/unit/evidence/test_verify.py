"""A real evidence file verifies; with any part of it changed it does not, and the part is named."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from client.audit.chain import RECORDS
from client.evidence import file as evidence_file
from client.evidence.file import EvidenceSeal
from client.evidence.verify import Verdict, verify
from client.evidence.write import body_of
from shared import statements as st
from shared.crypto.signing import SigningKey
from shared.encoding import b64url, canonical_json, from_b64url
from shared.transparency.checkpoints import origin_of
from shared.wire import Role
from tests.unit.audit.logs import HOUR, NOW, Case, MemoryLog, hashed
from tests.unit.client.parties import Party
from tests.unit.evidence.files import Evidence, Members, denial_of, request_of, sealed

Change = Callable[[Members], None]


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return Evidence()


def first(verdict: Verdict) -> tuple[str, str]:
    assert not verdict.holds
    assert verdict.patient is None
    assert verdict.findings == ()
    return verdict.faults[0].code, verdict.faults[0].place


def refused(evidence: Evidence, change: Change, code: str, place: str) -> Verdict:
    """The changed file, sealed anew, has this as its first fault; under the old seal it has it too, and the seal last.

    That the patient herself seals a false part anew shows that it is not the seal alone that holds the file together.
    """
    verdict = verify(evidence.changed(change))
    assert first(verdict) == (code, place)
    under_old_seal = verify(evidence.tampered(change))
    assert first(under_old_seal) == (code, place)
    assert (under_old_seal.faults[-1].code, under_old_seal.faults[-1].place) == ("seal_broken", "seal")
    return verdict


def test_a_whole_file_verifies_and_says_what_it_proves(evidence: Evidence) -> None:
    verdict = verify(evidence.data)
    assert verdict.faults == ()
    assert verdict.holds
    assert verdict.patient == evidence.case.patient.did
    assert verdict.sealed_at == NOW + HOUR
    assert verdict.findings == ()
    assert verdict.gaps == ()
    assert verdict.grants == 1
    assert verdict.events == verdict.proven == sum(len(log.events) for log in evidence.gathered.logs.values())
    assert verdict.origins[RECORDS] == evidence.case.records.origin
    assert verdict.witnesses == tuple(proxy.did for proxy in evidence.case.proxies)


def test_the_same_content_is_always_the_same_bytes(evidence: Evidence) -> None:
    assert body_of(evidence.gathered) == evidence.body
    assert canonical_json(json.loads(evidence.data)) == evidence.data


def test_a_file_of_the_patient_expected_verifies(evidence: Evidence) -> None:
    assert verify(evidence.data, patient=evidence.case.patient.did).holds


def test_a_file_made_by_a_foreign_patient_is_named(evidence: Evidence) -> None:
    other = Evidence()
    assert first(verify(other.data, patient=evidence.case.patient.did)) == ("foreign_patient", "patient")


def test_a_file_under_another_patients_name_is_named(evidence: Evidence) -> None:
    """Everything real, and the wrong name on it."""
    other = Party(Role.PATIENT)

    def rename(body: Members) -> None:
        body["patient"] = other.did
        body["parties"][other.did] = other.tokens

    verdict = verify(evidence.changed(rename, by=other))
    assert {fault.code for fault in verdict.faults} >= {"wrong_signer", "event_changed", "wrong_audience"}
    assert any(fault.place.startswith("grants/0/grant") for fault in verdict.faults)


def test_findings_are_proven_to_anybody() -> None:
    case = Case()
    case.release(case.proxies[2], statement=hashed("behind its back"))
    verdict = verify(Evidence(case).data)
    assert verdict.holds
    assert [finding.code for finding in verdict.findings] == ["released_without_event"]


# --- the form -------------------------------------------------------------------------------------------------------


def spellings(evidence: Evidence) -> dict[str, bytes]:
    whole = json.loads(evidence.data)
    text = evidence.data.decode()

    def body(**members: Any) -> bytes:
        return canonical_json({**whole, "body": {**whole["body"], **members}})

    with_null = copy.deepcopy(whole)
    with_null["body"]["requests"][0]["denial"] = None
    return {
        "nothing": b"",
        "another thing": b"[]",
        "white space": evidence.data + b"\n",
        "half of it": evidence.data[: len(evidence.data) // 2],
        "another order": b'{"seal":'
        + canonical_json(whole["seal"])
        + b',"body":'
        + canonical_json(whole["body"])
        + b"}",
        "a null": canonical_json(with_null),
        "a member more": canonical_json({**whole, "note": "x"}),
        "a member more in the body": body(note="x"),
        "another version": body(v=2),
        "another type": body(type="pcehr-record"),
        "no seal": canonical_json({"body": whole["body"]}),
        "a log twice": body(logs=[whole["body"]["logs"][0], *whole["body"]["logs"]]),
        "a witness twice": body(witnesses=[whole["body"]["witnesses"][0], *whole["body"]["witnesses"]]),
        "a number below the first event": text.replace('"n":1,', '"n":0,', 1).encode(),
        "a service of no kind": text.replace('"service":"records"', '"service":"registry"', 1).encode(),
        "not UTF-8": b"\xff" + evidence.data,
    }


@pytest.mark.parametrize("name", spellings(Evidence()))
def test_another_form_is_malformed(evidence: Evidence, name: str) -> None:
    assert first(verify(spellings(evidence)[name])) == ("malformed", "")


def test_an_overlong_file_is_too_large(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_file, "MAX_FILE_BYTES", len(evidence.data) - 1)
    assert first(verify(evidence.data)) == ("too_large", "")


# --- parties --------------------------------------------------------------------------------------------------------


def edit(token: str, **members: Any) -> str:
    """A statement with other members under the signature of before."""
    head, payload, signature = token.split(".")
    claims = json.loads(from_b64url(payload)) | members
    return f"{head}.{b64url(canonical_json(claims))}.{signature}"


def test_a_changed_key_entry_is_named(evidence: Evidence) -> None:
    did = evidence.case.proxies[0].did

    def change(body: Members) -> None:
        body["parties"][did][0] = edit(body["parties"][did][0], endpoint="http://other.test")

    refused(evidence, change, "bad_signature", f"parties/{did}")


def test_another_partys_chain_is_named(evidence: Evidence) -> None:
    did = evidence.case.recipient.did

    def change(body: Members) -> None:
        body["parties"][did] = Party(Role.RECIPIENT).tokens

    refused(evidence, change, "wrong_signer", f"parties/{did}")


def test_a_chain_of_keys_that_does_not_link_is_named(evidence: Evidence) -> None:
    did = evidence.case.recipient.did

    def change(body: Members) -> None:
        body["parties"][did] = body["parties"][did] * 2

    refused(evidence, change, "broken_key_chain", f"parties/{did}")


@pytest.mark.parametrize(
    ("who", "place"),
    [
        ("recipient", "requests/0/request"),
        ("proxy", "grants/0/receipts/0"),
    ],
)
def test_a_party_that_is_left_out_is_named(evidence: Evidence, who: str, place: str) -> None:
    case = evidence.case
    did = {"recipient": case.recipient, "proxy": case.proxies[0]}[who].did
    refused(evidence, lambda body: body["parties"].pop(did), "unknown_party", place)


def test_a_file_without_the_patients_keys_is_named(evidence: Evidence) -> None:
    did = evidence.case.patient.did
    assert first(verify(evidence.changed(lambda body: body["parties"].pop(did)))) == ("unknown_party", "patient")


def test_a_recipient_in_the_patients_place_is_named(evidence: Evidence) -> None:
    did = evidence.case.recipient.did
    verdict = verify(evidence.changed(lambda body: body.update(patient=did), by=evidence.case.recipient))
    assert first(verdict) == ("wrong_role", "patient")


# --- statements -----------------------------------------------------------------------------------------------------


def test_a_changed_grant_is_named(evidence: Evidence) -> None:
    def change(body: Members) -> None:
        body["grants"][0]["grant"] = edit(body["grants"][0]["grant"], purpose="HRESCH")

    refused(evidence, change, "bad_signature", "grants/0/grant")


def test_a_grant_by_somebody_else_is_named(evidence: Evidence) -> None:
    other = Case()

    def change(body: Members) -> None:
        body["grants"][0]["grant"] = other.grant.token

    refused(evidence, change, "wrong_signer", "grants/0/grant")


def test_a_grant_twice_is_named(evidence: Evidence) -> None:
    refused(evidence, lambda body: body["grants"].append(body["grants"][0]), "grant_twice", "grants/1/grant")


def test_a_grant_that_is_left_out_is_a_finding_and_not_a_fault(evidence: Evidence) -> None:
    """The patient may leave something out of what is hers; the events then speak of a grant that she does not show."""
    verdict = verify(evidence.changed(lambda body: body["grants"].clear()))
    assert verdict.holds
    assert {finding.code for finding in verdict.findings} == {"share_without_grant", "grant_unknown"}


def test_a_grant_to_keys_that_are_not_the_recipients_is_named(evidence: Evidence) -> None:
    grant = evidence.case.make_grant(recipient_entry=hashed("no entry"))

    def change(body: Members) -> None:
        body["grants"] = [{"grant": grant.token, "receipts": [], "shown": False, "revocation_shown": True}]

    refused(evidence, change, "stale_key_entry", "grants/0/grant")


def test_a_changed_revocation_is_named(evidence: Evidence) -> None:
    def change(body: Members) -> None:
        body["grants"][0]["revocation"] = edit(body["grants"][0]["revocation"], iat=NOW)

    refused(evidence, change, "bad_signature", "grants/0/revocation")


def test_a_revocation_of_another_grant_is_named(evidence: Evidence) -> None:
    case = evidence.case
    token = case.patient.sign(st.Revocation, case.recipient.did, grant=hashed("another"), epochs=())
    refused(evidence, lambda body: body["grants"][0].update(revocation=token), "refused", "grants/0/revocation")


def test_a_revocation_that_is_left_out_leaves_its_receipts_without_a_cause(evidence: Evidence) -> None:
    refused(evidence, lambda body: body["grants"][0].pop("revocation"), "receipt_invalid", "grants/0/receipts/3")


def receipts(evidence: Evidence) -> dict[str, tuple[str, str]]:
    case = evidence.case
    proxy, grant = case.proxies[0], case.grant.id
    terms: dict[str, Any] = {"statement": grant, "grant": grant, "act": "stored", "seq": 1}

    def sign(audience: str = case.patient.did, by: Party = proxy, signer: Party | None = None, **members: Any) -> str:
        return by.sign(st.Receipt, audience, signer=signer, **(terms | members))

    return {
        "signed by another key": (sign(signer=Party(Role.PROXY)), "wrong_signer"),
        "of a proxy that is not in the file": (sign(by=Party(Role.PROXY)), "unknown_party"),
        "of a party that is no proxy": (sign(by=case.recipient), "wrong_role"),
        "for another grant": (sign(grant=hashed("x")), "receipt_invalid"),
        "for another statement": (sign(statement=hashed("x")), "receipt_invalid"),
        "to somebody else": (sign(case.recipient.did), "receipt_invalid"),
        "of an erasure for the grant": (sign(act="erased"), "receipt_invalid"),
        "of a re-encryption to the patient": (sign(act="reencrypted", cfrags=(hashed("x"),)), "wrong_audience"),
        "of no form": ("a.b.c", "malformed"),
    }


@pytest.mark.parametrize("name", receipts(Evidence()))
def test_a_receipt_that_does_not_belong_is_named(evidence: Evidence, name: str) -> None:
    token, code = receipts(evidence)[name]
    refused(evidence, lambda body: body["grants"][0]["receipts"].append(token), code, "grants/0/receipts/6")


def test_a_receipt_of_a_re_encryption_belongs(evidence: Evidence) -> None:
    case = evidence.case
    token = case.proxies[0].sign(
        st.Receipt,
        case.recipient.did,
        statement=case.statement,
        grant=case.grant.id,
        act="reencrypted",
        seq=2,
        cfrags=(hashed("x"), hashed("y")),
    )
    verdict = verify(evidence.changed(lambda body: body["grants"][0]["receipts"].append(token)))
    assert verdict.holds
    assert verdict.findings == ()


def test_a_receipt_that_the_log_has_no_event_of_is_proven(evidence: Evidence) -> None:
    """The proxy's own signature against the proxy's own log: that is what evidence is for."""
    case = evidence.case
    token = case.proxies[0].sign(
        st.Receipt,
        case.recipient.did,
        statement=hashed("in secret"),
        grant=case.grant.id,
        act="reencrypted",
        seq=3,
        cfrags=(hashed("x"),),
    )
    verdict = verify(evidence.changed(lambda body: body["grants"][0]["receipts"].append(token)))
    assert verdict.holds
    assert [finding.code for finding in verdict.findings] == ["receipt_without_event"]


def test_a_changed_request_is_named(evidence: Evidence) -> None:
    def change(body: Members) -> None:
        body["requests"][0]["request"] = edit(body["requests"][0]["request"], purpose="HRESCH")

    refused(evidence, change, "bad_signature", "requests/0/request")


def test_a_request_to_another_patient_is_named(evidence: Evidence) -> None:
    case = evidence.case
    claims = json.loads(from_b64url(evidence.members["requests"][0]["request"].split(".")[1]))
    members = {name: claims[name] for name in ("exp", "purpose", "recipient_entry", "patient_entry", "sealed")}
    token = case.recipient.sign(
        st.DisclosureRequest,
        Party(Role.PATIENT).did,
        **{**members, "purpose": st.Purpose(members["purpose"]), "actions": (st.Action.READ,)},
    )
    refused(evidence, lambda body: body["requests"][0].update(request=token), "wrong_audience", "requests/0/request")


def test_a_denial_of_another_request_is_named(evidence: Evidence) -> None:
    denial = denial_of(evidence.case, hashed("another")).token
    refused(evidence, lambda body: body["requests"][1].update(denial=denial), "refused", "requests/1/denial")


def test_a_denial_to_somebody_else_is_named(evidence: Evidence) -> None:
    request = evidence.gathered.requests[1].statement.id
    denial = denial_of(evidence.case, request, Party(Role.RECIPIENT).did).token
    refused(evidence, lambda body: body["requests"][1].update(denial=denial), "wrong_audience", "requests/1/denial")


def test_requests_name_entries_of_the_parties_chains(evidence: Evidence) -> None:
    request = request_of(evidence.case, patient_entry=hashed("x"))
    refused(
        evidence,
        lambda body: body["requests"][0].update(request=request.token),
        "stale_key_entry",
        "requests/0/request",
    )


# --- logs -----------------------------------------------------------------------------------------------------------


def in_log(evidence: Evidence, change: Change, service: str = RECORDS) -> tuple[Change, str]:
    place = evidence.log_at(service)
    return lambda body: change(body["logs"][place]), f"logs/{place}"


def event_changes() -> dict[str, tuple[Change, str, str]]:
    def rewrite(log: Members) -> None:
        log["events"][2]["event"] = log["events"][2]["event"].replace('"outcome":"done"', '"outcome":"refused"')

    def swap(log: Members) -> None:
        log["events"][1], log["events"][2] = log["events"][2], log["events"][1]

    def texts(log: Members) -> None:
        one, other = log["events"][1], log["events"][2]
        one["event"], other["event"] = other["event"], one["event"]

    return {
        "another outcome": (rewrite, "event_changed", "events/-3"),
        "another salt": (lambda log: log["events"][2].update(salt=hashed("x")), "event_changed", "events/-3"),
        "another commitment": (
            lambda log: log["events"][2].update(commitment=hashed("x")),
            "event_changed",
            "events/-3",
        ),
        "no text": (lambda log: log["events"][2].pop("event"), "event_changed", "events/-3"),
        "texts changed about": (texts, "event_changed", "events/-3"),
        "left out": (lambda log: log["events"].pop(2), "event_missing", "events/-3"),
        "the first left out": (lambda log: log["events"].pop(-1), "event_missing", "events/1"),
        "the newest left out": (lambda log: log["events"].pop(0), "not_in_log", "events/-1"),
        "another order": (swap, "event_missing", "events/-2"),
        "twice": (lambda log: log["events"].insert(0, log["events"][0]), "events_out_of_order", "events/-1"),
    }


@pytest.mark.parametrize("name", event_changes())
def test_a_changed_event_is_named(evidence: Evidence, name: str) -> None:
    change, code, where = event_changes()[name]
    whole, place = in_log(evidence, change)
    newest = len(evidence.members["logs"][evidence.log_at(RECORDS)]["events"])
    number = int(where.removeprefix("events/"))
    refused(evidence, whole, code, f"{place}/events/{number if number > 0 else newest + 1 + number}")


def proof_changes() -> dict[str, tuple[Change, str, str]]:
    def path(log: Members) -> None:
        log["proofs"][0]["items"][0]["path"][0] = hashed("x")

    def swap_paths(log: Members) -> None:
        one, other = log["proofs"][0]["items"][:2]
        one["path"], other["path"] = other["path"], one["path"]

    def twice(log: Members) -> None:
        log["proofs"][1]["items"].append(log["proofs"][0]["items"][0])

    def older(log: Members) -> None:
        log["proofs"][1]["checkpoint"] = log["proofs"][0]["checkpoint"]
        log["proofs"][1]["consistency"] = []

    def rolled_back(log: Members) -> None:
        log["proofs"].reverse()
        log["proofs"][0]["consistency"] = []

    def anew(log: Members) -> None:
        log["proofs"][1]["consistency"] = []

    def another_root(log: Members) -> None:
        lines = log["proofs"][0]["checkpoint"].split("\n")
        lines[2] = "A" * 43 + "="
        log["proofs"][0]["checkpoint"] = "\n".join(lines)

    def fewer_cosignatures(log: Members) -> None:
        text = log["proofs"][0]["checkpoint"]
        log["proofs"][0]["checkpoint"] = "".join(text.splitlines(keepends=True)[:-2])

    return {
        "another path": (path, "not_in_log", "events/1"),
        "paths changed about": (swap_paths, "not_in_log", "events/1"),
        "another index": (
            lambda log: log["proofs"][0]["items"][0].update(index="3"),
            "not_in_log",
            "events/1",
        ),
        "an index beyond all trees": (
            lambda log: log["proofs"][0]["items"][0].update(index=str(2**63)),
            "malformed",
            "proofs/0",
        ),
        "for an event that is not there": (
            lambda log: log["proofs"][0]["items"][0].update(n=99),
            "not_in_log",
            "events/99",
        ),
        "twice": (twice, "refused", "proofs/1"),
        "under an older checkpoint": (older, "not_in_log", "events/-4"),
        "in another order": (rolled_back, "log_forked", "proofs/1"),
        "without the proof that the log only grew": (anew, "log_forked", "proofs/1"),
        "a proof before the first": (
            lambda log: log["proofs"][0]["consistency"].append(hashed("x")),
            "refused",
            "proofs/0",
        ),
        "a checkpoint of another root": (another_root, "bad_checkpoint_signature", "proofs/0"),
        "a checkpoint of no form": (
            lambda log: log["proofs"][0].update(checkpoint="checkpoint"),
            "malformed",
            "proofs/0",
        ),
        "too few cosignatures": (fewer_cosignatures, "not_enough_cosignatures", "proofs/0"),
    }


@pytest.mark.parametrize("name", proof_changes())
def test_a_changed_proof_is_named(evidence: Evidence, name: str) -> None:
    change, code, where = proof_changes()[name]
    whole, place = in_log(evidence, change)
    if where.startswith("events/-"):
        newest = len(evidence.members["logs"][evidence.log_at(RECORDS)]["events"])
        where = f"events/{newest + 1 + int(where.removeprefix('events/'))}"
    refused(evidence, whole, code, f"{place}/{where}")


def test_proofs_that_are_left_out_are_found_missing(evidence: Evidence) -> None:
    """Without a proof a young event may still wait for one; the file says so, and proves no more than it can."""
    change, _ = in_log(evidence, lambda log: log["proofs"][1]["items"].clear())
    verdict = verify(evidence.changed(change))
    assert verdict.holds
    assert verdict.proven < verdict.events
    assert [gap.code for gap in verdict.gaps] == ["not_proven_yet"]


def test_a_log_of_another_kind_is_named(evidence: Evidence) -> None:
    proxy = evidence.case.proxies[0].did
    origin = evidence.case.logs[proxy].origin
    change, place = in_log(evidence, lambda log: log.update(origin=origin))
    refused(evidence, change, "log_replaced", f"{place}/origin")


def test_the_registrys_log_is_nobodys_audit(evidence: Evidence) -> None:
    proxy = evidence.case.proxies[0].did
    origin = origin_of("registry", SigningKey.generate().verify_key)
    change, place = in_log(evidence, lambda log: log.update(origin=origin), proxy)
    refused(evidence, change, "log_replaced", f"{place}/origin")


@pytest.mark.parametrize("service", ["records", "proxy"])
def test_another_log_of_the_same_kind_is_named(evidence: Evidence, service: str) -> None:
    kind: Any = service
    origin = MemoryLog(kind).origin
    named = RECORDS if service == "records" else evidence.case.proxies[0].did
    change, place = in_log(evidence, lambda log: log.update(origin=origin), named)
    refused(evidence, change, "bad_checkpoint_signature", f"{place}/proofs/0")


def test_two_proxies_logs_changed_about_are_no_fault_and_a_finding(evidence: Evidence) -> None:
    """A proxy's log names no proxy: that it is this proxy's is what the events and receipts say, or contradict."""
    a, b = (evidence.log_at(proxy.did) for proxy in (evidence.case.proxies[0], evidence.case.proxies[2]))

    def change(body: Members) -> None:
        one, other = body["logs"][a], body["logs"][b]
        one["service"], other["service"] = other["service"], one["service"]

    verdict = verify(evidence.changed(change))
    assert verdict.holds
    assert {finding.code for finding in verdict.findings} == {"erasure_missing"}


def test_a_log_of_a_party_that_is_no_proxy_is_named(evidence: Evidence) -> None:
    proxy, recipient = evidence.case.proxies[2].did, evidence.case.recipient.did
    change, place = in_log(evidence, lambda log: log.update(service=recipient), proxy)
    refused(evidence, change, "wrong_role", f"{place}/origin")


def test_another_subjects_events_are_named(evidence: Evidence) -> None:
    other = Evidence()
    place = evidence.log_at(RECORDS)
    foreign = other.members["logs"][other.log_at(RECORDS)]

    def change(body: Members) -> None:
        body["logs"][place]["events"] = foreign["events"]

    refused(evidence, change, "event_changed", f"logs/{place}/events/1")


# --- witnesses ------------------------------------------------------------------------------------------------------


def test_a_witness_that_is_left_out_may_be_one_too_many(evidence: Evidence) -> None:
    """Two of three suffice; with two liars among three, two do not."""
    refused(
        evidence,
        lambda body: body.update(witness_faults=3),
        "not_enough_cosignatures",
        f"logs/{evidence.log_at(RECORDS)}/proofs/0",
    )


def test_witnesses_that_did_not_cosign_do_not_vouch(evidence: Evidence) -> None:
    strangers = [Party(Role.PROXY) for _ in range(3)]

    def change(body: Members) -> None:
        body["witnesses"] = [one.did for one in strangers]
        body["parties"] |= {one.did: one.tokens for one in strangers}

    refused(evidence, change, "not_enough_cosignatures", f"logs/{evidence.log_at(RECORDS)}/proofs/0")


def test_witnesses_without_keys_in_the_file_vouch_for_nothing(evidence: Evidence) -> None:
    """Three of six are not more than half."""
    dids = [Party(Role.PROXY).did for _ in range(3)]
    refused(
        evidence,
        lambda body: body["witnesses"].extend(dids),
        "not_enough_cosignatures",
        f"logs/{evidence.log_at(RECORDS)}/proofs/0",
    )
    assert verify(evidence.changed(lambda body: body["witnesses"].extend(dids[:2]))).holds


def test_a_witness_that_is_no_proxy_is_named(evidence: Evidence) -> None:
    did = evidence.case.recipient.did
    refused(
        evidence,
        lambda body: body["witnesses"].append(did),
        "wrong_role",
        f"logs/{evidence.log_at(RECORDS)}/proofs/0",
    )


def test_a_false_cosignature_is_named(evidence: Evidence) -> None:
    def change(log: Members) -> None:
        lines = log["proofs"][0]["checkpoint"].splitlines(keepends=True)
        mark, name, data = lines[-1].rstrip("\n").split(" ")
        flipped = "B" if data[40] != "B" else "C"
        lines[-1] = f"{mark} {name} {data[:40]}{flipped}{data[41:]}\n"
        log["proofs"][0]["checkpoint"] = "".join(lines)

    whole, place = in_log(evidence, change)
    refused(evidence, whole, "bad_checkpoint_signature", f"{place}/proofs/0")


@pytest.mark.parametrize("sealed_at", [NOW + 86_401, NOW - 61])
def test_cosignatures_of_another_day_are_stale(evidence: Evidence, sealed_at: int) -> None:
    verdict = verify(sealed(evidence.body, evidence.case.patient, iat=sealed_at))
    assert first(verdict) == ("checkpoint_stale", f"logs/{evidence.log_at(RECORDS)}/proofs/0")


# --- the seal -------------------------------------------------------------------------------------------------------


def test_a_seal_by_somebody_else_is_named(evidence: Evidence) -> None:
    assert first(verify(sealed(evidence.body, evidence.case.recipient))) == ("wrong_signer", "seal")


def test_a_seal_over_something_else_is_named(evidence: Evidence) -> None:
    assert first(verify(sealed(evidence.body, evidence.case.patient, digest=hashed("x")))) == ("seal_broken", "seal")


def test_a_changed_seal_is_named(evidence: Evidence) -> None:
    members = {"body": evidence.members, "seal": edit(evidence.seal, iat=NOW + HOUR + 1)}
    assert first(verify(canonical_json(members))) == ("bad_signature", "seal")


def test_a_statement_of_another_kind_is_no_seal(evidence: Evidence) -> None:
    members = {"body": evidence.members, "seal": evidence.case.grant.token[: EvidenceSeal.max_size]}
    assert first(verify(canonical_json(members)))[1] == "seal"


def test_everything_that_is_wrong_is_listed(evidence: Evidence) -> None:
    def change(body: Members) -> None:
        body["grants"][0]["revocation"] = edit(body["grants"][0]["revocation"], iat=NOW)
        body["logs"][evidence.log_at(RECORDS)]["events"][0]["salt"] = hashed("x")
        body["requests"][1]["denial"] = edit(body["requests"][1]["denial"], reason="too-broad")

    places = [fault.place for fault in verify(evidence.tampered(change)).faults]
    assert places[0] == "requests/1/denial"
    assert "grants/0/revocation" in places
    assert places[-1] == "seal"
    assert any("/events/" in place for place in places)
