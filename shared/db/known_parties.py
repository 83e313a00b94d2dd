"""Where a service keeps the chains of keys it has seen, so that a rolled-back chain is noticed across restarts."""

from __future__ import annotations

from sqlalchemy import Integer, select
from sqlalchemy.dialects.postgresql import ARRAY, TEXT, insert
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.base import Did
from shared.db.engine import Database


class KnownParty:
    """Columns of the table; a service declares `class Party(KnownParty, Base)` over its own metadata."""

    __tablename__ = "known_parties"

    did: Mapped[Did] = mapped_column(primary_key=True)
    length: Mapped[int] = mapped_column(Integer)
    entries: Mapped[list[str]] = mapped_column(ARRAY(TEXT))


class DatabasePartyStore:
    """The table behind `shared.registry_client.PartyDirectory`.

    What is kept was verified before; a shorter chain never replaces a longer one, also when two replicas write at once.
    """

    def __init__(self, database: Database, table: type[KnownParty]) -> None:
        self._database = database
        self._table = table

    async def load(self, did: str) -> list[str] | None:
        """The longest chain seen of this party, oldest entry first, or None."""
        async with self._database.reading() as session:
            return await session.scalar(select(self._table.entries).where(self._table.did == did))

    async def save(self, did: str, entries: list[str]) -> None:
        """Keep a chain unless one at least as long is kept already."""
        row = insert(self._table).values(did=did, length=len(entries), entries=entries)
        row = row.on_conflict_do_update(
            index_elements=["did"],
            set_={"length": row.excluded.length, "entries": row.excluded.entries},
            where=self._table.length < row.excluded.length,
        )
        async with self._database.transaction() as session:
            await session.execute(row)
