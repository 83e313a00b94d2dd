"""Fetch everything an audit is made of, and verify each part of it.

All logs are fetched at once, each newest event first, and proven in batches under checkpoints that the client accepts
(`client.logs`). The end of each chain is remembered, so that nothing that was shown once can be changed or dropped
later. A service that is away, or that lies, takes nothing away from the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace

from client.audit.chain import (
    MAX_EVENTS,
    RECORDS,
    ChainEnd,
    CheckedLog,
    Inclusion,
    LoggedEvent,
    Proven,
    TooManyEvents,
    check_chain,
    check_log,
)
from client.audit.gathered import Gathered, OwnRequest
from client.audit.story import OwnGrant
from client.errors import REFUSALS, ClientError, ReceiptInvalid, ServiceRefused, VerificationFailed, WrongAnswer
from client.given import report_remembered
from client.patient import Patient
from client.reading import check_all, problem_of
from client.reports import GrantReport, Problem
from client.session import Session
from client.verification import VerifiedRecord, check_receipt, check_request, verifying
from shared.encoding import from_b64url
from shared.identity import VerifiedParty
from shared.schemas.events import LogEventOut
from shared.schemas.log import MAX_LEAVES
from shared.schemas.records import GrantOut, GrantProxyOut, RequestOut
from shared.statements import Denial, DisclosureRequest, Receipt, Verified, verify_stored
from shared.transparency.checkpoints import VerifiedCheckpoint
from shared.wire import RECORDS_AUDIENCE, ReceiptAct

_NOT_PROVEN_YET = "not_in_log_yet"
_SHORT = 3.0
"""Seconds to wait for a proof once one has been waited for in vain."""


@dataclass
class _Found:
    """What has been gathered so far."""

    logs: dict[str, CheckedLog] = field(default_factory=dict)
    away: dict[str, Problem] = field(default_factory=dict)
    broken: dict[str, Problem] = field(default_factory=dict)
    grants: dict[str, OwnGrant] = field(default_factory=dict)
    parties: dict[str, VerifiedParty] = field(default_factory=dict)
    requests: list[OwnRequest] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    scopes: dict[str, str] = field(default_factory=dict)


async def gather(patient: Patient, *, with_titles: bool = True) -> Gathered:
    """All logs, proven, and all of the patient's statements; `with_titles` also what records are called.

    Raises `NotSignedUp`, and what talking to the registry raises: without the registry nobody's keys are known.
    """
    session = patient.session
    began = session.clock()
    me = await session.me()
    found = _Found(parties={me.did: me})
    witnesses, faults = await _witnesses(session, found)
    await _consents(patient, found)
    await _requests(session, me, found)
    proxies = dict.fromkeys((*witnesses, *session.state.proxies))
    proxies |= dict.fromkeys(proxy for grant in found.grants.values() for proxy in grant.proxies)
    await _parties(session, found, proxies)
    await asyncio.gather(*(_one_log(session, found, service) for service in (RECORDS, *proxies)))
    await _parties(session, found, _named_in(found))
    session.state.save_if_changed()
    return Gathered(
        patient=me,
        began=began,
        now=session.clock(),
        logs=found.logs,
        away=found.away,
        broken=found.broken,
        grants=found.grants,
        parties=found.parties,
        witnesses=tuple(witnesses),
        witness_faults=faults,
        requests=tuple(found.requests),
        problems=tuple(found.problems),
        titles=await _titles(patient, found) if with_titles else {},
        scopes=found.scopes,
    )


# --- logs -----------------------------------------------------------------------------------------------------------


async def _one_log(session: Session, found: _Found, service: str) -> None:
    """One service's log, or why it could not be had, or what is wrong with it."""
    try:
        found.logs[service] = await _proven_log(session, found, service)
    except VerificationFailed as failed:
        found.broken[service] = problem_of(failed)
    except REFUSALS as refused:
        found.away[service] = problem_of(refused)


