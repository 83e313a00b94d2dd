"""Records services with a race in them, for the checker to find: each function is a factory of one.

Between the look and the write they wait a moment, so that the race shows on a fast machine too.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from sqlalchemy import select

from services.records.domain import Asked
from services.records.main import create
from services.records.models import GrantRow, RequestRow
from services.records.repository.requests import LockedRequest, Requests
from services.records.service.disclosures import Disclosures
from shared.wire import Action

WINDOW_SECONDS = 0.1


def without_second_look() -> FastAPI:
    """What leaves is written down without a last look at the grant."""

    async def write_down(self: Any, repository: Any, found: Any, request: Any, entry: Any) -> None:
        await asyncio.sleep(WINDOW_SECONDS)
        _, new = await repository.journal.accept([request], self._statements.clock())
        if new:
            await repository.reading.note_disclosed(found.terms.id, found.terms.patient, found.versions)
            await repository.journal.log([entry])

    Disclosures._write_down = write_down  # type: ignore[method-assign]
    return create()


def without_lock_on_requests() -> FastAPI:
    """A denial and a grant of one request look at it without keeping each other from it."""

    async def lock(self: Any, request: str) -> LockedRequest | None:
        row = await self._session.get(RequestRow, request)
        granted = await self._session.scalar(select(GrantRow.id).where(GrantRow.request == request).limit(1))
        if row is None:
            return None
        await asyncio.sleep(WINDOW_SECONDS)
        actions = frozenset(Action(action) for action in row.actions)
        asked = Asked(row.patient, row.recipient, actions, row.purpose, row.expires_at)
        return LockedRequest(asked=asked, denied=row.denial is not None, granted=granted is not None)

    Requests.lock = lock  # type: ignore[method-assign]
    return create()
