"""Routes of a proxy: parse, call one use case, return."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from services.proxy.errors import (
    CapsuleMismatch,
    CapsuleNotGranted,
    GrantEnded,
    GrantExpired,
    GrantNotYetValid,
    GrantRevoked,
    GrantTakenBack,
    JtiReused,
    NotEnrolled,
    NotForThisProxy,
    NotGranted,
    UnknownGrant,
)
from services.proxy.service import ProxyService
from services.proxy.witness import Witness
from shared.crypto.errors import BadSignature, KeyFragRejected, MalformedKeyMaterial
from shared.encoding import b64url
from shared.errors import (
    DatabaseUnavailable,
    Malformed,
    PcehrError,
    QuotaExceeded,
    Refused,
    RegistryUnavailable,
    Unauthenticated,
    Unavailable,
)
from shared.identity import BrokenChain, ChainRolledBack
from shared.registry_client import UnknownParty
from shared.schemas.common import MAX_PAGE
from shared.schemas.events import ErasureIn, LogEventOut, LogEventPage
from shared.schemas.log import EXAMPLE_CHECKPOINT, EXAMPLE_COSIGNATURE, WitnessedCheckpoint, WitnessedCheckpoints
from shared.schemas.proxy import (
    Identity,
    KfragsIn,
    ReceiptOut,
    ReencryptionIn,
    ReencryptionOut,
    RevocationIn,
)
from shared.statements import StatementExpired, StatementFromTheFuture, WrongAudience, WrongSigner
from shared.transparency.errors import (
    ConsistencyNotProven,
    MalformedSubmission,
    NotSignedByLog,
    StaleSize,
    UnknownLog,
)
from shared.transparency.witnessing import MAX_SUBMISSION_BYTES
from shared.web.access import Authorized
from shared.web.log import MEDIA_TYPE as LOG_MEDIA_TYPE
from shared.web.problems import responses
from shared.witness_client import SIZE_TYPE

TAGS = [
    {"name": "shares", "description": "Take a share of a grant, use it, erase it. The signed statement authorises."},
    {"name": "witness", "description": "Cosign the logs of registry and records service (C2SP tlog-witness)."},
    {"name": "proxy", "description": "Who this proxy is, and what it has done."},
]

BODY_LIMITS = {
    "POST /v1/kfrags": 320 * 1024,
    "POST /v1/reencryptions": 128 * 1024,
    "POST /v1/revocations": 16 * 1024,
    "POST /v1/witness/add-checkpoint": MAX_SUBMISSION_BYTES,
}
"""Bytes; each is the longest statement of its kind, and what goes with it, with room for JSON."""

_STATEMENT_ERRORS: tuple[type[PcehrError], ...] = (
    Malformed,
    MalformedKeyMaterial,
    BrokenChain,
    WrongSigner,
    UnknownParty,
    ChainRolledBack,
    JtiReused,
    BadSignature,
    StatementFromTheFuture,
    DatabaseUnavailable,
    RegistryUnavailable,
)

router = APIRouter(prefix="/v1")


def _service(request: Request) -> ProxyService:
    service: ProxyService = request.app.state.service
    return service


def _witness(request: Request) -> Witness:
    witness: Witness = request.app.state.witness
    return witness


@router.post(
    "/kfrags",
    tags=["shares"],
    summary="Take this proxy's share of a grant",
    response_model=ReceiptOut,
    responses=responses(
        *_STATEMENT_ERRORS,
        StatementExpired,
        NotForThisProxy,
        GrantExpired,
        GrantRevoked,
        Refused,
        KeyFragRejected,
        QuotaExceeded,
        Unavailable,
    ),
)
async def store_kfrags(request: Request, body: KfragsIn) -> ReceiptOut:
    """The receipt says `stored`. The same grant posted again gets the same receipt."""
    return ReceiptOut(receipt=await _service(request).store_share(body.grant, body.sealed))


@router.post(
    "/reencryptions",
    tags=["shares"],
    summary="Re-encrypt capsules for the recipient of a grant",
    response_model=ReencryptionOut,
    responses=responses(
        *_STATEMENT_ERRORS,
        StatementExpired,
        UnknownGrant,
        NotGranted,
        GrantNotYetValid,
        GrantEnded,
        GrantTakenBack,
        CapsuleNotGranted,
        WrongAudience,
        CapsuleMismatch,
        Unavailable,
    ),
)
async def reencrypt(request: Request, body: ReencryptionIn) -> ReencryptionOut:
    """All capsules or none. The receipt says `reencrypted` and lists the hashes of the cfrags."""
    answer = await _service(request).reencrypt(body.request, body.capsules)
    return ReencryptionOut(receipt=answer.receipt, cfrags=[b64url(cfrag) for cfrag in answer.cfrags])


@router.post(
    "/revocations",
    tags=["shares"],
    summary="Erase this proxy's share of a grant",
    response_model=ReceiptOut,
    responses=responses(*_STATEMENT_ERRORS),
)
async def revoke(request: Request, body: RevocationIn) -> ReceiptOut:
    """The receipt says `erased`, also when there was nothing to erase: a share that comes later is refused."""
    return ReceiptOut(receipt=await _service(request).revoke(body.revocation))


@router.post(
    "/witness/add-checkpoint",
    tags=["witness"],
    summary="Have a checkpoint cosigned",
    response_class=PlainTextResponse,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "text/plain": {
                    "schema": {"type": "string", "maxLength": MAX_SUBMISSION_BYTES},
                    "example": f"old 0\n\n{EXAMPLE_CHECKPOINT}",
                }
            },
        }
    },
    responses={
        200: {
            "description": "The witness's signature line (C2SP tlog-cosignature).",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": EXAMPLE_COSIGNATURE}},
        },
        **responses(MalformedSubmission, NotSignedByLog, UnknownLog, ConsistencyNotProven, DatabaseUnavailable),
        409: {
            "description": "The size last cosigned is not the old one named, or has another root: its decimal.",
            "content": {SIZE_TYPE: {"schema": {"type": "string"}, "example": "2\n"}},
        },
    },
)
async def add_checkpoint(request: Request) -> PlainTextResponse:
    """Everybody may hand in what the log has signed; the cosignature says that this proxy has seen the log grow to
    it and from nothing else. It is stored before it is answered."""
    try:
        line = await _witness(request).add_checkpoint(await request.body())
    except StaleSize as stale:
        return PlainTextResponse(f"{stale.size}\n", status_code=stale.status, media_type=SIZE_TYPE)
    return PlainTextResponse(line, media_type=LOG_MEDIA_TYPE)


@router.get(
    "/witness/checkpoints",
    tags=["witness"],
    summary="What this witness has cosigned last",
    response_model=WitnessedCheckpoints,
    responses=responses(DatabaseUnavailable),
)
async def witnessed_checkpoints(request: Request) -> WitnessedCheckpoints:
    """The newest checkpoint of each log, with the log's signature: two that do not fit are proof against the log."""
    return WitnessedCheckpoints(
        items=[
            WitnessedCheckpoint(origin=origin, checkpoint=note)
            for origin, note in await _witness(request).checkpoints()
        ]
    )


