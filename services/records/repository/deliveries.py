"""The outbox: what proxies must still get, who is delivering it, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sqlalchemy import and_, case, delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.records.models import Delivery, GrantProxyRow, GrantRow, RevocationRow

Kind: TypeAlias = Literal["shares", "revocation"]


@dataclass(frozen=True)
class DueDelivery:
    """One message to deliver now, by the worker whose lease it names.

    `statement` is the grant or the revocation in compact form, `statement_id` its id; `sealed` is the share, of a
    grant only. `attempts` counts this one too.
    """

    id: int
    lease: str
    kind: Kind
    grant: str
    patient: str
    proxy: str
    statement: str
    statement_id: str
    sealed: str | None
    attempts: int


@dataclass(frozen=True)
class Waiting:
    """How many messages of a kind wait, and when (seconds since the epoch) the statement of the oldest one came."""

    kind: Kind
    count: int
    oldest_at: int


class Deliveries:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_shares(self, grant: str, sealed: Mapping[str, str]) -> list[int]:
        """Put each proxy's share into the outbox, due at once; returns the ids of the messages."""
        if not sealed:
            return []
        added = await self._session.scalars(
            insert(Delivery)
            .values(
                [
                    {
                        "grant_id": grant,
                        "proxy": proxy,
                        "kind": "shares",
                        "sealed": sealed[proxy],
                        "attempts": 0,
                        "due_at": 0,
                    }
                    for proxy in sorted(sealed)
                ]
            )
            .returning(Delivery.id)
        )
        return list(added)

    async def add_revocation(self, grant: str, proxies: Iterable[str]) -> list[int]:
        """Put the revocation into the outbox for each proxy, due at once; shares not yet delivered are dropped.
        Returns the ids of the messages.

        A delivery of an earlier revocation of the grant that is under way loses its lease, so that its end does not
        pass for the delivery of this one.
        """
        await self._session.execute(delete(Delivery).where(Delivery.grant_id == grant, Delivery.kind == "shares"))
        rows = [
            {"grant_id": grant, "proxy": proxy, "kind": "revocation", "attempts": 0, "due_at": 0}
            for proxy in sorted(proxies)
        ]
        if not rows:
            return []
        added = await self._session.scalars(
            insert(Delivery)
            .values(rows)
            .on_conflict_do_update(
                index_elements=["grant_id", "proxy", "kind"],
                set_={"attempts": 0, "due_at": 0, "lease": None, "leased_until": None},
            )
            .returning(Delivery.id)
        )
        return list(added)

    async def waiting(self) -> list[Waiting]:
        """What waits, by kind; a kind of which nothing waits is absent. One pass over the table, which holds nothing
        but what waits."""
        kinds = (
            select(Delivery.kind, func.count().label("waiting"), func.min(Delivery.id).label("oldest"))
            .group_by(Delivery.kind)
            .subquery()
        )
        rows = await self._session.execute(
            select(
                kinds.c.kind,
                kinds.c.waiting,
                case((kinds.c.kind == "shares", GrantRow.received_at), else_=RevocationRow.received_at).label("at"),
            )
            .join(Delivery, Delivery.id == kinds.c.oldest)
            .join(GrantRow, GrantRow.id == Delivery.grant_id)
            .outerjoin(
                RevocationRow, and_(RevocationRow.issuer == GrantRow.patient, RevocationRow.grant_id == GrantRow.id)
            )
        )
        return [Waiting(row.kind, row.waiting, row.at) for row in rows]

    async def claim(
        self,
        *,
        lease: str,
        now_ms: int,
        lease_ms: int,
        limit: int,
        per_proxy: int,
        under_way: Mapping[str, int],
    ) -> list[DueDelivery]:
        """Take up to `limit` due deliveries that nobody else is about to make, revocations first; the lease ends after
        `lease_ms`. No proxy gets more than `per_proxy`, less those that the worker has `under_way` to it."""
        due = and_(Delivery.due_at <= now_ms, or_(Delivery.leased_until.is_(None), Delivery.leased_until <= now_ms))
        order = (Delivery.kind != "revocation", Delivery.due_at, Delivery.id)
        place = func.row_number().over(partition_by=Delivery.proxy, order_by=order)
        ranked = select(Delivery.id, Delivery.proxy, place.label("place")).where(due).subquery()
        taken = case(dict(under_way), value=ranked.c.proxy, else_=0) if under_way else literal(0)
        free = (
            select(Delivery.id)
            .where(Delivery.id.in_(select(ranked.c.id).where(ranked.c.place + taken <= per_proxy)), due)
            .order_by(*order)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        ids = (await self._session.scalars(free)).all()
        if not ids:
            return []
        await self._session.execute(
            update(Delivery)
            .where(Delivery.id.in_(ids))
            .values(lease=lease, leased_until=now_ms + lease_ms, attempts=Delivery.attempts + 1)
        )
        rows = await self._session.execute(
            select(
                Delivery.id,
                Delivery.kind,
                Delivery.grant_id,
                Delivery.proxy,
                Delivery.sealed,
                Delivery.attempts,
                GrantRow.patient,
                GrantRow.statement.label("grant_statement"),
                RevocationRow.id.label("revocation_id"),
                RevocationRow.statement.label("revocation_statement"),
            )
            .join(GrantRow, GrantRow.id == Delivery.grant_id)
            .outerjoin(
                RevocationRow, and_(RevocationRow.issuer == GrantRow.patient, RevocationRow.grant_id == GrantRow.id)
            )
            .where(Delivery.id.in_(ids))
            .order_by(Delivery.id)
        )
        return [
            DueDelivery(
                id=row.id,
                lease=lease,
                kind=row.kind,
                grant=row.grant_id,
                patient=row.patient,
                proxy=row.proxy,
                statement=row.grant_statement if row.kind == "shares" else row.revocation_statement,
                statement_id=row.grant_id if row.kind == "shares" else row.revocation_id,
                sealed=row.sealed,
                attempts=row.attempts,
            )
            for row in rows
        ]

    async def done(self, delivery: DueDelivery, receipt: str) -> bool:
        """Keep the receipt and drop the message; False, without effect, if the lease has passed to somebody else."""
        if not await self._drop(delivery):
            return False
        stored = {"stored": receipt} if delivery.kind == "shares" else {"erased": receipt}
        await self._update_proxy(delivery, problem=None, **stored)
        return True

    async def refused(self, delivery: DueDelivery, problem: str) -> bool:
        """Drop the message, which the proxy will never take, and say why; False if the lease has passed on."""
        if not await self._drop(delivery):
            return False
        await self._update_proxy(delivery, problem=problem)
        return True

    async def failed(self, delivery: DueDelivery, problem: str, due_at: int) -> bool:
        """Try again at `due_at` (milliseconds since the epoch), and say why; False if the lease has passed on."""
        kept = await self._session.scalars(
            update(Delivery)
            .where(Delivery.id == delivery.id, Delivery.lease == delivery.lease)
            .values(due_at=due_at, lease=None, leased_until=None)
            .returning(Delivery.id)
        )
        if kept.first() is None:
            return False
        await self._update_proxy(delivery, problem=problem)
        return True

    async def _drop(self, delivery: DueDelivery) -> bool:
        dropped = await self._session.scalars(
            delete(Delivery).where(Delivery.id == delivery.id, Delivery.lease == delivery.lease).returning(Delivery.id)
        )
        return dropped.first() is not None

    async def _update_proxy(self, delivery: DueDelivery, **values: str | None) -> None:
        await self._session.execute(
            update(GrantProxyRow)
            .where(GrantProxyRow.grant_id == delivery.grant, GrantProxyRow.proxy == delivery.proxy)
            .values(**values)
        )
