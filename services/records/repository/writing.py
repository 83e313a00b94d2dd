"""Writing records: heads, versions, floors and bodies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.records.domain import Head, Parts
from services.records.models import Blob, GrantCapsule, Record, RecordVersion, ScopeFloor
from services.records.repository.rows import among, given, insert_rows
from shared.db import locks
from shared.encoding import from_b64url
from shared.statements import Manifest, Verified


@dataclass(frozen=True)
class NewVersion:
    """A version that has passed every check."""

    manifest: Verified[Manifest]
    parts: Parts


class Writing:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def keep_floors(self, patient: str, scopes: Collection[str]) -> dict[str, int]:
        """The floor of each scope, which nobody can raise before this transaction ends; a revocation that waits to do
        so already is first."""
        await locks.share(self._session, _locks_of(patient, scopes))
        found = await self._session.execute(
            select(ScopeFloor.scope, ScopeFloor.epoch).where(
                ScopeFloor.patient == patient, among(ScopeFloor.scope, scopes)
            )
        )
        return dict.fromkeys(scopes, 0) | {row.scope: row.epoch for row in found}

    async def raise_floors(self, patient: str, floors: Mapping[str, int]) -> None:
        """Raise floors to at least these epochs, once nobody writes under them; a floor never falls."""
        if not floors:
            return
        await locks.take(self._session, _locks_of(patient, floors))
        command = insert_rows(
            ScopeFloor, [{"patient": patient, "scope": scope, "epoch": epoch} for scope, epoch in floors.items()]
        )
        await self._session.execute(
            command.on_conflict_do_update(
                index_elements=["patient", "scope"],
                set_={"epoch": func.greatest(ScopeFloor.epoch, command.excluded.epoch)},
            )
        )

    async def lock_heads(self, records: Collection[str]) -> dict[str, Head]:
        """The heads of those of the records that exist, which nobody else can move before this transaction ends."""
        rows = await self._session.execute(
            select(Record.id, Record.patient, Record.version, Record.head)
            .where(among(Record.id, records))
            .order_by(Record.id)
            .with_for_update(key_share=True)
        )
        return {row.id: Head(row.patient, row.version, row.head) for row in rows}

    async def scopes_of(self, patient: str, versions: Collection[tuple[str, int]]) -> dict[tuple[str, int], str]:
        """The scope of each version that exists, by record and version."""
        rows = await self._session.execute(
            select(RecordVersion.record, RecordVersion.version, RecordVersion.scope).where(
                RecordVersion.patient == patient,
                tuple_(RecordVersion.record, RecordVersion.version).in_(list(versions)),
            )
        )
        return {(row.record, row.version): row.scope for row in rows}

    async def listed_records(
        self, patient: str, grants: Collection[str], records: Collection[str]
    ) -> set[tuple[str, int, str]]:
        """Which limited entries of the grants list a capsule of which record: (grant, entry, record)."""
        rows = await self._session.execute(
            select(GrantCapsule.grant_id, GrantCapsule.entry, RecordVersion.record)
            .join(RecordVersion, RecordVersion.capsule_hash == GrantCapsule.capsule_hash)
            .where(
                GrantCapsule.grant_id.in_(list(grants)),
                RecordVersion.patient == patient,
                RecordVersion.record.in_(list(records)),
            )
            .distinct()
        )
        return {(row.grant_id, row.entry, row.record) for row in rows}

    async def create_heads(self, patient: str, heads: Mapping[str, Head]) -> bool:
        """Make the heads of new records; False if an id is taken, also by a transaction that ends meanwhile."""
        if not heads:
            return True
        rows = [
            {"id": record, "patient": patient, "version": heads[record].version, "head": heads[record].manifest_id}
            for record in sorted(heads)
        ]
        command = insert_rows(Record, rows).on_conflict_do_nothing()
        made = await self._session.scalars(command.returning(Record.id))
        return len(made.all()) == len(heads)

    async def move_heads(self, heads: Mapping[str, Head]) -> None:
        """Move heads that this transaction has locked."""
        if not heads:
            return
        moved = given(
            Record, [{"id": id_, "version": head.version, "head": head.manifest_id} for id_, head in heads.items()]
        ).c
        await self._session.execute(
            update(Record)
            .where(Record.id == moved.id)
            .values(version=moved.version, head=moved.head)
            .execution_options(synchronize_session=False)
        )

    async def add_versions(self, versions: Sequence[NewVersion], now: int) -> bool:
        """Add versions; False if the patient has one with the capsule of one of them already, also by a transaction
        that ends meanwhile."""
        rows: list[dict[str, object]] = []
        for version in versions:
            manifest = version.manifest.payload
            rows.append(
                {
                    "patient": manifest.aud,
                    "record": manifest.record,
                    "version": manifest.version,
                    "manifest_id": version.manifest.id,
                    "manifest": version.manifest.token,
                    "author": manifest.iss,
                    "grant_id": manifest.grant,
                    "scope": manifest.scope,
                    "epoch": manifest.epoch,
                    "capsule_hash": manifest.capsule,
                    "capsule": version.parts.capsule,
                    "wrapped_key": version.parts.wrapped_key,
                    "header": version.parts.header,
                    "body_hash": manifest.body,
                    "size": manifest.size,
                    "body": version.parts.body,
                    "received_at": now,
                }
            )
        # In one order for all, as two transactions with the same capsules would wait for each other otherwise.
        rows.sort(key=lambda row: from_b64url(str(row["capsule_hash"])))
        added = await self._session.scalars(
            insert_rows(RecordVersion, rows)
            .on_conflict_do_nothing(index_elements=["patient", "capsule_hash"])
            .returning(RecordVersion.number)
        )
        return len(added.all()) == len(rows)

    async def blob_sizes(self, owner: str, hashes: Collection[str]) -> dict[str, int]:
        """Sizes in bytes of those of the bodies that `owner` has put into the blob store."""
        rows = await self._session.execute(
            select(Blob.sha256, Blob.size).where(Blob.owner == owner, Blob.sha256.in_(list(hashes)))
        )
        return {row.sha256: row.size for row in rows}

    async def add_blob(self, owner: str, sha256: str, size: int, now: int) -> bool:
        """Note that `owner` has put a body into the blob store, where it is by now; False if that was noted before."""
        row = {"owner": owner, "sha256": sha256, "size": size, "stored_at": now}
        command = insert(Blob).values(row).on_conflict_do_nothing().returning(Blob.size)
        return await self._session.scalar(command) is not None

    async def take_into_records(self, owner: str, hashes: Collection[str]) -> int:
        """Note that these bodies are in records of the owner's; returns the bytes of those that were in none before."""
        if not hashes:
            return 0
        # In order of the key, so that two transactions never wait for each other.
        waiting = (
            select(Blob.sha256)
            .where(Blob.owner == owner, Blob.sha256.in_(list(hashes)), Blob.in_record.is_(False))
            .order_by(Blob.sha256)
            .with_for_update()
        )
        taken = await self._session.scalars(
            update(Blob)
            .where(Blob.owner == owner, Blob.sha256.in_(waiting))
            .values(in_record=True)
            .returning(Blob.size)
        )
        return sum(taken)


def _locks_of(patient: str, scopes: Iterable[str]) -> list[str]:
    return [f"scope {patient} {scope}" for scope in scopes]
