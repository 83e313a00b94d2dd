"""`pcehr`: the patient's and the recipient's side on the command line, and the platform on one machine.

| module | commands |
| --- | --- |
| `platform_commands` | up, demo |
| `identity` | init, restore, card, token, rotate |
| `keys` | keys, keys watch |
| `scopes` | scopes, scopes add, scopes map |
| `records`, `amend` | records add, amend, list, show, export |
| `requests` | requests new, list, deny; approve |
| `grants` | share, grants, revoke |
| `fetch` | fetch |
| `overview` | status, directory, version |
| `audit` | audit |
| `evidence` | export, verify |
| `watch` | watch |
| `contacts` | contacts list, add, remove |
| `proxies` | proxies list, pin, forget |
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from client import config
from client.cli import (
    amend,
    audit,
    contacts,
    evidence,
    fetch,
    grants,
    identity,
    keys,
    overview,
    platform_commands,
    proxies,
    records,
    requests,
    scopes,
    watch,
)
from client.cli.context import Cli
from client.cli.output import Output, table
from client.cli.root import Root

app = typer.Typer(
    name="pcehr",
    cls=Root,
    help="Health records that belong to patients: encrypted on your machine, disclosed only by your consent.",
    epilog="--json, --profile, --registry and --passphrase-file may stand anywhere on the line.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def start(
    ctx: typer.Context,
    *,
    profile: Annotated[
        str, typer.Option(help="Which party you are, if several live on this machine.", envvar="PCEHR_PROFILE")
    ] = config.DEFAULT_PROFILE,
    registry: Annotated[
        str | None,
        typer.Option(help="Address of the registry.", show_default="PCEHR_REGISTRY_URL, or as at sign-up"),
    ] = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the passphrase.",
            show_default="PCEHR_PASSPHRASE, or asked for",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Set up what every command needs, and explain the program where no command is given."""
    output = Output(as_json=as_json)
    ctx.obj = Cli(output, profile, registry, passphrase_file)
    if ctx.invoked_subcommand is None:
        _guide(output)


def _guide(output: Output) -> None:
    known = [profile.name for profile in config.profiles()]
    steps = [
        ["pcehr demo", "see the whole story, on a platform made for it"],
        ["pcehr up", "start the platform on this machine; leave it running"],
        ["pcehr init patient", "become a patient (in another terminal)"],
        ["pcehr init recipient --name 'Demo Practice' --profile practice", "become a doctor, a hospital, an insurer"],
        ["pcehr records add FILE…", "store records: FHIR Bundles and other files"],
        ["pcehr requests new PATIENT --scope … --reason …", "ask a patient for records"],
        ["pcehr requests list, pcehr approve REQUEST", "see who asks; give all of it or less"],
        ["pcehr fetch GRANT -o FILE", "open what was granted"],
        ["pcehr revoke GRANT", "end it, and see how well that is settled"],
    ]
    output.result(
        {"profiles": known, "commands": [{"command": command, "does": does} for command, does in steps]},
        Text("Health records that belong to patients.", style="bold"),
        Text(
            "Records are encrypted on the patient's machine. Nobody reads one without the patient's consent, and"
            " several independent proxies must take part each time."
        ),
        table("First steps", ["Command", "What it does"], steps, empty=""),
        Text(f"Profiles on this machine: {', '.join(known) or 'none yet'}. All commands: pcehr --help"),
    )


app.command("up", rich_help_panel="The platform")(platform_commands.up)
app.command("demo", rich_help_panel="The platform")(platform_commands.demo)
app.command("status", rich_help_panel="The platform")(overview.status)
app.command("version", rich_help_panel="The platform")(overview.version)
app.command("init", rich_help_panel="You")(identity.init)
app.command("restore", rich_help_panel="You")(identity.restore)
app.command("card", rich_help_panel="You")(identity.card)
app.command("rotate", rich_help_panel="You")(identity.rotate)
app.command("token", rich_help_panel="You")(identity.token)
app.add_typer(keys.app, name="keys", rich_help_panel="You")
app.add_typer(scopes.app, name="scopes", rich_help_panel="Records")
records.app.command("amend")(amend.amend)
app.add_typer(records.app, name="records", rich_help_panel="Records")
app.command("fetch", rich_help_panel="Records")(fetch.fetch)
app.add_typer(requests.app, name="requests", rich_help_panel="Consent")
app.command("approve", rich_help_panel="Consent")(requests.approve)
app.command("share", rich_help_panel="Consent")(grants.share)
app.command("grants", rich_help_panel="Consent")(grants.grants)
app.command("revoke", rich_help_panel="Consent")(grants.revoke)
app.command("audit", rich_help_panel="Consent")(audit.audit)
app.command("export", rich_help_panel="Consent")(evidence.export)
app.command("verify", rich_help_panel="Consent")(evidence.verify_file)
app.command("watch", rich_help_panel="Consent")(watch.watch)
app.command("directory", rich_help_panel="Consent")(overview.directory)
app.add_typer(contacts.app, name="contacts", rich_help_panel="Consent")
app.add_typer(proxies.app, name="proxies", rich_help_panel="Consent")


def main() -> None:
    """The console script `pcehr`; ends the process with 0, with 1 for a refusal, with 2 for a mistyped command."""
    app()
