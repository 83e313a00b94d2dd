"""Disclosure requests and their denials."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.records.domain import Asked
from services.records.models import GrantRow, RequestRow
from shared.db import locks
from shared.schemas.records import MAX_GRANTS_SHOWN
from shared.statements import DisclosureRequest, Verified
from shared.wire import Action


@dataclass(frozen=True)
class StoredRequest:
    """A disclosure request as it is listed, with the newest grants that answer it."""

    number: int
    id: str
    statement: str
    denial: str | None
    expires_at: int
    received_at: int
    grants: list[str]


@dataclass(frozen=True)
class LockedRequest:
    """A disclosure request that nobody else can answer before this transaction ends."""

    asked: Asked
    denied: bool
    granted: bool


class Requests:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, request: Verified[DisclosureRequest], now: int) -> None:
        payload = request.payload
        await self._session.execute(
            insert(RequestRow).values(
                id=request.id,
                patient=payload.aud,
                recipient=payload.iss,
                actions=[action.value for action in payload.actions],
                purpose=payload.purpose.value,
                expires_at=payload.exp,
                statement=request.token,
                received_at=now,
            )
        )

    async def pending(self, recipient: str, patient: str, now: int) -> int:
        """How many requests of a recipient wait for this patient's answer; nobody else can add one to them before this
        transaction ends."""
        await locks.take(self._session, [f"requests {recipient} {patient}"])
        # A statement of its own, so that it sees what was committed while the lock was waited for.
        found = await self._session.scalar(
            select(func.count())
            .select_from(RequestRow)
            .where(
                RequestRow.recipient == recipient,
                RequestRow.patient == patient,
                RequestRow.open,
                RequestRow.expires_at > now,
            )
        )
        return found or 0

    async def lock(self, request: str) -> LockedRequest | None:
        """The request of this id, so that a denial and a grant cannot both believe to be first."""
        row = await self._session.scalar(select(RequestRow).where(RequestRow.id == request).with_for_update())
        if row is None:
            return None
        # A statement of its own, so that it sees what was committed while this one waited for the lock.
        granted = await self._session.scalar(select(GrantRow.id).where(GrantRow.request == request).limit(1))
        asked = Asked(
            patient=row.patient,
            recipient=row.recipient,
            actions=frozenset(Action(action) for action in row.actions),
            purpose=row.purpose,
            expires_at=row.expires_at,
        )
        return LockedRequest(asked=asked, denied=row.denial is not None, granted=granted is not None)

    async def deny(self, request: str, denial: str) -> None:
        """Keep the denial of a request that this transaction has locked."""
        await self._session.execute(update(RequestRow).where(RequestRow.id == request).values(denial=denial))

    async def close(self, request: str) -> int:
        """Note that a request that this transaction has locked waits no longer; 1 if it did, and 0 otherwise."""
        closed = await self._session.scalars(
            update(RequestRow)
            .where(RequestRow.id == request, RequestRow.open)
            .values(open=False)
            .returning(RequestRow.number)
        )
        return len(closed.all())

    async def close_lapsed(self, now: int, limit: int) -> Counter[str]:
        """Note of up to `limit` requests that have lapsed that they wait no longer; returns how many of each recipient.

        A lapsed request can be answered for a minute more, by a client whose clock is slow, which changes nothing.
        """
        lapsed = (
            select(RequestRow.id)
            .where(RequestRow.open, RequestRow.expires_at <= now)
            .order_by(RequestRow.expires_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        closed = await self._session.scalars(
            update(RequestRow).where(RequestRow.id.in_(lapsed)).values(open=False).returning(RequestRow.recipient)
        )
        return Counter(closed)

    async def listed(self, party: str, *, inbox: bool, before: int | None, limit: int) -> list[StoredRequest]:
        """Requests addressed to a party, or sent by it; newest first."""
        newest = (
            select(GrantRow.id)
            .where(GrantRow.request == RequestRow.id)
            .order_by(GrantRow.number.desc())
            .limit(MAX_GRANTS_SHOWN)
            .correlate(RequestRow)
            .subquery()
        )
        grants = select(func.array_agg(newest.c.id)).scalar_subquery()
        query = (
            select(RequestRow, grants)
            .where((RequestRow.patient if inbox else RequestRow.recipient) == party)
            .order_by(RequestRow.number.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(RequestRow.number < before)
        return [
            StoredRequest(
                number=row.number,
                id=row.id,
                statement=row.statement,
                denial=row.denial,
                expires_at=row.expires_at,
                received_at=row.received_at,
                grants=list(answers or []),
            )
            for row, answers in await self._session.execute(query)
        ]
