"""Routes of the records service: parse, call one use case, return."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from services.records import errors
from services.records.blobs import BlobStoreUnavailable
from services.records.repository.notices import Notice
from services.records.service import RecordsService
from shared import wire
from shared.crypto.errors import BadSignature, MalformedKeyMaterial
from shared.errors import (
    DatabaseUnavailable,
    Forbidden,
    Malformed,
    NotFound,
    QuotaExceeded,
    Refused,
    RegistryUnavailable,
    Unauthenticated,
)
from shared.identity import BrokenChain, ChainRolledBack
from shared.registry_client import UnknownParty
from shared.schemas.common import MAX_PAGE, Accepted, Cursor
from shared.schemas.events import ErasureIn, LogEventPage
from shared.schemas.examples import example
from shared.schemas.records import (
    BlobStored,
    DenialIn,
    DisclosureIn,
    DisclosureOut,
    GrantIn,
    GrantOut,
    GrantPage,
    NoticeOut,
    PastVersionPage,
    RecordPage,
    RecordsAccepted,
    RecordsIn,
    RequestIn,
    RequestPage,
    RevocationIn,
)
from shared.statements import StatementExpired, StatementFromTheFuture, WrongAudience, WrongSigner
from shared.web.access import Authorized
from shared.web.problems import responses

DESCRIPTION = """\
Keeps ciphertext and consent. It holds no key: what it stores is sealed to keys of the patient's, and what it passes on
opens only with the recipient's. Whatever has consequences is a statement that its issuer has signed.

Every operation needs an access token (`pcehr token --service records`); paste it under *Authorize*. The statements in
the examples show the form; statements of your own come from your client, which is where your keys are.
"""

TAGS = [
    {"name": "records", "description": "Write and read sealed records; large bodies go by their SHA-256."},
    {"name": "consent", "description": "Ask for disclosure, answer, and take an answer back."},
    {"name": "disclosure", "description": "Have records re-encrypted for the holder of a grant."},
    {"name": "events", "description": "Be told of what concerns you, as it happens."},
    {"name": "audit", "description": "What happened to your data and your consent."},
]

MAX_BATCH_BYTES = 13 * 2**20
MAX_GRANT_BYTES = 2**20

_READING = (Unauthenticated, RegistryUnavailable, DatabaseUnavailable)
_STATEMENT = (
    *_READING,
    Malformed,
    MalformedKeyMaterial,
    BrokenChain,
    ChainRolledBack,
    UnknownParty,
    Forbidden,
    WrongSigner,
    BadSignature,
    StatementExpired,
    StatementFromTheFuture,
    errors.JtiReused,
)


def body_limits(max_blob_bytes: int) -> dict[str, int]:
    """Bytes that a body may have, by operation; the others have the bound that all services share."""
    return {
        "POST /v1/records": MAX_BATCH_BYTES,
        "POST /v1/grants": MAX_GRANT_BYTES,
        "PUT /v1/blobs/": max_blob_bytes,
    }


class RequestBox(StrEnum):
    INBOX = "inbox"
    SENT = "sent"


class GrantBox(StrEnum):
    GIVEN = "given"
    HELD = "held"


def _service(request: Request) -> RecordsService:
    service: RecordsService = request.app.state.service
    return service


Service = Annotated[RecordsService, Depends(_service)]
After = Annotated[Cursor | None, Query(description="`next` of the page before; leave it out for the first page.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="The most entries on the page; there may be fewer.")]
GrantId = Annotated[wire.Hash, Path(description="The grant's id.", examples=[example("grant_id")])]
RecordId = Annotated[
    wire.RecordId, Path(description="The record's id.", examples=["0198f000-0000-7000-8000-000000000001"])
]
BodyHash = Annotated[
    wire.Hash,
    Path(
        description="SHA-256 of the body, in base64url without padding.",
        examples=["47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"],
    ),
]

LastEventId = Annotated[
    int | None,
    Header(ge=0, le=2**63 - 1, description="The id of the last event received, to go on after it.", examples=[17]),
]

_EVENT_EXAMPLE = 'event: revoked\nid: 17\ndata: {"at":1767225600,"other":"did:key:z6Mk…","grant":"…"}\n\n'

router = APIRouter()


@router.post(
    "/v1/records",
    tags=["records"],
    summary="Write records",
    status_code=201,
    response_model=RecordsAccepted,
    responses=responses(
        *_STATEMENT,
        Refused,
        errors.RecordSwapped,
        errors.BlobMissing,
        errors.NotGranted,
        errors.VersionConflict,
        errors.StaleEpoch,
        QuotaExceeded,
    ),
)
async def write_records(body: RecordsIn, caller: Authorized, service: Service) -> RecordsAccepted:
    """Store versions of records of one patient, all or none. Their author is the caller: the patient, or whoever
    holds a grant to `append` or `amend`, which the manifest then names. On `version_conflict` fetch the record and
    sign a version that follows its newest one; on `stale_epoch` seal to the scope's newest key."""
    return RecordsAccepted(items=await service.writing.write(caller, body.records))


