"""Bodies of the records service."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from shared import wire
from shared.schemas.common import Accepted, Body, Cursor
from shared.schemas.examples import example
from shared.schemas.proxy import MAX_SEALED_SHARE
from shared.statements import Denial, DisclosureRequest, Grant, Manifest, ReencryptionRequest, Revocation

MAX_BATCH = 100
MAX_INLINE_BODY = 74_000
"""Bytes of ciphertext that live in the database: 64 KiB of content, its padding of at most 12 %, and tags."""
MAX_HEADER = 16_384
MAX_GRANTS_SHOWN = 100
"""Grants shown beside the request they answer; a patient may answer one request as often as it likes."""
MAX_BODY_CHARS = (MAX_INLINE_BODY * 4 + 2) // 3


class RecordIn(Body):
    """One version of one record. Without `body` the ciphertext must have been put under `/v1/blobs` before."""

    manifest: str = Field(min_length=100, max_length=Manifest.max_size, description="JWS, `pcehr-manifest+jwt`.")
    capsule: wire.CapsuleB64
    wrapped_key: wire.WrappedKeyB64
    header: Annotated[wire.B64, Field(max_length=MAX_HEADER)] = Field(description="The encrypted header.")
    body: Annotated[wire.B64, Field(max_length=MAX_BODY_CHARS)] | None = Field(
        default=None, description="The ciphertext, where it is small enough to live in the database."
    )


class RecordsIn(Body):
    """A batch of records of one patient; all are accepted or none."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"records": [example("record")]}]})
    records: list[RecordIn] = Field(min_length=1, max_length=MAX_BATCH)


class RecordsAccepted(Body):
    """One answer for each manifest, in the order of the batch."""

    items: list[Accepted] = Field(max_length=MAX_BATCH)


class RecordOut(Body):
    """One version of one record, as stored. Everything in it is either signed or encrypted; verify it."""

    manifest: str
    capsule: wire.CapsuleB64
    wrapped_key: wire.WrappedKeyB64
    header: str
    body: str | None = Field(
        default=None, description="The ciphertext, unless it is large (then GET /v1/blobs/{sha256}) or not asked for."
    )
    authority: str | None = Field(
        default=None, description="The grant under which an author other than the patient wrote it."
    )


class RecordPage(Body):
    """One page of records, oldest first."""

    items: list[RecordOut] = Field(max_length=MAX_BATCH)
    next: Cursor | None = None


class PastVersion(Body):
    """What an earlier version of a record says of itself; enough to check that the later one was allowed."""

    manifest: str = Field(description="JWS, `pcehr-manifest+jwt`.")
    authority: str | None = Field(
        default=None, description="The grant under which an author other than the patient wrote it."
    )


class PastVersionPage(Body):
    """One page of the versions before one, oldest first."""

    items: list[PastVersion] = Field(max_length=MAX_BATCH)
    next: Cursor | None = None


class RequestIn(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"statement": example("disclosure_request")}]})
    statement: str = Field(
        min_length=100, max_length=DisclosureRequest.max_size, description="JWS, `pcehr-disclosure-request+jwt`."
    )


class RequestState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"


class RequestOut(Body):
    """A disclosure request and what became of it."""

    id: wire.Hash
    statement: str
    state: RequestState
    received_at: wire.Time
    denial: str | None = Field(default=None, description="JWS, `pcehr-denial+jwt`.")
    grants: list[wire.Hash] = Field(
        default_factory=list, max_length=MAX_GRANTS_SHOWN, description="Grants that answer this request, newest first."
    )


class RequestPage(Body):
    items: list[RequestOut] = Field(max_length=100)
    next: Cursor | None = None


class DenialIn(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"statement": example("denial")}]})
    statement: str = Field(min_length=100, max_length=Denial.max_size, description="JWS, `pcehr-denial+jwt`.")


class RevocationIn(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"statement": example("revocation")}]})
    statement: str = Field(min_length=100, max_length=Revocation.max_size, description="JWS, `pcehr-revocation+jwt`.")


