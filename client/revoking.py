"""Ending a grant (docs/spec.md section 9).

    1  publish the next epoch's key of every scope in the grant, unless the newest epoch is out of its reach already
    2  post the revocation, with those epochs as the least that records carry from now on
    3  continue the other grants to read those scopes in the new epochs
    4  wait for the proxies' receipts, and send the revocation directly to those that stay silent, and once more to the
       records service while it does not show it
    5  say from the receipts that verify how well it is settled, and how much had been disclosed before

Each step finds out what an earlier run has done already, so that after a crash the whole is simply done again; a
revocation is remembered on disk before it is posted, and ends the grant for this client from then on. A grant ends
together with the grants that only continue it in newer epochs, since a person gave one consent, not several.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from client.errors import REFUSALS, UnknownGrant, WrongAnswer
from client.given import REVOCATION_UNCONFIRMED, family_of, is_unconfirmed, report_given
from client.granting import Plan, PlannedEntry, file_grant, make_grant, proxies_for_grants
from client.reports import GrantReport, GrantRevocation, Problem, ProxyReport, RevocationReport
from client.scope_keys import OwnScopes
from client.session import Session
from client.verification import check_receipt
from shared.errors import PcehrError
from shared.statements import EpochFloor, Revocation, Verified
from shared.wire import Action

_POLL_SECONDS = 0.3
_PATIENCE = 0.25
"""The part of the waiting time after which silent proxies are told directly."""


@dataclass(frozen=True)
class Promise:
    """When a grant has ended (docs/spec.md section 9): `shares` proxies were given one, `threshold` of them open a
    record, and of those that say they erased theirs up to `assumed_liars` may lie."""

    shares: int
    threshold: int
    assumed_liars: int

    @property
    def receipts_needed(self) -> int:
        """So many that fewer than `threshold` shares are left however the liars are spread; 0 where there are none."""
        return self.shares - self.threshold + 1 + self.assumed_liars if self.shares else 0

    def sealed_by(self, receipts: int) -> bool:
        """Whether receipts `erased` of so many different proxies, all verified, are enough."""
        return receipts >= self.receipts_needed


class Revoking:
    """One run of a revocation. `given` are all grants of the patient, verified: those shown, and those remembered.

    `problem` says why the records service's list could not be had as a whole, where that is so.
    """

    def __init__(
        self,
        session: Session,
        scopes: OwnScopes,
        given: Sequence[GrantReport],
        problem: Problem | None = None,
    ) -> None:
        self._session = session
        self._scopes = scopes
        self._given = list(given)
        self._problem = problem
        self._receipts: set[tuple[str, str]] = set()
        """(grant, proxy) of receipts that came directly and verified; the records service may not have them yet."""
        self._problems: dict[tuple[str, str], str] = {}

    async def run(self, grant_id: str, *, assumed_liars: int, wait_seconds: float) -> RevocationReport:
        """Steps 1 to 5; raises `UnknownGrant`. What registry or records service refuse keeps no step from the next:
        the proxies are told directly, and their receipts say how well the revocation is settled."""
        family = family_of(self._find(grant_id), self._given)
        try:
            floors = await self._advance(family)
        except REFUSALS:
            # The end of a grant must not wait for a registry that is away or lies; the report names no new epoch then.
            floors = {}
        silent = {member.id for member in family if member.id != grant_id and is_unconfirmed(member)}
        problems = self._problems_of(family, silent)
        family = [await self._post(member, floors) for member in family]
        try:
            continued = await self._continue_others(family)
        except REFUSALS:
            # Others can be given a grant later; whoever holds this one must not profit from their trouble.
            continued = []
        family = await self._wait(family, assumed_liars=assumed_liars, seconds=wait_seconds)
        family = await self._send_again_where_not_shown(family)
        problems = problems or self._problems_of(family, silent)
        return self._report(grant_id, family, floors, continued, assumed_liars, problems=problems)

    async def status(self, grant_id: str, *, assumed_liars: int) -> RevocationReport:
        """Step 5 alone; raises `UnknownGrant` also for a grant that has not been revoked."""
        family = [member for member in family_of(self._find(grant_id), self._given) if member.revocation is not None]
        if not family:
            raise UnknownGrant("This grant has not been revoked.")
        epochs = await self._scopes.epochs()
        floors = {scope_id: epochs[scope_id] for scope_id in _scope_ids(family) if scope_id in epochs}
        return self._report(grant_id, family, floors, [], assumed_liars, problems=self._problems_of(family))

    async def send_again(self, grant: GrantReport) -> None:
        """Post the revocation of a grant once more, and send it to all of its proxies; nothing is waited for.

        For a grant that the records service shows as if it had not been revoked.
        """
        ended = await self._post(grant, {})
        await asyncio.gather(*(self._tell(ended, proxy) for proxy in ended.proxies))

    def _find(self, grant_id: str) -> GrantReport:
        for grant in self._given:
            if grant.id == grant_id:
                return grant
        raise UnknownGrant

    async def _advance(self, family: Sequence[GrantReport]) -> dict[str, int]:
        """The least epoch from now on of each scope in the grants, by scope id, published.

        A scope whose name is not known here has no next key that this client could make, and is left out: ending
        the grant must not wait for it.
        """
        epochs = await self._scopes.epochs(fresh=True)
        names = self._scopes.names
        next_epochs: dict[str, int] = {}
        for member in family:
            for entry in member.entries:
                if entry.scope_id in names and epochs.get(entry.scope_id, 0) <= entry.epoch:
                    next_epochs[names[entry.scope_id]] = epochs.get(entry.scope_id, 0) + 1
        await self._scopes.publish(next_epochs)
        epochs = await self._scopes.epochs()
        return {
            scope_id: epochs[scope_id] for scope_id in _scope_ids(family) if scope_id in names and scope_id in epochs
        }

    async def _post(self, member: GrantReport, floors: dict[str, int]) -> GrantReport:
        """Post the revocation of one grant, unless it is there already and says all that there is to say."""
        own = {scope_id: floors[scope_id] for scope_id in _scope_ids([member]) if scope_id in floors}
        revocation = member.revocation
        said = {floor.scope: floor.epoch for floor in revocation.payload.epochs} if revocation is not None else {}
        if revocation is not None and member.revocation_shown and _out_of_reach(member, own, said):
            return member
        session = self._session
        current = (await session.me()).current_identity_key
        if revocation is None or revocation.signed_with != current or not _out_of_reach(member, own, said):
            # The records service takes one that is signed with the current key; and an earlier run may have ended
            # before it had the new epochs.
            revocation = await session.sign(
                Revocation,
                member.recipient.did,
                grant=member.id,
                epochs=tuple(EpochFloor(scope=scope_id, epoch=epoch) for scope_id, epoch in (said | own).items()),
            )
            session.state.consents.remember_revocation(revocation)
            session.state.save_if_changed()
        await self._send(revocation)
        problem = replace(REVOCATION_UNCONFIRMED, grant_id=member.id)
        return replace(member, revocation=revocation, revocation_shown=False, problem=problem)

    async def _send(self, revocation: Verified[Revocation]) -> None:
        """A records service that refuses or stays away cannot keep the grant alive: the proxies get it all the same."""
        with contextlib.suppress(*REFUSALS):
            await self._session.platform.revoke(await self._session.credentials(), revocation.token)

    async def _send_again_where_not_shown(self, family: Sequence[GrantReport]) -> list[GrantReport]:
        """A service that was away gets what it missed, since it is whom the recipient asks first."""
        for member in family:
            if member.revocation is not None and not member.revocation_shown:
                await self._send(member.revocation)
        return [member if member.revocation_shown else await self._look_again(member) for member in family]

    async def _continue_others(self, family: Sequence[GrantReport]) -> list[str]:
        """Give the recipients of other grants to read the same scopes what is written in the new epochs as well."""
        ended = {member.id for member in family}
        touched = set(_scope_ids(family)) & set(self._scopes.names)
        epochs = await self._scopes.epochs()
        # Never one that the records service does not show: it may have been ended elsewhere, or may never have been.
        others = [
            grant
            for grant in self._given
            if grant.id not in ended and grant.live and grant.shown and Action.READ in grant.actions
        ]
        made: list[str] = []
        for grant in sorted(others, key=lambda other: other.statement.payload.iat):
            missing = [
                PlannedEntry(name=self._scopes.names[scope_id], epoch=epochs[scope_id])
                for scope_id in _scope_ids([grant])
                if scope_id in touched and _in_full(grant, scope_id)
                if not any(_covers(other, grant, scope_id, epochs[scope_id]) for other in others)
            ]
            if missing:
                continued = await self._continue(grant, missing)
                others.append(continued)
                made.append(continued.id)
        return made

    async def _continue(self, grant: GrantReport, entries: Sequence[PlannedEntry]) -> GrantReport:
        session = self._session
        plan = Plan(
            recipient=await session.party(grant.recipient.did, fresh=True),
            actions=grant.actions,
            purpose=grant.purpose,
            expires=grant.expires,
            entries=tuple(entries),
            threshold=grant.threshold,
            proxies=await proxies_for_grants(session),
        )
        statement, shares = await make_grant(session, plan)
        await file_grant(session, statement, shares)
        shown = await session.platform.grant(await session.credentials(), statement.id)
        if shown.id != statement.id:
            raise WrongAnswer("The records service shows another grant than the one asked for.")
        return await report_given(session, shown, self._scopes.names)

    async def _wait(self, family: list[GrantReport], *, assumed_liars: int, seconds: float) -> list[GrantReport]:
        """Look for receipts until all are sealed or the time is over; halfway ask the silent proxies directly."""
        started = time.monotonic()
        told = False
        while True:
            family = [await self._look_again(member) for member in family]
            if all(self._settled(member, assumed_liars).state == "sealed" for member in family):
                return family
            waited = time.monotonic() - started
            if not told and waited >= seconds * _PATIENCE:
                told = True
                await asyncio.gather(*(self._tell(member, proxy) for member in family for proxy in member.proxies))
                continue
            if waited >= seconds:
                return family
            await asyncio.sleep(min(_POLL_SECONDS, max(0.0, seconds - waited)))

    async def _look_again(self, member: GrantReport) -> GrantReport:
        """The grant with the receipts that have come in. The revocation has been posted: an outage changes nothing."""
        try:
            shown = await self._session.platform.grant(await self._session.credentials(), member.id)
            if shown.id != member.id:
                # The receipts of another grant, however good, say nothing of this one.
                return member
            seen = await report_given(self._session, shown, self._scopes.names)
        except PcehrError:
            return member
        if seen.revocation is None or member.revocation is None or seen.revocation.id != member.revocation.id:
            # The receipts shown answer another statement than the one this run goes by.
            return replace(seen, revocation=seen.revocation or member.revocation)
        return seen

    async def _tell(self, member: GrantReport, proxy: ProxyReport) -> None:
        """Send the revocation to one proxy; what goes wrong is kept to be shown."""
        place = (member.id, proxy.did)
        if proxy.erased or place in self._receipts or member.revocation is None:
            return
        try:
            party = await self._session.party_for_less(proxy.did)
            endpoint = party.current.payload.endpoint or ""
            answer = await self._session.platform.revoke_at(endpoint, member.revocation.token)
            check_receipt(
                answer.receipt,
                party,
                act="erased",
                statement=member.revocation.id,
                grant=member.id,
                audience=self._session.did,
            )
        except PcehrError as error:
            self._problems[place] = error.code
        else:
            self._receipts.add(place)

    def _settled(self, member: GrantReport, assumed_liars: int) -> GrantRevocation:
        proxies = [self._proxy(member, proxy) for proxy in member.proxies]
        receipts = sum(proxy.erased for proxy in proxies)
        promise = Promise(shares=len(proxies), threshold=member.threshold, assumed_liars=assumed_liars)
        return GrantRevocation(
            grant_id=member.id,
            state="sealed" if promise.sealed_by(receipts) else "pending",
            receipts=receipts,
            needed=promise.receipts_needed,
            shares=promise.shares,
            threshold=promise.threshold,
            already_disclosed=member.disclosed,
            proxies=proxies,
        )

    def _proxy(self, member: GrantReport, proxy: ProxyReport) -> ProxyReport:
        place = (member.id, proxy.did)
        if place in self._receipts:
            return replace(proxy, erased=True, problem=None)
        return replace(proxy, problem=self._problems.get(place, proxy.problem))

    def _report(
        self,
        grant_id: str,
        family: Sequence[GrantReport],
        floors: dict[str, int],
        continued: list[str],
        assumed_liars: int,
        *,
        problems: list[Problem],
    ) -> RevocationReport:
        settled = [self._settled(member, assumed_liars) for member in family]
        furthest = max(settled, key=lambda member: member.needed - member.receipts)
        return RevocationReport(
            grant_id=grant_id,
            state=furthest.state,
            receipts=furthest.receipts,
            needed=furthest.needed,
            shares=furthest.shares,
            already_disclosed=sum(member.already_disclosed for member in settled),
            new_epochs={self._scopes.names.get(scope_id, scope_id): epoch for scope_id, epoch in floors.items()},
            continued_grants=continued,
            grants=settled,
            proxies=furthest.proxies,
            problems=problems,
        )

    def _problems_of(self, family: Sequence[GrantReport], silent: Collection[str] = ()) -> list[Problem]:
        """What the records service hides of these grants, but for those of the ids in `silent`, or why it could not be
        asked for them."""
        if self._problem is not None:
            return [self._problem]
        return [
            one.problem
            for one in family
            if one.id not in silent and one.problem is not None and not (one.shown and one.revocation_shown)
        ]


def _scope_ids(grants: Sequence[GrantReport]) -> list[str]:
    return list(dict.fromkeys(entry.scope_id for grant in grants for entry in grant.entries))


def _out_of_reach(grant: GrantReport, wanted: dict[str, int], said: dict[str, int]) -> bool:
    """Whether a revocation that names the floors `said` keeps all of `wanted` that can be had from the grant."""
    reach: dict[str, int] = {}
    for entry in grant.entries:
        reach[entry.scope_id] = max(entry.epoch, reach.get(entry.scope_id, 0))
    return all(said.get(scope_id, 0) > reach[scope_id] for scope_id in wanted)


def _in_full(grant: GrantReport, scope_id: str) -> bool:
    """Whether the grant covers the scope as a whole and not only some records of it."""
    return any(entry.scope_id == scope_id and entry.limited_to is None for entry in grant.entries)


def _covers(other: GrantReport, grant: GrantReport, scope_id: str, epoch: int) -> bool:
    """Whether `other` carries `grant` on to this epoch of the scope already: it says the same and covers it in full.

    One of other terms, however wide, is another consent. Its end would leave the holder of this one without what had
    been written in between.
    """
    same = (other.recipient.did, other.actions, other.purpose, other.expires, other.threshold) == (
        grant.recipient.did,
        grant.actions,
        grant.purpose,
        grant.expires,
        grant.threshold,
    )
    return same and any(
        entry.scope_id == scope_id and entry.epoch == epoch and entry.limited_to is None for entry in other.entries
    )
