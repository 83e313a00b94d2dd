"""`pcehr export --evidence` and `pcehr verify`: proof that others can check without the platform."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from client.audit.chain import RECORDS
from client.audit.gather import gather
from client.audit.report import Audit, audit_of
from client.cli.audit import FOUND, findings_and_gaps
from client.cli.context import Cli
from client.cli.failures import UnreadableFile
from client.cli.output import counted, plain, short_did, table, when
from client.cli.values import party_id
from client.evidence.file import MAX_FILE_BYTES
from client.evidence.verify import Verdict, verify
from client.evidence.write import write_evidence
from client.files import write_atomically

REJECTED = 1
"""Exit status for a file of which any part does not hold."""


def export(
    ctx: typer.Context,
    *,
    evidence: Annotated[
        Path, typer.Option(help="Where to write the evidence file; `pcehr verify` checks it.", dir_okay=False)
    ],
) -> None:
    """Write everything that proves what happened to your records into one file. Records: `pcehr records export`."""
    cli = Cli.of(ctx)

    async def work() -> tuple[bytes, Audit]:
        async with cli.patient() as patient:
            with cli.output.working("Fetching and proving all logs…"):
                # Without titles: a proof needs none, and whoever checks it has no business with them.
                gathered = await gather(patient, with_titles=False)
                return await write_evidence(patient.session, gathered), audit_of(gathered)

    data, checked = cli.run(work())
    write_atomically(evidence, data)
    document = {
        "file": str(evidence),
        "bytes": len(data),
        "patient": checked.gathered.patient.did,
        "logs": len(checked.gathered.logs),
        "events": checked.events,
        "findings": [finding.code for finding in checked.findings],
        "gaps": [gap.code for gap in checked.gaps],
    }
    cli.output.result(
        document,
        *findings_and_gaps(checked),
        Text(checked.closing, style="bold red" if checked.findings else "bold green"),
        plain(f"Wrote {evidence}: {counted(len(data), 'byte')}. Anybody can check it: pcehr verify {evidence}"),
    )


def verify_file(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="An evidence file.", exists=True, dir_okay=False)],
    *,
    patient: Annotated[
        str | None, typer.Option(help="The id of the patient whose file it must be.", show_default="any")
    ] = None,
) -> None:
    """Check an evidence file. Needs no platform, no profile and no passphrase; ends with 1 if any part is false."""
    cli = Cli.of(ctx)
    expected = None if patient is None else party_id(patient)
    verdict = verify(_read(file), patient=expected)
    cli.output.result(_document(verdict), *_for_people(verdict))
    if not verdict.holds:
        raise typer.Exit(REJECTED)
    if verdict.findings:
        raise typer.Exit(FOUND)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            # One byte more than is allowed: the check then says itself that it is too large.
            return opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UnreadableFile(f"{file}: {error.strerror}.") from None


def _document(verdict: Verdict) -> dict[str, Any]:
    return {
        "holds": verdict.holds,
        "faults": [{"code": one.code, "place": one.place, "detail": one.detail} for one in verdict.faults],
        "patient": verdict.patient,
        "sealed_at": verdict.sealed_at,
        "origins": verdict.origins,
        "witnesses": list(verdict.witnesses),
        "events": verdict.events,
        "proven": verdict.proven,
        "grants": verdict.grants,
        "findings": [
            {
                "code": one.code,
                "sentence": one.sentence,
                "services": list(one.services),
                "events": [{"service": event.service, "n": event.n} for event in one.events],
                "receipts": list(one.receipts),
                "grant": one.grant,
            }
            for one in verdict.findings
        ],
        "gaps": [{"code": one.code, "sentence": one.sentence, "services": list(one.services)} for one in verdict.gaps],
    }


def _for_people(verdict: Verdict) -> list[RenderableType]:
    if not verdict.holds:
        first = verdict.faults[0]
        rows = [[plain(one.code, "red"), one.place or "the file", one.detail] for one in verdict.faults]
        return [
            table("What does not hold, first things first", ["Code", "Place", "Why"], rows, empty=""),
            plain(f"Do not rely on this file: {first.code}.", "bold red"),
        ]
    logs = [[_service(service), origin] for service, origin in verdict.origins.items()]
    shown: list[RenderableType] = [
        table(
            "Compare these with what you know",
            ["Who", "Id"],
            [
                ["patient", verdict.patient or ""],
                *([f"log of {service}", origin] for service, origin in logs),
                *(["witness", did] for did in verdict.witnesses),
            ],
            empty="",
        )
    ]
    if verdict.findings:
        rows_of_findings = [
            [plain(one.code, "red"), one.sentence, ", ".join(_service(service) for service in one.services)]
            for one in verdict.findings
        ]
        shown.append(table("What it proves", ["Code", "What", "Who has to explain it"], rows_of_findings, empty=""))
    if verdict.gaps:
        rows_of_gaps = [
            [one.code, one.sentence, ", ".join(_service(service) for service in one.services)] for one in verdict.gaps
        ]
        shown.append(table("What it does not prove", ["Code", "Why", "Where"], rows_of_gaps, empty=""))
    found = f"; it proves {counted(len(verdict.findings), 'finding')}" if verdict.findings else ""
    closing = (
        f"The file holds, as sealed {when(verdict.sealed_at)}: {counted(len(verdict.origins), 'log')},"
        f" {counted(verdict.events, 'event')}, {verdict.proven} proven{found}."
    )
    return [*shown, plain(closing, "bold red" if verdict.findings else "bold green")]


def _service(service: str) -> str:
    return "records service" if service == RECORDS else f"proxy {short_did(service)}"