class SealedShare(Body):
    """One proxy's kfrags, sealed to that proxy: the records service cannot look inside."""

    proxy: wire.Did
    sealed: Annotated[wire.B64, Field(max_length=MAX_SEALED_SHARE)]


class GrantIn(Body):
    """A grant and, where it allows reading, the sealed share of each proxy it names."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "grant": example("grant"),
                    "shares": [{"proxy": example("proxy_did"), "sealed": example("sealed_share")}],
                }
            ]
        }
    )
    grant: str = Field(min_length=100, max_length=Grant.max_size, description="JWS, `pcehr-grant+jwt`.")
    shares: list[SealedShare] = Field(default_factory=list, max_length=wire.MAX_SHARES)


class GrantState(StrEnum):
    """`pending` until `t` proxies have stored their share, `active` from then on, `complete` when all have."""

    PENDING = "pending"
    ACTIVE = "active"
    COMPLETE = "complete"
    EXPIRED = "expired"
    REVOKED = "revoked"


class GrantProxyOut(Body):
    """How far one proxy is with a grant."""

    did: wire.Did
    stored: str | None = Field(default=None, description="The proxy's receipt for storing its share.")
    erased: str | None = Field(default=None, description="The proxy's receipt for the revocation.")
    problem: str | None = Field(default=None, description="Code of the last failed delivery, while it is retried.")


class GrantOut(Body):
    """A grant and what became of it. Believe the receipts, not the state: verify them."""

    id: wire.Hash
    grant: str
    state: GrantState
    received_at: wire.Time
    proxies: list[GrantProxyOut] = Field(max_length=wire.MAX_SHARES)
    revocation: str | None = Field(default=None, description="JWS, `pcehr-revocation+jwt`.")
    disclosed: int = Field(description="How many record versions have been disclosed under this grant so far.")


class GrantPage(Body):
    items: list[GrantOut] = Field(max_length=100)
    next: Cursor | None = None


class DisclosureIn(Body):
    """A recipient's signed re-encryption request. `exclude` names proxies whose answers did not verify."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"request": example("reencryption_request")}]})
    request: str = Field(
        min_length=100, max_length=ReencryptionRequest.max_size, description="JWS, `pcehr-reencryption-request+jwt`."
    )
    exclude: list[wire.Did] = Field(default_factory=list, max_length=wire.MAX_SHARES)


class CfragOut(Body):
    """One proxy's cfrag for one record."""

    proxy: wire.Did
    cfrag: wire.CfragB64


class DisclosedRecord(Body):
    """One record version with the cfrags that, together with the recipient's key, open it."""

    record: RecordOut
    cfrags: list[CfragOut] = Field(max_length=wire.MAX_SHARES)


class ReceiptFrom(Body):
    proxy: wire.Did
    receipt: str


class DisclosureOut(Body):
    """The records asked for, in the order of the request, and the proxies' receipts."""

    grant: wire.Hash
    records: list[DisclosedRecord] = Field(max_length=wire.MAX_CAPSULES)
    receipts: list[ReceiptFrom] = Field(max_length=wire.MAX_SHARES)


class BlobStored(Body):
    """A ciphertext was stored durably under its SHA-256."""

    sha256: wire.Hash
    size: int = Field(description="Bytes.")


class NoticeOut(Body):
    """The data of one server-sent event; its number is the event's id and its kind the event's type.

    A hint where to look. It proves nothing: what it is about is a signed statement, which is fetched and verified.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"at": 1767225600, "other": example("recipient_did"), "grant": example("grant_id"), "count": 3}
            ]
        }
    )
    at: wire.Time
    other: wire.Did = Field(description="The party on the other side.")
    request: wire.Hash | None = Field(default=None, description="The disclosure request it is about.")
    grant: wire.Hash | None = Field(default=None, description="The grant it is about.")
    count: int | None = Field(default=None, ge=1, description="How many records it is about.")
