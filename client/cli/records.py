"""`pcehr records`: storing, listing, showing and exporting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from client.cli.context import Cli
from client.cli.documents import Written, move, records_from_file, resource_of, save, scope_map, workspace
from client.cli.failures import InvalidValue
from client.cli.options import OnlyScopesOption
from client.cli.output import Output, counted, json_block, plain, short_did, table, when
from client.cli.values import full_id, names
from client.errors import UnknownGrant, UnknownRecord
from client.fhir.resource import Resource
from client.records import NewRecord
from client.reports import ListedRecord, OpenedRecord, Problem, RecordSummary, StoredRecord
from shared.errors import PcehrError

app = typer.Typer(help="Store, list, show and export records.", no_args_is_help=True)

SHOWN = 200
"""Rows of a table; more are counted, and `--json` has them all."""

SHORT_RECORD_ID = 13
"""Record ids begin with the time (UUIDv7), so that fewer characters would often be the same."""


@app.command("add")
def add(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="FHIR Bundles, FHIR resources, or any other files.")],
    *,
    scope: Annotated[
        str | None,
        typer.Option(help="File everything under this scope.", show_default="by content; see `pcehr scopes`"),
    ] = None,
    grant: Annotated[
        str | None, typer.Option(help="Write for a patient, under this grant (id or its beginning).")
    ] = None,
    covered_only: Annotated[
        bool, typer.Option("--covered-only", help="With --grant: leave out what the grant does not cover.")
    ] = False,
) -> None:
    """Encrypt files on this machine and store them. A FHIR Bundle becomes one record for each resource."""
    cli = Cli.of(ctx)
    stored = cli.run(_add_for_patient(cli, files, scope, grant, covered_only) if grant else _add_own(cli, files, scope))
    counts = Counter(record.scope for record in stored)
    document = {
        "stored": [
            {
                "id": record.record_id,
                "version": record.version,
                "scope": record.scope,
                "epoch": record.epoch,
                "manifest": record.manifest_id,
            }
            for record in stored
        ],
        "by_scope": dict(sorted(counts.items())),
    }
    rows = [[name, str(count)] for name, count in sorted(counts.items())]
    cli.output.result(
        document,
        table(
            f"{counted(len(stored), 'record')} stored", ["Scope", "Records"], rows, empty="The files hold no record."
        ),
    )


async def _add_own(cli: Cli, files: Sequence[Path], scope: str | None) -> list[StoredRecord]:
    async with cli.patient() as patient:
        rules = scope_map(await patient.settings())
        records = [record for path in files for record in records_from_file(path, rules, scope)]
        with cli.output.progress("Encrypting and storing") as advance:
            return await patient.add_records(records, advance)


async def _add_for_patient(
    cli: Cli, files: Sequence[Path], scope: str | None, typed: str, covered_only: bool
) -> list[StoredRecord]:
    async with cli.author() as (author, recipient):
        held = {grant.id: grant for grant in await recipient.grants()}
        wanted = held[full_id(typed, held, UnknownGrant)]
        records = [record for path in files for record in records_from_file(path, scope_map(), scope)]
        if covered_only:
            records = [record for record in records if record.scope in wanted.scopes]
        _check_covered(records, wanted.scopes)
        with cli.output.progress("Encrypting and storing") as advance:
            return await author.append(wanted.id, records, advance)


def _check_covered(records: Sequence[NewRecord], granted: Sequence[str]) -> None:
    outside = Counter(record.scope for record in records if record.scope not in granted)
    if outside:
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(outside.items()))
        raise InvalidValue(
            f"The grant covers {', '.join(granted)}, and these belong elsewhere: {listed}. Nothing was stored."
            " Leave them out with --covered-only, or name a scope that it covers with --scope."
        )


@app.command("list")
def list_records(
    ctx: typer.Context,
    *,
    scope: OnlyScopesOption = None,
    grant: Annotated[
        str | None, typer.Option(help="As a recipient: only this grant (id or its beginning).", show_default="all")
    ] = None,
) -> None:
    """List records: for a patient its own, for a recipient what its grants cover, still encrypted."""
    cli = Cli.of(ctx)
    wanted = names(scope)
    if cli.is_patient:
        _show_own(cli.output, [found for found in cli.run(_own(cli)) if wanted is None or found.scope in wanted])
    else:
        _show_covered(
            cli.output, [found for found in cli.run(_covered(cli, grant)) if wanted is None or found.scope in wanted]
        )


async def _own(cli: Cli) -> list[RecordSummary]:
    async with cli.patient() as patient:
        return await patient.records()


async def _covered(cli: Cli, typed: str | None) -> list[ListedRecord]:
    async with cli.recipient() as recipient:
        held = {grant.id: grant for grant in await recipient.grants()}
        wanted = [full_id(typed, held, UnknownGrant)] if typed else [name for name, grant in held.items() if grant.live]
        return [record for name in wanted for record in await recipient.listing(held[name])]


@app.command("show")
def show(
    ctx: typer.Context,
    record: Annotated[str, typer.Argument(help="The record's id, or its beginning.")],
    *,
    version: Annotated[int | None, typer.Option(help="An earlier version.", show_default="the newest", min=1)] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the body to this file.", dir_okay=False)
    ] = None,
) -> None:
    """Decrypt one record of yours and show it."""
    cli = Cli.of(ctx)

    async def work(folder: Path | None) -> OpenedRecord:
        async with cli.patient() as patient:
            known = [summary.record_id for summary in await patient.records()]
            return await patient.read_record(full_id(record, known, UnknownRecord), version, large_to=folder)

    if output is None:
        opened = cli.run(work(None))
        resource, problem = _resource(opened)
    else:
        with workspace(output) as folder:
            opened = cli.run(work(folder))
            resource, problem = _resource(opened)
            move(opened, output)
    document = {
        **opened_document(opened),
        "resource": resource,
        "problem": problem,
        "written_to": str(output) if output else None,
    }
    lines: list[Any] = [
        Text.assemble(("Record   ", "bold"), f"{opened.record_id}, version {opened.version}"),
        Text.assemble(("Title    ", "bold"), plain(opened.header.title or "—")),
        Text.assemble(("Scope    ", "bold"), f"{opened.scope}, epoch {opened.epoch}"),
        Text.assemble(("Author   ", "bold"), "you" if opened.author == opened.patient else opened.author),
        Text.assemble(("Written  ", "bold"), when(opened.written_at)),
    ]
    if output is not None:
        lines.append(plain(f"Written to {output}."))
    elif resource is not None:
        lines.append(json_block(resource))
    elif problem is not None:
        lines.append(plain(f"Its author calls it FHIR, which it is not ({problem}); write it to a file with -o FILE."))
    elif opened.media_type.startswith("text/"):
        lines += [plain(line.expandtabs()) for line in opened.body.decode("utf-8", errors="replace").splitlines()]
    else:
        lines.append(plain(f"{opened.header.length} bytes of {opened.media_type}; write them to a file with -o FILE."))
    cli.output.result(document, *lines)


def _resource(record: OpenedRecord) -> tuple[Resource | None, str | None]:
    """The FHIR resource, if it is one; or the code of what is wrong with a body that should be."""
    try:
        return resource_of(record), None
    except PcehrError as error:
        return None, error.code


@app.command("export")
def export(
    ctx: typer.Context,
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The FHIR Bundle; other files go into a folder beside it.")
    ] = Path("records.json"),
    scope: OnlyScopesOption = None,
) -> None:
    """Decrypt all your records, check every one, and write them to this machine, unencrypted."""
    cli = Cli.of(ctx)
    problems: list[Problem] = []

    async def work(folder: Path) -> list[OpenedRecord]:
        async with cli.patient() as patient:
            with cli.output.progress("Decrypting") as advance:
                return await patient.export(advance, scopes=names(scope), problems=problems, large_to=folder)

    with workspace(output) as folder:
        opened = cli.run(work(folder))
        written = save(opened, output)
    report(cli.output, opened, problems, written)


def report(
    output: Output,
    opened: Sequence[OpenedRecord],
    problems: Sequence[Problem],
    written: Written | None,
    extra: dict[str, Any] | None = None,
    *,
    empty: str = "There was nothing to open.",
) -> None:
    """Say what was opened, what was left out, and what was written; exit status 1 if anything was left out."""
    counts = Counter(record.scope for record in opened)
    left_out = [*problems, *(written.problems if written else ())]
    document = {
        "opened": [opened_document(record) for record in opened],
        "problems": [problem_document(problem) for problem in left_out],
        "written": written.document() if written else None,
        **(extra or {}),
    }
    lines: list[Any] = [
        table(
            f"{counted(len(opened), 'record')} opened and verified",
            ["Scope", "Records"],
            [[name, str(count)] for name, count in sorted(counts.items())],
            empty=empty,
        )
    ]
    if written is not None and written.bundle:
        lines.append(plain(f"In {written.bundle}, unencrypted: {counted(written.resources, 'FHIR resource')}."))
    if written is not None and written.files:
        folder = written.files[0].parent
        lines.append(plain(f"In {folder}, unencrypted: {counted(len(written.files), 'other file')}."))
    for title, found in (
        ("What did not hold, and was left out", problems),
        ("What is not in the Bundle, since it is not as FHIR wants it", written.problems if written else ()),
    ):
        if found:
            rows = [[problem.record_id or "—", problem.code, problem.detail] for problem in found]
            lines.append(table(title, ["Record", "Code", "Why"], rows, empty=""))
    output.result(document, *lines)
    if left_out:
        raise typer.Exit(1)


def opened_document(record: OpenedRecord) -> dict[str, Any]:
    """An opened record as JSON, without its body."""
    return {
        "id": record.record_id,
        "version": record.version,
        "scope": record.scope,
        "epoch": record.epoch,
        "author": record.author,
        "patient": record.patient,
        "written_at": record.written_at,
        **record.header.to_json(),
    }


def problem_document(problem: Problem) -> dict[str, Any]:
    return {
        "code": problem.code,
        "detail": problem.detail,
        "record": problem.record_id,
        "grant": problem.grant_id,
        "proxy": problem.proxy,
    }


def _show_own(output: Output, records: Sequence[RecordSummary]) -> None:
    document = {
        "records": [
            {
                "id": record.record_id,
                "version": record.version,
                "scope": record.scope,
                "scope_id": record.scope_id,
                "epoch": record.epoch,
                "author": record.author,
                "written_at": record.written_at,
                "problem": record.problem.code if record.problem else None,
                **(record.header.to_json() if record.header else {}),
            }
            for record in records
        ]
    }
    rows = [
        [
            record.record_id[:SHORT_RECORD_ID],
            record.scope or record.scope_id,
            (record.title or "—") if record.problem is None else f"({record.problem.code})",
            (record.header.date if record.header else None) or "",
            (record.header.resource_type or record.header.media_type) if record.header else "",
            str(record.version),
        ]
        for record in records[:SHOWN]
    ]
    columns = ["Id", "Scope", "Title", "Date", "Kind", "Version"]
    output.result(
        document,
        table(
            counted(len(records), "record"), columns, rows, empty="There are no records. Next: pcehr records add FILE"
        ),
        *_more(records),
    )


def _show_covered(output: Output, records: Sequence[ListedRecord]) -> None:
    document = {
        "records": [
            {
                "id": record.record_id,
                "version": record.version,
                "grant": record.grant_id,
                "scope": record.scope,
                "epoch": record.epoch,
                "author": record.author,
                "written_at": record.written_at,
                "size": record.size,
            }
            for record in records
        ]
    }
    rows = [
        [
            record.record_id[:SHORT_RECORD_ID],
            record.scope,
            short_did(record.author),
            when(record.written_at),
            str(record.size),
            str(record.version),
        ]
        for record in records[:SHOWN]
    ]
    output.result(
        document,
        table(
            f"{counted(len(records), 'record')}, still encrypted",
            ["Id", "Scope", "Author", "Written", "Bytes", "Version"],
            rows,
            empty="No live grant of yours covers a record.",
        ),
        *_more(records),
        *([Text("Next: pcehr fetch -o FILE")] if rows else []),
    )


def _more(records: Sequence[object]) -> list[Text]:
    hidden = len(records) - SHOWN
    return [Text(f"… and {hidden} more; --scope narrows the list, and --json has all of them.")] if hidden > 0 else []
