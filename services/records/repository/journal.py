"""Statements seen, and the log of events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from services.records.errors import JtiReused
from services.records.models import Statement
from services.records.repository.rows import insert_rows
from shared.db import log
from shared.db.log import LoggedEvent, NewEvent
from shared.statements import Verified


class Journal:
    """`logged` says whether this transaction has written an event, so that there is something to be sequenced."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self.logged = False

    async def accept(self, statements: Sequence[Verified[Any]], now: int) -> tuple[dict[str, int], set[str]]:
        """Write down that these statements are being accepted.

        Returns when each, by id, was first accepted, and the ids of those that are new and must now have their
        effect. Waits for another transaction that is accepting the same statement. Raises `JtiReused`.
        """
        rows = {
            (statement.payload.iss, statement.payload.jti, statement.id): {
                "issuer": statement.payload.iss,
                "jti": statement.payload.jti,
                "id": statement.id,
                "kind": statement.payload.typ,
                "received_at": now,
            }
            for statement in statements
        }
        # In order of the key, so that two transactions never wait for each other.
        command = insert_rows(Statement, [rows[key] for key in sorted(rows)]).on_conflict_do_nothing()
        new = set(await self._session.scalars(command.returning(Statement.id)))
        if len(new) == len(rows):
            return dict.fromkeys(new, now), new
        keys = [(issuer, jti) for issuer, jti, _ in rows]
        seen = await self._session.execute(
            select(Statement.id, Statement.received_at).where(tuple_(Statement.issuer, Statement.jti).in_(keys))
        )
        received = {row.id: row.received_at for row in seen}
        if any(statement.id not in received for statement in statements):
            raise JtiReused
        return received, new

    async def received_at(self, statement: Verified[Any]) -> int | None:
        """When this statement was accepted, if it was; raises `JtiReused` if another one of its `jti` was."""
        row = await self._session.get(Statement, (statement.payload.iss, statement.payload.jti))
        if row is None:
            return None
        if row.id != statement.id:
            raise JtiReused
        return row.received_at

    async def log(self, events: Iterable[NewEvent]) -> None:
        """Write events into their subjects' chains and into the log; once in a transaction, after all else but the
        notices."""
        if await log.append_events(self._session, list(events)):
            self.logged = True

    async def events(self, subject: str, before: int | None, limit: int) -> list[LoggedEvent]:
        """A party's chain of events, newest first, from the one after number `before` on."""
        return await log.events(self._session, subject, before, limit)

    async def erase_events(self, subject: str, upto: int) -> None:
        """Erase the texts of a party's events up to this number; what the log holds of them stays."""
        await log.erase(self._session, subject, upto)
