"""What parties are told about: one numbered row for each notice, and the announcement that it is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.records.models import GrantProxyRow, GrantRow, NoticeHead, NoticeRow

CHANNEL = "notices"
"""What is announced on it is the DID of whoever has something to read."""


class NoticeKind(StrEnum):
    """What has happened. The one told is the patient for the first three, the recipient for the next four."""

    REQUESTED = "requested"
    DISCLOSED = "disclosed"
    WRITTEN = "written"
    GRANTED = "granted"
    ACTIVE = "active"
    DENIED = "denied"
    REVOKED = "revoked"
    EXPIRED = "expired"
    """Both are told."""


@dataclass(frozen=True)
class NewNotice:
    """A notice to `party`; `other` is the one on the other side, `count` the number of records it is about."""

    party: str
    kind: NoticeKind
    at: int
    other: str
    request: str | None = None
    grant: str | None = None
    count: int | None = None


@dataclass(frozen=True)
class Notice(NewNotice):
    """A notice with its number, which counts the party's notices from 1 without a gap."""

    number: int = 0


@dataclass(frozen=True)
class EndedGrant:
    """A grant that has lapsed, at `at`."""

    id: str
    patient: str
    recipient: str
    at: int


class Notices:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, notices: Iterable[NewNotice]) -> None:
        """Number and keep the notices; who listens hears of them when this transaction commits.

        The party's head is locked until then, so that numbers are seen in the order they were given. Call it last.
        """
        waiting = list(notices)
        # In order of the party, so that two transactions never wait for each other.
        for party, count in sorted(Counter(notice.party for notice in waiting).items()):
            head = insert(NoticeHead).values(party=party, last=count)
            head = head.on_conflict_do_update(index_elements=["party"], set_={"last": NoticeHead.last + count})
            last = (await self._session.execute(head.returning(NoticeHead.last))).scalar_one()
            own = [notice for notice in waiting if notice.party == party]
            rows = [
                {
                    "party": party,
                    "number": number,
                    "at": notice.at,
                    "kind": notice.kind.value,
                    "other": notice.other,
                    "request": notice.request,
                    "grant_id": notice.grant,
                    "count": notice.count,
                }
                for number, notice in enumerate(own, start=last - count + 1)
            ]
            await self._session.execute(insert(NoticeRow).values(rows))
            await self._session.execute(
                text("SELECT pg_notify(:channel, :party)"), {"channel": CHANNEL, "party": party}
            )

    async def last(self, party: str) -> int:
        """The number of the party's newest notice; 0 if it has had none."""
        last = await self._session.scalar(select(NoticeHead.last).where(NoticeHead.party == party))
        return last or 0

    async def after(self, party: str, number: int, limit: int) -> list[Notice]:
        """The party's notices after this one that are still kept, oldest first."""
        rows = await self._session.scalars(
            select(NoticeRow)
            .where(NoticeRow.party == party, NoticeRow.number > number)
            .order_by(NoticeRow.number)
            .limit(limit)
        )
        return [
            Notice(
                party=row.party,
                kind=NoticeKind(row.kind),
                at=row.at,
                other=row.other,
                request=row.request,
                grant=row.grant_id,
                count=row.count,
                number=row.number,
            )
            for row in rows
        ]

    async def of_grant_now_active(self, grant: str, now: int) -> list[NewNotice]:
        """The notice that a grant has become active with the receipt just written down, if it has.

        The caller holds the grant's row, so that of two receipts written down at once one sees the other.
        """
        row = await self._session.get(GrantRow, grant)
        stored = await self._session.scalar(
            select(func.count())
            .select_from(GrantProxyRow)
            .where(GrantProxyRow.grant_id == grant, GrantProxyRow.stored.is_not(None))
        )
        if row is None or stored != row.threshold:
            return []
        return [NewNotice(row.recipient, NoticeKind.ACTIVE, now, other=row.patient, grant=grant)]

    async def of_ended_grants(self, now: int, limit: int) -> list[EndedGrant]:
        """Up to `limit` grants that have lapsed and of which nobody was told; now they count as told."""
        # A statement of its own: as a part of the next one it may have Postgres read all grants, mostly to find none.
        # `NOT end_told` as the index says it; from `end_told IS false` Postgres does not infer that the index serves.
        ended = await self._session.scalars(
            select(GrantRow.id)
            .where(~GrantRow.end_told, GrantRow.expires_at <= now)
            .order_by(GrantRow.expires_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        if not (ids := ended.all()):
            return []
        rows = await self._session.execute(
            update(GrantRow)
            .where(GrantRow.id.in_(ids))
            .values(end_told=True)
            .returning(GrantRow.id, GrantRow.patient, GrantRow.recipient, GrantRow.expires_at)
        )
        return [EndedGrant(row.id, row.patient, row.recipient, row.expires_at) for row in rows]

    async def forget_before(self, at: int) -> None:
        """Delete the notices that are older than this; the numbers go on."""
        await self._session.execute(delete(NoticeRow).where(NoticeRow.at < at))
