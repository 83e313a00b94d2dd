"""Reading records: by their patient, by those who hold grants, and for disclosure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, and_, case, exists, func, literal, null, or_, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from services.records.models import Blob, Disclosed, GrantCapsule, GrantRow, GrantScopeRow, Record, RecordVersion
from services.records.repository import visibility
from services.records.repository.rows import among, insert_rows


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
class StoredManifest:
    """What one version says of itself, and the grant it was written under; `number` is the version."""

    number: int
    manifest: str
    authority: str | None


@dataclass(frozen=True)
class StoredBody:
    """Where a body is: in the database (`inline`, base64url) or, where that is absent, in the blob store.

    `capsules` are, by patient, the hashes of the capsules of the versions that it is fetched as the body of.
    """

    size: int
    inline: str | None
    capsules: Mapping[str, tuple[str, ...]]


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

    async def patient_of(self, record: str) -> str | None:
        """Whose record it is; None if there is none of this id."""
        patient: str | None = await self._session.scalar(select(Record.patient).where(Record.id == record))
        return patient

    async def capsule_of_visible(self, patient: str, record: str, version: int, caller: str, now: int) -> str | None:
        """The hash of a version's capsule, if the caller may see this version of the patient's record."""
        capsule: str | None = await self._session.scalar(
            select(RecordVersion.capsule_hash).where(
                RecordVersion.patient == patient,
                RecordVersion.record == record,
                RecordVersion.version == version,
                visibility.visible_to(caller, now),
            )
        )
        return capsule

    async def vouched_from(self, patient: str, record: str, version: int) -> int:
        """From which version on a reader other than the patient has to know a record in order to judge `version`.

        From the newest version by the patient on, who vouches for what was before. Where a grant that was written
        under after it is limited to capsules, from the version on that has the capsule listed, if that is earlier.
        """
        own = await self._session.scalar(
            select(func.max(RecordVersion.version)).where(
                RecordVersion.patient == patient,
                RecordVersion.record == record,
                RecordVersion.version <= version,
                RecordVersion.author == patient,
            )
        )
        if own is None:
            return 1
        amended, before, listed = (aliased(RecordVersion) for _ in range(3))
        newest_listed = (
            select(func.max(listed.version).label("version"))
            .select_from(amended)
            .join(GrantScopeRow, GrantScopeRow.grant_id == amended.grant_id)
            .join(
                GrantCapsule,
                and_(GrantCapsule.grant_id == GrantScopeRow.grant_id, GrantCapsule.entry == GrantScopeRow.entry),
            )
            .join(
                before,
                and_(
                    before.patient == amended.patient,
                    before.record == amended.record,
                    before.version == amended.version - 1,
                    before.scope == GrantScopeRow.scope,
                ),
            )
            .join(
                listed,
                and_(
                    listed.patient == amended.patient,
                    listed.capsule_hash == GrantCapsule.capsule_hash,
                    listed.record == amended.record,
                    listed.version < amended.version,
                ),
            )
            .where(
                amended.patient == patient,
                amended.record == record,
                amended.version > own,
                amended.version <= version,
            )
            .group_by(amended.version)
            .subquery()
        )
        first = await self._session.scalar(select(func.min(newest_listed.c.version)))
        return own if first is None else min(own, first)

    async def manifests(
        self, patient: str, record: str, *, first: int, before: int, after: int | None, limit: int
    ) -> list[StoredManifest]:
        """The manifests of versions `first` up to, and without, `before`, oldest first."""
        query = (
            select(RecordVersion.version.label("number"), RecordVersion.manifest, GrantRow.statement.label("authority"))
            .outerjoin(GrantRow, GrantRow.id == RecordVersion.grant_id)
            .where(
                RecordVersion.patient == patient,
                RecordVersion.record == record,
                RecordVersion.version >= first,
                RecordVersion.version < before,
                RecordVersion.version > (after or 0),
            )
            .order_by(RecordVersion.version)
            .limit(limit)
        )
        return [StoredManifest(**row._mapping) for row in await self._session.execute(query)]

    async def with_capsules(self, patient: str, capsules: Collection[str]) -> list[StoredVersion]:
        """The versions of a patient's records with these capsules, with bodies; at most one for each."""
        query = _versions(RecordVersion.number, content=RecordVersion.body).where(
            RecordVersion.patient == patient, among(RecordVersion.capsule_hash, capsules)
        )
        return [_stored(row) for row in await self._session.execute(query)]

    async def body_for(self, caller: str, sha256: str, now: int) -> StoredBody | None:
        """The body, if the caller has uploaded it, or is the patient or the author of a version with it, or has had
        such a version disclosed."""
        own = await self._session.scalar(select(Blob.size).where(Blob.owner == caller, Blob.sha256 == sha256))
        shown = visibility.body_visible_to(caller, now)
        if own is not None:
            # Whoever has uploaded a body gets it back whatever has become of the grants it was written under.
            shown = or_(shown, RecordVersion.author == caller)
        capsules: dict[str, tuple[str, ...]] = {}
        rows = await self._session.execute(
            select(RecordVersion.patient, RecordVersion.capsule_hash)
            .where(RecordVersion.body_hash == sha256, shown)
            .order_by(RecordVersion.number)
        )
        for row in rows:
            capsules[row.patient] = (*capsules.get(row.patient, ()), row.capsule_hash)
        if own is not None:
            return StoredBody(own, None, capsules)
        found = (
            await self._session.execute(
                select(RecordVersion.size, RecordVersion.body)
                .where(RecordVersion.body_hash == sha256, RecordVersion.patient.in_(capsules))
                .limit(1)
            )
        ).first()
        return None if found is None else StoredBody(found.size, found.body, capsules)

    async def granters_of_body(self, caller: str, sha256: str) -> list[str]:
        """The patients who have a version with this body and have ever given the caller a grant."""
        patients = await self._session.scalars(
            select(RecordVersion.patient)
            .where(
                RecordVersion.body_hash == sha256,
                exists().where(GrantRow.patient == RecordVersion.patient, GrantRow.recipient == caller),
            )
            .distinct()
        )
        return list(patients)

    async def note_disclosed(self, grant: str, patient: str, versions: Iterable[StoredVersion]) -> None:
        """Count these versions as disclosed under the grant, each once."""
        rows = [
            {"grant_id": grant, "patient": patient, "record": record, "version": version}
            for record, version in sorted({(version.record, version.version) for version in versions})
        ]
        await self._session.execute(insert_rows(Disclosed, rows).on_conflict_do_nothing())


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
