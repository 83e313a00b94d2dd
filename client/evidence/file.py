"""What an evidence file holds: canonical JSON (RFC 8785) of a body and the patient's seal over it; version 1.

Everything in the body is signed by somebody or proven by a log. The seal says who put it together and when, so that
nothing can be taken out unnoticed.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from shared import wire
from shared.encoding import b64url, canonical_json, from_canonical_json, sha256
from shared.errors import Malformed, TooLarge
from shared.identity import MAX_CHAIN
from shared.statements import (
    Denial,
    DisclosureRequest,
    Grant,
    KeyEntry,
    Payload,
    Receipt,
    Revocation,
)
from shared.transparency.entries import MAX_EVENT_BYTES, MAX_EVENT_NUMBER
from shared.transparency.merkle import MAX_PATH, MAX_SIZE
from shared.transparency.notes import MAX_NOTE_BYTES
from shared.wire import WireModel

MAX_FILE_BYTES = 64 * 1024 * 1024
"""Some 35,000 events with their proofs."""

MAX_PARTIES = 10_000
MAX_LOGS = 1_000
MAX_STATEMENTS = 100_000
MAX_ITEMS = 1_000_000
MAX_WITNESSES = 1_000
EVIDENCE_AUDIENCE = "urn:pcehr:evidence"

Service = Annotated[str, StringConstraints(pattern=r"^(records|did:key:z[1-9A-HJ-NP-Za-km-z]{40,55})$")]
"""`records`, or the DID of a proxy."""


class EvidenceSeal(Payload):
    """The patient says: this is what I put together, then. `digest` is SHA-256 of the body's canonical JSON."""

    typ = "pcehr-evidence+jwt"
    max_size = 2_048

    aud: Literal["urn:pcehr:evidence"]
    digest: wire.Hash


class GrantEvidence(WireModel):
    """A grant as it was signed, its revocation, and the receipts of its proxies.

    `shown` and `revocation_shown` say whether the records service showed them, or the patient's own memory alone.
    """

    grant: Annotated[str, Field(max_length=Grant.max_size)]
    revocation: Annotated[str, Field(max_length=Revocation.max_size)] | None = None
    receipts: Annotated[tuple[Annotated[str, Field(max_length=Receipt.max_size)], ...], Field(max_length=1_000)]
    shown: bool
    revocation_shown: bool


class RequestEvidence(WireModel):
    """A disclosure request to the patient and, where there is one, the denial."""

    request: Annotated[str, Field(max_length=DisclosureRequest.max_size)]
    denial: Annotated[str, Field(max_length=Denial.max_size)] | None = None


class EventEvidence(WireModel):
    """An event as its service shows it; text and salt are absent once erased."""

    n: Annotated[int, Field(ge=1, le=MAX_EVENT_NUMBER)]
    commitment: wire.Hash
    event: Annotated[str, Field(max_length=MAX_EVENT_BYTES)] | None = None
    salt: wire.Key32 | None = None


class InclusionEvidence(WireModel):
    """Where the leaf of event `n` stands, and its path (RFC 6962 section 2.1.1)."""

    n: Annotated[int, Field(ge=1, le=MAX_EVENT_NUMBER)]
    index: Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,18})$")]
    """In decimal digits: canonical JSON holds no number beyond 2**53."""
    path: Annotated[tuple[wire.Hash, ...], Field(max_length=MAX_PATH)]


class ProofEvidence(WireModel):
    """A checkpoint with its cosignatures, the proof that it extends the checkpoint before, and what it covers."""

    checkpoint: Annotated[str, Field(max_length=MAX_NOTE_BYTES)]
    consistency: Annotated[tuple[wire.Hash, ...], Field(max_length=MAX_PATH)]
    items: Annotated[tuple[InclusionEvidence, ...], Field(max_length=MAX_ITEMS)]


class LogEvidence(WireModel):
    """One log: its origin, the patient's events newest first, and the proofs in the order of the checkpoints."""

    service: Service
    origin: Annotated[str, Field(max_length=200)]
    events: Annotated[tuple[EventEvidence, ...], Field(max_length=MAX_ITEMS)]
    proofs: Annotated[tuple[ProofEvidence, ...], Field(max_length=MAX_ITEMS)]


class Body(WireModel):
    """Everything but the seal."""

    v: Literal[1]
    type: Literal["pcehr-evidence"]
    patient: wire.Did
    began: wire.Time
    """When the gathering of all this began; the seal says when it ended."""
    parties: Annotated[
        dict[
            wire.Did,
            Annotated[
                tuple[Annotated[str, Field(max_length=KeyEntry.max_size)], ...],
                Field(min_length=1, max_length=MAX_CHAIN),
            ],
        ],
        Field(max_length=MAX_PARTIES),
    ]
    """The chain of keys of everybody who signed something in here, oldest entry first."""
    witnesses: Annotated[tuple[wire.Did, ...], Field(max_length=MAX_WITNESSES)]
    """The proxies whose cosignatures the patient relied on."""
    witness_faults: Annotated[int, Field(ge=0, le=MAX_WITNESSES)]
    """How many of them the patient took into account as liars."""
    requests: Annotated[tuple[RequestEvidence, ...], Field(max_length=MAX_STATEMENTS)]
    grants: Annotated[tuple[GrantEvidence, ...], Field(max_length=MAX_STATEMENTS)]
    logs: Annotated[tuple[LogEvidence, ...], Field(max_length=MAX_LOGS)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        services = [log.service for log in self.logs]
        if len(set(services)) != len(services) or len(set(self.witnesses)) != len(self.witnesses):
            raise ValueError("a log and a witness stand in a file once")
        return self

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the body, in base64url."""
        return b64url(sha256(canonical_json(self.model_dump(mode="json", exclude_none=True))))


class EvidenceFile(WireModel):
    """The whole file."""

    body: Body
    seal: Annotated[str, Field(max_length=EvidenceSeal.max_size)]

    def to_bytes(self) -> bytes:
        """The file, in canonical JSON; raises `TooLarge`."""
        data = canonical_json(self.model_dump(mode="json", exclude_none=True))
        if len(data) > MAX_FILE_BYTES:
            raise TooLarge("There is too much for one evidence file.")
        return data


def parse_file(data: bytes) -> EvidenceFile:
    """What a file says, nothing of it verified; raises `TooLarge` or `Malformed`."""
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge(f"An evidence file has at most {MAX_FILE_BYTES} bytes.")
    from_canonical_json(data)
    try:
        file = EvidenceFile.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = "/".join(str(part) for part in first["loc"]) or "the file"
        raise Malformed(f"Not an evidence file of version 1, at {place}: {first['msg']}.") from None
    if file.to_bytes() != data:  # A null for an absent member would be a second spelling.
        raise Malformed("The file holds members that are null.")
    return file


def index_of(text: str) -> int:
    """An index in decimal digits as a number; raises `Malformed` beyond any tree."""
    index = int(text)
    if index > MAX_SIZE:
        raise Malformed("No tree has such an index.")
    return index
