"""Statements seen, and the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.records.errors import JtiReused
from services.records.models import AuditRow, Statement
from shared.statements import Verified


@dataclass(frozen=True)
class AuditEntry:
    """One row of a patient's audit log. `outcome` is `done` or the code of a refusal."""

    patient: str
    at: int
    event: str
    actor: str | None
    grant: str | None = None
    statement: str | None = None
    outcome: str = "done"
    capsules: int = 0


@dataclass(frozen=True)
class AuditSeen(AuditEntry):
    """A row as it is in the log; `number` is its place there."""

    number: int = 0


class Journal:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

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
        command = insert(Statement).values([rows[key] for key in sorted(rows)]).on_conflict_do_nothing()
        new = set(await self._session.scalars(command.returning(Statement.id)))
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

    async def audit(self, entries: Iterable[AuditEntry]) -> None:
        """Append to the audit log."""
        rows = [
            {
                "patient": entry.patient,
                "at": entry.at,
                "event": entry.event,
                "actor": entry.actor,
                "grant_id": entry.grant,
                "statement": entry.statement,
                "outcome": entry.outcome,
                "capsules": entry.capsules,
            }
            for entry in entries
        ]
        if rows:
            await self._session.execute(insert(AuditRow).values(rows))

    async def audit_log(self, patient: str, before: int | None, limit: int) -> list[AuditSeen]:
        """A patient's log, newest first, from the row after number `before` on."""
        query = select(AuditRow).where(AuditRow.patient == patient).order_by(AuditRow.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(AuditRow.seq < before)
        return [
            AuditSeen(
                patient=row.patient,
                at=row.at,
                event=row.event,
                actor=row.actor,
                grant=row.grant_id,
                statement=row.statement,
                outcome=row.outcome,
                capsules=row.capsules,
                number=row.seq,
            )
            for row in await self._session.scalars(query)
        ]
