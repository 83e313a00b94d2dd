"""`pcehr scopes`: what a patient's records are filed under, and the patient's own filing rules."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from client.cli.context import Cli
from client.cli.failures import InvalidValue
from client.cli.output import table
from client.reports import Override, ScopeInfo, Settings

app = typer.Typer(
    help="List scopes, make scopes of your own, and decide what is filed where.", invoke_without_command=True
)


@app.callback()
def list_scopes(ctx: typer.Context) -> None:
    """List your scopes. Each has a key of its own, so that giving one away gives no other away."""
    if ctx.invoked_subcommand is not None:
        return
    cli = Cli.of(ctx)

    async def work() -> list[ScopeInfo]:
        async with cli.patient() as patient:
            return await patient.scopes()

    scopes = cli.run(work())
    document = {
        "scopes": [
            {
                "name": scope.name,
                "title": scope.title,
                "scope_id": scope.scope_id,
                "epoch": scope.epoch,
                "records": scope.records,
                "custom": scope.custom,
            }
            for scope in scopes
        ]
    }
    rows = [[scope.name, scope.title, str(scope.records), str(scope.epoch)] for scope in scopes]
    cli.output.result(
        document, table("Scopes", ["Name", "What it holds", "Records", "Epoch"], rows, empty="There are no scopes yet.")
    )


@app.command("add")
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Small letters, digits and hyphens, such as knee-surgery.")],
    *,
    title: Annotated[str | None, typer.Option(help="A title for people; only you see it.")] = None,
) -> None:
    """Make a scope of your own. Its name is seen by you and by those you share it with, never by a server."""
    cli = Cli.of(ctx)

    async def work() -> ScopeInfo:
        async with cli.patient() as patient:
            return await patient.add_scope(name, title)

    scope = cli.run(work())
    cli.output.result(
        {"name": scope.name, "title": scope.title, "scope_id": scope.scope_id, "epoch": scope.epoch},
        Text(f"The scope '{scope.name}' is there. Next: pcehr records add FILE --scope {scope.name}"),
    )


@app.command("map")
def map_scope(
    ctx: typer.Context,
    scope: Annotated[str | None, typer.Argument(help="Where to file them; leave it out to list the rules.")] = None,
    *,
    resource_type: Annotated[
        str | None, typer.Option("--type", help="A FHIR resource type, such as Condition.")
    ] = None,
    code: Annotated[
        str | None, typer.Option(help="A coding as SYSTEM|CODE, such as 'http://loinc.org|2339-0'.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take this rule away.")] = False,
) -> None:
    """Decide for yourself where resources are filed: by type, by a code they carry, or both.

    Your rules go before the common ones. They hold for what is added from now on.
    """
    cli = Cli.of(ctx)
    rule = _rule(scope, resource_type, code)

    async def work() -> Settings:
        async with cli.patient() as patient:
            if rule is None:
                return await patient.settings()
            return await (patient.remove_override(rule) if remove else patient.set_override(rule))

    settings = cli.run(work())
    document = {
        "overrides": [
            {"scope": rule.scope, "type": rule.resource_type, "system": rule.system, "code": rule.code}
            for rule in settings.overrides
        ]
    }
    rows = [
        [rule.scope, rule.resource_type or "any", f"{rule.system}|{rule.code}" if rule.code else "any"]
        for rule in settings.overrides
    ]
    cli.output.result(
        document,
        table("Your filing rules", ["Scope", "Type", "Code"], rows, empty="You have no rules of your own."),
    )


def _rule(scope: str | None, resource_type: str | None, code: str | None) -> Override | None:
    if scope is None:
        if resource_type or code:
            raise InvalidValue("Name the scope that these are to be filed under: pcehr scopes map SCOPE --type …")
        return None
    if not resource_type and not code:
        raise InvalidValue("Say what is to be filed there: --type, --code, or both.")
    system, bar, value = (code or "").partition("|")
    if code and not (bar and system and value):
        raise InvalidValue("A code is written as SYSTEM|CODE, such as 'http://loinc.org|2339-0'.")
    return Override(scope=scope, resource_type=resource_type, system=system or None, code=value or None)
