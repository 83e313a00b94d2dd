"""Making, restoring and showing a profile: `init`, `restore`, `card`, `token`, `rotate`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from client import config, keystore
from client.cli.context import Cli, common_scopes, patient_of
from client.cli.failures import InvalidValue
from client.cli.output import counted, fit, one_line, table
from client.cli.running import run
from client.cli.values import label
from client.errors import KeystoreExists
from client.fingerprint import fingerprint
from client.keyring import Keyring
from client.patient import Patient
from client.recipient import Recipient
from client.reports import RestoreReport
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from shared import tokens, wire
from shared.identity import VerifiedParty
from shared.wire import Role


def init(
    ctx: typer.Context,
    role: Annotated[str, typer.Argument(help="patient, or recipient (a doctor, a hospital, an insurer).")],
    *,
    name: Annotated[
        str | None, typer.Option(help="A recipient's name, as everybody may see it. A patient has none.")
    ] = None,
    organisation: Annotated[str | None, typer.Option(help="A recipient's organisation, public as well.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether the words were written down.")] = False,
) -> None:
    """Make a new profile: keys on this machine, and an entry at the registry.

    The 24 recovery words are shown once. They are the profile: whoever has them can do everything it can.
    """
    cli = Cli.of(ctx)
    wanted = _role(role, name)
    name = None if name is None else label(name)
    organisation = None if organisation is None else label(organisation)
    profile = cli.profile
    if profile.exists:
        raise KeystoreExists(f"The profile '{profile.name}' exists already; name another one with --profile NAME.")
    # Before anything is made: without a registry there is nothing to sign up to.
    run(_reach(cli.registry_url()))
    passphrase = cli.passphrase(new=True)
    keyring = Keyring.generate()
    words = keyring.words().split()
    if not cli.output.as_json:
        cli.output.out.print(_words_panel(words))
        if not yes:
            typer.confirm("Have you written the 24 words down?", abort=True)
    profile.make_folder()
    # The keystore first: a party that has signed up and whose keys are lost could never come back.
    keystore.create(profile.keystore, keyring, passphrase)
    state = ClientState(profile.state)
    state.role, state.display_name = wanted, name
    state.registry_url = cli.registry_url(state)
    state.save()
    try:
        with cli.output.working("Signing up at the registry…"):
            party = run(_sign_up(keyring, state, name, organisation))
    except BaseException:
        cli.output.note("It did not work, so this profile is taken away again; the words above open nothing.")
        _take_away(profile)
        raise
    document = {
        "profile": profile.name,
        "role": wanted.value,
        "did": party.did,
        "fingerprint": " ".join(fingerprint(party)),
        "words": " ".join(words),
        "registry_url": state.registry_url,
    }
    cli.output.result(document, *_welcome(party, profile.name))


def restore(
    ctx: typer.Context,
    *,
    words_file: Annotated[
        Path | None, typer.Option(help="A file with the 24 words; asked for otherwise.", exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Bring a profile back from its 24 words: keys, scopes, settings, and what the platform keeps for it."""
    cli = Cli.of(ctx)
    profile = cli.profile
    if profile.exists:
        raise KeystoreExists(f"The profile '{profile.name}' exists already; name another one with --profile NAME.")
    words = words_file.read_text("utf-8") if words_file else str(typer.prompt("The 24 words", err=True))
    keyring = Keyring.from_words(words)
    passphrase = cli.passphrase(new=True)
    state = ClientState(profile.state)
    state.registry_url = cli.registry_url(state)

    async def work() -> tuple[VerifiedParty, RestoreReport | None]:
        async with Platform(state.registry_url or "") as platform:
            session = Session(keyring, platform, state)
            party = await session.me()
            state.role, state.display_name = party.role, party.name
            if party.role is not Role.PATIENT:
                return party, None
            return party, await patient_of(session).restore(common_scopes())

    profile.make_folder()
    try:
        with cli.output.working("Asking the platform what it keeps for these keys…"):
            party, found = run(work())
        keystore.create(profile.keystore, keyring, passphrase)
        state.save()
    except BaseException:
        _take_away(profile)
        raise
    document: dict[str, Any] = {"profile": profile.name, "role": party.role.value, "did": party.did}
    lines = [Text(f"The profile '{profile.name}' is back: {party.role.value} {party.did}")]
    if found is not None:
        document |= {
            "scopes": [scope.name for scope in found.scopes],
            "unknown_scopes": found.unknown_scopes,
            "records": found.records,
            "grants": found.grants,
            "pending_requests": found.pending_requests,
        }
        lines.append(
            Text(
                f"The platform keeps {counted(found.records, 'record')}, {counted(found.grants, 'grant')} and"
                f" {counted(found.pending_requests, 'open request')} for it."
            )
        )
    cli.output.result(document, *lines)


def card(
    ctx: typer.Context,
    *,
    key_entry: Annotated[
        bool, typer.Option("--key-entry", help="Show the signed key-entry too, as Swagger UI takes it.")
    ] = False,
) -> None:
    """Show who this profile is: the id to give to others, and words to compare over the telephone."""
    cli = Cli.of(ctx)

    async def work() -> VerifiedParty:
        async with cli.session() as session:
            return await session.me()

    party = cli.run(work())
    document = {
        "profile": cli.profile_name,
        "role": party.role.value,
        "did": party.did,
        "fingerprint": " ".join(fingerprint(party)),
        "name": party.name,
        "organisation": party.organisation,
        "key_entries": len(party.entries),
    }
    if key_entry:
        document["key_entry"] = party.current.token
    lines = [
        Text.assemble(("Id           ", "bold"), party.did),
        Text.assemble(("Fingerprint  ", "bold"), " ".join(fingerprint(party))),
        Text.assemble(("Role         ", "bold"), party.role.value),
    ]
    if party.name:
        lines.append(
            Text.assemble(
                ("Name         ", "bold"), one_line(" · ".join(filter(None, (party.name, party.organisation))))
            )
        )
    if key_entry:
        lines += [Text("Key-entry", style="bold"), Text(party.current.token)]
    cli.output.result(document, *lines)


