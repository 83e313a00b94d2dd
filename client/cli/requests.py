"""`pcehr requests` and `pcehr approve`: asking for records, and answering."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from client.cli.context import Cli
from client.cli.grants import describe_grant, grant_document
from client.cli.options import ActionsOption, OnlyRecordsOption, PurposeOption, ThresholdOption
from client.cli.output import plain, short, short_did, state_text, table, when
from client.cli.values import choices, expiry, full_id, names, party_id
from client.errors import UnknownRequest
from client.fingerprint import fingerprint
from client.patient import Patient
from client.reports import GrantReport, IncomingRequest, SentRequest
from shared.clock import system_clock
from shared.schemas.records import RequestState
from shared.wire import Action, DenialReason, Purpose

app = typer.Typer(help="Ask a patient for records, list requests, deny one.", no_args_is_help=True)

WAIT_FOR_ANSWER = "30d"
"""How long a request stays open unless told otherwise; the records service allows ninety days."""


@app.command("new")
def new(
    ctx: typer.Context,
    patient: Annotated[str, typer.Argument(help="The patient's id (DID), as `pcehr card` shows it.")],
    *,
    scope: Annotated[list[str], typer.Option(help="What you ask for, such as allergies; may be repeated.")],
    reason: Annotated[str, typer.Option(help="Why, for the patient to read; nobody else can.")],
    action: ActionsOption = None,
    purpose: PurposeOption = "TREAT",
    expires: Annotated[
        str, typer.Option(help="How long the request stays open: 30d, 12h, 2027-01-31.")
    ] = WAIT_FOR_ANSWER,
) -> None:
    """Ask a patient for records. Scopes and reason are encrypted to the patient."""
    cli = Cli.of(ctx)
    did = party_id(cli.state().contact(patient))

    async def work() -> tuple[str, list[str]]:
        async with cli.recipient_session() as (session, recipient):
            words = fingerprint(await session.party(did))
            sent = await recipient.request(
                did,
                scopes=names(scope) or [],
                actions=choices(Action, action or ["read"]),
                purpose=choices(Purpose, [purpose])[0],
                reason=reason,
                expires=expiry(expires, system_clock()) or 0,
            )
            return sent, words

    request, words = cli.run(work())
    cli.output.result(
        {"id": request, "patient": did, "patient_fingerprint": " ".join(words)},
        Text(f"Asked. The request's id is {short(request)}."),
        Text(f"The patient's fingerprint, to compare over the telephone: {' '.join(words)}"),
        Text("Next: wait for the patient's answer; `pcehr requests list` shows it."),
    )


@app.command("list")
def list_requests(
    ctx: typer.Context,
    *,
    state: Annotated[
        str | None, typer.Option(help="Only those: pending, approved, denied or expired.", show_default="all")
    ] = None,
) -> None:
    """List requests: for a patient those received, for a recipient those sent."""
    cli = Cli.of(ctx)
    wanted = choices(RequestState, [state])[0] if state else None
    if cli.is_patient:
        _show_inbox(cli, wanted)
    else:
        _show_sent(cli, wanted)


@app.command("deny")
def deny(
    ctx: typer.Context,
    request: Annotated[str, typer.Argument(help="The request's id, or its beginning.")],
    *,
    reason: Annotated[
        str, typer.Option(help=f"What the recipient is told: {', '.join(known.value for known in DenialReason)}.")
    ] = DenialReason.UNSPECIFIED.value,
) -> None:
    """Refuse a request."""
    cli = Cli.of(ctx)
    why = choices(DenialReason, [reason])[0]

    async def work() -> str:
        async with cli.patient() as patient:
            found = await _find(patient, request)
            await patient.deny(found.id, why)
            return found.id

    denied = cli.run(work())
    cli.output.result({"id": denied, "state": "denied", "reason": why.value}, Text(f"Denied {short(denied)}."))


def approve(
    ctx: typer.Context,
    request: Annotated[str, typer.Argument(help="The request's id, or its beginning.")],
    *,
    scope: Annotated[
        list[str] | None, typer.Option(help="Give only this scope; may be repeated.", show_default="all asked for")
    ] = None,
    action: Annotated[
        list[str] | None, typer.Option(help="Allow only this; may be repeated.", show_default="all asked for")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When the grant ends: 30d, 1y, 2027-01-31.", show_default="90d")
    ] = None,
    record: OnlyRecordsOption = None,
    threshold: ThresholdOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Approve a request, as it is or narrowed. What is given can be withdrawn, but not what has been read by then."""
    cli = Cli.of(ctx)
    until = expiry(expires, system_clock())

    async def look() -> IncomingRequest:
        async with cli.patient() as patient:
            return await _find(patient, request)

    async def work(found: IncomingRequest) -> GrantReport:
        async with cli.patient() as patient:
            return await patient.approve(
                found.id,
                scopes=names(scope),
                actions=choices(Action, action) if action else None,
                expires=until,
                records=names(record),
                threshold=threshold,
            )

    found = cli.run(look())
    # Somebody at a terminal sees whom the request is from before anything is given.
    if not yes and not cli.output.as_json and cli.output.err.is_terminal:
        _show_request(cli, found)
        typer.confirm("Approve?", abort=True, err=True)
    with cli.output.working("Making the keys and giving each proxy its share…"):
        grant = cli.run(work(found))
    cli.output.result(grant_document(grant), *describe_grant(grant))


