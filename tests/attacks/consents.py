"""Requests, grants and revocations: hidden, swapped, forged, and receipts that claim what was not done."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from client.errors import ClientError
from client.reports import RevocationReport
from shared import jose
from shared.did import key_id
from shared.encoding import b64url
from shared.schemas.records import GrantOut
from shared.statements import Denial, DisclosureRequest, Grant, Revocation, new_jti
from shared.wire import Action, DenialReason, Role
from tests.attacks.keys import payload_of, statement_id
from tests.attacks.lying import Asked, How, Json, Refusal
from tests.attacks.stage import Party, Stage, ask, codes_of, found
from tests.attacks.table import AUTHOR, CONSENTS, PATIENT, PROXY, RECIPIENT, RECORDS, attack
from tests.e2e.actors import Actor, in_a_month, note

GRANTS = "GET /v1/grants"
GRANT = "GET /v1/grants/{}"
REQUESTS = "GET /v1/disclosure-requests"
SILENT = f"{RECORDS} and all proxies"


def each(stage: Stage, how: Any) -> None:
    """Change every grant that the service shows, in lists and by itself."""
    stage.lie.change("records", GRANTS, lambda page: {**page, "items": [how(one) for one in page["items"]]})
    stage.lie.change("records", "GET /v1/grants/*", how)


def hide(stage: Stage, grant_id: str) -> None:
    """The service says that a grant does not exist."""

    def hidden(asked: Asked) -> Json:
        raise Refusal(404, "not_found")

    stage.lie.change(
        "records", GRANTS, lambda page: {**page, "items": [one for one in page["items"] if one["id"] != grant_id]}
    )
    stage.lie.answer("records", GRANT.format(grant_id), hidden)


async def given(stage: Stage, *, memory: bool = True) -> list[str]:
    """What the patient's list of grants complains of."""
    owner = await (stage.machine(stage.cast.owner) if memory else stage.new_machine(stage.cast.owner))
    reports = await owner.patient.grants()
    return codes_of(one.problem for one in reports if one.problem)


def alive(shown: Json) -> Json:
    """A grant as it was before it was revoked."""
    cards = [{k: v for k, v in card.items() if k != "erased"} for card in shown["proxies"]]
    return {**{k: v for k, v in shown.items() if k != "revocation"}, "state": "complete", "proxies": cards}


# --- hiding ----------------------------------------------------------------------------------------------------------


@attack(CONSENTS, RECORDS, "hides a grant from the patient who gave it", "grant_withheld", by=PATIENT)
async def grant_hidden(stage: Stage) -> list[str]:
    hide(stage, stage.cast.reading.id)
    return await given(stage)


@attack(CONSENTS, RECORDS, "shows a grant that was revoked as if it had not been", "revocation_withheld", by=PATIENT)
async def revocation_hidden(stage: Stage) -> list[str]:
    each(stage, lambda shown: alive(shown) if shown["id"] == stage.cast.ended.id else shown)
    return await given(stage)


@attack(CONSENTS, RECORDS, "takes in a grant and says that it did not", "grant_unconfirmed", by=PATIENT)
async def grant_unconfirmed(stage: Stage) -> list[str]:
    owner = await stage.newcomer(Role.PATIENT)

    async def swallow(asked: Asked) -> Json:
        await asked.truth()
        raise Refusal(422, "refused")

    stage.lie.answer("records", "POST /v1/grants", swallow)
    with contextlib.suppress(ClientError):
        await owner.patient.add_scope("allergies")
        await stage.give(owner, stage.cast.doctor.did, ["allergies"], Action.APPEND)
    stage.lie.change("records", GRANTS, lambda page: {**page, "items": []})
    return codes_of(one.problem for one in await owner.patient.grants() if one.problem)


