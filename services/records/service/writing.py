"""Writing records: a batch is accepted as a whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.records import quotas
from services.records.domain import (
    Before,
    Head,
    Parts,
    Terms,
    check_author,
    check_floor,
    check_parts,
    check_succession,
)
from services.records.errors import BlobMissing, RecordSwapped, VersionConflict
from services.records.repository import Repository
from services.records.repository.notices import NewNotice, NoticeKind
from services.records.repository.writing import NewVersion
from services.records.service.statements import Statements, accepted
from shared.db.log import NewEvent
from shared.errors import Forbidden, Refused
from shared.schemas.common import Accepted
from shared.schemas.records import RecordIn
from shared.statements import Manifest, Verified
from shared.tokens import Caller
from shared.wire import Role

EVENT = "record_written"


class Writing:
    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def write(self, caller: Caller, batch: Sequence[RecordIn]) -> list[Accepted]:
        """Store a batch of records of one patient and answer for each manifest, in order.

        Raises `WrongSigner`, `Refused`, `RecordSwapped`, `MalformedKeyMaterial`, `BlobMissing`, `VersionConflict`,
        `StaleEpoch`, `NotGranted`, `QuotaExceeded` or `JtiReused`; nothing has been stored then.
        """
        versions = []
        for record in batch:
            manifest, author = await self._statements.verified(caller, record.manifest, Manifest)
            if manifest.payload.iss == manifest.payload.aud and author.role is not Role.PATIENT:
                raise Forbidden("Only a patient has records of its own.")
            parts = Parts(record.capsule, record.wrapped_key, record.header, record.body)
            versions.append(NewVersion(manifest, parts))
        patient = versions[0].manifest.payload.aud
        if any(version.manifest.payload.aud != patient for version in versions):
            raise Refused("The manifests of one batch name one patient.")
        refusal = _entry(versions, self._statements.clock())
        async with self._statements.noting_refusals(refusal):
            # Parsing a hundred capsules takes long enough to be worth a thread.
            await asyncio.to_thread(_check_parts, versions)
            async with self._statements.store.transaction() as repository:
                now = self._statements.clock()
                received, new = await repository.journal.accept([version.manifest for version in versions], now)
                fresh = list({v.manifest.id: v for v in versions if v.manifest.id in new}.values())
                if fresh:
                    await _store(repository, patient, fresh, now)
        return [accepted(version.manifest, received[version.manifest.id]) for version in versions]


async def _store(repository: Repository, patient: str, versions: Sequence[NewVersion], now: int) -> None:
    manifests = [version.manifest for version in versions]
    grants = {manifest.payload.grant for manifest in manifests if manifest.payload.grant is not None}
    terms: dict[str, Terms] = {}
    if grants:
        # What is acknowledged as written was written while the grant held.
        await repository.grants.keep_as_they_are(grants)
        terms = await repository.grants.terms(grants)
    floors = await repository.writing.keep_floors(patient, {manifest.payload.scope for manifest in manifests})
    heads = await repository.writing.lock_heads({manifest.payload.record for manifest in manifests})
    before = await _versions_before(repository, patient, manifests, heads)
    created: dict[str, Head] = {}
    moved: dict[str, Head] = {}
    for manifest in manifests:
        payload = manifest.payload
        if payload.iss != patient:
            # Authority first: whether the version fits is nobody's business who may not write it.
            grant = terms.get(payload.grant or "")
            check_author(payload, grant, before.get((payload.record, payload.version)), now)
        check_succession(payload, heads.get(payload.record))
        check_floor(payload, floors[payload.scope])
        heads[payload.record] = head = Head(patient, payload.version, manifest.id)
        (created if payload.version == 1 or payload.record in created else moved)[payload.record] = head
    await _check_bodies(repository, versions)
    author = manifests[0].payload.iss
    if not await repository.writing.create_heads(patient, created):
        raise VersionConflict
    await repository.writing.move_heads(moved)
    uploaded = {version.manifest.payload.body for version in versions if version.parts.body is None}
    await repository.quotas.change(
        {
            (author, quotas.UPLOADS): -await repository.writing.take_into_records(author, uploaded),
            (patient, quotas.VERSIONS): len(versions),
            (patient, quotas.BYTES): sum(manifest.payload.size for manifest in manifests),
        }
    )
    if not await repository.writing.add_versions(versions, now):
        raise RecordSwapped("The capsule is that of another version; each version has a content key of its own.")
    await repository.journal.log(_entry([version], now) for version in versions)
    if author != patient:
        await repository.notices.add([NewNotice(patient, NoticeKind.WRITTEN, now, other=author, count=len(versions))])


async def _versions_before(
    repository: Repository, patient: str, manifests: Sequence[Verified[Manifest]], heads: dict[str, Head]
) -> dict[tuple[str, int], Before]:
    """For each later version by an author other than the patient, what its authority depends on.

    The version before is the one with the number before, or the newest one if there is none of that number, so that
    an author who may amend the record is told of a conflict.
    """
    amends = [m.payload for m in manifests if m.payload.version > 1 and m.payload.iss != patient]
    if not amends:
        return {}
    follows = {
        (amend.record, amend.version): (amend.record, min(amend.version - 1, heads[amend.record].version))
        for amend in amends
        if amend.record in heads
    }
    scopes = await repository.writing.scopes_of(patient, set(follows.values()))
    in_batch = {(m.payload.record, m.payload.version): m.payload.scope for m in manifests}
    grants = {amend.grant for amend in amends if amend.grant is not None}
    listed = await repository.writing.listed_records(patient, grants, {amend.record for amend in amends})
    before = {}
    for amend in amends:
        earlier = (amend.record, amend.version - 1)
        scope = in_batch.get(earlier) or scopes.get(follows.get((amend.record, amend.version), earlier))
        if scope is not None:
            entries = frozenset(
                entry for grant, entry, record in listed if (grant, record) == (amend.grant, amend.record)
            )
            before[amend.record, amend.version] = Before(scope, entries)
    return before


async def _check_bodies(repository: Repository, versions: Sequence[NewVersion]) -> None:
    away = [version.manifest.payload for version in versions if version.parts.body is None]
    if not away:
        return
    sizes = await repository.writing.blob_sizes(away[0].iss, {manifest.body for manifest in away})
    for manifest in away:
        if manifest.body not in sizes:
            raise BlobMissing
        if sizes[manifest.body] != manifest.size:
            raise RecordSwapped


def _check_parts(versions: Sequence[NewVersion]) -> None:
    for version in versions:
        check_parts(version.manifest.payload, version.parts)


def _entry(versions: Sequence[NewVersion], now: int) -> NewEvent:
    """The event that these versions, of one batch, are written or refused; the statement is that of the first."""
    manifest = versions[0].manifest
    return NewEvent(
        subject=manifest.payload.aud,
        at=now,
        event=EVENT,
        actor=manifest.payload.iss,
        grant=manifest.payload.grant,
        statement=manifest.id,
        capsules=tuple(version.manifest.payload.capsule for version in versions),
    )