@router.get(
    "/identity",
    tags=["proxy"],
    summary="Who this proxy is",
    response_model=Identity,
    responses=responses(DatabaseUnavailable, NotEnrolled),
)
async def identity(request: Request) -> Identity:
    """Its id, its chain of keys, and the Umbral implementation at work."""
    card = await _service(request).card()
    return Identity(did=card.did, entries=card.entries, engine=card.engine)


@router.get(
    "/audit",
    tags=["proxy"],
    summary="The caller's log, newest first",
    response_model=LogEventPage,
    responses=responses(Malformed, Unauthenticated, DatabaseUnavailable, RegistryUnavailable),
)
async def audit(
    request: Request,
    caller: Authorized,
    cursor: Annotated[str | None, Query(max_length=256, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="The most events on the page.")] = 50,
) -> LogEventPage:
    """What was done and refused under grants of the caller's, and what the caller did that concerns no patient. Reading
    is an event itself."""
    events, following = await _service(request).events_of(caller.did, cursor, limit)
    return LogEventPage(items=[LogEventOut.of(event) for event in events], next=following)


@router.post(
    "/audit/erasures",
    tags=["proxy"],
    summary="Have the texts of the caller's log erased",
    status_code=204,
    response_class=Response,
    responses=responses(*_STATEMENT_ERRORS, Unauthenticated, StatementExpired, WrongAudience),
)
async def erase_events(request: Request, body: ErasureIn, caller: Authorized) -> Response:
    """Text and salt of the events up to a number go; their commitments stay, so that the log stays whole."""
    await _service(request).erase_events(caller.did, body.statement)
    return Response(status_code=204)
