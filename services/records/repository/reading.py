"""Reading records: by their patient, by those who hold grants, and for disclosure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, and_, case, literal, null, or_, select, type_coerce
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from services.records.models import Blob, Disclosed, GrantRow, Record, RecordVersion
from services.records.repository import visibility


@dataclass(frozen=True)
class StoredVersion:
    """One version as it is stored; binary members in base64url. `number` is its place in the list it was read for."""

    number: int
    record: str
    version: int
    manifest: str
    scope: str
    epoch: int
    capsule_hash: str
    capsule: str
    wrapped_key: str
    header: str
    body: str | None
    authority: str | None


@dataclass(frozen=True)
class StoredBody:
    """Where a body is: in the database (`inline`, base64url) or, where that is absent, in the blob store."""

    size: int
    inline: str | None


class Reading:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def newest(self, patient: str, *, after: int | None, limit: int, content: bool) -> list[StoredVersion]:
        """The newest version of each record of a patient, oldest record first."""
        query = (
            _versions(Record.number, content=RecordVersion.body if content else null())
            .join(Record, and_(Record.patient == RecordVersion.patient, Record.id == RecordVersion.record))
            .where(Record.patient == patient, RecordVersion.version == Record.version, Record.number > (after or 0))
            .order_by(Record.number)
            .limit(limit)
        )
        return [_stored(row) for row in await self._session.execute(query)]

    async def granted(
        self, grant: str, *, patient: str, openable: bool, after: int | None, limit: int
    ) -> list[StoredVersion]:
        """Of each record that a grant covers, the newest version it covers, without bodies, oldest record first.

        With `openable` a version counts as covered if the proxies would re-encrypt its capsule under the grant.
        """
        condition = visibility.opened if openable else visibility.covered
        newest = (
            select(RecordVersion.version)
            .where(
                RecordVersion.patient == Record.patient,
                RecordVersion.record == Record.id,
                condition(literal(grant, GrantRow.id.type)),
            )
            .order_by(RecordVersion.version.desc())
            .limit(1)
            .correlate(Record)
            .scalar_subquery()
        )
        query = (
            _versions(Record.number, content=null())
            .join(Record, and_(Record.patient == RecordVersion.patient, Record.id == RecordVersion.record))
            .where(Record.patient == patient, Record.number > (after or 0), RecordVersion.version == newest)
            .order_by(Record.number)
            .limit(limit)
        )
        return [_stored(row) for row in await self._session.execute(query)]

    async def visible_versions(
        self, record: str, caller: str, now: int, *, after: int | None, limit: int
    ) -> list[StoredVersion]:
        """The versions of a record that the caller may see, oldest first; with bodies those that are its own, as the
        patient or as the author. Others get bodies by disclosure only."""
        own = or_(RecordVersion.patient == caller, RecordVersion.author == caller)
        query = (
            _versions(RecordVersion.version, content=case((own, RecordVersion.body)))
            .where(
                # The id is unique across patients; the head is what says so, and what leads to the versions' key.
                RecordVersion.patient == select(Record.patient).where(Record.id == record).scalar_subquery(),
                RecordVersion.record == record,
                RecordVersion.version > (after or 0),
                visibility.visible_to(caller, now),
            )
            .order_by(RecordVersion.version)
            .limit(limit)
        )
        return [_stored(row) for row in await self._session.execute(query)]

    async def with_capsules(self, patient: str, capsules: Collection[str]) -> list[StoredVersion]:
        """The versions of a patient's records with these capsules, with bodies; at most one for each."""
        query = _versions(RecordVersion.number, content=RecordVersion.body).where(
            RecordVersion.patient == patient, RecordVersion.capsule_hash.in_(list(capsules))
        )
        return [_stored(row) for row in await self._session.execute(query)]

    async def body_for(self, caller: str, sha256: str, now: int) -> StoredBody | None:
        """The body, if the caller has uploaded it, or is the patient or the author of a version with it, or has had
        such a version disclosed."""
        own = await self._session.scalar(select(Blob.size).where(Blob.owner == caller, Blob.sha256 == sha256))
        if own is not None:
            return StoredBody(size=own, inline=None)
        row = (
            await self._session.execute(
                select(RecordVersion.size, RecordVersion.body)
                .where(RecordVersion.body_hash == sha256, visibility.body_visible_to(caller, now))
                .limit(1)
            )
        ).first()
        return None if row is None else StoredBody(size=row.size, inline=row.body)

    async def note_disclosed(self, grant: str, patient: str, versions: Iterable[StoredVersion]) -> None:
        """Count these versions as disclosed under the grant, each once."""
        rows = sorted({(version.record, version.version) for version in versions})
        await self._session.execute(
            insert(Disclosed)
            .values(
                [
                    {"grant_id": grant, "patient": patient, "record": record, "version": version}
                    for record, version in rows
                ]
            )
            .on_conflict_do_nothing()
        )


def _versions(number: object, *, content: object) -> Select[*tuple[Any, ...]]:
    """What a `StoredVersion` is made of, with `content` as the body; the grant is that of an author other than the
    patient."""
    authority = aliased(GrantRow)
    return (
        select(
            number.label("number"),  # type: ignore[attr-defined]
            RecordVersion.record,
            RecordVersion.version,
            RecordVersion.manifest,
            RecordVersion.scope,
            RecordVersion.epoch,
            RecordVersion.capsule_hash,
            RecordVersion.capsule,
            RecordVersion.wrapped_key,
            RecordVersion.header,
            type_coerce(content, RecordVersion.body.type).label("body"),
            authority.statement.label("authority"),
        )
        .select_from(RecordVersion)
        .outerjoin(authority, authority.id == RecordVersion.grant_id)
    )


def _stored(row: Row[*tuple[Any, ...]]) -> StoredVersion:
    return StoredVersion(**row._mapping)