async def _proven_log(session: Session, found: _Found, service: str) -> CheckedLog:
    who, memory = await session.credentials(), session.state.logs
    if service == RECORDS:
        url = (await session.platform.discovery()).records_url
    else:
        url = _endpoint(found.parties.get(service))
    shown = await _all(session.platform.log_events(who, url, RECORDS_AUDIENCE if service == RECORDS else service))
    seen = memory.end(service, session.did)
    remembered = None if seen is None else ChainEnd(*seen)
    with verifying():
        events = check_chain(session.did, shown, remembered=remembered)
    proofs = await _prove(session, service, url, events)
    with verifying():
        log = check_log(service, session.did, shown, proofs, remembered=remembered)
    if log.end is not None:
        memory.has_read(service, session.did, log.end.n, log.end.commitment)
    return log


async def _all(events: AsyncIterator[LogEventOut]) -> list[LogEventOut]:
    shown: list[LogEventOut] = []
    async for event in events:
        if len(shown) >= MAX_EVENTS:
            with verifying():
                raise TooManyEvents
        shown.append(event)
    return shown


async def _prove(session: Session, service: str, url: str, events: tuple[LoggedEvent, ...]) -> list[Proven]:
    """Proofs for the events, oldest first. The newest may not be under a published checkpoint yet, and have none."""
    proofs: list[Proven] = []
    start, size, patience = 0, MAX_LEAVES, None
    while start < len(events):
        batch = events[start : start + size]
        try:
            async with asyncio.timeout(patience):
                checkpoint, items = await session.logs.prove(service, url, [one.leaf for one in batch])
        except (ServiceRefused, TimeoutError) as refused:
            if isinstance(refused, ServiceRefused) and refused.code != _NOT_PROVEN_YET:
                raise
            if len(batch) == 1:
                break
            # One of them has no place yet, and has been waited for once; those before it have theirs.
            size, patience = len(batch) // 2, _SHORT
            continue
        proven = Proven(
            checkpoint,
            {one.n: Inclusion(index, path) for one, (index, path) in zip(batch, items, strict=True)},
            await _consistency(session, url, proofs[-1].checkpoint if proofs else None, checkpoint),
        )
        proofs.append(proven)
        start += len(batch)
    return proofs


async def _consistency(
    session: Session, url: str, before: VerifiedCheckpoint | None, after: VerifiedCheckpoint
) -> tuple[bytes, ...]:
    """The proof that one checkpoint extends the one before, for whoever reads both without having been there."""
    if before is None or before.size in (0, after.size):
        return ()
    answer = await session.platform.log_consistency(url, before.size, after.size)
    with verifying():
        return tuple(from_b64url(step, 32) for step in answer.path)


def _endpoint(party: VerifiedParty | None) -> str:
    endpoint = None if party is None else party.current.payload.endpoint
    if endpoint is None:
        raise ServiceRefused("unknown_party", 404, "The registry does not show where this proxy is.")
    return endpoint


# --- statements -----------------------------------------------------------------------------------------------------


async def _consents(patient: Patient, found: _Found) -> None:
    """Grants with their receipts, and requests; from this client's memory alone where the records service is away."""
    session = patient.session
    try:
        who = await session.credentials()
        shown = {one.id: one async for one in session.platform.grants(who, "given")}
        reports = await patient.grants()
    except REFUSALS as refused:
        found.problems.append(problem_of(refused))
        shown, reports = {}, []
    known = {report.id for report in reports}
    for remembered in session.state.consents.given_by(session.did):
        if remembered.id not in known:
            try:
                reports.append(await report_remembered(session, remembered, {}))
            except REFUSALS as refused:
                found.problems.append(problem_of(refused, grant_id=remembered.id))
    for report in reports:
        await _grant(session, found, report, shown.get(report.id))


async def _grant(session: Session, found: _Found, report: GrantReport, shown: GrantOut | None) -> None:
    found.parties[report.recipient.did] = report.recipient
    found.scopes |= {entry.scope_id: entry.scope for entry in report.entries if entry.scope is not None}
    receipts: list[Verified[Receipt]] = []
    for card in shown.proxies if shown else ():
        for act, token in _tokens(card):
            try:
                receipts.append(await _receipt(session, report, card.did, act, token))
            except REFUSALS as refused:
                # One that does not hold proves nothing.
                found.problems.append(problem_of(refused, grant_id=report.id, proxy=card.did))
    found.grants[report.id] = OwnGrant(
        report.statement,
        report.revocation,
        tuple(receipts),
        shown=shown is not None,
        revocation_shown=shown is not None and report.revocation_shown,
    )