@attack(
    CONSENTS, RECORDS, "shows an ended grant as alive, to have an author write under it", "grant_revoked", by=AUTHOR
)
async def ended_grant_as_alive(stage: Stage) -> list[str]:
    owner, writer = await stage.newcomer(Role.PATIENT), await stage.newcomer()
    await owner.patient.add_scope("medications")
    grant = await stage.give(owner, writer.did, ["medications"], Action.APPEND)
    if not stage.lie.idle:
        await owner.patient.revoke(grant.id, wait_seconds=0)
        assert (await writer.recipient.grant(grant.id)).state == "revoked"
    each(stage, alive)
    await writer.author.append(grant.id, [note("written", "medications")])
    return []


@attack(
    CONSENTS,
    RECORDS,
    "shows a recipient an ended grant as alive, and serves what it covered",
    "grant_revoked",
    by=RECIPIENT,
)
async def ended_grant_served(stage: Stage) -> list[str]:
    reader = await stage.machine(stage.cast.doctor)
    each(stage, alive)
    held = {one.id: one.state for one in await reader.recipient.grants()}
    if stage.lie.idle:
        assert held[stage.cast.ended.id] == "revoked"
        return []
    return found("grant_revoked" if held[stage.cast.ended.id] == "revoked" else None)


@attack(CONSENTS, RECORDS, "keeps a revocation from the proxies, and claims nothing", "pending", by=PATIENT)
async def revocation_kept_back(stage: Stage) -> list[str]:
    owner, grant_id = await fresh_grant(stage)
    stage.lie.answer("records", "POST /v1/revocations", accepted)
    for name in stage.operators.proxies:
        stage.lie.answer(name, "POST /v1/revocations", unavailable)
    return unsealed(await owner.patient.revoke(grant_id, wait_seconds=0.5))


# --- receipts of the end ---------------------------------------------------------------------------------------------


@attack(
    CONSENTS,
    SILENT,
    "claim that a grant is sealed with the receipts of another one's end",
    "pending",
    "receipt_invalid",
    by=PATIENT,
)
async def sealed_with_foreign_receipts(stage: Stage) -> list[str]:
    shown = await shown_to(stage, stage.cast.neighbour, stage.cast.over.id)
    return await claimed(stage, {card.did: card.erased for card in shown.proxies})


@attack(
    CONSENTS,
    RECORDS,
    "claims that a grant is sealed with receipts that it signed itself",
    "pending",
    "receipt_invalid",
    by=PATIENT,
)
async def sealed_with_forged_receipts(stage: Stage) -> list[str]:
    shown = await shown_to(stage, stage.cast.owner, stage.cast.ended.id)
    forged: dict[str, str | None] = {}
    for card in shown.proxies:
        assert card.erased is not None
        signed = card.erased.rpartition(".")[0]
        forged[card.did] = f"{signed}.{b64url(stage.operators.log_key('records').sign(signed.encode()))}"
    return await claimed(stage, forged)


@attack(
    CONSENTS,
    SILENT,
    "claim that a grant is sealed with the receipts for storing its shares",
    "pending",
    "receipt_invalid",
    by=PATIENT,
)
async def sealed_with_receipts_of_storing(stage: Stage) -> list[str]:
    shown = await shown_to(stage, stage.cast.owner, stage.cast.ended.id)
    return await claimed(stage, {card.did: card.stored for card in shown.proxies})


@attack(
    CONSENTS,
    f"{RECORDS} and one {PROXY}",
    "count the receipt of one proxy for all of them",
    "pending",
    "receipt_invalid",
    by=PATIENT,
)
async def one_receipt_for_all(stage: Stage) -> list[str]:
    shown = await shown_to(stage, stage.cast.owner, stage.cast.ended.id)
    [one] = [card.erased for card in shown.proxies if card.did == stage.operators.proxies["proxy-1"]]
    return await claimed(stage, {card.did: one for card in shown.proxies})