@router.get(
    "/v1/me/records",
    tags=["records"],
    summary="My records",
    response_model=RecordPage,
    responses=responses(*_READING, Forbidden, Malformed),
)
async def own_records(
    *,
    caller: Authorized,
    service: Service,
    content: Annotated[bool, Query(description="Whether to add bodies that live in the database.")] = False,
    cursor: After = None,
    limit: Limit = 50,
) -> RecordPage:
    """The newest version of each of the calling patient's records, oldest record first."""
    return await service.reading.own_records(caller, content=content, cursor=cursor, limit=limit)


@router.get(
    "/v1/records",
    tags=["records"],
    summary="Records that a grant covers",
    response_model=RecordPage,
    responses=responses(*_READING, NotFound, Malformed),
)
async def granted_records(
    *,
    caller: Authorized,
    service: Service,
    grant: Annotated[wire.Hash, Query(description="The id of a grant that you hold.", examples=[example("grant_id")])],
    cursor: After = None,
    limit: Limit = 50,
) -> RecordPage:
    """Manifests and headers, without bodies: of each record that the grant covers, the newest version that it
    covers. Under a grant to read, ask for the capsules you want with `POST /v1/disclosures`."""
    return await service.reading.granted_records(caller, grant, cursor=cursor, limit=limit)


@router.get(
    "/v1/records/{record}",
    tags=["records"],
    summary="One record",
    response_model=RecordPage,
    responses=responses(*_READING, NotFound, Malformed),
)
async def record(
    *,
    record: RecordId,
    caller: Authorized,
    service: Service,
    cursor: After = None,
    limit: Limit = 50,
) -> RecordPage:
    """The versions of a record that you may see, oldest first. Bodies come with what is yours, as the patient or as the
    author, where they live in the database; what others wrote you get with `POST /v1/disclosures`."""
    return await service.reading.record(caller, record, cursor=cursor, limit=limit)


@router.get(
    "/v1/records/{record}/history",
    tags=["records"],
    summary="What was before a version",
    response_model=PastVersionPage,
    responses=responses(*_READING, NotFound, Malformed),
)
async def history(
    *,
    record: RecordId,
    version: Annotated[int, Query(ge=1, le=1_000_000, description="A version that you may see.", examples=[2])],
    caller: Authorized,
    service: Service,
    cursor: After = None,
    limit: Limit = 50,
) -> PastVersionPage:
    """The manifests of the versions before this one, oldest first, with the grants of their authors: what it takes to
    check that its author was allowed to write over them. The patient gets all; others get those from the patient's own
    newest version on, and earlier ones only where a grant on the way is limited to the capsule of one of them."""
    return await service.reading.history(caller, record, version, cursor=cursor, limit=limit)


@router.put(
    "/v1/blobs/{sha256}",
    tags=["records"],
    summary="Upload a large body",
    status_code=201,
    response_model=BlobStored,
    responses=responses(*_READING, Malformed, errors.BlobMismatch, BlobStoreUnavailable, QuotaExceeded),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The ciphertext.",
            "content": {
                "application/octet-stream": {
                    "schema": {"type": "string", "format": "binary"},
                    "example": "the ciphertext, as bytes",
                }
            },
        }
    },
)
async def put_blob(sha256: BodyHash, request: Request, caller: Authorized, service: Service) -> BlobStored:
    """Store a ciphertext that is too large for `POST /v1/records`, before the record that names it. The answer comes
    when the bytes would survive a power cut."""
    length = request.headers.get("content-length")
    return await service.bodies.put(caller, sha256, None if length is None else int(length), request.stream())


