"""Grants a patient has given, as far as their statements and receipts prove it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from client.errors import UnexpectedAnswer, VerificationFailed, WrongAnswer
from client.reading import problem_of
from client.reports import GrantEntry, GrantReport, Problem, ProxyReport
from client.session import Session
from client.verification import check_grant, check_receipt, names_by_id, verifying
from shared.identity import VerifiedParty
from shared.jose import parse
from shared.schemas.records import GrantOut, GrantProxyOut, GrantState
from shared.statements import Grant, Revocation, Verified, verify_stored
from shared.wire import ReceiptAct


async def report_given(session: Session, shown: GrantOut, names: Mapping[str, str]) -> GrantReport:
    """Verify a grant of this patient, its revocation and its receipts. Raises a `VerificationFailed`."""
    me = await session.me()
    recipient = await session.party(unverified_audience(shown.grant))
    checked = check_grant(shown.grant, grant_id=shown.id, patient=me, recipient=recipient)
    statement = checked.statement
    revocation = await revocation_of(session, shown, me)
    proxies = await proxy_reports(session, shown, statement, revocation)
    return GrantReport(
        id=statement.id,
        recipient=recipient,
        scopes=names_by_id(names, statement.payload),
        entries=entries_of(statement.payload, names),
        actions=statement.payload.actions,
        purpose=statement.payload.purpose,
        begins=statement.payload.nbf,
        expires=statement.payload.exp,
        state=state_of(statement.payload, proxies, revoked=revocation is not None, now=session.clock()),
        request=statement.payload.request,
        threshold=statement.payload.shares.threshold if statement.payload.shares else 0,
        proxies=proxies,
        disclosed=shown.disclosed,
        statement=statement,
        revocation=revocation,
        problem=_first_problem(proxies, statement.id),
    )


async def revocation_of(session: Session, shown: GrantOut, patient: VerifiedParty) -> Verified[Revocation] | None:
    """The revocation of a grant, if there is one that the patient signed; one by anybody else does not count."""
    if shown.revocation is None:
        return None
    with verifying():
        if patient.did != session.did:
            patient = await session.issuer_of(shown.revocation, Revocation)
        revocation = verify_stored(shown.revocation, Revocation, patient)
    if revocation.payload.grant != shown.id:
        raise WrongAnswer("The revocation shown is one of another grant.")
    return revocation


async def proxy_reports(
    session: Session,
    shown: GrantOut,
    statement: Verified[Grant],
    revocation: Verified[Revocation] | None,
) -> list[ProxyReport]:
    """How far each proxy that the grant names is, in the grant's order. A receipt that fails is no receipt."""
    said = {proxy.did: proxy for proxy in shown.proxies}
    shares = statement.payload.shares
    reports = []
    for proxy in shares.proxies if shares else ():
        card = said.get(proxy.did, GrantProxyOut(did=proxy.did))
        stored, wrong_stored = await _receipt(session, proxy.did, card.stored, statement, answering=statement)
        erased, wrong_erased = await _receipt(session, proxy.did, card.erased, statement, answering=revocation)
        problem = wrong_erased or wrong_stored
        reports.append(
            ProxyReport(did=proxy.did, stored=stored, erased=erased, problem=problem.code if problem else card.problem)
        )
    return reports


def state_of(grant: Grant, proxies: list[ProxyReport], *, revoked: bool, now: int) -> GrantState:
    """The state that receipts, end and revocation prove (docs/spec.md section 7)."""
    if revoked:
        return GrantState.REVOKED
    if grant.exp <= now:
        return GrantState.EXPIRED
    stored = sum(proxy.stored for proxy in proxies)
    if grant.shares is None or stored == len(grant.shares.proxies):
        return GrantState.COMPLETE
    return GrantState.ACTIVE if stored >= grant.shares.threshold else GrantState.PENDING


def entries_of(grant: Grant, names: Mapping[str, str]) -> list[GrantEntry]:
    """The scopes and epochs a grant covers, with their names as far as they are known."""
    return [
        GrantEntry(
            scope=names.get(entry.scope),
            scope_id=entry.scope,
            epoch=entry.epoch,
            limited_to=None if entry.capsules is None else len(entry.capsules),
        )
        for entry in grant.scopes
    ]


def continues(later: GrantReport, earlier: GrantReport) -> bool:
    """Whether a grant only carries an earlier one on to newer epochs, as it is done when another one is revoked.

    Nothing on the wire says so. It follows from what both say: the same recipient, actions, purpose, end and
    threshold, no request, scopes that the earlier one covers in full, and only epochs newer than its own.
    """
    new, old = later.statement.payload, earlier.statement.payload
    if later.id == earlier.id or new.request is not None or new.iat < old.iat:
        return False
    if (new.aud, new.actions, new.purpose, new.exp) != (old.aud, old.actions, old.purpose, old.exp):
        return False
    if later.threshold != earlier.threshold:
        return False
    newest: dict[str, int] = {}
    for entry in old.scopes:
        if entry.capsules is None:
            newest[entry.scope] = max(entry.epoch, newest.get(entry.scope, 0))
    return all(
        entry.capsules is None and entry.scope in newest and entry.epoch > newest[entry.scope] for entry in new.scopes
    )


def family_of(grant: GrantReport, given: list[GrantReport]) -> list[GrantReport]:
    """The grant, those it continues and those that continue it: one consent, which ends as a whole."""
    family = [grant]
    for member in family:
        for other in given:
            related = continues(other, member) or continues(member, other)
            if related and all(other.id != known.id for known in family):
                family.append(other)
    return family


def _first_problem(proxies: list[ProxyReport], grant_id: str) -> Problem | None:
    """What keeps the first proxy that has one from having, or having erased, its share."""
    for proxy in proxies:
        if proxy.problem is not None:
            detail = "A proxy has not confirmed what it was asked; the platform goes on asking where that may help."
            return Problem(code=proxy.problem, detail=detail, grant_id=grant_id, proxy=proxy.did)
    return None


async def _receipt(
    session: Session,
    proxy_did: str,
    token: str | None,
    grant: Verified[Grant],
    *,
    answering: Verified[Grant] | Verified[Revocation] | None,
) -> tuple[bool, Problem | None]:
    """Whether the receipt is there and holds; where it is there and does not, why.

    A receipt that answers the grant says `stored`, one that answers the revocation says `erased`.
    """
    if token is None or answering is None:
        return False, None
    act: ReceiptAct = "stored" if isinstance(answering.payload, Grant) else "erased"
    for fresh in (False, True):
        try:
            proxy = await session.party(proxy_did, fresh=fresh)
            check_receipt(token, proxy, act=act, statement=answering.id, grant=grant.id, audience=grant.payload.iss)
        except VerificationFailed as error:
            # The first time it may only be that the proxy has changed its keys since this session saw it.
            if fresh:
                return False, problem_of(error, grant_id=grant.id, proxy=proxy_did)
        else:
            return True, None
    return False, None


def unverified_audience(token: str) -> str:
    """Whom a grant claims to be for, for finding that party; nothing has been checked."""
    with verifying():
        jws = parse(token, typ=Grant.typ, max_size=Grant.max_size)
    try:
        return Grant.model_validate_json(jws.unverified_payload).aud
    except ValidationError:
        raise UnexpectedAnswer("The records service shows something that is not a grant.") from None
