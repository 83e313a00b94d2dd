"""Routes of a proxy: parse, call one use case, return."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

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
from shared.crypto.errors import BadSignature, KeyFragRejected, MalformedKeyMaterial
from shared.encoding import b64url
from shared.errors import (
    DatabaseUnavailable,
    Malformed,
    PcehrError,
    Refused,
    RegistryUnavailable,
    Unauthenticated,
    Unavailable,
)
from shared.identity import BrokenChain, ChainRolledBack
from shared.registry_client import UnknownParty
from shared.schemas.common import MAX_PAGE
from shared.schemas.proxy import (
    AuditEvent,
    AuditPage,
    Identity,
    KfragsIn,
    ReceiptOut,
    ReencryptionIn,
    ReencryptionOut,
    RevocationIn,
)
from shared.statements import StatementExpired, StatementFromTheFuture, WrongAudience, WrongSigner
from shared.web.access import Authorized
from shared.web.problems import responses

TAGS = [
    {"name": "shares", "description": "Take a share of a grant, use it, erase it. The signed statement authorises."},
    {"name": "proxy", "description": "Who this proxy is, and what it has done."},
]

BODY_LIMITS = {
    "POST /v1/kfrags": 320 * 1024,
    "POST /v1/reencryptions": 128 * 1024,
    "POST /v1/revocations": 16 * 1024,
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
    summary="The caller's events, newest first",
    response_model=AuditPage,
    responses=responses(Malformed, Unauthenticated, DatabaseUnavailable, RegistryUnavailable),
)
async def audit(
    request: Request,
    caller: Authorized,
    cursor: Annotated[str | None, Query(max_length=256, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> AuditPage:
    """What the caller has done or tried, and what others have done or tried under grants of the caller's."""
    rows, following = await _service(request).audit_of(caller.did, cursor, limit)
    return AuditPage(
        items=[
            AuditEvent(
                seq=seq,
                at=row.at,
                event=row.event,
                actor=row.actor,
                grant=row.grant,
                statement=row.statement,
                outcome=row.outcome,
                capsules=row.capsules,
            )
            for seq, row in rows
        ],
        next=following,
    )
