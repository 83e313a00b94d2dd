"""`pcehr fetch`: what a recipient is for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client.cli.context import Cli
from client.cli.documents import save, workspace
from client.cli.failures import GrantExpired, GrantRevoked
from client.cli.options import OnlyRecordsOption
from client.cli.output import when
from client.cli.records import report
from client.cli.values import full_id, names, party_id
from client.errors import UnknownGrant
from client.recipient import Recipient
from client.reports import FetchReport
from shared.schemas.records import GrantState


def fetch(
    ctx: typer.Context,
    grant: Annotated[
        str | None, typer.Argument(help="The grant's id, or its beginning.", show_default="all live grants")
    ] = None,
    *,
    patient: Annotated[str | None, typer.Option(help="Only records of this patient (DID).", show_default="all")] = None,
    record: OnlyRecordsOption = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write a FHIR Bundle here; other files go into a folder beside it."),
    ] = None,
) -> None:
    """Get records that were granted: the proxies re-encrypt them, and this machine decrypts and checks each one."""
    cli = Cli.of(ctx)
    whose = party_id(cli.state().contact(patient)) if patient else None

    async def work(folder: Path | None) -> FetchReport:
        async with cli.recipient() as recipient:
            wanted = await _live(recipient, grant) if grant is not None else None
            with cli.output.progress("Re-encrypting and decrypting") as advance:
                return await recipient.fetch(
                    wanted, patient=whose, record_ids=names(record), progress=advance, large_to=folder
                )

    if output is None:
        found, written = cli.run(work(None)), None
    else:
        with workspace(output) as folder:
            found = cli.run(work(folder))
            written = save(found.opened, output)
    for proxy in found.lying_proxies:
        cli.output.note(f"The answer of proxy {proxy} did not verify and was replaced.", style="red")
    report(
        cli.output,
        found.opened,
        found.problems,
        written,
        {"lying_proxies": found.lying_proxies},
        empty="There was nothing to open: no grant covers a record now. `pcehr grants` says how yours stand.",
    )


async def _live(recipient: Recipient, typed: str) -> str:
    """The grant's full id; says so where it has ended, since the services only say that there is nothing."""
    held = {grant.id: grant for grant in await recipient.grants()}
    wanted = held[full_id(typed, held, UnknownGrant)]
    if wanted.state is GrantState.REVOKED:
        raise GrantRevoked
    if wanted.state is GrantState.EXPIRED:
        raise GrantExpired(f"The grant ended {when(wanted.expires)}.")
    return wanted.id