async def _find(patient: Patient, typed: str) -> IncomingRequest:
    inbox = await patient.inbox()
    wanted = full_id(typed, [request.id for request in inbox], UnknownRequest)
    return next(request for request in inbox if request.id == wanted)


def _show_request(cli: Cli, request: IncomingRequest) -> None:
    who = " · ".join(filter(None, (request.recipient.name, request.recipient.organisation)))
    cli.output.note("")
    for label, text in (
        ("From", f"{who} ({request.recipient.did})"),
        ("Fingerprint", " ".join(request.fingerprint)),
        ("Asks for", ", ".join(request.scopes)),
        ("To", f"{', '.join(request.actions)}, for {request.purpose}"),
        ("Reason", request.reason),
    ):
        cli.output.err.print(Text.assemble((f"{label:<12}", "bold"), plain(text)))


def _show_inbox(cli: Cli, wanted: RequestState | None) -> None:
    async def work() -> list[IncomingRequest]:
        async with cli.patient() as patient:
            return await patient.inbox(wanted)

    requests = cli.run(work())
    document = {"requests": [_incoming_document(request) for request in requests]}
    rows = [
        [
            short(request.id),
            request.recipient.name or short_did(request.recipient.did),
            ", ".join(request.scopes),
            ", ".join(request.actions),
            request.purpose.value,
            request.reason if request.problem is None else f"({request.problem.code})",
            state_text(request.state.value),
            when(request.expires),
        ]
        for request in requests
    ]
    columns = ["Id", "From", "Asks for", "To", "Purpose", "Reason", "State", "Open until"]
    cli.output.result(
        document,
        table("Requests to you", columns, rows, empty="Nobody has asked for anything."),
        *([Text("Next: pcehr approve ID [--scope …], or pcehr requests deny ID")] if rows else []),
    )


def _show_sent(cli: Cli, wanted: RequestState | None) -> None:
    async def work() -> list[SentRequest]:
        async with cli.recipient() as recipient:
            return [request for request in await recipient.requests() if wanted in (None, request.state)]

    requests = cli.run(work())
    document = {
        "requests": [
            {
                "id": request.id,
                "patient": request.patient,
                "actions": [action.value for action in request.actions],
                "purpose": request.purpose.value,
                "expires": request.expires,
                "state": request.state.value,
                "received_at": request.received_at,
                "grants": request.grants,
                "denial": request.denial.value if request.denial else None,
            }
            for request in requests
        ]
    }
    rows = [
        [
            short(request.id),
            short_did(request.patient),
            ", ".join(request.actions),
            request.purpose.value,
            state_text(request.state.value),
            request.denial.value if request.denial else ", ".join(map(short, request.grants)),
            when(request.expires),
        ]
        for request in requests
    ]
    columns = ["Id", "Patient", "To", "Purpose", "State", "Grant, or reason", "Open until"]
    cli.output.result(document, table("Requests you sent", columns, rows, empty="You have not asked for anything."))


def _incoming_document(request: IncomingRequest) -> dict[str, Any]:
    return {
        "id": request.id,
        "recipient": request.recipient.did,
        "recipient_name": request.recipient.name,
        "recipient_organisation": request.recipient.organisation,
        "fingerprint": " ".join(request.fingerprint),
        "scopes": request.scopes,
        "reason": request.reason,
        "actions": [action.value for action in request.actions],
        "purpose": request.purpose.value,
        "expires": request.expires,
        "state": request.state.value,
        "received_at": request.received_at,
        "grants": request.grants,
        "problem": request.problem.code if request.problem else None,
    }
