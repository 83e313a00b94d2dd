"""Grants a patient has given, as far as their statements and receipts prove it.

The records service shows the list, and could leave something out. What this client has signed or seen before is
remembered (`client.consent_memory`): a revocation that is hidden holds all the same, and a grant that is hidden is
named and can be ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import ValidationError

from client.consent_memory import RememberedGrant
from client.errors import REFUSALS, ServiceRefused, UnexpectedAnswer, VerificationFailed, WrongAnswer
from client.reading import problem_of
from client.reports import GrantEntry, GrantReport, Problem, ProxyReport
from client.session import Session
from client.verification import check_grant, check_receipt, names_by_id, verifying
from shared.jose import parse
from shared.schemas.records import GrantOut, GrantProxyOut, GrantState
from shared.statements import Grant, Revocation, Verified, verify_stored
from shared.wire import ReceiptAct

GRANT_WITHHELD = Problem(
    code="grant_withheld",
    detail="The records service does not show this grant, although it has had it. How much has been disclosed under it"
    " is not known.",
)
GRANT_UNCONFIRMED = Problem(
    code="grant_unconfirmed",
    detail="You signed this grant, and the records service never acknowledged it, so that it may not have come about."
    " Revoke it to be sure that it does not.",
)
REVOCATION_WITHHELD = Problem(
    code="revocation_withheld",
    detail="The records service shows this grant as if you had not ended it. It has ended; the revocation is sent once"
    " more, to the service and to the proxies.",
)

REVOCATION_UNCONFIRMED = Problem(
    code="revocation_unconfirmed",
    detail="The records service has not confirmed that you ended this grant. The proxies were told directly, and their"
    " receipts count; the service is told once more whenever you list your grants.",
)


async def report_given(session: Session, shown: GrantOut, names: Mapping[str, str]) -> GrantReport:
    """Verify a grant of this patient that the records service shows, its revocation and its receipts, and remember it.

    A grant that is remembered as revoked is revoked, whatever is shown. Raises a `VerificationFailed`.
    """
    return await _report(session, shown, names, acknowledged=True)


async def report_remembered(session: Session, grant: RememberedGrant, names: Mapping[str, str]) -> GrantReport:
    """A grant of this patient that the records service does not show, from this client's own memory."""
    shown = GrantOut(
        id=grant.id,
        grant=grant.token,
        state=GrantState.PENDING,
        received_at=0,
        proxies=[],
        revocation=None,
        disclosed=0,
    )
    report = await _report(session, shown, names, acknowledged=grant.acknowledged)
    problem = GRANT_WITHHELD if grant.acknowledged else GRANT_UNCONFIRMED
    if report.revocation is not None and not grant.acknowledged:
        # It was most likely never there, and it has ended: there is nothing to be told.
        return replace(report, shown=False, problem=None)
    return replace(report, shown=False, problem=replace(problem, grant_id=report.id))


async def _report(session: Session, shown: GrantOut, names: Mapping[str, str], *, acknowledged: bool) -> GrantReport:
    me = await session.me()
    recipient = await session.party_for_less(unverified_audience(shown.grant))
    checked = check_grant(shown.grant, grant_id=shown.id, patient=me, recipient=recipient)
    statement = checked.statement
    session.state.consents.remember_grant(statement, acknowledged=acknowledged)
    note_epochs(session, statement)
    for party in (me, recipient):
        session.state.keep_party(party)
    revocation = await revocation_of(session, shown, statement)
    proxies = await proxy_reports(session, shown, statement, revocation)
    withheld = revocation is not None and shown.revocation is None
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
        revocation_shown=not withheld,
        problem=(
            replace(REVOCATION_WITHHELD, grant_id=statement.id) if withheld else _first_problem(proxies, statement.id)
        ),
    )


async def revocation_of(session: Session, shown: GrantOut, grant: Verified[Grant]) -> Verified[Revocation] | None:
    """The revocation of a grant by its patient, if it is shown or has been seen before; anybody else's does not count.

    It is remembered: whoever has once seen a grant ended does not take it for alive again.
    """
    memory = session.state.consents
    known = memory.revocation(grant.id)
    token = shown.revocation if shown.revocation is not None or known is None else known.token
    if token is None:
        return None
    patient = await session.issuer_of(token, Revocation)
    if patient.did != grant.payload.iss:
        raise WrongAnswer("The revocation shown is not one by the patient who gave the grant.")
    with verifying():
        revocation = verify_stored(token, Revocation, patient)
    if revocation.payload.grant != grant.id:
        raise WrongAnswer("The revocation shown is one of another grant.")
    memory.remember_revocation(revocation)
    note_epochs(session, revocation)
    return revocation


def note_epochs(session: Session, statement: Verified[Grant] | Verified[Revocation]) -> None:
    """How far a patient's scopes have come, as far as a grant or a revocation of the patient's proves it."""
    payload = statement.payload
    for place in payload.scopes if isinstance(payload, Grant) else payload.epochs:
        session.state.raise_epoch(payload.iss, place.scope, place.epoch)


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
        name, endpoint = await _name_and_place(session, proxy.did)
        reports.append(
            ProxyReport(
                did=proxy.did,
                stored=stored,
                erased=erased,
                problem=problem.code if problem else card.problem,
                name=name,
                endpoint=endpoint,
            )
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
    """The grant, those it continues and those that continue it: one consent, which ends as a whole.

    So does an answer to the same request that was never acknowledged: whoever approved it once more meant one consent.
    """
    family = [grant]
    for member in family:
        for other in given:
            again = is_unconfirmed(other) and other.request is not None and other.request == member.request
            related = again or continues(other, member) or continues(member, other)
            if related and all(other.id != known.id for known in family):
                family.append(other)
    return family


def is_unconfirmed(grant: GrantReport) -> bool:
    """Whether the grant was signed and the records service has never acknowledged it, so that it most likely is not."""
    return grant.problem is not None and grant.problem.code == GRANT_UNCONFIRMED.code


def _first_problem(proxies: list[ProxyReport], grant_id: str) -> Problem | None:
    """What keeps the first proxy that has one from having, or having erased, its share."""
    for proxy in proxies:
        if proxy.problem is not None:
            detail = "A proxy has not confirmed what it was asked; the platform goes on asking where that may help."
            if proxy.problem == "wrong_signer" and not proxy.stored:
                detail = (
                    "A proxy has refused its share, because your keys have changed since you signed the grant."
                    " Give the grant anew, and then revoke this one."
                )
            return Problem(code=proxy.problem, detail=detail, grant_id=grant_id, proxy=proxy.did)
    return None


async def _name_and_place(session: Session, proxy_did: str) -> tuple[str | None, str | None]:
    """What a proxy is called and where it is; a grant is shown even if the registry hides one of its proxies."""
    try:
        proxy = await session.party_for_less(proxy_did)
    except REFUSALS:
        return None, None
    session.state.keep_party(proxy)
    return proxy.current.payload.name, proxy.current.payload.endpoint


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
        except (ServiceRefused, VerificationFailed) as error:
            # The first time it may only be that the proxy has changed its keys since this session saw it. A registry
            # that does not show the proxy leaves its receipts unproven, and hides no grant by that.
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
