"""Reading what is stored: everything that leaves here is signed or encrypted, and only whom it concerns gets it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.records import cursors
from services.records.domain import grant_state, request_state
from services.records.repository.grants import StoredGrant
from services.records.repository.reading import StoredVersion
from services.records.repository.requests import StoredRequest
from services.records.service.statements import Statements
from shared.db.log import NewEvent
from shared.errors import Forbidden, NotFound
from shared.schemas.events import LogEventOut, LogEventPage
from shared.schemas.records import (
    GrantOut,
    GrantPage,
    GrantProxyOut,
    PastVersion,
    PastVersionPage,
    RecordOut,
    RecordPage,
    RequestOut,
    RequestPage,
)
from shared.tokens import Caller
from shared.wire import Action, Role


class Reading:
    """What others than its patient are shown has an event first: it is committed before anything leaves."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._store = statements.store
        self._clock = statements.clock

    async def own_records(self, caller: Caller, *, content: bool, cursor: str | None, limit: int) -> RecordPage:
        """The caller's records, newest version of each; raises `Forbidden` unless the caller is a patient."""
        _patient(caller)
        after = cursors.decode(cursor)
        async with self._store.reading() as repository:
            rows = await repository.reading.newest(caller.did, after=after, limit=limit + 1, content=content)
        versions, following = cursors.page(rows, limit)
        return RecordPage(items=[record_out(version) for version in versions], next=following)

    async def granted_records(self, caller: Caller, grant: str, *, cursor: str | None, limit: int) -> RecordPage:
        """Of each record that a grant of the caller's covers, the newest version it covers, without the body.

        For a grant to read, that is the newest one whose capsule the proxies would re-encrypt. Raises `NotFound`.
        """
        after, now = cursors.decode(cursor), self._clock()
        async with self._store.reading() as repository:
            patient = await repository.grants.patient_of(grant)
        if patient is None:
            raise NotFound
        event = NewEvent(patient, now, "listed", actor=caller.did, grant=grant)
        async with self._statements.noting_refusals(event), self._store.transaction() as repository:
            terms = (await repository.grants.terms([grant]))[grant]
            if terms.recipient != caller.did or not terms.holds(now) or not terms.active:
                raise NotFound
            if not terms.actions & {Action.READ, Action.AMEND}:
                raise NotFound
            rows = await repository.reading.granted(
                grant, patient=patient, openable=Action.READ in terms.actions, after=after, limit=limit + 1
            )
            versions, following = cursors.page(rows, limit)
            await repository.journal.log([_about(event, versions)])
        return RecordPage(items=[record_out(version) for version in versions], next=following)

    async def record(self, caller: Caller, record: str, *, cursor: str | None, limit: int) -> RecordPage:
        """The versions of one record that the caller may see, oldest first; raises `NotFound` if there is none."""
        after = cursors.decode(cursor)
        event = await self._look_at(caller, record)
        async with self._statements.noting_refusals(event), self._store.transaction() as repository:
            rows = await repository.reading.visible_versions(record, caller.did, event.at, after=after, limit=limit + 1)
            if not rows and after is None:
                raise NotFound
            versions, following = cursors.page(rows, limit)
            if caller.did != event.subject:
                await repository.journal.log([_about(event, versions)])
        return RecordPage(items=[record_out(version) for version in versions], next=following)

    async def history(
        self, caller: Caller, record: str, version: int, *, cursor: str | None, limit: int
    ) -> PastVersionPage:
        """The manifests before a version that the caller may see, oldest first: all of them for the patient, for
        others as many as they need to judge it (`vouched_from`). Raises `NotFound`."""
        after = cursors.decode(cursor)
        event = await self._look_at(caller, record)
        patient = event.subject
        async with self._statements.noting_refusals(event), self._store.transaction() as repository:
            reading = repository.reading
            capsule = await reading.capsule_of_visible(patient, record, version, caller.did, event.at)
            if capsule is None:
                raise NotFound
            first = 1 if caller.did == patient else await reading.vouched_from(patient, record, version)
            rows = await reading.manifests(patient, record, first=first, before=version, after=after, limit=limit + 1)
            if caller.did != patient:
                await repository.journal.log([replace(event, capsules=(capsule,))])
        versions, following = cursors.page(rows, limit)
        items = [PastVersion(manifest=one.manifest, authority=one.authority) for one in versions]
        return PastVersionPage(items=items, next=following)

    async def requests(self, caller: Caller, *, inbox: bool, cursor: str | None, limit: int) -> RequestPage:
        """Disclosure requests addressed to the caller, or sent by it; newest first."""
        before, now = cursors.decode(cursor), self._clock()
        async with self._store.reading() as repository:
            rows = await repository.requests.listed(caller.did, inbox=inbox, before=before, limit=limit + 1)
        requests, following = cursors.page(rows, limit)
        return RequestPage(items=[_request_out(request, now) for request in requests], next=following)

    async def grants(self, caller: Caller, *, given: bool, cursor: str | None, limit: int) -> GrantPage:
        """Grants that the caller has given, or holds; newest first."""
        before, now = cursors.decode(cursor), self._clock()
        async with self._store.reading() as repository:
            rows = await repository.grants.listed(caller.did, given=given, before=before, limit=limit + 1)
        grants, following = cursors.page(rows, limit)
        return GrantPage(items=[_grant_out(grant, now) for grant in grants], next=following)

    async def grant(self, caller: Caller, grant: str) -> GrantOut:
        """One grant that the caller has given or holds; raises `NotFound`."""
        async with self._store.reading() as repository:
            found = await repository.grants.one(grant, caller.did)
        if found is None:
            raise NotFound
        return _grant_out(found, self._clock())

    async def audit(self, caller: Caller, *, cursor: str | None, limit: int) -> LogEventPage:
        """What happened to the caller's data and consent, newest first; raises `Forbidden` unless it is a patient.

        The reading is an event itself, committed before anything is shown.
        """
        _patient(caller)
        before = cursors.decode(cursor)
        async with self._store.transaction() as repository:
            await repository.journal.log([NewEvent(caller.did, self._clock(), "log_read", actor=caller.did)])
        async with self._store.reading() as repository:
            rows = await repository.journal.events(caller.did, before, limit + 1)
        following = cursors.encode(rows[limit - 1].n) if len(rows) > limit else None
        return LogEventPage(items=[LogEventOut.of(event) for event in rows[:limit]], next=following)

    async def _look_at(self, caller: Caller, record: str) -> NewEvent:
        """The event that the caller looks at a record, in its patient's chain; raises `NotFound` for a record that is
        nobody's."""
        async with self._store.reading() as repository:
            patient = await repository.reading.patient_of(record)
        if patient is None:
            raise NotFound
        return NewEvent(patient, self._clock(), "record_read", actor=caller.did)


