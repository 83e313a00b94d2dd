"""Grants that a recipient holds: verified, and the names of their scopes unsealed."""

from __future__ import annotations

from client.errors import ServiceRefused, UnknownGrant, VerificationFailed, WrongAnswer
from client.given import entries_of, note_epochs, proxy_reports, revocation_of, state_of
from client.reports import HeldGrant
from client.sealed import open_grant
from client.session import Session
from client.verification import check_grant, names_by_id, scope_ids
from shared.schemas.records import GrantOut
from shared.statements import Grant


async def report_held(session: Session, shown: GrantOut) -> HeldGrant:
    """Verify a grant to this recipient, its revocation and its receipts. Raises a `VerificationFailed`.

    One that was seen revoked stays so. The epochs that patient has signed for are noted, for whoever writes.
    """
    patient = await session.issuer_of(shown.grant, Grant)
    checked = check_grant(shown.grant, grant_id=shown.id, patient=patient, recipient=await session.me())
    statement = checked.statement
    content = open_grant(statement.payload, session.keyring.receiving(checked.recipient_entry.payload.seq))
    ids = scope_ids(statement.payload)
    if len(content.scopes) != len(ids):
        raise VerificationFailed("The grant names another number of scopes than it covers.")
    names = dict(zip(ids, content.scopes, strict=True))
    note_epochs(session, statement)
    revocation = await revocation_of(session, shown, statement)
    proxies = await proxy_reports(session, shown, statement, revocation)
    payload = statement.payload
    return HeldGrant(
        id=statement.id,
        patient=patient,
        scopes=names_by_id(names, payload),
        entries=entries_of(payload, names),
        actions=payload.actions,
        purpose=payload.purpose,
        begins=payload.nbf,
        expires=payload.exp,
        state=state_of(payload, proxies, revoked=revocation is not None, now=session.clock()),
        request=payload.request,
        threshold=payload.shares.threshold if payload.shares else 0,
        proxies=proxies,
        statement=statement,
        patient_entry=checked.patient_entry,
        recipient_entry=checked.recipient_entry,
    )


async def held_grant(session: Session, grant_id: str) -> HeldGrant:
    """One grant that this recipient holds; raises `UnknownGrant`."""
    try:
        shown = await session.platform.grant(await session.credentials(), grant_id)
    except ServiceRefused as refused:
        if refused.status == 404:
            raise UnknownGrant from None
        raise
    if shown.id != grant_id:
        # Another grant would do as well for every other check: what is written under it would go to its patient.
        raise WrongAnswer("The records service shows another grant than the one asked for.")
    return await report_held(session, shown)
