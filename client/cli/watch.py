"""`pcehr watch`: what concerns you, as it happens."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from client.cli.context import Cli
from client.cli.output import counted, plain, short, short_did, when, write_line
from client.notices import Notice, follow

_SENTENCES = {
    "requested": "{other} asks for records: pcehr approve {request}, or pcehr requests deny {request}",
    "disclosed": "{count} disclosed to {other} under grant {grant}",
    "written": "{count} written by {other}",
    "granted": "{other} has given grant {grant}; it waits for the proxies",
    "active": "grant {grant} of {other} can be used: pcehr fetch {grant}",
    "denied": "{other} has denied request {request}",
    "revoked": "{other} has revoked grant {grant}",
    "expired": "grant {grant} with {other} has ended",
}


def watch(
    ctx: typer.Context,
    *,
    after: Annotated[
        int | None, typer.Option(min=0, help="Begin after this number; 0 shows what is kept.", show_default="now")
    ] = None,
    first: Annotated[int | None, typer.Option(min=1, help="Stop after so many.", show_default="until Ctrl-C")] = None,
) -> None:
    """Show requests, grants, disclosures and revocations as they happen. With --json one document a line."""
    cli = Cli.of(ctx)
    cli.run(_watch(cli, after, first))


async def _watch(cli: Cli, after: int | None, first: int | None) -> None:
    shown = 0
    async with cli.session() as session:
        cli.output.note("Waiting for what happens; Ctrl-C ends it.", style="dim")
        async for notice in follow(session, after):
            if cli.output.as_json:
                write_line(asdict(notice))
            else:
                cli.output.out.print(_line(notice))
            shown += 1
            if shown == first:
                return


def _line(notice: Notice) -> Text:
    sentence = _SENTENCES.get(notice.kind, "{kind}: {other}").format(
        kind=notice.kind,
        other=short_did(notice.other),
        request=short(notice.request or ""),
        grant=short(notice.grant or ""),
        count=counted(notice.count or 0, "record"),
    )
    return Text.assemble((f"{notice.number:>5}  {when(notice.at)}  ", "dim"), plain(sentence))