@attack(
    CONSENTS,
    RECORDS,
    "claims that shares are stored with the receipts of another grant",
    "pending",
    "receipt_invalid",
    by=PATIENT,
)
async def stored_with_foreign_receipts(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    shown = await owner.session.platform.grant(await owner.session.credentials(), stage.cast.writing.id)
    foreign = {card.did: card.stored for card in shown.proxies}

    def claim(one: Json) -> Json:
        return {**one, "proxies": [{**card, "stored": foreign[card["did"]]} for card in one["proxies"]]}

    stage.lie.change("records", GRANT.format(stage.cast.reading.id), claim)
    report = await owner.patient.grant(stage.cast.reading.id)
    return found("pending" if report.state == "pending" else None, *codes_of(report.proxies))


# --- swapping --------------------------------------------------------------------------------------------------------


@attack(CONSENTS, RECORDS, "shows another grant than the one asked for", "wrong_answer", by=PATIENT)
async def another_grant(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    other = await owner.session.platform.grant(await owner.session.credentials(), stage.cast.writing.id)
    stage.lie.answer("records", GRANT.format(stage.cast.reading.id), lambda asked: other.model_dump(mode="json"))
    await owner.patient.grant(stage.cast.reading.id)
    return []


@attack(CONSENTS, RECORDS, "shows another grant under the id of the one asked for", "wrong_answer", by=PATIENT)
async def another_grant_under_the_id(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    stage.lie.change(
        "records",
        GRANT.format(stage.cast.reading.id),
        lambda shown: {**shown, "grant": stage.cast.writing.statement.token},
    )
    await owner.patient.grant(stage.cast.reading.id)
    return []


@attack(CONSENTS, RECORDS, "shows a recipient a grant to somebody else", "wrong_answer", by=RECIPIENT)
async def grant_to_another(stage: Stage) -> list[str]:
    reader = await stage.machine(stage.cast.doctor)
    stage.lie.change(
        "records",
        GRANT.format(stage.cast.reading.id),
        lambda shown: {**shown, "id": stage.cast.reading.id, "grant": stage.cast.writing.statement.token},
    )
    await reader.recipient.grant(stage.cast.reading.id)
    return []


@attack(CONSENTS, RECORDS, "makes a grant itself in the patient's name", "bad_signature", by=RECIPIENT)
async def forged_grant(stage: Stage) -> list[str]:
    reader = await stage.machine(stage.cast.doctor)
    claims = stage.cast.reading.statement.payload.model_copy(update={"exp": in_a_month() + 9})
    false = in_the_name(stage, claims)
    stage.lie.change("records", GRANT.format(stage.cast.reading.id), lambda shown: {**shown, "grant": false})
    await reader.recipient.grant(stage.cast.reading.id)
    return []


@attack(CONSENTS, RECORDS, "acknowledges another grant than the one given", "wrong_answer", by=PATIENT)
async def another_grant_acknowledged(stage: Stage) -> list[str]:
    owner = await stage.newcomer(Role.PATIENT)
    await owner.patient.add_scope("allergies")
    stage.lie.change("records", "POST /v1/grants", lambda said: {**said, "id": stage.cast.reading.id})
    await stage.give(owner, stage.cast.doctor.did, ["allergies"], Action.APPEND)
    return []


@attack(
    CONSENTS, RECORDS, "shows the revocation of another grant under one that is alive", "wrong_answer", by=RECIPIENT
)
async def revocation_of_another_grant(stage: Stage) -> list[str]:
    reader = await stage.machine(stage.cast.doctor)
    ended = await reader.session.platform.grant(await reader.session.credentials(), stage.cast.ended.id)
    stage.lie.change(
        "records",
        GRANT.format(stage.cast.reading.id),
        lambda shown: {**shown, "revocation": ended.revocation, "state": "revoked"},
    )
    await reader.recipient.grant(stage.cast.reading.id)
    return []


@attack(CONSENTS, RECORDS, "shows a revocation that somebody else signed", "wrong_answer", by=RECIPIENT)
async def revocation_by_another(stage: Stage) -> list[str]:
    reader = await stage.machine(stage.cast.doctor)
    false = stage.cast.neighbour.sign(_revocation(stage, stage.cast.neighbour.did))
    stage.lie.change("records", GRANT.format(stage.cast.reading.id), lambda shown: {**shown, "revocation": false})
    await reader.recipient.grant(stage.cast.reading.id)
    return []


@attack(CONSENTS, RECORDS, "makes a revocation itself in the patient's name", "bad_signature", by=RECIPIENT)
async def forged_revocation(stage: Stage) -> list[str]:
    reader = await stage.machine(stage.cast.doctor)
    false = in_the_name(stage, _revocation(stage, stage.cast.owner.did))
    stage.lie.change("records", GRANT.format(stage.cast.reading.id), lambda shown: {**shown, "revocation": false})
    await reader.recipient.grant(stage.cast.reading.id)
    return []


# --- requests --------------------------------------------------------------------------------------------------------


@attack(
    CONSENTS,
    RECORDS,
    "shows two requests under each other's id, so that the wrong one is approved",
    "wrong_answer",
    by=PATIENT,
)
async def request_under_another_id(stage: Stage) -> list[str]:
    first, second = stage.cast.asked
    tokens = await requests_to(stage, stage.cast.owner)
    swapped = {first: tokens[second], second: tokens[first]}
    _change_requests(stage, lambda one: {**one, "statement": swapped.get(one["id"], one["statement"])})
    return await inbox(stage)


@attack(CONSENTS, RECORDS, "shows a patient a request that is addressed to another one", "wrong_answer", by=PATIENT)
async def request_to_another(stage: Stage) -> list[str]:
    other = stage.cast.asked_nextdoor
    token = (await requests_to(stage, stage.cast.neighbour))[other]
    _change_requests(stage, lambda one: {**one, "id": other, "statement": token})
    return await inbox(stage)


@attack(
    CONSENTS,
    f"{RECORDS} and a recipient",
    "put another recipient's sealed reason into a request of their own",
    "context_mismatch",
    by=PATIENT,
)
async def sealed_text_of_another(stage: Stage) -> list[str]:
    first, second = stage.cast.asked
    tokens = await requests_to(stage, stage.cast.owner)
    theirs, own = (DisclosureRequest.model_validate_json(payload_of(tokens[one])) for one in (first, second))
    false = stage.cast.clinic.sign(own.model_copy(update={"sealed": theirs.sealed}))
    _change_requests(
        stage, lambda one: {**one, "id": statement_id(false), "statement": false} if one["id"] == second else one
    )
    return await inbox(stage)


@attack(CONSENTS, RECORDS, "shows a recipient the denial of another request", "wrong_answer", by=RECIPIENT)
async def denial_of_another(stage: Stage) -> list[str]:
    reader = await stage.machine(stage.cast.doctor)
    heard = stage.lie.hear("records", REQUESTS)
    await reader.recipient.requests()
    [denial] = [one["denial"] for one in heard[0]["items"] if one["id"] == stage.cast.refused]
    first, _ = stage.cast.asked
    _change_requests(stage, lambda one: {**one, "denial": denial} if one["id"] == first else one)
    await reader.recipient.requests()
    return []


@attack(CONSENTS, RECORDS, "denies a request itself in the patient's name", "bad_signature", by=RECIPIENT)
async def forged_denial(stage: Stage) -> list[str]:
    reader = await stage.machine(stage.cast.doctor)
    first, _ = stage.cast.asked
    denial = Denial(
        iss=stage.cast.owner.did,
        aud=reader.did,
        iat=int(time.time()),
        jti=new_jti(),
        request=first,
        reason=DenialReason.UNSPECIFIED,
    )
    false = in_the_name(stage, denial)
    _change_requests(stage, lambda one: {**one, "denial": false} if one["id"] == first else one)
    await reader.recipient.requests()
    return []


@attack(CONSENTS, RECORDS, "acknowledges another request than the one filed", "wrong_answer", by=RECIPIENT)
async def another_request_acknowledged(stage: Stage) -> list[str]:
    reader = await stage.machine(stage.cast.clinic)
    stage.lie.change("records", "POST /v1/disclosure-requests", lambda said: {**said, "id": stage.cast.reading.id})
    await ask(reader, (await stage.newcomer(Role.PATIENT)).did)
    return []


# --- how -------------------------------------------------------------------------------------------------------------


def accepted(asked: Asked) -> Json:
    """The service takes a revocation and does nothing with it."""
    return {"id": statement_id(asked.json["statement"])}


def handing_over(receipt: str | None) -> How:
    """A proxy that answers with this receipt, whatever it is asked."""
    return lambda asked: {"receipt": receipt}


def unavailable(asked: Asked) -> Json:
    raise Refusal(500, "internal_error")


async def fresh_grant(stage: Stage) -> tuple[Actor, str]:
    """A new patient's grant to read."""
    owner = await stage.newcomer(Role.PATIENT)
    await owner.patient.add_scope("allergies")
    return owner, (await stage.give(owner, stage.cast.doctor.did, ["allergies"], Action.READ)).id


async def shown_to(stage: Stage, party: Party, grant_id: str) -> GrantOut:
    """A grant as the service really shows it."""
    actor = await stage.machine(party)
    return await actor.session.platform.grant(await actor.session.credentials(), grant_id)


async def claimed(stage: Stage, erased: dict[str, str | None]) -> list[str]:
    """The end of a grant, for which service and proxies hand over these receipts."""
    grant_id = stage.cast.ended.id

    def claim(shown: Json) -> Json:
        if shown["id"] != grant_id:
            return shown
        return {**shown, "proxies": [{**card, "erased": erased[card["did"]]} for card in shown["proxies"]]}

    each(stage, claim)
    for name, did in stage.operators.proxies.items():
        stage.lie.answer(name, "POST /v1/revocations", handing_over(erased[did]))
    owner = await stage.machine(stage.cast.owner)
    report = await owner.patient.revoke(grant_id, wait_seconds=0)
    return unsealed(report) + codes_of(report.proxies)


def unsealed(report: RevocationReport) -> list[str]:
    return [] if report.state == "sealed" else [report.state]


def in_the_name(stage: Stage, payload: Any) -> str:
    """A statement of the owner's that the records service signed."""
    key = stage.cast.owner.keyring.identity(0).verify_key
    return jose.sign(
        _claims(payload),
        key=stage.operators.log_key("records"),
        kid=key_id(stage.cast.owner.did, bytes(key)),
        typ=payload.typ,
    )


def _claims(payload: Grant | Denial | Revocation) -> dict[str, Any]:
    claims: dict[str, Any] = payload.model_dump(mode="json", exclude_none=True)
    return claims


def _revocation(stage: Stage, issuer: str) -> Revocation:
    return Revocation(
        iss=issuer,
        aud=stage.cast.doctor.did,
        iat=int(time.time()),
        jti=new_jti(),
        grant=stage.cast.reading.id,
        epochs=(),
    )


async def requests_to(stage: Stage, party: Party) -> dict[str, str]:
    """Requests to a patient as the service really shows them, by id."""
    actor = await stage.machine(party)
    shown = actor.session.platform.requests(await actor.session.credentials(), "inbox")
    return {one.id: one.statement async for one in shown}


async def inbox(stage: Stage) -> list[str]:
    """What the patient's inbox complains of."""
    owner = await stage.machine(stage.cast.owner)
    return codes_of(one.problem for one in await owner.patient.inbox() if one.problem)


def _change_requests(stage: Stage, how: Any) -> None:
    stage.lie.change("records", REQUESTS, lambda page: {**page, "items": [how(one) for one in page["items"]]})
