"""Use cases of a proxy: take a share, use it, erase it, and say what happened.

The operations that write are authorised by the statement alone. Each verifies it itself, decides by `domain`, and
commits the `jti`, the effect and the event in one transaction before it answers. A refusal is logged in a
transaction of its own, because the one that was refused is rolled back.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from services.proxy import domain
from services.proxy.arithmetic import Arithmetic
from services.proxy.domain import StoredGrant, fingerprint
from services.proxy.enrolment import Enrolment
from services.proxy.errors import JtiReused, ShareUnreadable, UnknownGrant
from services.proxy.figures import Figures
from services.proxy.identity import ProxyIdentity
from services.proxy.repository import Claim, Repository, StoredAnswer, Work
from shared import statements
from shared.clock import Clock
from shared.crypto.errors import DecryptionFailed, KeyFragRejected
from shared.crypto.umbral import engine_name
from shared.db.log import LoggedEvent, NewEvent
from shared.encoding import from_b64url, sha256
from shared.errors import PcehrError, TooManyRequests, Unavailable
from shared.identity import receiving_key, verifying_key
from shared.jose import parse
from shared.registry_client import PartyDirectory
from shared.statements import (
    Grant,
    LogErasure,
    ReencryptionRequest,
    Revocation,
    Verified,
    WrongSigner,
    verify_delayed,
    verify_fresh,
)
from shared.wire import ReceiptAct, Role

DONE = "done"
KEPT_AFTER_END = 86_400
"""Seconds that the kfrags of an ended grant are kept: a clock that was set wrong for a while must not erase them."""

log = logging.getLogger("pcehr.proxy")


@dataclass(frozen=True)
class IdentityCard:
    """What anybody may know of this proxy."""

    did: str
    entries: list[str]
    engine: str


@dataclass
class _Attempt:
    """What is known so far of a request, for its event if it is refused; `cause` says what is being looked at."""

    event: str
    cause: str = "statement"
    actor: str | None = None
    patient: str | None = None
    grant: str | None = None
    statement: str | None = None
    capsules: tuple[str, ...] = ()


class ProxyService:
    """The use cases. All times are seconds since the epoch, as `clock` gives them; `kick` is called after a commit that
    put something into the log.

    `charge` holds back the issuer of a verified statement who asks too often; of a grant only if it is new, since
    whoever holds it could send it again, and must not be able to hold back the patient by that. A request lapses in
    minutes, and only those have seen it who were to serve it.
    """

    def __init__(
        self,
        *,
        identity: ProxyIdentity,
        repository: Repository,
        directory: PartyDirectory,
        arithmetic: Arithmetic,
        enrolment: Enrolment,
        figures: Figures,
        clock: Clock,
        kick: Callable[[], None],
        charge: Callable[[str], None],
    ) -> None:
        self._charge = charge
        self._kick = kick
        self._identity = identity
        self._repository = repository
        self._directory = directory
        self._arithmetic = arithmetic
        self._enrolment = enrolment
        self._figures = figures
        self._clock = clock

    async def ready(self) -> None:
        """Raises `NotEnrolled` or `DatabaseUnavailable` while the proxy cannot do its work."""
        self._enrolment.check()
        await self._repository.check()

    async def card(self) -> IdentityCard:
        """Who this proxy is; raises `DatabaseUnavailable` where its key-entry has not been read yet."""
        return IdentityCard(did=self._identity.did, entries=[await self._enrolment.own_entry()], engine=engine_name())

    async def store_share(self, token: str, sealed: str) -> str:
        """Take this proxy's share of a grant (rules 1 to 5 of `domain`) and return the receipt."""
        async with self._attempt("stored") as attempt:
            party = await self._directory.issuer_of(token, Grant)
            grant = verify_fresh(token, Grant, party, now=self._clock())
            payload = grant.payload
            attempt.actor = attempt.patient = payload.iss
            attempt.grant = attempt.statement = grant.id
            attempt.cause = "grant"
            line = domain.share_for(payload, self._identity.did)
            domain.check_not_ended(payload, self._clock())
            async with self._repository.reading() as work:
                domain.check_not_revoked(revoked=await work.is_revoked(payload.iss, grant.id))
                if not await work.is_new(grant):
                    return await _receipt_of(work, grant.id)
                await work.check_room(payload.iss)
            self._charge(payload.iss)
            attempt.cause = "key-entries"
            patient = await self._directory.resolve_holding(payload.iss, payload.patient_entry)
            recipient = await self._directory.resolve_holding(payload.aud, payload.recipient_entry)
            patient_entry = domain.entry_of(patient, payload.patient_entry, Role.PATIENT)
            recipient_entry = domain.entry_of(recipient, payload.recipient_entry, Role.RECIPIENT)
            # The box is not signed, and whoever holds the grant can send another: the patient has not done this.
            attempt.actor = None
            attempt.cause = "sealed box"
            opened = self._open(sealed)
            attempt.cause = "number or hash of kfrags"
            kfrags = domain.split_share(opened, line.kfrags)
            attempt.cause = "kfrag"
            await self._arithmetic.accept(
                [
                    (kfrag, from_b64url(scope.delegating_key, 33))
                    for kfrag, scope in zip(kfrags, payload.scopes, strict=True)
                ],
                verifying_key=bytes(verifying_key(patient_entry)),
                receiving_key=bytes(receiving_key(recipient_entry)),
            )
            attempt.actor, attempt.cause = payload.iss, "grant"
            return await self._keep_share(grant, kfrags)

    async def reencrypt(self, token: str, capsules: Sequence[str]) -> StoredAnswer:
        """Re-encrypt the capsules a request names (rules 6 to 10 of `domain`): cfrags in its order, and the receipt."""
        async with self._attempt("reencrypted") as attempt:
            party = await self._directory.issuer_of(token, ReencryptionRequest)
            request = verify_fresh(token, ReencryptionRequest, party, now=self._clock())
            self._charge(request.payload.iss)
            payload = request.payload
            attempt.actor, attempt.grant, attempt.statement = payload.iss, payload.grant, request.id
            attempt.capsules = tuple(wanted.capsule for wanted in payload.capsules)
            attempt.cause = "grant"
            async with self._repository.reading() as work:
                standing = await work.standing(request)
            if standing is None:
                raise UnknownGrant
            grant = standing.grant
            attempt.patient = grant.patient
            domain.check_use(grant, payload, now=self._clock(), revoked=standing.revoked)
            if standing.seen is not None:
                return await self._answered_before(request, standing.seen)
            attempt.cause = "capsules"
            opened = [from_b64url(capsule, 98) for capsule in capsules]
            domain.check_capsules(payload, opened)
            wanted_entries = {wanted.entry for wanted in payload.capsules}
            kfrags = {entry: self._unseal(grant, entry, standing.sealed.get(entry)) for entry in wanted_entries}
            cfrags = await self._work_through(payload, opened, kfrags)
            attempt.cause = "grant, after the arithmetic"
            return await self._release(request, grant, cfrags)

    async def revoke(self, token: str) -> str:
        """Write a tombstone, erase this proxy's share where the issuer gave the grant, and return the receipt.

        Works while the registry is away, with the chain of keys that was seen before.
        """
        async with self._attempt("erased") as attempt:
            unverified = parse(token, typ=Revocation.typ, max_size=Revocation.max_size)
            async with self._repository.reading() as work:
                # The very string that was verified once needs no key again, so that a lost receipt can be fetched
                # after a change of keys too. Whoever asks has the statement, and the receipt tells nothing beyond it.
                answer = await work.answer(unverified.id, sha256(token.encode("ascii")))
            if answer is not None:
                return answer.receipt
            party = await self._directory.issuer_of_for_less(token, Revocation)
            revocation = verify_delayed(token, Revocation, party, now=self._clock())
            # In a bucket of its own: whatever else is under way, access can be taken away.
            self._charge(f"{revocation.payload.iss} revocations")
            payload = revocation.payload
            attempt.actor, attempt.grant, attempt.statement = payload.iss, payload.grant, revocation.id
            erased = 0
            async with self._repository.transaction() as work:
                await work.serialise(payload.grant)
                grant = await work.grant(payload.grant)
                if not await work.claim(revocation):
                    return await _receipt_of(work, revocation.id)
                own = grant is not None and grant.patient == payload.iss
                attempt.patient = payload.iss if own else None
                if own:
                    erased = await work.erase_share(payload.iss, payload.grant)
                receipt = await self._conclude(work, attempt)
                await work.add_tombstone(payload.iss, payload.grant, token, receipt)
                await work.add_answer(
                    revocation.id, sha256(token.encode("ascii")), payload.grant, StoredAnswer(receipt, ())
                )
            self._figures.erased_revoked.inc(erased)
            return receipt

    async def events_of(self, party: str, cursor: str | None, limit: int) -> tuple[list[LoggedEvent], str | None]:
        """One page of the party's own chain of events, newest first, and the cursor of the next page.

        The reading is an event itself, committed before anything is shown.
        """
        before = None if cursor is None else domain.number_of(cursor)
        reading = NewEvent(party, self._clock(), "log_read", actor=party)
        async with self._repository.transaction() as work:
            await work.append_event(reading)
        self._kick()
        async with self._repository.reading() as work:
            rows = await work.events_of(party, before=before, limit=limit + 1)
        page = rows[:limit]
        return page, domain.cursor_of(page[-1].n) if len(rows) > limit else None

    async def erase_events(self, caller: str, token: str) -> None:
        """Erase the texts of the caller's events, as its statement says; what the log holds of them stays.

        Raises `WrongSigner` where the caller is not the issuer, `WrongAudience`, and what `verify_fresh` raises.
        """
        if statements.unverified_issuer(token, LogErasure) != caller:
            raise WrongSigner
        async with self._attempt("log_erased") as attempt:
            party = await self._directory.issuer_of(token, LogErasure)
            erasure = verify_fresh(token, LogErasure, party, now=self._clock())
            attempt.actor = attempt.patient = caller
            attempt.statement = erasure.id
            statements.expect_audience(erasure, self._identity.did)
            async with self._repository.transaction() as work:
                if await work.claim(erasure):
                    await work.erase_events(caller, erasure.payload.upto)
                    await work.append_event(_event(attempt, self._clock(), DONE))

    async def prune(self) -> None:
        """Delete what can never be asked for again: answers to lapsed requests, kfrags of grants long ended."""
        now = self._clock()
        async with self._repository.transaction() as work:
            erased = await work.prune(lapsed_by=now, ended_by=now - KEPT_AFTER_END)
        self._figures.erased_ended.inc(erased)

    # Steps

    async def _keep_share(self, grant: Verified[Grant], kfrags: Sequence[bytes]) -> str:
        payload = grant.payload
        sealed = [
            self._identity.encrypt_kfrag(kfrag, grant=grant.id, entry=entry) for entry, kfrag in enumerate(kfrags)
        ]
        async with self._repository.transaction() as work:
            await work.serialise(grant.id)
            domain.check_not_ended(payload, self._clock())
            domain.check_not_revoked(revoked=await work.is_revoked(payload.iss, grant.id))
            if not await work.claim(grant):
                return await _receipt_of(work, grant.id)
            await work.add_grant(grant, domain.limits_of(payload), sealed)
            done = _Attempt("stored", actor=payload.iss, patient=payload.iss, grant=grant.id, statement=grant.id)
            receipt = await self._conclude(work, done)
            await work.add_answer(grant.id, sha256(grant.token.encode("ascii")), grant.id, StoredAnswer(receipt, ()))
        self._figures.stored.inc(len(sealed))
        return receipt

    async def _work_through(
        self, request: ReencryptionRequest, capsules: Sequence[bytes], kfrags: dict[int, bytes]
    ) -> list[bytes]:
        """The cfrags in the order of the request; the arithmetic is done kfrag by kfrag."""
        places: dict[int, list[int]] = {entry: [] for entry in kfrags}
        for place, wanted in enumerate(request.capsules):
            places[wanted.entry].append(place)
        results = await self._arithmetic.reencrypt(
            [(kfrags[entry], [capsules[place] for place in own]) for entry, own in places.items()]
        )
        by_place = {
            place: cfrag
            for own, cfrags in zip(places.values(), results, strict=True)
            for place, cfrag in zip(own, cfrags, strict=True)
        }
        return [by_place[place] for place in range(len(capsules))]

    async def _release(
        self, request: Verified[ReencryptionRequest], grant: StoredGrant, cfrags: Sequence[bytes]
    ) -> StoredAnswer:
        """Look at the grant again under a lock, write the event and the answer; only then may it be sent."""
        payload = request.payload
        async with self._repository.transaction() as work:
            await work.keep_as_it_is(grant.id)
            now = self._clock()
            domain.check_use(grant, payload, now=now, revoked=False)
            domain.check_not_lapsed(payload, now)
            claim = await work.claim_unrevoked(request, grant.patient)
            domain.check_use(grant, payload, now=now, revoked=claim is Claim.REVOKED)
            if claim is Claim.SEEN:
                return await _answer_of(work, request.id)
            done = _Attempt(
                "reencrypted",
                actor=payload.iss,
                patient=grant.patient,
                grant=grant.id,
                statement=request.id,
                capsules=tuple(wanted.capsule for wanted in payload.capsules),
            )
            receipt = await self._conclude(work, done, [fingerprint(cfrag) for cfrag in cfrags])
            answer = StoredAnswer(receipt, tuple(cfrags))
            await work.add_answer(
                request.id, sha256(request.token.encode("ascii")), grant.id, answer, domain.lapses_at(payload)
            )
        return answer

    async def _answered_before(self, request: Verified[ReencryptionRequest], seen: str) -> StoredAnswer:
        if seen != request.id:
            raise JtiReused
        async with self._repository.reading() as work:
            return await _answer_of(work, request.id)

    async def _conclude(self, work: Work, done: _Attempt, cfrags: Sequence[str] | None = None) -> str:
        """Write the event of something done, and return the receipt that bears its number in the subject's chain."""
        if done.actor is None or done.grant is None or done.statement is None:
            raise RuntimeError("nothing is done without a verified statement about a grant")
        now = self._clock()
        seq = await work.append_event(_event(done, now, DONE))
        return self._identity.sign_receipt(
            audience=done.actor,
            statement=done.statement,
            grant=done.grant,
            act=cast(ReceiptAct, done.event),
            seq=seq,
            now=now,
            cfrags=cfrags,
        )

    def _open(self, sealed: str) -> bytes:
        try:
            return self._identity.open_share(from_b64url(sealed))
        except DecryptionFailed:
            raise KeyFragRejected from None

    def _unseal(self, grant: StoredGrant, entry: int, sealed: bytes | None) -> bytes:
        try:
            if sealed is None:
                raise DecryptionFailed
            return self._identity.decrypt_kfrag(sealed, grant=grant.id, entry=entry)
        except DecryptionFailed:
            log.error("a kfrag at rest is missing or does not decrypt: is this the seed it was stored under?")
            raise ShareUnreadable from None

    @asynccontextmanager
    async def _attempt(self, event: str) -> AsyncIterator[_Attempt]:
        """Log the refusal of a statement that somebody proved to have signed.

        What is merely away is no refusal: nothing was decided, and the request will come again. What nobody proved to
        have signed concerns nobody and could fill the log without end, so it leaves no row.
        """
        attempt = _Attempt(event)
        try:
            yield attempt
        except (Unavailable, TooManyRequests):
            raise
        except PcehrError as refusal:
            if attempt.statement is not None:
                async with self._repository.transaction() as work:
                    await work.append_event(_event(attempt, self._clock(), refusal.code, attempt.cause))
                self._kick()
            raise
        self._kick()


def _event(attempt: _Attempt, now: int, outcome: str, cause: str | None = None) -> NewEvent:
    """An event in the chain of the patient concerned, or of whoever signed where no patient is known."""
    subject = attempt.patient or attempt.actor
    if subject is None:
        raise RuntimeError("an event is about a statement that somebody has signed")
    return NewEvent(
        subject,
        now,
        attempt.event,
        outcome=outcome,
        actor=attempt.actor,
        grant=attempt.grant,
        statement=attempt.statement,
        capsules=attempt.capsules,
        cause=cause,
    )


async def _answer_of(work: Work, statement_id: str) -> StoredAnswer:
    """The answer to a statement that was here before. It is gone only when the statement has lapsed."""
    answer = await work.answer(statement_id)
    if answer is None:
        raise statements.StatementExpired
    return answer


async def _receipt_of(work: Work, statement_id: str) -> str:
    return (await _answer_of(work, statement_id)).receipt
