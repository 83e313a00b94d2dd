"""Disclosure: at least `t` proxies re-encrypt, and what they did is written down before anybody gets it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

from services.records.domain import ProxyOfGrant, Terms, check_disclosure, order_of_asking, patience_with
from services.records.errors import GrantRevoked, NotEnoughProxies, UnknownGrant
from services.records.proxies import Proxies, ProxyFailure, Reencryption
from services.records.repository import Repository
from services.records.repository.notices import NewNotice, NoticeKind
from services.records.repository.reading import StoredVersion
from services.records.service.reading import record_out
from services.records.service.statements import Statements
from shared.db.log import NewEvent
from shared.errors import NotFound
from shared.schemas.records import CfragOut, DisclosedRecord, DisclosureOut, ReceiptFrom
from shared.statements import ReencryptionRequest, Verified
from shared.tokens import Caller
from shared.wire import Role


@dataclass(frozen=True)
class Found:
    """A grant as it stands, the record versions asked for in the request's order, and whom to ask."""

    terms: Terms
    versions: list[StoredVersion]
    candidates: list[str]


AT_ONCE = 8
"""Disclosures that this process works at. With more, each waits for all others after every answer of Postgres's, and
keeps its connection meanwhile, until nobody gets one in time."""


class _Place:
    """One of the places; whoever waits for a proxy that is slow gives it back for that long."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self.held = False

    async def take(self) -> None:
        if not self.held:
            await self._places.acquire()
            self.held = True

    def give_back(self) -> None:
        if self.held:
            self.held = False
            self._places.release()

    async def __aenter__(self) -> Self:
        await self.take()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.give_back()


class Disclosures:
    def __init__(self, statements: Statements, proxies: Proxies, *, hedge_seconds: float) -> None:
        self._statements = statements
        self._proxies = proxies
        self._hedge = hedge_seconds
        self._places = asyncio.Semaphore(AT_ONCE)

    async def disclose(self, caller: Caller, token: str, exclude: Collection[str]) -> DisclosureOut:
        """Have the capsules of a re-encryption request re-encrypted, and return the records with the cfrags.

        Raises `UnknownGrant`, `NotGranted`, `GrantNotYetValid`, `GrantExpired`, `GrantRevoked`, `CapsuleNotGranted`,
        `NotFound` or `NotEnoughProxies` besides what any statement may raise; nothing is disclosed then.
        """
        async with _Place(self._places) as place:
            return await self._disclose(caller, token, exclude, place)

    async def _disclose(self, caller: Caller, token: str, exclude: Collection[str], place: _Place) -> DisclosureOut:
        request, _ = await self._statements.verified(caller, token, ReencryptionRequest, role=Role.RECIPIENT)
        async with self._statements.store.reading() as repository:
            # For its refusal only: a request asked before is asked again, since the proxies keep what they answered.
            await repository.journal.received_at(request)
            terms = (await repository.grants.terms([request.payload.grant])).get(request.payload.grant)
        if terms is None:
            raise UnknownGrant
        entry = NewEvent(
            subject=terms.patient,
            at=self._statements.clock(),
            event="disclosed",
            actor=caller.did,
            grant=terms.id,
            statement=request.id,
            capsules=tuple(one.capsule for one in request.payload.capsules),
        )
        async with self._statements.noting_refusals(entry):
            async with self._statements.store.reading() as repository:
                found = await self._find(repository, terms, request, exclude)
            answers = await self._ask(found, request, place)
            await place.take()
            async with self._statements.store.transaction() as repository:
                await self._write_down(repository, found, request, entry)
        return _out(found, answers)

    async def _find(
        self,
        repository: Repository,
        terms: Terms,
        request: Verified[ReencryptionRequest],
        exclude: Collection[str],
    ) -> Found:
        await self._check(repository, terms, request)
        wanted = request.payload.capsules
        stored = {
            (version.capsule_hash, version.scope, version.epoch): version
            for version in await repository.reading.with_capsules(terms.patient, {one.capsule for one in wanted})
        }
        entries = {entry.index: entry for entry in terms.scopes}
        versions = [stored.get((one.capsule, entries[one.entry].scope, entries[one.entry].epoch)) for one in wanted]
        proxies = [
            ProxyOfGrant(proxy.did, proxy.stored is not None) for proxy in await repository.grants.proxies(terms.id)
        ]
        present = [version for version in versions if version is not None]
        if len(present) != len(versions):
            raise NotFound
        return Found(terms, present, order_of_asking(proxies, exclude, self._proxies.latencies))

    async def _check(self, repository: Repository, terms: Terms, request: Verified[ReencryptionRequest]) -> None:
        wanted = request.payload.capsules
        limited = any(entry.limited for entry in terms.scopes)
        listed = await repository.grants.listed_capsules(terms.id, wanted) if limited else set[tuple[int, str]]()
        check_disclosure(terms, request.payload.iss, wanted, listed, self._statements.clock())

    async def _ask(self, found: Found, request: Verified[ReencryptionRequest], place: _Place) -> list[Reencryption]:
        """Ask `t` proxies at once, and another one whenever one fails or nothing has come for a while."""
        needed, waiting = found.terms.threshold, list(found.candidates)
        capsules = [version.capsule for version in found.versions]
        patience = patience_with(self._hedge, len(capsules))
        asked: set[asyncio.Task[Reencryption]] = set()
        good: list[Reencryption] = []
        ended = 0

        def ask(count: int) -> None:
            for proxy in waiting[:count]:
                asked.add(asyncio.create_task(self._proxies.reencrypt(proxy, request, capsules)))
            del waiting[:count]

        if not found.terms.active or len(waiting) < needed:
            raise NotEnoughProxies
        ask(needed)
        try:
            while len(good) < needed:
                if len(good) + len(asked) + len(waiting) < needed:
                    # A patient may have ended the grant at the proxies while this service was away.
                    raise GrantRevoked if found.terms.stored - ended < needed else NotEnoughProxies
                done, asked = await asyncio.wait(
                    asked, timeout=patience if waiting or place.held else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    try:
                        good.append(task.result())
                    except ProxyFailure as failure:
                        ended += failure.code == GrantRevoked.code
                        ask(1)
                if not done:
                    place.give_back()
                    ask(1)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        return good

    async def _write_down(
        self,
        repository: Repository,
        found: Found,
        request: Verified[ReencryptionRequest],
        entry: NewEvent,
    ) -> None:
        """The last look at the grant and the record of the disclosure, in one transaction that ends before anything
        leaves; a revocation that has been acknowledged before is seen here, and a later one waits."""
        now = self._statements.clock()
        _, new = await repository.journal.accept([request], now)
        await repository.grants.keep_as_they_are([found.terms.id])
        terms = (await repository.grants.terms([found.terms.id]))[found.terms.id]
        await self._check(repository, terms, request)
        if new:
            await repository.reading.note_disclosed(terms.id, terms.patient, found.versions)
            await repository.journal.log([entry])
            await repository.notices.add(
                [
                    NewNotice(
                        terms.patient,
                        NoticeKind.DISCLOSED,
                        now,
                        other=request.payload.iss,
                        grant=terms.id,
                        count=len(found.versions),
                    )
                ]
            )


def _out(found: Found, answers: Sequence[Reencryption]) -> DisclosureOut:
    return DisclosureOut(
        grant=found.terms.id,
        records=[
            DisclosedRecord(
                record=record_out(version),
                cfrags=[CfragOut(proxy=answer.proxy, cfrag=answer.cfrags[index]) for answer in answers],
            )
            for index, version in enumerate(found.versions)
        ],
        receipts=[ReceiptFrom(proxy=answer.proxy, receipt=answer.receipt) for answer in answers],
    )