def _tokens(card: GrantProxyOut) -> list[tuple[ReceiptAct, str]]:
    acts: list[tuple[ReceiptAct, str | None]] = [("stored", card.stored), ("erased", card.erased)]
    return [(act, token) for act, token in acts if token is not None]


async def _receipt(
    session: Session, report: GrantReport, proxy_did: str, act: ReceiptAct, token: str
) -> Verified[Receipt]:
    """A receipt of this proxy for this grant or its revocation; raises a `VerificationFailed`."""
    answered = report.statement if act == "stored" else report.revocation
    if answered is None:
        raise ReceiptInvalid("A receipt for a revocation that nobody shows.")
    proxy = await session.issuer_of(token, Receipt)
    if proxy.did != proxy_did:
        raise ReceiptInvalid("A receipt is shown as another proxy's.")
    return check_receipt(token, proxy, act=act, statement=answered.id, grant=report.id, audience=session.did)


async def _requests(session: Session, me: VerifiedParty, found: _Found) -> None:
    """Requests to the patient; one that does not verify is a problem, and nothing is lost but it."""
    try:
        shown = [one async for one in session.platform.requests(await session.credentials(), "inbox")]
    except REFUSALS as refused:
        found.problems.append(problem_of(refused))
        return
    for one in shown:
        try:
            request = await _request(session, me, one)
        except REFUSALS as refused:
            found.problems.append(problem_of(refused))
            continue
        found.requests.append(request)
        found.parties[request.statement.payload.iss] = await session.party(request.statement.payload.iss)


async def _request(session: Session, me: VerifiedParty, shown: RequestOut) -> OwnRequest:
    recipient = await session.issuer_of(shown.statement, DisclosureRequest)
    checked = check_request(shown.statement, request_id=shown.id, patient=me, recipient=recipient)
    if shown.denial is None:
        return OwnRequest(checked.statement)
    with verifying():
        denial = verify_stored(shown.denial, Denial, me)
    if (denial.payload.request, denial.payload.aud) != (shown.id, recipient.did):
        raise WrongAnswer("The denial shown is one of another request.")
    return OwnRequest(checked.statement, denial)


# --- parties --------------------------------------------------------------------------------------------------------


async def _witnesses(session: Session, found: _Found) -> tuple[list[str], int]:
    """The witnesses that this client goes by, and how many of them may lie."""
    witnesses = await session.logs.witnesses()
    found.parties |= {did: party for did, party in witnesses.items() if party is not None}
    return list(witnesses), await session.logs.faults()


async def _parties(session: Session, found: _Found, dids: Iterable[str]) -> None:
    """The keys of these parties, as far as the registry shows them; the rest stays unnamed."""
    for did in dids:
        if did not in found.parties:
            try:
                found.parties[did] = await session.party(did)
            except REFUSALS as refused:
                found.problems.append(replace(problem_of(refused), proxy=did))


def _named_in(found: _Found) -> list[str]:
    """Everybody who did something, by the logs."""
    return list(
        dict.fromkeys(
            one.event.actor
            for log in found.logs.values()
            for one in log.events
            if one.event is not None and one.event.actor is not None
        )
    )


# --- names ----------------------------------------------------------------------------------------------------------


async def _titles(patient: Patient, found: _Found) -> Mapping[str, str]:
    """Titles by capsule, for the capsules that the logs name. Without the records service nothing has a title."""
    wanted = {
        capsule
        for log in found.logs.values()
        for one in log.events
        if one.event is not None
        for capsule in one.event.capsules or ()
    }
    if not wanted:
        return {}
    titles: dict[str, str] = {}
    try:
        for record in await patient.records():
            title = record.title
            if title is None or not record.capsule:
                continue
            titles[record.capsule] = title
            if record.version > 1 and wanted - titles.keys():
                titles |= dict.fromkeys(await _earlier(patient.session, record.record_id), f"{title} (earlier version)")
    except ClientError as error:
        found.problems.append(problem_of(error))
    return titles


async def _earlier(session: Session, record_id: str) -> list[str]:
    """The capsules of the earlier versions of a record."""
    shown = await session.platform.record_versions(await session.credentials(), record_id)
    checked = await check_all(session, shown[:-1], await session.me())
    return [record.manifest.payload.capsule for record in checked if isinstance(record, VerifiedRecord)]
