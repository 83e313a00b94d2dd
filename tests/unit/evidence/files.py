"""Evidence files of a patient whose story is whole, and their parts to be changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from client.audit.chain import RECORDS, CheckedLog, Proven, check_log
from client.audit.gathered import Gathered, OwnRequest
from client.evidence.file import EVIDENCE_AUDIENCE, Body, EvidenceFile, EvidenceSeal
from client.evidence.write import body_of
from shared import statements as st
from shared.encoding import b64url, canonical_json
from shared.statements import Denial, DisclosureRequest
from shared.wire import Action, DenialReason, Purpose
from tests.unit.audit.logs import NOW, Case, MemoryLog
from tests.unit.client.parties import Party

Members = dict[str, Any]


def request_of(case: Case, **members: Any) -> st.Verified[DisclosureRequest]:
    claims: dict[str, Any] = {
        "exp": NOW + 86_400,
        "actions": (Action.READ,),
        "purpose": Purpose.TREAT,
        "recipient_entry": case.recipient.party.current.id,
        "patient_entry": case.patient.party.current.id,
        "sealed": b64url(bytes(200)),
    }
    return case.recipient.verified(DisclosureRequest, case.patient.did, **(claims | members))


def denial_of(case: Case, request: str, audience: str | None = None) -> st.Verified[Denial]:
    return case.patient.verified(
        Denial, audience or case.recipient.did, request=request, reason=DenialReason.UNSPECIFIED
    )


def in_two_batches(log: MemoryLog, subject: str, finish: Callable[[], None]) -> tuple[Proven, Proven]:
    """Proofs under a checkpoint of before and one of after `finish`, the second with the proof that it extends it."""
    first, size, done = log.proven(subject), log.frontier.size, len(log.chains[subject])
    finish()
    second = log.proven(subject, range(done + 1, len(log.chains[subject]) + 1))
    return first, Proven(second.checkpoint, second.items, log.consistency(size))


def a_case() -> Case:
    """Given, disclosed, ended: something of everything."""
    return Case()


def gathered_from(case: Case) -> Gathered:
    """What the audit of a case gathers; the records service's log comes in two batches."""
    subject = case.patient.did
    batches = in_two_batches(case.records, subject, lambda: finish(case))
    logs: dict[str, CheckedLog] = {did: log.checked(did, subject) for did, log in case.logs.items()}
    logs[RECORDS] = check_log(RECORDS, subject, case.records.shown(subject), batches)
    everybody = [case.patient, case.recipient, *case.proxies]
    request = request_of(case)
    denied = request_of(case)
    return Gathered(
        patient=case.patient.party,
        began=case.now,
        now=case.now,
        logs=logs,
        away={},
        broken={},
        grants=case.grants,
        parties={one.did: one.party for one in everybody},
        witnesses=tuple(proxy.did for proxy in case.proxies),
        witness_faults=0,
        requests=(OwnRequest(request), OwnRequest(denied, denial_of(case, denied.id))),
    )


def finish(case: Case) -> None:
    """The end of the story, which falls under the second checkpoint."""
    case.revoke()


def sealed(body: Body, by: Party, **members: Any) -> bytes:
    """The file of this body, sealed by a party."""
    claims = {"digest": body.digest(), "iat": NOW + 3_600} | members
    return EvidenceFile(body=body, seal=by.sign(EvidenceSeal, EVIDENCE_AUDIENCE, **claims)).to_bytes()


class Evidence:
    """One whole file, and ways to get changed ones."""

    def __init__(self, case: Case | None = None) -> None:
        self.case = case or a_case()
        self.gathered = gathered_from(self.case)
        self.body = body_of(self.gathered)
        self.data = sealed(self.body, self.case.patient)
        self.members: Members = self.body.model_dump(mode="json", exclude_none=True)

    def changed(self, change: Callable[[Members], None], *, by: Party | None = None) -> bytes:
        """The file with its body changed, and sealed anew by the patient (or somebody else)."""
        members = copy.deepcopy(self.members)
        change(members)
        return sealed(Body.model_validate_json(canonical_json(members)), by or self.case.patient)

    def tampered(self, change: Callable[[Members], None]) -> bytes:
        """The file with its body changed under the seal of before."""
        members: Members = {"body": copy.deepcopy(self.members), "seal": self.seal}
        change(members["body"])
        return canonical_json(members)

    @property
    def seal(self) -> str:
        return self.file.seal

    @property
    def file(self) -> EvidenceFile:
        return EvidenceFile.model_validate_json(self.data)

    def log_at(self, service: str) -> int:
        """The place of a service's log in the file."""
        return next(place for place, log in enumerate(self.members["logs"]) if log["service"] == service)
