"""A patient's consents: requests that came in, grants given, and their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from client.errors import (
    REFUSALS,
    InvalidGrant,
    ServiceRefused,
    UnknownGrant,
    UnknownRecord,
    UnknownRequest,
    UnknownScope,
    VerificationFailed,
    WiderThanRequested,
    WrongAnswer,
)
from client.fingerprint import fingerprint
from client.given import continues, report_given, report_remembered
from client.granting import Plan, PlannedEntry, file_grant, limited_entries, make_grant, proxies_for_grants
from client.reading import problem_of
from client.reports import GrantReport, IncomingRequest, Problem, RevocationReport
from client.revoking import Revoking
from client.scope_keys import OwnScopes
from client.sealed import open_request
from client.session import Session
from client.settings_record import SETTINGS_SCOPE
from client.verification import VerifiedRecord, check_request
from shared.schemas.records import GrantOut, GrantState, RequestOut, RequestState
from shared.statements import Denial, DisclosureRequest, Grant
from shared.wire import Action, DenialReason, Purpose

DEFAULT_LIFETIME = 90 * 86_400
"""Seconds that a grant holds unless the patient says otherwise."""

SAME_END_SECONDS = 86_400
"""By how much the end of a grant given already may lie before the one wanted now."""

_PASSING = frozenset({"proxy_unreachable", "unavailable", "database_unavailable", "registry_unavailable"})
"""What keeps a share from a proxy for a while and not for good: the records service goes on trying."""

_WAIT_FOR_RECEIPTS = 15.0
_FIRST_POLL_SECONDS = 0.02
_LONGEST_POLL_SECONDS = 0.2
"""Proxies take some milliseconds for each scope; who has waited for long looks less often."""


class Consents:
    """Works for `client.patient.Patient`; `records` gives the patient's records, verified and not opened."""

    def __init__(
        self, session: Session, scopes: OwnScopes, records: Callable[[], Awaitable[list[VerifiedRecord]]]
    ) -> None:
        self._session = session
        self._scopes = scopes
        self._records = records

    async def inbox(self, state: RequestState | None) -> list[IncomingRequest]:
        """Requests to this patient; one whose sealed part does not open is shown with its problem."""
        session = self._session
        found = []
        async for shown in session.platform.requests(await session.credentials(), "inbox"):
            if state in (None, shown.state):
                found.append(await self._incoming(shown))
        return found

    async def deny(self, request_id: str, reason: DenialReason) -> None:
        """Refuse a request."""
        request = await self._request(request_id)
        denial = await self._session.sign(Denial, request.recipient.did, request=request.id, reason=reason)
        await self._session.platform.deny(await self._session.credentials(), denial.token)

    async def approve(
        self,
        request_id: str,
        *,
        scopes: list[str] | None,
        actions: list[Action] | None,
        expires: int | None,
        records: list[str] | None,
        threshold: int | None,
        wait: bool,
    ) -> GrantReport:
        """Answer a request with a grant of what was asked, or less."""
        request = await self._request(request_id)
        if request.problem is not None:
            raise VerificationFailed.from_code(request.problem.code, request.problem.detail)
        wider = [name for name in scopes or () if name not in request.scopes]
        wider += [action.value for action in actions or () if action not in request.actions]
        if wider:
            raise WiderThanRequested(f"The request does not ask for {', '.join(wider)}.")
        return await self._give(
            request.recipient.did,
            scopes=request.scopes if scopes is None else scopes,
            actions=list(request.actions) if actions is None else actions,
            purpose=request.purpose,
            expires=self._session.clock() + DEFAULT_LIFETIME if expires is None else expires,
            records=records,
            threshold=threshold,
            request=request.id,
            earlier=request.grants,
            wait=wait,
        )

    async def share(
        self,
        recipient_did: str,
        *,
        scopes: list[str],
        actions: list[Action],
        purpose: Purpose,
        expires: int,
        records: list[str] | None,
        threshold: int | None,
        wait: bool,
    ) -> GrantReport:
        """Give access without a request."""
        remembered = self._session.state.consents.given_by(self._session.did)
        return await self._give(
            recipient_did,
            scopes=scopes,
            actions=actions,
            purpose=purpose,
            expires=expires,
            records=records,
            threshold=threshold,
            request=None,
            # Those that were cut off. What was acknowledged and is given once more is meant to be there twice.
            earlier=[grant.id for grant in remembered if not grant.acknowledged],
            wait=wait,
        )

    async def grants(self) -> list[GrantReport]:
        """All grants, newest first, each with the grant that it only continues; also what is remembered and not shown.

        A revocation that the records service does not show is sent once more.
        """
        reports, _ = await self._given(strict=True)
        revoking = Revoking(self._session, self._scopes, reports)
        now = self._session.clock()
        for report in reports:
            if not report.revocation_shown and report.expires > now:
                await revoking.send_again(report)
        return [replace(report, continues=_continued_by(report, reports)) for report in reports]

    async def grant(self, grant_id: str) -> GrantReport:
        """One grant; from memory where the records service does not show it."""
        shown = await self._shown(grant_id)
        if shown is not None:
            return await report_given(self._session, shown, self._scopes.names)
        remembered = self._session.state.consents.grant(grant_id)
        if remembered is None or remembered.patient != self._session.did:
            raise UnknownGrant
        return await report_remembered(self._session, remembered, self._scopes.names)

    async def grant_ids(self) -> list[str]:
        """Ids of all grants that can be named, shown or remembered, also while the records service refuses its list."""
        reports, _ = await self._given(strict=False)
        return [report.id for report in reports]

    async def revoke(self, grant_id: str, *, assumed_liars: int, wait_seconds: float) -> RevocationReport:
        """End a grant (`client.revoking`); one that is remembered, also while the records service refuses its list."""
        revoking = Revoking(self._session, self._scopes, *await self._given(strict=False))
        return await revoking.run(grant_id, assumed_liars=assumed_liars, wait_seconds=wait_seconds)

    async def revocation_status(self, grant_id: str, *, assumed_liars: int) -> RevocationReport:
        """How far a revocation is."""
        revoking = Revoking(self._session, self._scopes, *await self._given(strict=False))
        return await revoking.status(grant_id, assumed_liars=assumed_liars)

    async def _given(self, *, strict: bool) -> tuple[list[GrantReport], Problem | None]:
        """What the records service shows and what is remembered besides, newest first.

        Unless `strict`, a list that is refused or broken, or a grant in it that does not verify, keeps nobody from what
        is remembered; the problem is the second value.
        """
        session, names = self._session, self._scopes.names
        problem: Problem | None = None
        reports: dict[str, GrantReport] = {}
        try:
            async for shown in session.platform.grants(await session.credentials(), "given"):
                try:
                    reports[shown.id] = await report_given(session, shown, names)
                except REFUSALS as error:
                    if strict:
                        raise
                    problem = problem_of(error, grant_id=shown.id)
        except REFUSALS as error:
            if strict:
                raise
            problem = problem_of(error)
        for remembered in session.state.consents.given_by(session.did):
            if remembered.id not in reports:
                try:
                    reports[remembered.id] = await report_remembered(session, remembered, names)
                except REFUSALS as error:
                    if strict:
                        raise
                    problem = problem_of(error, grant_id=remembered.id)
        session.state.save_if_changed()
        return sorted(reports.values(), key=lambda report: -report.statement.payload.iat), problem

    async def _give(
        self,
        recipient_did: str,
        *,
        scopes: list[str],
        actions: list[Action],
        purpose: Purpose,
        expires: int,
        records: list[str] | None,
        threshold: int | None,
        request: str | None,
        earlier: Sequence[str],
        wait: bool,
    ) -> GrantReport:
        session = self._session
        if not scopes:
            raise InvalidGrant("A grant names at least one scope.")
        if SETTINGS_SCOPE in scopes:
            raise InvalidGrant("A patient's own settings are never disclosed.")
        # Names come in other people's requests too: only scopes that exist get a key.
        await self._check_exist(scopes)
        entries = await self._entries(scopes, records)
        reading = Action.READ in actions
        first_choice = reading and not session.state.proxies
        proxies = await proxies_for_grants(session) if reading else ()
        plan = Plan(
            recipient=await session.party(recipient_did, fresh=True),
            actions=tuple(sorted(set(actions))),
            purpose=purpose,
            expires=expires,
            entries=entries,
            threshold=(threshold or await self._threshold(len(proxies))) if reading else 0,
            proxies=proxies,
            request=request,
        )
        grant_id = await self._given_already(plan, earlier)
        if grant_id is None:
            statement, shares = await make_grant(session, plan)
            await file_grant(session, statement, shares)
            grant_id = statement.id
        report = await self._wait_for_receipts(grant_id) if wait else await self.grant(grant_id)
        session.state.save_if_changed()
        return replace(report, first_choice=first_choice)

    async def _given_already(self, plan: Plan, candidates: Sequence[str]) -> str | None:
        """The one of these grants that holds, that no proxy has refused for good, and that says what is planned.

        Whoever gives a consent once more after a crash means the same one, and would otherwise have given two, of which
        a revocation ends one.
        """
        for grant_id in candidates:
            shown = await self._shown(grant_id)
            if shown is not None:
                report = await report_given(self._session, shown, self._scopes.names)
                if report.live and _may_stand(report) and self._says(report.statement.payload, plan):
                    return report.id
        return None

    def _says(self, grant: Grant, plan: Plan) -> bool:
        """Whether a grant says what is planned; most ends are counted from the moment, so that it may end earlier."""
        shares = grant.shares
        return (
            (grant.request, grant.aud, grant.recipient_entry)
            == (plan.request, plan.recipient.did, plan.recipient.current.id)
            and (grant.actions, grant.purpose) == (plan.actions, plan.purpose)
            and [(entry.scope, entry.epoch, entry.capsules) for entry in grant.scopes]
            == [(self._session.keyring.scope_id(entry.name), entry.epoch, entry.capsules) for entry in plan.entries]
            and (shares.threshold if shares else 0, [proxy.did for proxy in shares.proxies] if shares else [])
            == (plan.threshold, [proxy.did for proxy in plan.proxies])
            and 0 <= plan.expires - grant.exp <= SAME_END_SECONDS
        )

    async def _check_exist(self, scopes: Sequence[str]) -> None:
        """Publish the first key of scopes whose name every client of this patient knows; refuse all other names."""
        known = set(self._scopes.names.values())
        unknown = [name for name in scopes if name not in known]
        if unknown:
            raise UnknownScope(f"There is no scope {', '.join(unknown)}.")
        await self._scopes.ensure(scopes)

    async def _entries(self, scopes: Sequence[str], record_ids: list[str] | None) -> tuple[PlannedEntry, ...]:
        """What a grant covers: of each scope the epochs that have records, and the newest; or just some records."""
        newest = await self._scopes.ensure(scopes)
        names = {self._session.keyring.scope_id(name): name for name in scopes}
        # An author can name any epoch; one that has not been published would put the next one within the grant's reach.
        within = [
            manifest
            for manifest in (record.manifest.payload for record in await self._records())
            if manifest.scope in names and manifest.epoch <= newest[names[manifest.scope]]
        ]
        if record_ids is not None:
            wanted = {manifest.record: manifest for manifest in within if manifest.record in set(record_ids)}
            missing = [record_id for record_id in record_ids if record_id not in wanted]
            if missing or not wanted:
                raise UnknownRecord(f"There is no such record in these scopes: {', '.join(missing) or 'none named'}.")
            return limited_entries(
                {
                    record_id: (names[manifest.scope], manifest.epoch, manifest.capsule)
                    for record_id, manifest in wanted.items()
                }
            )
        epochs = {(names[manifest.scope], manifest.epoch) for manifest in within} | set(newest.items())
        return tuple(PlannedEntry(name=name, epoch=epoch) for name, epoch in sorted(epochs))

    async def _wait_for_receipts(self, grant_id: str) -> GrantReport:
        """The grant as soon as enough proxies have their share, or as it is after a while; all is well either way."""
        deadline = time.monotonic() + _WAIT_FOR_RECEIPTS
        pause = _FIRST_POLL_SECONDS
        while True:
            report = await self.grant(grant_id)
            if report.state is not GrantState.PENDING or time.monotonic() >= deadline:
                return report
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_POLL_SECONDS)

    async def _threshold(self, shares: int) -> int:
        """What the registry advises, but never so little that one proxy and the recipient are enough.

        Whoever wants that (there is one proxy only, or trust in each) names the threshold.
        """
        advised = (await self._session.platform.discovery()).threshold
        return max(advised, min(2, shares))

    async def _request(self, request_id: str) -> IncomingRequest:
        session = self._session
        async for shown in session.platform.requests(await session.credentials(), "inbox"):
            if shown.id == request_id:
                return await self._incoming(shown)
        raise UnknownRequest

    async def _incoming(self, shown: RequestOut) -> IncomingRequest:
        session = self._session
        me = await session.me()
        recipient = await session.issuer_of(shown.statement, DisclosureRequest)
        checked = check_request(shown.statement, request_id=shown.id, patient=me, recipient=recipient)
        payload = checked.statement.payload
        problem, scopes, reason = None, [], ""
        try:
            content = open_request(payload, session.keyring.receiving(checked.patient_entry.payload.seq))
            scopes, reason = content.scopes, content.reason
        except VerificationFailed as error:
            problem = problem_of(error)
        return IncomingRequest(
            id=shown.id,
            recipient=recipient,
            fingerprint=fingerprint(recipient),
            scopes=scopes,
            reason=reason,
            actions=payload.actions,
            purpose=payload.purpose,
            expires=payload.exp,
            state=shown.state,
            received_at=shown.received_at,
            grants=shown.grants,
            problem=problem,
        )

    async def _shown(self, grant_id: str) -> GrantOut | None:
        session = self._session
        try:
            shown = await session.platform.grant(await session.credentials(), grant_id)
        except ServiceRefused as refused:
            if refused.status == 404:
                return None
            raise
        if shown.id != grant_id:
            raise WrongAnswer("The records service shows another grant.")
        return shown


def _may_stand(report: GrantReport) -> bool:
    """Whether a grant that has been given serves as well as a new one would."""
    return all(proxy.problem is None or proxy.problem in _PASSING for proxy in report.proxies) and (
        report.problem is None or report.problem.code in _PASSING
    )


def _continued_by(report: GrantReport, others: Sequence[GrantReport]) -> str | None:
    """The oldest grant that this one only continues."""
    earlier = [other for other in others if continues(report, other)]
    return min(earlier, key=lambda other: other.statement.payload.iat).id if earlier else None
