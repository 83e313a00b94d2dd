"""What somebody whom a patient allows to write can do: append records, and amend them.

An author encrypts to the patient's newest key of the scope and can, by that alone, not read what it has written.
"""

from __future__ import annotations

from client.errors import GrantEnded, InvalidGrant, ServiceRefused, UnknownRecord, UnknownScope, VerificationFailed
from client.held import held_grant
from client.history import check_before
from client.reading import check_all
from client.records import NewRecord, Placement, new_record_id
from client.reports import HeldGrant, Problem, StoredRecord
from client.scope_keys import current_scope_key, delegating_key_of
from client.session import Session
from client.uploads import Progress, upload
from client.verification import VerifiedRecord, check_chain, scope_ids
from shared.schemas.records import GrantState
from shared.statements import ScopeKey, Verified
from shared.wire import Action

_ATTEMPTS = 3
"""How often an upload is sealed anew because the scope got a newer key in between."""


class Author:
    """A recipient as one who writes."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def append(
        self, grant_id: str, records: list[NewRecord], progress: Progress | None = None
    ) -> list[StoredRecord]:
        """Store new records of the patient who gave the grant, in scopes that it covers; answers in order.

        Raises `UnknownGrant`, `GrantEnded`, `InvalidGrant` where the grant does not allow it, `UnknownScope`, and what
        `Patient.add_records` raises.
        """
        grant = await self._grant(grant_id, Action.APPEND)
        stored: list[StoredRecord] = []

        def note(batch: list[StoredRecord]) -> None:
            stored.extend(batch)
            if progress is not None:
                progress(len(stored), len(records))

        for attempt in range(_ATTEMPTS):
            rest = records[len(stored) :]
            keys = {name: await self._key(grant, name) for name in dict.fromkeys(record.scope for record in rest)}
            planned = [(record, _place(grant, keys[record.scope], new_record_id(), None)) for record in rest]
            try:
                await upload(self.session, planned, on_stored=note)
            except ServiceRefused as refused:
                if refused.code != "stale_epoch" or attempt == _ATTEMPTS - 1:
                    raise
            else:
                break
        return stored

    async def amend(self, grant_id: str, record_id: str, record: NewRecord) -> StoredRecord:
        """Store the next version of a record; raises `UnknownRecord` where this author may see no version of it."""
        grant = await self._grant(grant_id, Action.AMEND)
        before = await self._newest(grant, record_id)
        stored: list[StoredRecord] = []
        for attempt in range(_ATTEMPTS):
            placement = _place(grant, await self._key(grant, record.scope), record_id, before)
            try:
                await upload(self.session, [(record, placement)], on_stored=stored.extend)
            except ServiceRefused as refused:
                if refused.code != "stale_epoch" or attempt == _ATTEMPTS - 1:
                    raise
            else:
                break
        return stored[0]

    async def _grant(self, grant_id: str, action: Action) -> HeldGrant:
        grant = await held_grant(self.session, grant_id)
        if action not in grant.actions:
            raise InvalidGrant(f"The grant does not allow to {action}.")
        if grant.state is GrantState.REVOKED:
            raise GrantEnded
        return grant

    async def _key(self, grant: HeldGrant, name: str) -> Verified[ScopeKey]:
        """The patient's newest key of the scope of this name."""
        ids = dict(zip(grant.scopes, scope_ids(grant.statement.payload), strict=True))
        if name not in ids:
            raise UnknownScope(f"The grant does not cover the scope {name}; it covers {', '.join(ids)}.")
        return await current_scope_key(self.session, grant.patient.did, ids[name])

    async def _newest(self, grant: HeldGrant, record_id: str) -> VerifiedRecord:
        session = self.session
        try:
            shown = await session.platform.record_versions(await session.credentials(), record_id)
        except ServiceRefused as refused:
            if refused.status == 404:
                raise UnknownRecord from None
            raise
        versions: list[VerifiedRecord] = []
        for record in await check_all(session, shown, grant.patient):
            if isinstance(record, Problem):
                raise VerificationFailed.from_code(record.code, record.detail)
            versions.append(record)
        if not versions or any(version.manifest.payload.record != record_id for version in versions):
            raise UnknownRecord
        check_chain([version.manifest for version in versions], complete=False)
        if versions[-1].manifest.payload.version > 1:
            # Whoever writes on top of a version vouches for it to those who read the next one.
            await check_before(session, versions[-1], grant.patient)
        session.state.note_record(versions[-1].manifest)
        session.state.save_if_changed()
        return versions[-1]


def _place(grant: HeldGrant, scope_key: Verified[ScopeKey], record_id: str, before: VerifiedRecord | None) -> Placement:
    return Placement(
        patient=grant.patient.did,
        scope_id=scope_key.payload.scope,
        epoch=scope_key.payload.epoch,
        delegating_key=delegating_key_of(scope_key),
        record_id=record_id,
        version=1 if before is None else before.manifest.payload.version + 1,
        prev=None if before is None else before.manifest.id,
        grant=grant.id,
    )