def token(
    ctx: typer.Context,
    *,
    service: Annotated[str, typer.Option(help="registry, records, or the id (DID) of a proxy.")] = "records",
    assertion: Annotated[
        bool, typer.Option("--assertion", help="Show a client assertion instead, for POST /v1/oauth/token.")
    ] = False,
) -> None:
    """Show an access token for one service, for trying its API in Swagger UI. It lives five minutes."""
    cli = Cli.of(ctx)
    audience = {"registry": wire.REGISTRY_AUDIENCE, "records": wire.RECORDS_AUDIENCE}.get(service, service)
    if audience == service and not service.startswith("did:key:"):
        raise InvalidValue(
            f"'{service}' is no service: name registry, records, or the DID of a proxy (`pcehr status`)."
        )

    async def work() -> tuple[str, str]:
        async with cli.session() as session:
            discovery = await session.platform.discovery()
            credentials = await session.credentials()
            if assertion:
                return credentials.make_assertion(discovery.token_endpoint), discovery.token_endpoint
            return await session.platform.token(credentials, audience), discovery.token_endpoint

    text, endpoint = cli.run(work())
    kind = "client_assertion" if assertion else "access_token"
    document = {
        kind: text,
        "audience": audience,
        "expires_in": tokens.MAX_ASSERTION_LIFETIME if assertion else tokens.ACCESS_TOKEN_LIFETIME,
        "token_endpoint": endpoint,
    }
    # One unbroken line, so that it can be copied and piped.
    cli.output.note(
        f"For POST {endpoint}: client_assertion_type={tokens.ASSERTION_TYPE_URN}, resource={audience}. Valid once."
        if assertion
        else "Paste it under Authorize in Swagger UI. It is valid for five minutes."
    )
    if cli.output.as_json:
        cli.output.result(document)
    else:
        # A registry's own words, and the one text that must not be folded.
        typer.echo(fit(text))


def rotate(
    ctx: typer.Context,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also while proxies wait for a share; give such a grant anew afterwards.")
    ] = False,
) -> None:
    """Change this profile's keys: new identity, signing and receiving keys, linked to the old ones.

    The 24 words stay valid. Grants that others gave to the old keys can still be opened.
    """
    cli = Cli.of(ctx)
    is_patient = cli.is_patient

    async def work() -> VerifiedParty:
        async with cli.session() as session:
            return await (patient_of(session).rotate_keys(force=force) if is_patient else session.rotate_keys())

    party = cli.run(work())
    seq = party.current.payload.seq
    cli.output.result({"did": party.did, "seq": seq}, Text(f"The keys are changed; this is key-entry {seq}."))


def _take_away(profile: config.Profile) -> None:
    """Leave nothing of a profile that did not come about."""
    for path in (profile.keystore, profile.state):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        profile.folder.rmdir()


async def _reach(registry_url: str) -> None:
    async with Platform(registry_url) as platform:
        await platform.discovery()


async def _sign_up(keyring: Keyring, state: ClientState, name: str | None, organisation: str | None) -> VerifiedParty:
    assert state.registry_url is not None
    async with Platform(state.registry_url) as platform:
        session = Session(keyring, platform, state)
        if state.role is Role.PATIENT:
            party = await Patient(session, known_scopes=common_scopes()).sign_up()
        else:
            party = await Recipient(session).sign_up(name or "", organisation)
        state.save()
        return party


def _role(text: str, name: str | None) -> Role:
    if text not in (Role.PATIENT, Role.RECIPIENT):
        raise InvalidValue(f"'{text}' is no role here: choose patient or recipient.")
    role = Role(text)
    if role is Role.RECIPIENT and not name:
        raise InvalidValue("A recipient has a name that others see: add --name 'Demo Practice'.")
    if role is Role.PATIENT and name:
        raise InvalidValue("A patient's name is no business of the platform: leave --name out.")
    return role


def _words_panel(words: list[str]) -> Panel:
    numbered = [Text.assemble((f"{at:>2} ", "dim"), (word, "bold")) for at, word in enumerate(words, start=1)]
    return Panel(
        Group(
            Columns(numbered, width=16, expand=False),
            Text("Whoever has them has this profile. If they are lost, nobody can bring it back.", style="yellow"),
        ),
        title="Your 24 recovery words: write them on paper",
        subtitle="they are shown this one time",
        border_style="yellow",
        expand=False,
    )


def _welcome(party: VerifiedParty, profile: str) -> list[RenderableType]:
    option = "" if profile == "default" else f" --profile {profile}"
    following = (
        [
            [f"pcehr records add FILE…{option}", "store records, FHIR Bundles included"],
            [f"pcehr requests list{option}", "see who asks for what"],
        ]
        if party.role is Role.PATIENT
        else [
            [f"pcehr requests new PATIENT --scope allergies --reason …{option}", "ask a patient for records"],
            [f"pcehr grants{option}", "see what has been granted"],
        ]
    )
    return [
        Text.assemble(("Signed up as a " + party.role.value + ". ", "green"), "Give this id to those you deal with:"),
        Text(party.did, style="bold"),
        Text(f"Fingerprint, for comparing it over the telephone: {' '.join(fingerprint(party))}"),
        table("Next", ["Command", "What it does"], following, empty=""),
    ]