@router.get(
    "/v1/blobs/{sha256}",
    tags=["records"],
    summary="Fetch a body",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The ciphertext.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        **responses(*_READING, Malformed, NotFound, BlobStoreUnavailable),
    },
)
async def get_blob(sha256: BodyHash, caller: Authorized, service: Service) -> StreamingResponse:
    """The ciphertext of a record of yours, of one that you wrote or uploaded, or of one that has been disclosed to you
    under a grant that still holds. Check its hash."""
    body = await service.bodies.get(caller, sha256)
    headers = {"content-length": str(body.size), "etag": f'"{sha256}"'}
    return StreamingResponse(body.chunks, media_type="application/octet-stream", headers=headers)


@router.post(
    "/v1/disclosure-requests",
    tags=["consent"],
    summary="Ask for disclosure",
    status_code=201,
    response_model=Accepted,
    responses=responses(*_STATEMENT, Refused, errors.StaleKeyEntry, QuotaExceeded),
)
async def request_disclosure(body: RequestIn, caller: Authorized, service: Service) -> Accepted:
    """File a request with a patient. What you ask for and why is sealed to the patient; nobody else can read it."""
    return await service.consents.request(caller, body.statement)


@router.get(
    "/v1/disclosure-requests",
    tags=["consent"],
    summary="Disclosure requests",
    response_model=RequestPage,
    responses=responses(*_READING, Malformed),
)
async def disclosure_requests(
    *,
    caller: Authorized,
    service: Service,
    box: Annotated[RequestBox, Query(description="Addressed to you (`inbox`), or sent by you.")],
    cursor: After = None,
    limit: Limit = 50,
) -> RequestPage:
    """Requests and what became of them, newest first."""
    return await service.reading.requests(caller, inbox=box is RequestBox.INBOX, cursor=cursor, limit=limit)


@router.post(
    "/v1/denials",
    tags=["consent"],
    summary="Deny a request",
    status_code=201,
    response_model=Accepted,
    responses=responses(*_STATEMENT, NotFound, WrongAudience, errors.AlreadyAnswered),
)
async def deny(body: DenialIn, caller: Authorized, service: Service) -> Accepted:
    """Refuse a request that was addressed to you."""
    return await service.consents.deny(caller, body.statement)


@router.post(
    "/v1/grants",
    tags=["consent"],
    summary="Give a grant",
    status_code=201,
    response_model=Accepted,
    responses=responses(
        *_STATEMENT,
        NotFound,
        Refused,
        errors.StaleKeyEntry,
        errors.AlreadyAnswered,
        errors.WiderThanRequested,
        errors.SharesMismatch,
        errors.GrantAlreadyRevoked,
        QuotaExceeded,
    ),
)
async def give_grant(body: GrantIn, caller: Authorized, service: Service) -> Accepted:
    """Consent to a recipient. A grant to read comes with one sealed share for each proxy it names; they are passed on
    at once, and the grant is active when enough proxies have sent a receipt."""
    return await service.consents.grant(caller, body.grant, body.shares)


@router.get(
    "/v1/grants",
    tags=["consent"],
    summary="Grants",
    response_model=GrantPage,
    responses=responses(*_READING, Malformed),
)
async def grants(
    *,
    caller: Authorized,
    service: Service,
    box: Annotated[GrantBox, Query(description="Given by you, or held by you.")],
    cursor: After = None,
    limit: Limit = 50,
) -> GrantPage:
    """Grants and what became of them, newest first, with the proxies' receipts. Verify the receipts."""
    return await service.reading.grants(caller, given=box is GrantBox.GIVEN, cursor=cursor, limit=limit)


