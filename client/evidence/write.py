"""Put what an audit gathered into one evidence file, sealed by the patient."""

from __future__ import annotations

from client.audit.chain import CheckedLog, Proven
from client.audit.gathered import Gathered
from client.errors import InvalidRecord
from client.evidence.file import (
    EVIDENCE_AUDIENCE,
    Body,
    EventEvidence,
    EvidenceFile,
    EvidenceSeal,
    GrantEvidence,
    InclusionEvidence,
    LogEvidence,
    ProofEvidence,
    RequestEvidence,
)
from client.session import Session
from client.verification import verifying
from shared.encoding import b64url


class NothingToProve(InvalidRecord):
    code = "nothing_to_prove"
    title = "No log could be had, so that there is nothing to prove."
    advice = "Repeat the command when the platform is back."


async def write_evidence(session: Session, gathered: Gathered) -> bytes:
    """The bytes of an evidence file, in canonical JSON.

    Raises `NothingToProve` without any log, and a `VerificationFailed` where there is too much for one file.
    """
    if not gathered.logs:
        raise NothingToProve
    body = body_of(gathered)
    seal = await session.sign(EvidenceSeal, EVIDENCE_AUDIENCE, digest=body.digest())
    with verifying():
        return EvidenceFile(body=body, seal=seal.token).to_bytes()


def body_of(gathered: Gathered) -> Body:
    """Everything but the seal, in an order that depends on nothing but the content."""
    return Body(
        v=1,
        type="pcehr-evidence",
        patient=gathered.patient.did,
        began=gathered.began,
        parties={did: tuple(gathered.parties[did].tokens) for did in sorted(gathered.parties)},
        witnesses=gathered.witnesses,
        witness_faults=gathered.witness_faults,
        requests=tuple(
            RequestEvidence(
                request=request.statement.token, denial=None if request.denial is None else request.denial.token
            )
            for request in gathered.requests
        ),
        grants=tuple(
            GrantEvidence(
                grant=grant.statement.token,
                revocation=None if grant.revocation is None else grant.revocation.token,
                receipts=tuple(receipt.token for receipt in grant.receipts),
                shown=grant.shown,
                revocation_shown=grant.revocation_shown,
            )
            for _, grant in sorted(gathered.grants.items())
        ),
        logs=tuple(_log(log) for _, log in sorted(gathered.logs.items()) if log.proofs),
    )


def _log(log: CheckedLog) -> LogEvidence:
    return LogEvidence(
        service=log.service,
        origin=log.proofs[-1].checkpoint.origin,
        events=tuple(
            EventEvidence(n=one.n, commitment=one.commitment, event=one.text, salt=one.salt)
            for one in reversed(log.events)
        ),
        proofs=tuple(_proof(batch) for batch in log.proofs),
    )


def _proof(batch: Proven) -> ProofEvidence:
    return ProofEvidence(
        checkpoint=batch.checkpoint.format(),
        consistency=tuple(b64url(step) for step in batch.consistency),
        items=tuple(
            InclusionEvidence(n=n, index=str(item.index), path=tuple(b64url(step) for step in item.path))
            for n, item in sorted(batch.items.items())
        ),
    )
