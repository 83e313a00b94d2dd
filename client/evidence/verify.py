"""Check an evidence file: no network, no database, no state, and no trust in whoever hands it over.

`verify` goes through everything and names every part that does not hold, the first fault first: the form, each party's
chain of keys, each statement and receipt, each log (its checkpoints with their cosignatures, that they extend each
other, every event from 1 on, every inclusion), and last the patient's seal over all of it. Where nothing is wrong, the
logs are compared as the patient's own audit does (`client.audit.story`), so that a finding is proven to anybody.

What no file can prove is who somebody is: compare the patient's DID, the origins of the logs and the witnesses with
what you know of them. That a log keeps no second history is vouched for by the witnesses named.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from client.audit.chain import RECORDS, CheckedLog, Inclusion, LogFault, Proven, check_log
from client.audit.story import Finding, Gap, Material, OwnGrant, tell
from client.evidence.file import (
    Body,
    EvidenceFile,
    EvidenceSeal,
    GrantEvidence,
    LogEvidence,
    RequestEvidence,
    index_of,
    parse_file,
)
from shared.crypto.signing import VerifyKey
from shared.encoding import from_b64url
from shared.errors import PcehrError, Refused
from shared.identity import VerifiedParty, verify_chain
from shared.statements import (
    Denial,
    DisclosureRequest,
    Grant,
    Receipt,
    Revocation,
    Verified,
    expect_audience,
    unverified_issuer,
    verify_stored,
)
from shared.transparency.checkpoints import (
    VerifiedCheckpoint,
    key_of_origin,
    verify_checkpoint,
    verify_cosignatures,
)
from shared.transparency.errors import CheckpointStale, LogReplaced, NotEnoughCosignatures
from shared.transparency.merkle import verify_consistency
from shared.wire import SKEW_SECONDS, Role

MAX_CHECKPOINT_AGE = 86_400
"""Seconds that the quorum's cosignatures may be older than the seal (docs/spec.md section 12)."""


class MissingParty(Refused):
    code = "unknown_party"
    title = "The file does not hold the keys of a party that has signed something in it."


class WrongRole(Refused):
    code = "wrong_role"
    title = "A party has another role than its part in the file."


class KeyEntryUnknown(Refused):
    code = "stale_key_entry"
    title = "A statement names a key-entry that is not in the chain of its party."


class ReceiptForAnother(Refused):
    code = "receipt_invalid"
    title = "A receipt is not one for this grant or its revocation."


class GrantTwice(Refused):
    code = "grant_twice"
    title = "A grant stands in the file twice."


class SealBroken(Refused):
    code = "seal_broken"
    title = "The file is not what the patient has sealed."


class ForeignPatient(Refused):
    code = "foreign_patient"
    title = "The file is another patient's."


