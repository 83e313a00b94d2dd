"""Notices that lie. They prove nothing, so that the worst they can do is to make somebody look."""

from __future__ import annotations

import asyncio
import json
import time

from client.notices import Notice, follow
from tests.attacks.stage import Stage
from tests.attacks.table import NOTICES, RECIPIENT, RECORDS, attack
from tests.attacks.table import PATIENT as OWNER
from tests.e2e.actors import Actor

STREAM = "GET /v1/me/events"


def told(kind: str, other: str, **of: object) -> bytes:
    """One notice as it comes over the wire."""
    data = json.dumps({"at": int(time.time()), "other": other, **of})
    return f"id: 1\n\nid: 2\nevent: {kind}\ndata: {data}\n\n".encode()


async def hear(stage: Stage, actor: Actor) -> Notice | None:
    """The first notice; in a control run nobody says anything."""
    if stage.lie.idle:
        return None
    async with asyncio.timeout(10):
        async for notice in follow(actor.session):
            return notice
    return None


@attack(
    NOTICES,
    RECORDS,
    "tells a recipient that a grant was revoked that was not; the recipient looks and reads on",
    by=RECIPIENT,
)
async def revoked(stage: Stage) -> list[str]:
    reader, grant = await stage.machine(stage.cast.doctor), stage.cast.reading
    stage.lie.answer("records", STREAM, lambda asked: told("revoked", stage.cast.owner.did, grant=grant.id))
    await hear(stage, reader)
    assert (await reader.recipient.grant(grant.id)).live
    return await stage.fetch(reader, grant)


@attack(
    NOTICES,
    RECORDS,
    "tells a recipient of a grant that nobody gave; the recipient looks and does not find it",
    by=RECIPIENT,
)
async def granted(stage: Stage) -> list[str]:
    reader = await stage.machine(stage.cast.stranger)
    stage.lie.answer(
        "records", STREAM, lambda asked: told("granted", stage.cast.owner.did, grant=stage.cast.reading.id)
    )
    await hear(stage, reader)
    assert [one.id for one in await reader.recipient.grants()] == [stage.cast.over.id]
    return []


@attack(NOTICES, RECORDS, "tells a recipient that an ended grant is active; it stays ended", by=RECIPIENT)
async def active(stage: Stage) -> list[str]:
    reader, grant = await stage.machine(stage.cast.doctor), stage.cast.ended
    stage.lie.answer("records", STREAM, lambda asked: told("active", stage.cast.owner.did, grant=grant.id))
    await hear(stage, reader)
    assert not (await reader.recipient.grant(grant.id)).live
    return []


@attack(
    NOTICES, RECORDS, "tells a patient of a request that nobody made; the patient looks and does not find it", by=OWNER
)
async def requested(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.neighbour)
    false = told("requested", stage.cast.stranger.did, request=stage.cast.reading.id)
    stage.lie.answer("records", STREAM, lambda asked: false)
    await hear(stage, owner)
    assert [one.id for one in await owner.patient.inbox()] == [stage.cast.asked_nextdoor]
    return []
