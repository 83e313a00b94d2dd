"""What is kept for one party is bounded: counters beside the rows that they count, changed in the same transaction.

A counter is one row, so that a check costs the same however much there is. Its row is locked until the transaction
ends: two that would both be the last cannot both be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import BigInteger, Text, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.base import Did
from shared.errors import QuotaExceeded


class UsageTable:
    """Columns of the table; a service declares `class Usage(UsageTable, Base)` over its own metadata."""

    __tablename__ = "usage"

    party: Mapped[Did] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    amount: Mapped[int] = mapped_column(BigInteger)


class Bound(NamedTuple):
    """The most of one kind, and what it is called in a refusal."""

    most: int
    name: str


class Quotas:
    """The counters, within the transaction of one session. `bounds` are by kind; a kind without one is only counted."""

    def __init__(self, session: AsyncSession, table: type[UsageTable], bounds: Mapping[str, Bound]) -> None:
        self._session = session
        self._table = table
        self._bounds = bounds

    async def change(self, changes: Mapping[tuple[str, str], int]) -> None:
        """Add to the counters of (party, kind), or take away; raises `QuotaExceeded`, and then the transaction must be
        given up. What is taken away is never refused."""
        # In one order for all, so that two transactions never wait for each other.
        for (party, kind), amount in sorted(changes.items()):
            if amount > 0:
                await self._add(party, kind, amount)
            elif amount < 0:
                await self._session.execute(
                    update(self._table)
                    .where(self._table.party == party, self._table.kind == kind)
                    .values(amount=func.greatest(self._table.amount + amount, 0))
                )

    async def check(self, party: str, kind: str, amount: int = 1) -> None:
        """Raise `QuotaExceeded` where so much more would be too much now; before work that would be in vain."""
        used = await self._session.scalar(
            select(self._table.amount).where(self._table.party == party, self._table.kind == kind)
        )
        bound = self._bounds[kind]
        if (used or 0) + amount > bound.most:
            raise _beyond(bound)

    async def _add(self, party: str, kind: str, amount: int) -> None:
        bound = self._bounds.get(kind)
        row = insert(self._table).values(party=party, kind=kind, amount=amount)
        total = self._table.amount + row.excluded.amount
        row = row.on_conflict_do_update(
            index_elements=["party", "kind"],
            set_={"amount": total},
            where=None if bound is None else total <= bound.most,
        )
        if bound is not None and amount > bound.most:
            raise _beyond(bound)
        if await self._session.scalar(row.returning(self._table.amount)) is None and bound is not None:
            raise _beyond(bound)


def _beyond(bound: Bound) -> QuotaExceeded:
    return QuotaExceeded(f"This platform keeps at most {bound.most} {bound.name}, and there is no room for more.")
