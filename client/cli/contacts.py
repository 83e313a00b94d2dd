"""`pcehr contacts`: names of your own for those you deal with, so that nobody has to type a DID."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from client.cli.context import Cli
from client.cli.failures import ContactExists, InvalidValue, UnknownContact
from client.cli.output import plain, table
from client.cli.values import label, party_id
from client.errors import ServiceUnreachable
from client.fingerprint import fingerprint
from shared.errors import PcehrError
from shared.identity import VerifiedParty

app = typer.Typer(
    help="Give names of your own to those you deal with; a name stands wherever a DID does.", no_args_is_help=True
)

Shown = VerifiedParty | PcehrError
"""A party as the registry shows it, or why it does not."""


@app.command("list")
def list_contacts(ctx: typer.Context) -> None:
    """List your contacts, with the fingerprints to compare over the telephone."""
    cli = Cli.of(ctx)

    async def work() -> dict[str, tuple[str, Shown]]:
        async with cli.session() as session:
            found: dict[str, tuple[str, Shown]] = {}
            for alias, did in sorted(session.state.contacts.items()):
                try:
                    found[alias] = (did, await session.party(did))
                except ServiceUnreachable:
                    raise
                except PcehrError as error:
                    found[alias] = (did, error)
            return found

    contacts = cli.run(work())
    rows = [
        [
            alias,
            party.role.value if isinstance(party, VerifiedParty) else "",
            _public_name(party) if isinstance(party, VerifiedParty) else f"({party.code})",
            " ".join(fingerprint(party)) if isinstance(party, VerifiedParty) else "",
            did,
        ]
        for alias, (did, party) in contacts.items()
    ]
    cli.output.result(
        {"contacts": [_document(alias, did, party) for alias, (did, party) in contacts.items()]},
        table(
            "Contacts",
            ["Name", "Role", "Calls itself", "Fingerprint", "Id"],
            rows,
            empty="You have no contacts. Next: pcehr contacts add NAME DID",
        ),
    )


@app.command("add")
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What you call them; only you see it.")],
    did: Annotated[str, typer.Argument(help="Their id (DID), as `pcehr card` or `pcehr directory` shows it.")],
) -> None:
    """Give somebody a name of your own. Compare the fingerprint with them before you rely on it."""
    cli = Cli.of(ctx)
    alias, whom = _alias(name), party_id(did)

    async def work() -> VerifiedParty:
        async with cli.session() as session:
            state = session.state
            if state.contacts.get(alias, whom) != whom:
                raise ContactExists
            party = await session.party(whom)
            state.contacts[alias] = whom
            state.save()
            return party

    party = cli.run(work())
    lines = [
        plain(f"{alias} is {whom}, a {party.role.value}."),
        *([plain(f"It calls itself {_public_name(party)}.")] if party.name else []),
        Text(f"Fingerprint, to compare over the telephone: {' '.join(fingerprint(party))}"),
    ]
    cli.output.result(_document(alias, whom, party), *lines)


@app.command("remove")
def remove(ctx: typer.Context, name: Annotated[str, typer.Argument(help="The contact's name.")]) -> None:
    """Take a name away. Grants and requests stay as they are. Needs no passphrase."""
    cli = Cli.of(ctx)
    cli.require_profile()
    state = cli.state()
    did = state.contacts.get(name)
    if did is None:
        raise UnknownContact
    state.forget_contact(name)
    cli.output.result({"name": name, "did": did}, plain(f"{name} is no contact of yours any more."))


def _alias(typed: str) -> str:
    alias = label(typed)
    if alias.lower().startswith("did:"):
        raise InvalidValue("A contact's name does not look like an id.")
    return alias


def _public_name(party: VerifiedParty) -> str:
    return " · ".join(filter(None, (party.name, party.organisation)))


def _document(alias: str, did: str, party: Shown) -> dict[str, Any]:
    known = party if isinstance(party, VerifiedParty) else None
    return {
        "name": alias,
        "did": did,
        "role": known.role.value if known else None,
        "public_name": known.name if known else None,
        "organisation": known.organisation if known else None,
        "fingerprint": " ".join(fingerprint(known)) if known else None,
        "problem": party.code if isinstance(party, PcehrError) else None,
    }
