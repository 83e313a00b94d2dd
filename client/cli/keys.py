"""`pcehr keys`: what the registry's log holds in your name, and whether it holds anything that you did not put in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from client.cli.context import Cli, common_scopes, patient_of
from client.cli.output import counted, plain, short, short_did, table, write_line
from client.errors import REFUSALS, ServiceRefused, ServiceUnreachable
from client.key_watch import Finding, WatchReport
from client.log_memory import REGISTRY
from client.scope_keys import scope_leaf
from client.session import Session, key_leaves
from client.verification import check_scope_key
from shared.schemas.log import MAX_LEAVES
from shared.wire import Role

app = typer.Typer(help="List your published keys, and watch the registry's log.", invoke_without_command=True)

FOUND = 3
"""Exit status where something does not fit together."""

_EVERY = 60.0
"""Seconds between two visits."""

_wait = asyncio.sleep

_WORDS = {
    "agrees": "has cosigned the same",
    "behind": "has cosigned an earlier state",
    "ahead": "has cosigned a later state",
    "other": "has cosigned another history",
    "silent": "has cosigned nothing",
    "away": "cannot be reached",
}


@dataclass
class _Published:
    """One statement of this party's in the registry's log."""

    what: str
    name: str | None
    number: int
    statement: str
    leaf: bytes
    place: int = -1


@app.callback()
def list_keys(ctx: typer.Context) -> None:
    """List your key-entries and scope-keys with their place in the registry's log, each proven to be there."""
    if ctx.invoked_subcommand is not None:
        return
    cli = Cli.of(ctx)

    async def work() -> tuple[list[_Published], int]:
        async with cli.session() as session:
            return await _published(session)

    published, size = cli.run(work())
    document = {
        "log_size": size,
        "keys": [
            {
                "kind": one.what,
                "scope": one.name,
                "number": one.number,
                "statement": one.statement,
                "place": one.place,
            }
            for one in published
        ],
    }
    rows = [[_kind(one), str(one.number), str(one.place), short(one.statement)] for one in published]
    cli.output.result(
        document,
        table("Your keys in the registry's log", ["Key", "Number", "Place", "Statement"], rows, empty=""),
        Text(f"The log has {counted(size, 'entry', 'entries')}. Next: pcehr keys watch"),
    )


@app.command("watch")
def watch(
    ctx: typer.Context,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Look once and end: with 3 where something does not fit.")
    ] = False,
) -> None:
    """Look through the registry's log for keys in your name that are not yours, and for keys of those you know that the
    registry hides from you. Asks the witnesses too whether they have seen the same log. Every minute, or --once."""
    cli = Cli.of(ctx)
    findings = cli.run(_watch(cli, once=once))
    if findings:
        raise typer.Exit(FOUND)


async def _watch(cli: Cli, *, once: bool) -> int:
    async with cli.session() as session:
        names = await _names(session)
        while True:
            try:
                with cli.output.working("Reading the registry's log…"):
                    report = await session.watch(names)
            except (ServiceUnreachable, ServiceRefused) as away:
                if once:
                    raise
                # Whoever watches for days goes on when the platform is back.
                cli.output.note(f"{away.detail} Trying again in a minute.")
                await _wait(_EVERY)
                continue
            _show(cli, report, {session.keyring.scope_id(name): name for name in names}, once=once)
            if once:
                return len(report.findings)
            await _wait(_EVERY)


def _show(cli: Cli, report: WatchReport, names: dict[str, str], *, once: bool) -> None:
    document: dict[str, Any] = {
        "log_size": report.size,
        "read": report.read,
        "findings": [
            {
                "code": one.code,
                "detail": one.detail,
                "did": one.did,
                "scope": names.get(one.scope, one.scope) if one.scope else None,
                "statement": one.statement,
                "place": one.place,
                "evidence": str(one.evidence) if one.evidence else None,
            }
            for one in report.findings
        ],
        "witnesses": dict(report.witnesses),
    }
    if cli.output.as_json and not once:
        write_line(document)
        return
    cli.output.result(document, *_for_people(report, names))


def _for_people(report: WatchReport, names: dict[str, str]) -> Iterator[RenderableType]:
    new = counted(report.read, "new entry", "new entries")
    if report.findings:
        rows = [_row(one, names) for one in report.findings]
        yield table("What does not fit", ["Code", "What", "Whose", "Place", "Evidence"], rows, empty="")
    rows = [[short_did(did), _WORDS[where]] for did, where in report.witnesses.items()]
    yield table("The witnesses", ["Witness", "It"], rows, empty="There are no witnesses.")
    yield plain(
        f"{new} of {report.size} read; "
        + (
            "do not share anything until this is settled."
            if report.findings
            else "nothing in your name that is not yours, and nothing hidden of those you know."
        ),
        "bold red" if report.findings else "bold green",
    )


def _row(finding: Finding, names: dict[str, str]) -> list[object]:
    scope = f", {names.get(finding.scope, finding.scope)}" if finding.scope else ""
    return [
        plain(finding.code, "red"),
        finding.detail,
        short_did(finding.did) + scope,
        "" if finding.place is None else str(finding.place),
        str(finding.evidence or ""),
    ]


def _kind(one: _Published) -> str:
    return one.what if one.name is None else f"{one.what} {one.name}"


async def _published(session: Session) -> tuple[list[_Published], int]:
    """Own key-entries and scope-keys, oldest first, with their places; and the size of the log."""
    me = await session.me()
    published = [
        _Published("key-entry", None, entry.payload.seq, entry.id, leaf)
        for entry, leaf in zip(me.entries, key_leaves(me), strict=True)
    ]
    if me.role is Role.PATIENT:
        names = {session.keyring.scope_id(name): name for name in await _names(session)}
        async for token in session.platform.scope_keys(await session.credentials(), session.did):
            statement = check_scope_key(token, me)
            payload = statement.payload
            name = names.get(payload.scope, payload.scope)
            published.append(_Published("scope-key", name, payload.epoch, statement.id, scope_leaf(statement)))
    size = 0
    for start in range(0, len(published), MAX_LEAVES):
        batch = published[start : start + MAX_LEAVES]
        checkpoint, proofs = await session.logs.prove(
            REGISTRY, session.platform.registry_url, [one.leaf for one in batch]
        )
        size = checkpoint.size
        for one, (place, _) in zip(batch, proofs, strict=True):
            one.place = place
    return published, size


async def _names(session: Session) -> list[str]:
    """Names of a patient's own scopes; nobody else has any."""
    if (await session.me()).role is not Role.PATIENT:
        return []
    names = list(common_scopes())
    with contextlib.suppress(*REFUSALS):
        # Scopes of the patient's own naming are found by their ids too; the registry's log must not wait for another
        # service to be looked through.
        names += (await patient_of(session).settings()).scopes
    return list(dict.fromkeys(names))