@router.get(
    "/v1/grants/{grant}",
    tags=["consent"],
    summary="One grant",
    response_model=GrantOut,
    responses=responses(*_READING, NotFound, Malformed),
)
async def one_grant(grant: GrantId, caller: Authorized, service: Service) -> GrantOut:
    """A grant that you have given or that you hold."""
    return await service.reading.grant(caller, grant)


@router.post(
    "/v1/revocations",
    tags=["consent"],
    summary="Revoke a grant",
    status_code=201,
    response_model=Accepted,
    responses=responses(*_STATEMENT, NotFound, WrongAudience),
)
async def revoke(body: RevocationIn, caller: Authorized, service: Service) -> Accepted:
    """End a grant of yours at once, also one that has not arrived here yet. From now on records carry at least the
    epochs named. The proxies are told until each has sent a receipt."""
    return await service.consents.revoke(caller, body.statement)


@router.post(
    "/v1/disclosures",
    tags=["disclosure"],
    summary="Have records re-encrypted",
    response_model=DisclosureOut,
    responses=responses(
        *_STATEMENT,
        WrongAudience,
        NotFound,
        errors.UnknownGrant,
        errors.NotGranted,
        errors.GrantNotYetValid,
        errors.GrantExpired,
        errors.GrantRevoked,
        errors.CapsuleNotGranted,
        errors.NotEnoughProxies,
    ),
)
async def disclose(body: DisclosureIn, caller: Authorized, service: Service) -> DisclosureOut:
    """The records whose capsules your request names, in its order, each with cfrags of at least as many proxies as
    the grant's threshold. Verify every cfrag and every receipt; ask again with `exclude` where one does not verify."""
    return await service.disclosures.disclose(caller, body.request, body.exclude)


@router.get(
    "/v1/me/audit",
    tags=["audit"],
    summary="My log",
    response_model=LogEventPage,
    responses=responses(*_READING, Forbidden, Malformed),
)
async def audit(caller: Authorized, service: Service, cursor: After = None, limit: Limit = 50) -> LogEventPage:
    """What was done and what was refused, newest first, each event with what proves it. Reading is an event itself."""
    return await service.reading.audit(caller, cursor=cursor, limit=limit)


@router.post(
    "/v1/me/audit/erasures",
    tags=["audit"],
    summary="Have the texts of my log erased",
    status_code=204,
    response_class=Response,
    responses=responses(*_STATEMENT, WrongAudience),
)
async def erase_events(body: ErasureIn, caller: Authorized, service: Service) -> Response:
    """Text and salt of the events up to a number go; their commitments stay, so that the log stays whole."""
    await service.consents.erase_events(caller, body.statement)
    return Response(status_code=204)


@router.get(
    "/v1/me/events",
    tags=["events"],
    summary="What happens, as it happens",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events; the data of each is a `NoticeOut`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENT_EXAMPLE}},
        },
        **responses(*_READING, errors.TooManyStreams),
    },
)
async def events(caller: Authorized, service: Service, last_event_id: LastEventId = None) -> EventSourceResponse:
    """A stream of server-sent events. A patient is told of requests, disclosures, records written by others and the
    ends of grants; a recipient of grants, their becoming active, denials, revocations and ends.

    Without `Last-Event-ID` it begins with what happens from now on; with it, after that event, as far as events are
    still kept (30 days). It ends when an access token would; come back with a new token and the id of the last one.

    Swagger UI waits for the end of the stream before it shows anything; `pcehr watch` shows what happens at once."""
    start = await service.notices.start_of(caller, last_event_id)
    return EventSourceResponse(
        _event_stream(start, service.notices.follow(caller, start)), headers={"X-Accel-Buffering": "no"}
    )


async def _event_stream(start: int, notices: AsyncIterator[Notice | None]) -> AsyncIterator[bytes]:
    # An id without data is no event, yet tells where to go on if the connection is lost before the first one.
    yield format_sse_event(id=str(start))
    async for notice in notices:
        if notice is None:
            yield KEEPALIVE_COMMENT
            continue
        data = NoticeOut(
            at=notice.at, other=notice.other, request=notice.request, grant=notice.grant, count=notice.count
        )
        yield format_sse_event(
            data_str=data.model_dump_json(exclude_none=True), event=notice.kind.value, id=str(notice.number)
        )
