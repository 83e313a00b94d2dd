"""`pcehr records amend`: a new version of a record, by its patient or by an author whom the patient allows to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from client.cli.context import Cli
from client.cli.documents import records_from_file, scope_map
from client.cli.failures import InvalidValue
from client.cli.output import plain
from client.cli.values import full_id
from client.errors import UnknownGrant, UnknownRecord
from client.records import NewRecord
from client.reports import StoredRecord

_RECORD_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def amend(
    ctx: typer.Context,
    record: Annotated[str, typer.Argument(help="The record's id, or its beginning.")],
    file: Annotated[Path, typer.Argument(help="What it says from now on: one FHIR resource, or any other file.")],
    *,
    scope: Annotated[
        str | None, typer.Option(help="File the new version under this scope.", show_default="the record's")
    ] = None,
    grant: Annotated[
        str | None, typer.Option(help="Amend a patient's record, under this grant (id or its beginning).")
    ] = None,
) -> None:
    """Store a new version of a record. The earlier versions stay, and `pcehr records show --version N` shows them."""
    cli = Cli.of(ctx)
    stored = cli.run(
        _amend_for_patient(cli, record, file, scope, grant) if grant else _amend_own(cli, record, file, scope)
    )
    cli.output.result(
        {
            "id": stored.record_id,
            "version": stored.version,
            "scope": stored.scope,
            "epoch": stored.epoch,
            "manifest": stored.manifest_id,
        },
        plain(f"Version {stored.version} of record {stored.record_id} is stored, in {stored.scope}."),
    )


async def _amend_own(cli: Cli, typed: str, file: Path, scope: str | None) -> StoredRecord:
    async with cli.patient() as patient:
        known = {summary.record_id: summary for summary in await patient.records()}
        before = known[full_id(typed, known, UnknownRecord)]
        record = _one_record(file, scope or before.scope)
        if record.full_url is None and before.header is not None:
            # Other resources go on referring to this one by it.
            record = replace(record, full_url=before.header.full_url)
        with cli.output.working("Encrypting and storing…"):
            return await patient.add_version(before.record_id, record)


async def _amend_for_patient(cli: Cli, typed: str, file: Path, scope: str | None, typed_grant: str) -> StoredRecord:
    async with cli.author() as (author, recipient):
        held = {grant.id: grant for grant in await recipient.grants()}
        wanted = held[full_id(typed_grant, held, UnknownGrant)]
        scopes = {listed.record_id: listed.scope for listed in await recipient.listing(wanted)}
        record_id = _named(typed, scopes)
        record = _one_record(file, scope or scopes.get(record_id))
        with cli.output.working("Encrypting and storing…"):
            return await author.amend(wanted.id, record_id, record)


def _named(typed: str, known: Iterable[str]) -> str:
    """The record's id. A whole one need not be listed: of what it wrote itself an author sees more than a list says."""
    if _RECORD_ID.fullmatch(typed.strip()):
        return typed.strip()
    return full_id(typed, known, UnknownRecord)


def _one_record(file: Path, scope: str | None) -> NewRecord:
    if scope is None:
        raise InvalidValue("What the record is filed under is not known here; name it with --scope.")
    records = records_from_file(file, scope_map(), scope)
    if len(records) != 1:
        raise InvalidValue(
            f"{file} holds {len(records)} records, and a version is one: take a single FHIR resource, or another file."
        )
    return records[0]
