"""Consent: asking for it, refusing it, giving it and taking it back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from services.records.domain import check_answer, check_pending, check_request, check_shares
from services.records.errors import AlreadyAnswered, GrantAlreadyRevoked, StaleKeyEntry
from services.records.quotas import GRANTS, REQUESTS
from services.records.repository import Repository
from services.records.repository.notices import NewNotice, NoticeKind
from services.records.service.statements import Statements, accepted
from shared.db.log import NewEvent
from shared.errors import NotFound, Refused
from shared.identity import VerifiedParty
from shared.schemas.common import Accepted
from shared.schemas.records import SealedShare
from shared.statements import (
    Denial,
    DisclosureRequest,
    Grant,
    LogErasure,
    Revocation,
    Verified,
    WrongAudience,
    expect_audience,
)
from shared.tokens import Caller
from shared.wire import RECORDS_AUDIENCE, Role


class Consents:
    """`kick` wakes the outbox; it is called after a commit, with the messages that were put there."""

    def __init__(self, statements: Statements, kick: Callable[[Collection[int]], None]) -> None:
        self._statements = statements
        self._kick = kick

    async def request(self, caller: Caller, token: str) -> Accepted:
        """File a disclosure request; raises `StaleKeyEntry`, `Refused` or `QuotaExceeded` besides what any statement
        may raise."""
        request, recipient = await self._statements.verified(caller, token, DisclosureRequest, role=Role.RECIPIENT)
        if (earlier := await self._statements.earlier_answer(request)) is not None:
            return earlier
        payload = request.payload
        # Before anything is noted: whom the registry does not know has no log.
        await self._statements.check_known(payload.aud)
        entry = self._entry("requested", request, patient=payload.aud)
        async with self._statements.noting_refusals(entry):
            check_request(payload)
            _check_own_entry(recipient, payload.recipient_entry)
            await self._statements.check_counterpart(payload.aud, Role.PATIENT, payload.patient_entry)
            async with self._statements.store.transaction() as repository:
                received, new = await repository.journal.accept([request], entry.at)
                if new:
                    check_pending(await repository.requests.pending(payload.iss, payload.aud, entry.at))
                    await repository.requests.add(request, entry.at)
                    await repository.quotas.change({(payload.iss, REQUESTS): 1})
                    await repository.journal.log([entry])
                    await repository.notices.add(
                        [NewNotice(payload.aud, NoticeKind.REQUESTED, entry.at, other=payload.iss, request=request.id)]
                    )
        return accepted(request, received[request.id])

    async def deny(self, caller: Caller, token: str) -> Accepted:
        """Refuse a request addressed to the caller; raises `NotFound`, `AlreadyAnswered` or `WrongAudience`."""
        denial, _ = await self._statements.verified(caller, token, Denial, role=Role.PATIENT)
        entry = self._entry("denied", denial, patient=denial.payload.iss)
        async with self._statements.noting_refusals(entry), self._statements.store.transaction() as repository:
            received, new = await repository.journal.accept([denial], entry.at)
            if new:
                await _deny(repository, denial)
                await repository.journal.log([entry])
                payload = denial.payload
                await repository.notices.add(
                    [NewNotice(payload.aud, NoticeKind.DENIED, entry.at, other=payload.iss, request=payload.request)]
                )
        return accepted(denial, received[denial.id])

    async def grant(self, caller: Caller, token: str, shares: Sequence[SealedShare]) -> Accepted:
        """Accept a grant and pass its shares on to the proxies.

        Raises `NotFound`, `AlreadyAnswered`, `WiderThanRequested`, `StaleKeyEntry`, `SharesMismatch`, `Refused`,
        `QuotaExceeded` or `GrantAlreadyRevoked` besides what any statement may raise.
        """
        grant, patient = await self._statements.verified(caller, token, Grant, role=Role.PATIENT)
        if (earlier := await self._statements.earlier_answer(grant)) is not None:
            return earlier
        payload = grant.payload
        entry = self._entry("granted", grant, patient=payload.iss, grant=grant.id)
        async with self._statements.noting_refusals(entry):
            check_shares(payload, [share.proxy for share in shares])
            _check_own_entry(patient, payload.patient_entry)
            await self._statements.check_counterpart(payload.aud, Role.RECIPIENT, payload.recipient_entry)
            for share in shares:
                if (await self._statements.directory.resolve(share.proxy)).role is not Role.PROXY:
                    raise Refused("A party that the grant names as a proxy is none.")
            deliveries: Collection[int] = ()
            async with self._statements.store.transaction() as repository:
                received, new = await repository.journal.accept([grant], entry.at)
                if new:
                    await _check_may_grant(repository, grant, entry.at)
                    await repository.grants.add(grant, entry.at)
                    changes = {(payload.iss, GRANTS): 1}
                    if payload.request is not None:
                        changes[payload.aud, REQUESTS] = -await repository.requests.close(payload.request)
                    await repository.quotas.change(changes)
                    sealed = {share.proxy: share.sealed for share in shares}
                    deliveries = await repository.deliveries.add_shares(grant.id, sealed)
                    await repository.journal.log([entry])
                    await repository.notices.add([_granted(grant, entry.at)])
        self._kick(deliveries)
        return accepted(grant, received[grant.id])

    async def revoke(self, caller: Caller, token: str) -> Accepted:
        """End a grant at once, known or not; raises `NotFound` for a grant that somebody else gave.

        A second revocation of one grant takes the place of the first and goes to the proxies anew: the first may be
        signed with a key that they no longer take.
        """
        revocation = await self._statements.verified_for_less(caller, token, Revocation, role=Role.PATIENT)
        payload = revocation.payload
        entry = self._entry("revoked", revocation, patient=payload.iss, grant=payload.grant)
        deliveries: Collection[int] | None = None
        async with self._statements.noting_refusals(entry), self._statements.store.transaction() as repository:
            received, new = await repository.journal.accept([revocation], entry.at)
            if new:
                deliveries = await _revoke(repository, revocation, entry.at)
                await repository.journal.log([entry])
                if deliveries is not None:
                    await repository.notices.add(
                        [NewNotice(payload.aud, NoticeKind.REVOKED, entry.at, other=payload.iss, grant=payload.grant)]
                    )
        self._kick(deliveries or ())
        return accepted(revocation, received[revocation.id])

    async def erase_events(self, caller: Caller, token: str) -> None:
        """Erase the texts of the caller's events, as its statement says; raises `WrongAudience` besides what any
        statement may raise."""
        erasure, _ = await self._statements.verified(caller, token, LogErasure, role=Role.PATIENT)
        entry = self._entry("log_erased", erasure, patient=caller.did)
        async with self._statements.noting_refusals(entry):
            expect_audience(erasure, RECORDS_AUDIENCE)
            async with self._statements.store.transaction() as repository:
                _, new = await repository.journal.accept([erasure], entry.at)
                if new:
                    await repository.journal.erase_events(caller.did, erasure.payload.upto)
                    await repository.journal.log([entry])

    def _entry(self, event: str, statement: Verified[Any], *, patient: str, grant: str | None = None) -> NewEvent:
        return NewEvent(
            subject=patient,
            at=self._statements.clock(),
            event=event,
            actor=statement.payload.iss,
            grant=grant,
            statement=statement.id,
        )


async def _deny(repository: Repository, denial: Verified[Denial]) -> None:
    request = await repository.requests.lock(denial.payload.request)
    if request is None or request.asked.patient != denial.payload.iss:
        raise NotFound
    expect_audience(denial, request.asked.recipient)
    if request.denied or request.granted:
        raise AlreadyAnswered
    await repository.requests.deny(denial.payload.request, denial.token)
    closed = await repository.requests.close(denial.payload.request)
    await repository.quotas.change({(request.asked.recipient, REQUESTS): -closed})


async def _check_may_grant(repository: Repository, grant: Verified[Grant], now: int) -> None:
    # First the lock that a revocation of this grant takes as well: whichever comes second sees the other.
    await repository.grants.lock_id(grant.id)
    payload = grant.payload
    if payload.request is not None:
        request = await repository.requests.lock(payload.request)
        check_answer(payload, request.asked if request is not None else None, now)
        if request is not None and request.denied:
            raise AlreadyAnswered
    if await repository.grants.is_revoked(payload.iss, grant.id):
        raise GrantAlreadyRevoked


def _granted(grant: Verified[Grant], now: int) -> NewNotice:
    payload = grant.payload
    return NewNotice(payload.aud, NoticeKind.GRANTED, now, other=payload.iss, request=payload.request, grant=grant.id)


async def _revoke(repository: Repository, revocation: Verified[Revocation], now: int) -> list[int] | None:
    """Write the tombstone; returns the messages to the proxies, or None where the grant is not known here."""
    payload = revocation.payload
    await repository.grants.lock_id(payload.grant)
    # Waits for disclosures that are being written down; none can begin to be before this transaction ends.
    known = await repository.grants.lock_to_revoke(payload.grant)
    if known is not None:
        patient, recipient = known
        if patient != payload.iss:
            raise NotFound
        if recipient != payload.aud:
            raise WrongAudience
    ended = await repository.grants.revoke(revocation, now)
    floors: dict[str, int] = {}
    for floor in payload.epochs:
        floors[floor.scope] = max(floor.epoch, floors.get(floor.scope, 0))
    await repository.writing.raise_floors(payload.iss, floors)
    await repository.quotas.change({(payload.iss, GRANTS): -ended})
    if known is not None:
        proxies = await repository.grants.proxies(payload.grant)
        return await repository.deliveries.add_revocation(payload.grant, [proxy.did for proxy in proxies])
    return None


def _check_own_entry(party: VerifiedParty, entry: str) -> None:
    """The issuer's own entry: its chain is current, since the statement is signed with the current key."""
    if party.current.id != entry:
        raise StaleKeyEntry
