"""A patient's own records: writing them, checking them, opening them with the delegating keys themselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from client.errors import (
    ClientError,
    RecordRolledBack,
    ServiceRefused,
    ServiceUnreachable,
    UnknownRecord,
    VerificationFailed,
)
from client.history import check_histories
from client.reading import check_all, open_whole, problem_of, summary_of, unverified_summary
from client.records import NewRecord, Placement, new_record_id, open_header, unwrap_as_owner
from client.reports import OpenedRecord, Problem, RecordSummary, StoredRecord
from client.scope_keys import OwnScopes
from client.session import Session
from client.uploads import Progress, upload
from client.verification import VerifiedRecord, check_history
from shared.crypto.record import RecordKey
from shared.errors import PcehrError
from shared.schemas.records import RecordOut

_ATTEMPTS = 3
"""How often an upload is sealed anew because a scope got a newer key in between."""


class OwnRecords:
    """Works for `client.patient.Patient`, which says what each method is for."""

    def __init__(self, session: Session, scopes: OwnScopes) -> None:
        self._session = session
        self._scopes = scopes

    async def add(self, records: list[NewRecord], progress: Progress | None) -> list[StoredRecord]:
        """Store records under new ids."""
        stored: list[StoredRecord] = []

        def note(batch: list[StoredRecord]) -> None:
            stored.extend(batch)
            if progress is not None:
                progress(len(stored), len(records))

        for attempt in range(_ATTEMPTS):
            rest = records[len(stored) :]
            epochs = await self._scopes.ensure([record.scope for record in rest])
            planned = [(record, self._place(record, epochs[record.scope], new_record_id())) for record in rest]
            try:
                await upload(self._session, planned, on_stored=note)
            except ServiceRefused as refused:
                if refused.code != "stale_epoch" or attempt == _ATTEMPTS - 1:
                    raise
                await self._scopes.epochs(fresh=True)
            else:
                break
        return stored

    async def add_first(self, record_id: str, record: NewRecord) -> StoredRecord:
        """Store version 1 of a record whose id is chosen."""
        epoch = (await self._scopes.ensure([record.scope]))[record.scope]
        stored: list[StoredRecord] = []
        await upload(self._session, [(record, self._place(record, epoch, record_id))], on_stored=stored.extend)
        return stored[0]

    async def add_after(self, before: VerifiedRecord, record: NewRecord) -> StoredRecord:
        """Store the version that follows `before`, with a newer key of the scope if the service asks for one."""
        stored: list[StoredRecord] = []
        for attempt in range(_ATTEMPTS):
            epoch = (await self._scopes.ensure([record.scope]))[record.scope]
            placement = self._place(record, epoch, before.manifest.payload.record, before)
            try:
                await upload(self._session, [(record, placement)], on_stored=stored.extend)
            except ServiceRefused as refused:
                if refused.code != "stale_epoch" or attempt == _ATTEMPTS - 1:
                    raise
                await self._scopes.epochs(fresh=True)
            else:
                break
        return stored[0]

    async def summaries(self) -> list[RecordSummary]:
        """All records with their headers, or with the problem that keeps one closed."""
        session = self._session
        me = await session.me()
        found: list[RecordSummary] = []
        async for page in session.platform.my_records(await session.credentials()):
            checked = await check_histories(session, await check_all(session, page, me), me)
            found += await asyncio.to_thread(self._summarise, page, checked)
        session.state.save_if_changed()
        return [summary for summary in found if summary.record_id != session.keyring.settings_record_id]

    async def manifests(self) -> list[VerifiedRecord]:
        """All records but the settings, verified and not opened; those that do not verify are left out."""
        session = self._session
        me = await session.me()
        found: list[VerifiedRecord] = []
        async for page in session.platform.my_records(await session.credentials()):
            for record in await check_histories(session, await check_all(session, page, me), me):
                if isinstance(record, VerifiedRecord):
                    with contextlib.suppress(RecordRolledBack):
                        session.state.note_record(record.manifest)
                        found.append(record)
        session.state.save_if_changed()
        settings_id = session.keyring.settings_record_id
        return [record for record in found if record.manifest.payload.record != settings_id]

    async def versions(self, record_id: str, *, wanted: int | None = None) -> list[VerifiedRecord]:
        """All versions of one record, verified, a complete chain up to what was seen before.

        Each must have been its author's to write. Where one does not hold and only an earlier one is `wanted`, those
        up to that one are returned, so that what was there before can still be read. Raises `UnknownRecord`,
        `UnauthorisedAuthor` or another `VerificationFailed`, `RecordRolledBack` where a version seen before is missing.
        """
        session = self._session
        try:
            shown = await session.platform.record_versions(await session.credentials(), record_id)
        except ServiceRefused as refused:
            if refused.status not in (404, 422):
                raise
            if session.state.has_seen_record(session.did, record_id):
                raise RecordRolledBack("A record seen before is not shown any more.") from None
            raise UnknownRecord from None
        versions: list[VerifiedRecord] = []
        problem: Problem | None = None
        for record in await check_all(session, shown, await session.me()):
            if isinstance(record, Problem):
                problem = record
                break
            versions.append(record)
        if any(version.manifest.payload.record != record_id for version in versions) or not shown:
            raise UnknownRecord
        try:
            if problem is not None:
                raise VerificationFailed.from_code(problem.code, problem.detail)
            check_history([version.as_version for version in versions], complete=True)
        except VerificationFailed:
            if wanted is None or wanted > len(versions):
                raise
            check_history([version.as_version for version in versions[:wanted]], complete=True)
            return versions[:wanted]
        session.state.note_record(versions[-1].manifest)
        session.state.save_if_changed()
        return versions

    async def open(self, record: VerifiedRecord, large_to: Path | None = None) -> OpenedRecord:
        """Header and body of one record."""
        name, key = self._key_of(record)
        return await open_whole(self._session, record, key, scope=name, large_to=large_to)

    async def export(
        self,
        progress: Progress | None,
        *,
        wanted: set[str] | None,
        problems: list[Problem] | None,
        large_to: Path | None,
    ) -> list[OpenedRecord]:
        """All records opened, or those in the scopes with the ids `wanted`."""
        session = self._session
        me = await session.me()
        pages = [page async for page in session.platform.my_records(await session.credentials(), content=True)]
        total, done = sum(map(len, pages)), 0
        opened: list[OpenedRecord] = []
        for page in pages:
            checked = await check_histories(session, await check_all(session, page, me), me)
            for shown, record in zip(page, checked, strict=True):
                try:
                    opened += await self._export_one(shown, record, wanted, large_to)
                except ClientError as error:
                    if problems is None or _concerns_all(error):
                        raise
                    problems.append(problem_of(error, record_id=_record_id(record)))
                done += 1
                if progress is not None:
                    progress(done, total)
        session.state.save_if_changed()
        return opened

    async def _export_one(
        self, shown: RecordOut, record: VerifiedRecord | Problem, wanted: set[str] | None, large_to: Path | None
    ) -> list[OpenedRecord]:
        """The record opened, or nothing where it is not asked for."""
        if isinstance(record, Problem):
            if wanted is not None and unverified_summary(shown, record).scope_id not in wanted:
                return []
            raise VerificationFailed.from_code(record.code, record.detail)
        payload = record.manifest.payload
        if payload.record == self._session.keyring.settings_record_id:
            return []
        if wanted is not None and payload.scope not in wanted:
            return []
        opened = await self.open(record, large_to)
        self._session.state.note_record(record.manifest)
        return [opened]

    def _place(self, record: NewRecord, epoch: int, record_id: str, before: VerifiedRecord | None = None) -> Placement:
        return Placement(
            patient=self._session.did,
            scope_id=self._session.keyring.scope_id(record.scope),
            epoch=epoch,
            delegating_key=self._scopes.public_key(record.scope, epoch),
            record_id=record_id,
            version=1 if before is None else before.manifest.payload.version + 1,
            prev=None if before is None else before.manifest.id,
        )

    def _key_of(self, record: VerifiedRecord) -> tuple[str, RecordKey]:
        """The scope's name and the content key; raises `UnknownScope` or a `VerificationFailed`."""
        scope_id, epoch = record.scope_entry
        name = self._scopes.name_of(scope_id)
        return name, unwrap_as_owner(record, self._session.keyring.delegating(name, epoch))

    def _summarise(
        self, shown: Sequence[RecordOut], checked: Sequence[VerifiedRecord | Problem]
    ) -> list[RecordSummary]:
        summaries = []
        for unverified, record in zip(shown, checked, strict=True):
            if isinstance(record, Problem):
                summaries.append(unverified_summary(unverified, record))
                continue
            payload = record.manifest.payload
            name = self._scopes.names.get(payload.scope)
            summary = summary_of(payload, record.manifest.id, scope=name, problem=None)
            try:
                header = open_header(record, self._key_of(record)[1])
                self._session.state.note_record(record.manifest)
            except PcehrError as error:
                summaries.append(replace(summary, problem=problem_of(error, record_id=payload.record)))
            else:
                summaries.append(replace(summary, header=header))
        return summaries


def _concerns_all(error: ClientError) -> bool:
    """Whether an error is an outage or the like, and not the fault of the one record that met it."""
    return isinstance(error, ServiceUnreachable) or (isinstance(error, ServiceRefused) and error.status != 404)


def _record_id(record: VerifiedRecord | Problem) -> str | None:
    return record.record_id if isinstance(record, Problem) else record.manifest.payload.record