@dataclass(frozen=True)
class Fault:
    """One part of the file that does not hold: a stable code, where it stands (as a path of members), a sentence."""

    code: str
    place: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """What a file proves. It `holds` when there is no fault; findings are then proven as well.

    `patient`, `sealed_at` (seconds) and `origins` (by service) say whose, of when and of which logs; they are None or
    empty where that much did not hold.
    """

    faults: tuple[Fault, ...]
    patient: str | None = None
    sealed_at: int | None = None
    origins: dict[str, str] = field(default_factory=dict)
    witnesses: tuple[str, ...] = ()
    events: int = 0
    proven: int = 0
    grants: int = 0
    findings: tuple[Finding, ...] = ()
    gaps: tuple[Gap, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every part of the file verifies."""
        return not self.faults


def verify(data: bytes, *, patient: str | None = None) -> Verdict:
    """Check the bytes of an evidence file; with `patient`, also that it is that party's. Never raises a refusal."""
    try:
        file = parse_file(data)
    except PcehrError as error:
        return Verdict((Fault(error.code, "", error.detail),))
    return _Check(file).verdict(patient)


class _Check:
    def __init__(self, file: EvidenceFile) -> None:
        self._file = file
        self._body: Body = file.body
        self._faults: list[Fault] = []
        self._parties: dict[str, VerifiedParty] = {}
        self._logs: dict[str, CheckedLog] = {}

    def verdict(self, expected: str | None) -> Verdict:
        body = self._body
        for did, tokens in body.parties.items():
            with self._at(f"parties/{did}"):
                self._parties[did] = verify_chain(did, tokens)
        with self._at("patient"):
            self._party(body.patient, Role.PATIENT)
            if expected is not None and expected != body.patient:
                raise ForeignPatient
        for place, request in enumerate(body.requests):
            self._request(f"requests/{place}", request)
        grants: dict[str, OwnGrant] = {}
        for place, evidence in enumerate(body.grants):
            self._grant(f"grants/{place}", evidence, grants)
        seal = self._seal()
        for place, log in enumerate(body.logs):
            self._log(f"logs/{place}", log, None if seal is None else seal.payload.iat)
        logs = self._logs
        if self._faults or seal is None:
            # Whatever is changed breaks the seal too, and says less: it comes last.
            return Verdict(tuple(sorted(self._faults, key=lambda fault: fault.place == "seal")))
        story = tell(
            Material(
                patient=body.patient,
                began=min(body.began, seal.payload.iat),
                now=seal.payload.iat,
                records=logs.get(RECORDS),
                proxies={service: log for service, log in logs.items() if service != RECORDS},
                grants=grants,
            )
        )
        return Verdict(
            (),
            patient=body.patient,
            sealed_at=seal.payload.iat,
            origins={log.service: log.origin for log in body.logs},
            witnesses=body.witnesses,
            events=sum(len(log.events) for log in logs.values()),
            proven=sum(len(log.events) - len(log.unproven) for log in logs.values()),
            grants=len(grants),
            findings=story.findings,
            gaps=story.gaps,
        )

    # --- statements -------------------------------------------------------------------------------------------------

    def _request(self, place: str, evidence: RequestEvidence) -> None:
        with self._at(f"{place}/request"):
            issuer = unverified_issuer(evidence.request, DisclosureRequest)
            recipient = self._party(issuer, Role.RECIPIENT)
            request = verify_stored(evidence.request, DisclosureRequest, recipient)
            expect_audience(request, self._body.patient)
            self._entry(recipient, request.payload.recipient_entry)
            self._entry(self._party(self._body.patient), request.payload.patient_entry)
            if evidence.denial is None:
                return
            with self._at(f"{place}/denial"):
                denial = verify_stored(evidence.denial, Denial, self._party(self._body.patient))
                expect_audience(denial, issuer)
                if denial.payload.request != request.id:
                    raise Refused("The denial is one of another request.")

    def _grant(self, place: str, evidence: GrantEvidence, grants: dict[str, OwnGrant]) -> None:
        with self._at(f"{place}/grant"):
            patient = self._party(self._body.patient)
            grant = verify_stored(evidence.grant, Grant, patient)
            if grant.id in grants:
                raise GrantTwice
            self._entry(patient, grant.payload.patient_entry)
            self._entry(self._party(grant.payload.aud, Role.RECIPIENT), grant.payload.recipient_entry)
            revocation = None
            with self._at(f"{place}/revocation"):
                revocation = self._revocation(evidence, grant, patient)
            receipts = []
            for number, token in enumerate(evidence.receipts):
                with self._at(f"{place}/receipts/{number}"):
                    receipts.append(self._receipt(token, grant, revocation))
            grants[grant.id] = OwnGrant(
                grant, revocation, tuple(receipts), shown=evidence.shown, revocation_shown=evidence.revocation_shown
            )

    def _revocation(
        self, evidence: GrantEvidence, grant: Verified[Grant], patient: VerifiedParty
    ) -> Verified[Revocation] | None:
        if evidence.revocation is None:
            return None
        revocation = verify_stored(evidence.revocation, Revocation, patient)
        if revocation.payload.grant != grant.id:
            raise Refused("The revocation is one of another grant.")
        return revocation

    def _receipt(
        self, token: str, grant: Verified[Grant], revocation: Verified[Revocation] | None
    ) -> Verified[Receipt]:
        proxy = self._party(unverified_issuer(token, Receipt), Role.PROXY)
        receipt = verify_stored(token, Receipt, proxy)
        payload = receipt.payload
        answered = {"stored": grant.id, "erased": None if revocation is None else revocation.id}
        shares = grant.payload.shares
        if shares is None or payload.iss not in {share.did for share in shares.proxies} or payload.grant != grant.id:
            raise ReceiptForAnother
        if payload.act == "reencrypted":
            expect_audience(receipt, grant.payload.aud)
        elif payload.statement != answered[payload.act] or payload.aud != self._body.patient:
            raise ReceiptForAnother
        return receipt

    def _seal(self) -> Verified[EvidenceSeal] | None:
        """The seal; its time is needed before the logs are looked at."""
        seal = None
        with self._at("seal"):
            seal = verify_stored(self._file.seal, EvidenceSeal, self._party(self._body.patient))
            if seal.payload.digest != self._body.digest():
                raise SealBroken
        return seal

    # --- logs -------------------------------------------------------------------------------------------------------

    def _log(self, place: str, evidence: LogEvidence, now: int | None) -> None:
        with self._at(f"{place}/origin"):
            kind, _ = key_of_origin(evidence.origin)
            if (kind == RECORDS) != (evidence.service == RECORDS) or kind == "registry":
                raise LogReplaced("The log is one of another kind of service.")
            if evidence.service != RECORDS:
                self._party(evidence.service, Role.PROXY)
        proven: list[Proven] = []
        before: VerifiedCheckpoint | None = None
        for number, batch in enumerate(evidence.proofs):
            with self._at(f"{place}/proofs/{number}"):
                checkpoint = verify_checkpoint(batch.checkpoint, evidence.origin)
                if evidence.service == RECORDS:
                    self._witnessed(checkpoint, now)
                if before is not None:
                    path = [from_b64url(step, 32) for step in batch.consistency]
                    verify_consistency(before.size, before.root, checkpoint.size, checkpoint.root, path)
                elif batch.consistency:
                    raise Refused("The first checkpoint extends none in this file.")
                before = checkpoint
                items: dict[int, Inclusion] = {}
                for item in batch.items:
                    if item.n in items or any(item.n in earlier.items for earlier in proven):
                        raise Refused(f"Event {item.n} is proven twice.")
                    items[item.n] = Inclusion(index_of(item.index), tuple(from_b64url(step, 32) for step in item.path))
                proven.append(Proven(checkpoint, items))
        with self._at(f"{place}/events"):
            self._logs[evidence.service] = check_log(evidence.service, self._body.patient, evidence.events, proven)

    def _witnessed(self, checkpoint: VerifiedCheckpoint, now: int | None) -> None:
        """Enough witnesses have cosigned, not long before the seal: more than (n + k) / 2 of n of which k may lie.

        One whose keys are not in the file vouches for nothing, and is one of the n all the same.
        """
        keys = {did: self._keys_of(did) for did in self._body.witnesses}
        stamps = verify_cosignatures(checkpoint.format(), keys)
        needed = (len(keys) + self._body.witness_faults) // 2 + 1 if keys else 0
        if len(stamps) < needed:
            raise NotEnoughCosignatures
        # Without a seal there is no time to hold them against; that the seal is broken is a fault of its own.
        if now is not None:
            current = [at for at in stamps.values() if now - MAX_CHECKPOINT_AGE <= at <= now + SKEW_SECONDS]
            if len(current) < needed:
                raise CheckpointStale

    def _keys_of(self, witness: str) -> frozenset[VerifyKey]:
        if witness not in self._body.parties:
            return frozenset()
        return frozenset(VerifyKey.from_bytes(key) for key in self._party(witness, Role.PROXY).all_identity_keys)

    # --- how --------------------------------------------------------------------------------------------------------

    def _party(self, did: str, role: Role | None = None) -> VerifiedParty:
        party = self._parties.get(did)
        if party is None:
            raise MissingParty
        if role is not None and party.role is not role:
            raise WrongRole
        return party

    def _entry(self, party: VerifiedParty, entry_id: str) -> None:
        if party.entry(entry_id) is None:
            raise KeyEntryUnknown

    @contextmanager
    def _at(self, place: str) -> Iterator[None]:
        """A refusal within is a fault at this place, and the rest is looked at all the same."""
        try:
            yield
        except PcehrError as error:
            n = error.n if isinstance(error, LogFault) else None
            self._faults.append(Fault(error.code, place if n is None else f"{place}/{n}", error.detail))