def _about(event: NewEvent, versions: Sequence[StoredVersion]) -> NewEvent:
    return replace(event, capsules=tuple(version.capsule_hash for version in versions))


def record_out(version: StoredVersion) -> RecordOut:
    """One version as it travels."""
    return RecordOut(
        manifest=version.manifest,
        capsule=version.capsule,
        wrapped_key=version.wrapped_key,
        header=version.header,
        body=version.body,
        authority=version.authority,
    )


def _request_out(request: StoredRequest, now: int) -> RequestOut:
    return RequestOut(
        id=request.id,
        statement=request.statement,
        state=request_state(
            denied=request.denial is not None,
            granted=bool(request.grants),
            expires_at=request.expires_at,
            now=now,
        ),
        received_at=request.received_at,
        denial=request.denial,
        grants=request.grants,
    )


def _grant_out(grant: StoredGrant, now: int) -> GrantOut:
    return GrantOut(
        id=grant.id,
        grant=grant.statement,
        state=grant_state(
            revoked=grant.revocation is not None,
            expires_at=grant.expires_at,
            threshold=grant.threshold,
            proxies=len(grant.proxies),
            stored=sum(proxy.stored is not None for proxy in grant.proxies),
            now=now,
        ),
        received_at=grant.received_at,
        proxies=[
            GrantProxyOut(did=proxy.did, stored=proxy.stored, erased=proxy.erased, problem=proxy.problem)
            for proxy in grant.proxies
        ],
        revocation=grant.revocation,
        disclosed=grant.disclosed,
    )


def _patient(caller: Caller) -> None:
    if caller.role is not Role.PATIENT:
        raise Forbidden("Only a patient may do this.")
