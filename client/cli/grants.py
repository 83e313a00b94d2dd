"""`pcehr share`, `grants` and `revoke`: giving access without being asked, seeing who has it, ending it."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from client.cli.context import Cli
from client.cli.options import ActionsOption, OnlyRecordsOption, PurposeOption, ThresholdOption
from client.cli.output import counted, plain, short, short_did, state_text, table, when
from client.cli.values import choices, expiry, full_id, names, party_id
from client.errors import UnknownGrant
from client.reports import GrantReport, HeldGrant, Problem, ProxyReport, RevocationReport
from shared.clock import system_clock
from shared.wire import Action, Purpose


def share(
    ctx: typer.Context,
    recipient: Annotated[str, typer.Argument(help="The recipient's id (DID); `pcehr directory NAME` finds it.")],
    *,
    scope: Annotated[list[str], typer.Option(help="What to give, such as allergies; may be repeated.")],
    action: ActionsOption = None,
    purpose: PurposeOption = "TREAT",
    expires: Annotated[str, typer.Option(help="When the grant ends: 30d, 1y, 2027-01-31.")] = "90d",
    record: OnlyRecordsOption = None,
    threshold: ThresholdOption = None,
) -> None:
    """Give a recipient access without having been asked."""
    cli = Cli.of(ctx)
    did = party_id(cli.state().contact(recipient))

    async def work() -> GrantReport:
        async with cli.patient() as patient:
            return await patient.share(
                did,
                scopes=names(scope) or [],
                actions=choices(Action, action or ["read"]),
                purpose=choices(Purpose, [purpose])[0],
                expires=expiry(expires, system_clock()) or 0,
                records=names(record),
                threshold=threshold,
            )

    with cli.output.working("Making the keys and giving each proxy its share…"):
        grant = cli.run(work())
    cli.output.result(grant_document(grant), *describe_grant(grant))


def grants(ctx: typer.Context) -> None:
    """List grants: for a patient those given, for a recipient those held."""
    cli = Cli.of(ctx)

    async def given() -> list[GrantReport]:
        async with cli.patient() as patient:
            return await patient.grants()

    async def held() -> list[HeldGrant]:
        async with cli.recipient() as recipient:
            return await recipient.grants()

    if cli.is_patient:
        reports = cli.run(given())
        rows = [
            [
                short(grant.id),
                grant.recipient.name or short_did(grant.recipient.did),
                ", ".join(grant.scopes),
                ", ".join(grant.actions),
                state_text(grant.state.value),
                f"{grant.stored} of {grant.shares}" if grant.shares else "—",
                str(grant.disclosed),
                when(grant.expires),
            ]
            for grant in reports
        ]
        columns = ["Id", "To", "Scopes", "May", "State", "Proxies", "Disclosed", "Until"]
        cli.output.result(
            {"grants": [grant_document(grant) for grant in reports]},
            table("Grants you gave", columns, rows, empty="You have given nobody access."),
            *(line for grant in reports for line in _describe_problem(grant.problem)),
        )
    else:
        found = cli.run(held())
        rows = [
            [
                short(grant.id),
                short_did(grant.patient.did),
                ", ".join(grant.scopes),
                ", ".join(grant.actions),
                state_text(grant.state.value),
                when(grant.expires),
            ]
            for grant in found
        ]
        cli.output.result(
            {"grants": [_held_document(grant) for grant in found]},
            table(
                "Grants you hold",
                ["Id", "Patient", "Scopes", "You may", "State", "Until"],
                rows,
                empty="Nobody has given you access.",
            ),
            *([Text("Next: pcehr fetch ID -o FILE")] if rows else []),
        )


def revoke(
    ctx: typer.Context,
    grant: Annotated[str, typer.Argument(help="The grant's id, or its beginning.")],
    *,
    assumed_liars: Annotated[
        int, typer.Option(help="How many proxies may claim to have erased their share and lie.", min=0)
    ] = 0,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the proxies' receipts.", min=0)] = 10,
    status: Annotated[bool, typer.Option("--status", help="Change nothing; show how far a revocation is.")] = False,
) -> None:
    """End a grant, and say from the proxies' receipts how well that is settled.

    `sealed`: nothing that has not been disclosed can be opened under this grant any more. `pending`: too few proxies
    have proved yet that they erased their share. What was disclosed before cannot be taken back.
    """
    cli = Cli.of(ctx)

    async def work() -> RevocationReport:
        async with cli.patient() as patient:
            wanted = full_id(grant, await patient.grant_ids(), UnknownGrant)
            if status:
                return await patient.revocation_status(wanted, assumed_liars=assumed_liars)
            return await patient.revoke(wanted, assumed_liars=assumed_liars, wait_seconds=wait)

    with cli.output.working("Asking the proxies to erase their shares…"):
        report = cli.run(work())
    cli.output.result(revocation_document(report), *_describe_revocation(report))


def grant_document(grant: GrantReport) -> dict[str, Any]:
    """A grant a patient gave, as JSON."""
    return {
        "id": grant.id,
        "recipient": grant.recipient.did,
        "recipient_name": grant.recipient.name,
        "scopes": grant.scopes,
        "actions": [action.value for action in grant.actions],
        "purpose": grant.purpose.value,
        "begins": grant.begins,
        "expires": grant.expires,
        "state": grant.state.value,
        "request": grant.request,
        "threshold": grant.threshold,
        "shares": grant.shares,
        "stored": grant.stored,
        "erased": grant.erased,
        "disclosed": grant.disclosed,
        "problem": grant.problem.code if grant.problem else None,
        "proxies": [
            {"did": proxy.did, "name": proxy.name, "endpoint": proxy.endpoint, "stored": proxy.stored}
            for proxy in grant.proxies
        ],
        "first_choice": grant.first_choice,
    }


def describe_grant(grant: GrantReport) -> list[RenderableType]:
    """A grant that has just been made, in sentences."""
    who = grant.recipient.name or grant.recipient.did
    lines: list[RenderableType] = [
        Text.assemble(
            "Granted. Its id is ", (short(grant.id), "bold"), ", its state ", state_text(grant.state.value), "."
        ),
        plain(f"{who} may {', '.join(grant.actions)} {', '.join(grant.scopes)} until {when(grant.expires)}."),
    ]
    if grant.threshold:
        lines.append(
            Text(
                f"{grant.stored} of {grant.shares} proxies have their share;"
                f" any {grant.threshold} of them are needed to open a record."
            )
        )
        lines.append(plain(f"The proxies: {', '.join(_called(proxy) for proxy in grant.proxies)}."))
        if grant.first_choice:
            lines.append(
                Text("They are the registry's proxies, and from now on your shares go to these and no others.")
            )
    lines += _describe_problem(grant.problem)
    lines.append(Text(f"To end it: pcehr revoke {short(grant.id)}"))
    return lines


def _called(proxy: ProxyReport) -> str:
    """A proxy by its name and place, as far as the registry shows it."""
    return f"{proxy.name or short_did(proxy.did)} at {proxy.endpoint or 'an unknown place'}"


def _describe_problem(problem: Problem | None) -> list[RenderableType]:
    """What does not hold about a grant, in a sentence."""
    if problem is None:
        return []
    where = f"Grant {short(problem.grant_id)}: " if problem.grant_id else ""
    return [plain(f"{where}{problem.detail} [{problem.code}]", "yellow")]


def revocation_document(report: RevocationReport) -> dict[str, Any]:
    """How far a revocation is, as JSON."""
    return {
        "grant": report.grant_id,
        "state": report.state,
        "receipts": report.receipts,
        "needed": report.needed,
        "shares": report.shares,
        "already_disclosed": report.already_disclosed,
        "new_epochs": report.new_epochs,
        "continued_grants": report.continued_grants,
        "proxies": [{"did": proxy.did, "erased": proxy.erased, "problem": proxy.problem} for proxy in report.proxies],
        "problems": [{"code": problem.code, "detail": problem.detail} for problem in report.problems],
    }


def _describe_revocation(report: RevocationReport) -> list[RenderableType]:
    lines: list[RenderableType] = [
        Text.assemble(
            "The grant has ended: ",
            state_text(report.state),
            f". {report.receipts} of {report.shares} proxies have proved that they erased their share;"
            f" {report.needed} are needed.",
        )
    ]
    if report.state == "sealed":
        lines.append(Text("Nothing that has not been disclosed can be opened under it any more."))
    else:
        lines.append(Text(f"Look again later: pcehr revoke {short(report.grant_id)} --status"))
    lines.append(
        Text(f"Already disclosed: {counted(report.already_disclosed, 'record version')}. Nothing can take that back.")
    )
    if report.continued_grants:
        lines.append(
            Text(f"{counted(len(report.continued_grants), 'grant')} to other recipients go on under the new keys.")
        )
    for problem in report.problems:
        lines += _describe_problem(problem)
    return lines


def _held_document(grant: HeldGrant) -> dict[str, Any]:
    return {
        "id": grant.id,
        "patient": grant.patient.did,
        "scopes": grant.scopes,
        "actions": [action.value for action in grant.actions],
        "purpose": grant.purpose.value,
        "begins": grant.begins,
        "expires": grant.expires,
        "state": grant.state.value,
        "request": grant.request,
        "threshold": grant.threshold,
    }
