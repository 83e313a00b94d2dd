"""Reading what is stored: everything that leaves here is signed or encrypted, and only whom it concerns gets it."""

from __future__ import annotations

from services.records import cursors
from services.records.domain import grant_state, request_state
from services.records.repository import Store
from services.records.repository.grants import StoredGrant
from services.records.repository.reading import StoredVersion
from services.records.repository.requests import StoredRequest
from shared.clock import Clock
from shared.errors import Forbidden, NotFound
from shared.schemas.records import (
    AuditEvent,
    AuditPage,
    GrantOut,
    GrantPage,
    GrantProxyOut,
    RecordOut,
    RecordPage,
    RequestOut,
    RequestPage,
)
from shared.tokens import Caller
from shared.wire import Action, Role


class Reading:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def own_records(self, caller: Caller, *, content: bool, cursor: str | None, limit: int) -> RecordPage:
        """The caller's records, newest version of each; raises `Forbidden` unless the caller is a patient."""
        _patient(caller)
        after = cursors.decode(cursor)
        async with self._store.transaction() as repository:
            rows = await repository.reading.newest(caller.did, after=after, limit=limit + 1, content=content)
        versions, following = cursors.page(rows, limit)
        return RecordPage(items=[record_out(version) for version in versions], next=following)

    async def granted_records(self, caller: Caller, grant: str, *, cursor: str | None, limit: int) -> RecordPage:
        """Of each record that a grant of the caller's covers, the newest version it covers, without the body.

        For a grant to read, that is the newest one whose capsule the proxies would re-encrypt. Raises `NotFound`.
        """
        after, now = cursors.decode(cursor), self._clock()
        async with self._store.transaction() as repository:
            terms = (await repository.grants.terms([grant])).get(grant)
            if terms is None or terms.recipient != caller.did or not terms.holds(now) or not terms.active:
                raise NotFound
            if not terms.actions & {Action.READ, Action.AMEND}:
                raise NotFound
            rows = await repository.reading.granted(
                grant, patient=terms.patient, openable=Action.READ in terms.actions, after=after, limit=limit + 1
            )
        versions, following = cursors.page(rows, limit)
        return RecordPage(items=[record_out(version) for version in versions], next=following)

    async def record(self, caller: Caller, record: str, *, cursor: str | None, limit: int) -> RecordPage:
        """The versions of one record that the caller may see, oldest first; raises `NotFound` if there is none."""
        after = cursors.decode(cursor)
        async with self._store.transaction() as repository:
            rows = await repository.reading.visible_versions(
                record, caller.did, self._clock(), after=after, limit=limit + 1
            )
        if not rows and after is None:
            raise NotFound
        versions, following = cursors.page(rows, limit)
        return RecordPage(items=[record_out(version) for version in versions], next=following)

    async def requests(self, caller: Caller, *, inbox: bool, cursor: str | None, limit: int) -> RequestPage:
        """Disclosure requests addressed to the caller, or sent by it; newest first."""
        before, now = cursors.decode(cursor), self._clock()
        async with self._store.transaction() as repository:
            rows = await repository.requests.listed(caller.did, inbox=inbox, before=before, limit=limit + 1)
        requests, following = cursors.page(rows, limit)
        return RequestPage(items=[_request_out(request, now) for request in requests], next=following)

    async def grants(self, caller: Caller, *, given: bool, cursor: str | None, limit: int) -> GrantPage:
        """Grants that the caller has given, or holds; newest first."""
        before, now = cursors.decode(cursor), self._clock()
        async with self._store.transaction() as repository:
            rows = await repository.grants.listed(caller.did, given=given, before=before, limit=limit + 1)
        grants, following = cursors.page(rows, limit)
        return GrantPage(items=[_grant_out(grant, now) for grant in grants], next=following)

    async def grant(self, caller: Caller, grant: str) -> GrantOut:
        """One grant that the caller has given or holds; raises `NotFound`."""
        async with self._store.transaction() as repository:
            found = await repository.grants.one(grant, caller.did)
        if found is None:
            raise NotFound
        return _grant_out(found, self._clock())

    async def audit(self, caller: Caller, *, cursor: str | None, limit: int) -> AuditPage:
        """What happened to the caller's data and consent, newest first; raises `Forbidden` unless it is a patient."""
        _patient(caller)
        before = cursors.decode(cursor)
        async with self._store.transaction() as repository:
            rows = await repository.journal.audit_log(caller.did, before, limit + 1)
        entries, following = cursors.page(rows, limit)
        events = [
            AuditEvent(
                seq=entry.number,
                at=entry.at,
                event=entry.event,
                actor=entry.actor,
                grant=entry.grant,
                statement=entry.statement,
                outcome=entry.outcome,
                capsules=entry.capsules,
            )
            for entry in entries
        ]
        return AuditPage(items=events, next=following)


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
