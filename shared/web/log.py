"""Routes of a service's transparency log. They need its `shared.db.log.Log` in `app.state.log`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse

from shared.db.log import LeafUnknown, Log
from shared.encoding import b64url, from_b64url
from shared.errors import DatabaseUnavailable, Malformed
from shared.schemas.log import (
    EXAMPLE_CHECKPOINT,
    MAX_ENTRIES,
    MAX_SIZE,
    ConsistencyOut,
    EntriesOut,
    Inclusion,
    InclusionIn,
    InclusionOut,
)
from shared.transparency.errors import NoSuchTree, NotInLogYet
from shared.web.problems import responses

TAG = {
    "name": "log",
    "description": "The service's append-only log: what is not in it is not done, and nobody can be shown another one.",
}
BODY_LIMITS = {"POST /v1/log/inclusion": 16 * 1024}
"""Bytes; 200 hashes take 9,200."""
MEDIA_TYPE = "text/plain; charset=utf-8"

_COMMON = (NotInLogYet, DatabaseUnavailable)


def _log(request: Request) -> Log:
    log: Log | None = getattr(request.app.state, "log", None)
    if log is None:
        raise NotInLogYet
    return log


TheLog = Annotated[Log, Depends(_log)]

router = APIRouter(prefix="/v1/log", tags=["log"])
"""What every service has."""

entries_router = APIRouter(prefix="/v1/log", tags=["log"])
"""What the registry has besides."""


@router.get(
    "/checkpoint",
    summary="The newest checkpoint",
    response_class=PlainTextResponse,
    responses={
        200: {
            "description": "A signed note (C2SP tlog-checkpoint) with the witnesses' cosignatures.",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": EXAMPLE_CHECKPOINT}},
        },
        **responses(*_COMMON),
    },
)
async def checkpoint(log: TheLog) -> PlainTextResponse:
    """The size and root of the published tree, signed by the service and cosigned by the proxies, its witnesses."""
    return PlainTextResponse(await log.checkpoint(), media_type=MEDIA_TYPE)


@router.get(
    "/consistency",
    summary="Prove that the log only grew",
    response_model=ConsistencyOut,
    responses=responses(NoSuchTree, *_COMMON),
)
async def consistency(
    *,
    log: TheLog,
    old: Annotated[
        int, Query(alias="from", ge=0, le=MAX_SIZE, description="The size of the earlier tree.", examples=[1])
    ],
    new: Annotated[
        int, Query(alias="to", ge=0, le=MAX_SIZE, description="The size of the later, published tree.", examples=[2])
    ],
) -> ConsistencyOut:
    """The proof (RFC 6962 section 2.1.2) that the tree of `to` leaves begins with that of `from` leaves; both are at
    most the size of the published checkpoint."""
    return ConsistencyOut(path=[b64url(item) for item in await log.consistency(old, new)])


@router.post(
    "/inclusion",
    summary="Prove that leaves are in the log",
    response_model=InclusionOut,
    responses=responses(LeafUnknown, Malformed, *_COMMON),
)
async def inclusion(body: InclusionIn, log: TheLog) -> InclusionOut:
    """For up to 200 leaf hashes, in one answer: the published checkpoint, the proof that it extends the tree you
    know, and each leaf's place and audit path. On `not_in_log_yet` repeat the request a little later."""
    proven = await log.inclusion([from_b64url(leaf, 32) for leaf in body.leaves], body.size)
    return InclusionOut(
        checkpoint=proven.checkpoint,
        consistency=[b64url(item) for item in proven.consistency],
        items=[Inclusion(index=index, path=[b64url(item) for item in path]) for index, path in proven.items],
    )


@entries_router.get(
    "/entries",
    summary="What the log holds",
    response_model=EntriesOut,
    responses=responses(*_COMMON),
)
async def entries(
    *,
    log: TheLog,
    start: Annotated[int, Query(ge=0, le=MAX_SIZE, description="The place of the first leaf, from 0.", examples=[0])],
    limit: Annotated[int, Query(ge=1, le=MAX_ENTRIES, description="The most leaves in the answer.")] = MAX_ENTRIES,
) -> EntriesOut:
    """The data of consecutive leaves under the published checkpoint, from which a party that watches recomputes the
    root: `label || statement id` for every key accepted."""
    size, items = await log.entries(start, limit)
    return EntriesOut(size=size, items=[b64url(item) for item in items])
