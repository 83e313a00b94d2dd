"""`pcehr audit`: what happened to your records, proven by every log and compared between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from client.audit.events import DISCLOSED, DONE
from client.audit.fhir import bundle_of
from client.audit.gather import gather
from client.audit.report import Audit, Line, audit_of, document_of
from client.cli.context import Cli
from client.cli.output import json_text, plain, short, short_did, table, when
from client.files import write_atomically

FOUND = 3
"""Exit status where something does not fit together."""

_TITLES = 3
"""Titles of records named in one line; the rest is counted."""


def audit(
    ctx: typer.Context,
    *,
    limit: Annotated[int, typer.Option(help="How many events to show at most; all are checked.", min=1)] = 200,
    fhir: Annotated[
        Path | None,
        typer.Option(help="Write the log as a FHIR R4 Bundle of AuditEvent and Consent.", dir_okay=False),
    ] = None,
) -> None:
    """Check all logs about you, and show who did what, when and why. Ends with 3 if something does not fit."""
    cli = Cli.of(ctx)

    async def work() -> Audit:
        async with cli.patient() as patient:
            with cli.output.working("Fetching and checking all logs…"):
                return audit_of(await gather(patient))

    checked = cli.run(work())
    if fhir is not None:
        write_atomically(fhir, (json_text(bundle_of(checked), indent="  ") + "\n").encode("utf-8"))
        cli.output.note(f"Wrote {fhir}.")
    cli.output.result(document_of(checked), *_for_people(checked, limit))
    if checked.findings:
        raise typer.Exit(FOUND)


def _for_people(checked: Audit, limit: int) -> list[RenderableType]:
    shown: list[RenderableType] = []
    if checked.received:
        shown.append(_received_table(checked))
    shown.append(_timeline(checked, limit))
    shown += findings_and_gaps(checked)
    shown.append(Text(checked.closing, style="bold red" if checked.findings else "bold green"))
    return shown


def _received_table(checked: Audit) -> RenderableType:
    rows = [
        [
            called(checked, one.recipient),
            one.purpose,
            _named(one.records, one.capsules),
            when(one.last),
            short(one.grant),
        ]
        for one in checked.received
    ]
    return table("Who has received what", ["Who", "Purpose", "Records", "Last", "Grant"], rows, empty="")


def _timeline(checked: Audit, limit: int) -> RenderableType:
    rows: list[list[object]] = []
    # A listing of every minute is one line for people; programs get each event.
    for _, alike in groupby(checked.lines, _kind):
        group = list(alike)
        if len(rows) == limit:
            break
        rows.append(_row(checked, group))
    columns = ["When", "What", "Who", "Purpose", "Records", "Outcome", "Confirmed"]
    return table("What happened, newest first", columns, rows, empty="Nothing has happened yet.")


def _kind(line: Line) -> tuple[object, ...]:
    single = line.n if line.event == DISCLOSED else None
    return line.event, line.actor, line.grant, line.outcome, line.service, single


def _row(checked: Audit, group: Sequence[Line]) -> list[object]:
    newest = group[0]
    times = f" ×{len(group)}" if len(group) > 1 else ""
    titles = list(dict.fromkeys(title for line in group for title in line.records))
    capsules = {capsule for line in group for capsule in line.capsules}
    return [
        when(newest.at),
        newest.what + times,
        called(checked, newest.actor) if newest.actor else "—",
        newest.why,
        _named(titles, len(capsules)),
        plain(newest.outcome, "green" if newest.outcome == DONE else "red"),
        _confirmed(checked, group),
    ]


def _confirmed(checked: Audit, group: Sequence[Line]) -> Text:
    """Which logs have it: `✓` for proven, `…` for what waits for its proof."""
    newest = group[0]
    mark = "✓" if all(line.proven for line in group) else "…"
    proxies = [called(checked, one) for one in newest.agreeing if one != "records"]
    if newest.event == DISCLOSED and newest.outcome == DONE and newest.needed:
        enough = len(proxies) >= newest.needed
        text = f"{mark} {len(proxies)} of {newest.needed} needed: {', '.join(proxies)}" if proxies else "nobody"
        return plain(text, "" if enough else "red")
    return plain(f"{mark} {', '.join(proxies)}" if proxies else mark)


def _named(titles: Sequence[str], capsules: int) -> str:
    """The first titles, and how many more records there were."""
    if not capsules:
        return ""
    named = list(titles[:_TITLES])
    rest = capsules - len(named)
    if not named:
        return f"{capsules} (titles not known)"
    return ", ".join(named) + (f" and {rest} more" if rest > 0 else "")


def findings_and_gaps(checked: Audit) -> list[RenderableType]:
    """What does not fit, and what could not be looked at."""
    shown: list[RenderableType] = []
    if checked.findings:
        rows = [
            [
                plain(one.code, "red"),
                one.sentence,
                ", ".join(called(checked, service) for service in one.services),
                ", ".join(f"{called(checked, event.service)} {event.n}" for event in one.events[:_TITLES])
                + (f" and {len(one.events) - _TITLES} more" if len(one.events) > _TITLES else ""),
            ]
            for one in checked.findings
        ]
        shown.append(table("Findings", ["Code", "What", "Who has to explain it", "Events"], rows, empty=""))
    if checked.gaps:
        rows_of_gaps = [
            [one.code, one.sentence, ", ".join(called(checked, service) for service in one.services)]
            for one in checked.gaps
        ]
        shown.append(table("Not looked at", ["Code", "Why", "Where"], rows_of_gaps, empty=""))
    return shown


def called(checked: Audit, service_or_did: str) -> str:
    """What to call a service or a party in a table."""
    return checked.name_of(service_or_did) or short_did(service_or_did)
