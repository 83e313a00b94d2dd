"""Looking around: `status`, `directory`, `version`."""

from __future__ import annotations

import asyncio
import platform as machine
from importlib.metadata import version as version_of
from typing import Annotated, Any

import httpx
import typer
from rich.text import Text

from client import config
from client.cli.context import Cli
from client.cli.output import plain, state_text, table
from client.cli.running import run
from client.errors import ClientError
from client.fingerprint import fingerprint
from client.state import ClientState
from client.transport import Platform
from shared.crypto.umbral import engine_name
from shared.identity import VerifiedParty, verify_chain

READY_SECONDS = 5.0


def version(ctx: typer.Context) -> None:
    """Show the version of this program and of what it runs on."""
    document = {
        "pcehr": version_of("pcehr"),
        "python": machine.python_version(),
        "umbral": engine_name(),
        "system": f"{machine.system()} {machine.machine()}",
    }
    Cli.of(ctx).output.result(
        document,
        Text(
            f"pcehr {document['pcehr']} on Python {document['python']}, {document['system']};"
            f" Umbral by {document['umbral']}"
        ),
    )


def status(ctx: typer.Context) -> None:
    """Show whether the platform is well, and which profiles are on this machine. Needs no passphrase."""
    cli = Cli.of(ctx)
    registry_url = cli.registry_url(cli.state())
    services = run(_services(registry_url))
    profiles = [_profile(known) for known in config.profiles()]
    document = {"registry_url": registry_url, "services": services, "profiles": profiles}
    cli.output.result(
        document,
        table(
            "The platform",
            ["Service", "Address", "State", "Id"],
            [
                [str(one["name"]), str(one["url"]), state_text(str(one["state"])), str(one["did"] or "")]
                for one in services
            ],
            empty="",
        ),
        table(
            "Profiles on this machine",
            ["Profile", "Role", "Name", "Registry"],
            [
                [one["name"], one["role"] or "", one["display_name"] or "", one["registry_url"] or ""]
                for one in profiles
            ],
            empty="There are no profiles on this machine. Next: pcehr init patient",
        ),
    )
    if any(one["state"] != "ready" for one in services):
        raise typer.Exit(1)


def directory(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(help="Part of a name or an organisation.", show_default="everybody")] = "",
) -> None:
    """Find recipients: doctors, hospitals, insurers. Patients are in no directory. Needs no passphrase."""
    cli = Cli.of(ctx)
    found = run(_search(cli.registry_url(cli.state()), query))
    document = {
        "recipients": [
            {
                "did": party.did,
                "name": party.name,
                "organisation": party.organisation,
                "fingerprint": " ".join(fingerprint(party)),
            }
            for party in found
        ]
    }
    rows = [[plain(party.name or ""), plain(party.organisation or ""), party.did] for party in found]
    cli.output.result(
        document,
        table("Recipients", ["Name", "Organisation", "Id"], rows, empty="Nobody of that name has signed up."),
        *(
            [Text("Anybody can take any name: compare the fingerprint (`pcehr card`) before you share.")]
            if rows
            else []
        ),
    )


async def _search(registry_url: str, query: str) -> list[VerifiedParty]:
    async with Platform(registry_url) as platform:
        return [verify_chain(party.did, party.entries) async for party in platform.recipients(query)]


async def _services(registry_url: str) -> list[dict[str, Any]]:
    async with Platform(registry_url) as platform, httpx.AsyncClient(timeout=READY_SECONDS) as http:
        registry = {"name": "registry", "url": registry_url, "did": None}
        known: list[dict[str, Any]] = [registry]
        try:
            discovery = await platform.discovery()
            known.append({"name": "records", "url": discovery.records_url.rstrip("/"), "did": None})
            known += [
                {"name": party.name or "proxy", "url": (party.endpoint or "").rstrip("/"), "did": party.did}
                async for party in platform.proxies()
            ]
        except ClientError:
            # Without the registry nobody knows where the rest is.
            if len(known) == 1:
                raise
        states = await asyncio.gather(*(_state(http, one["url"]) for one in known))
        return [{**one, "state": state} for one, state in zip(known, states, strict=True)]


async def _state(http: httpx.AsyncClient, url: str) -> str:
    try:
        response = await http.get(f"{url}/readyz")
    except (httpx.HTTPError, httpx.InvalidURL):
        return "away"
    return "ready" if response.is_success else "not ready"


def _profile(profile: config.Profile) -> dict[str, Any]:
    state = ClientState.load(profile.state)
    return {
        "name": profile.name,
        "role": state.role.value if state.role else None,
        "display_name": state.display_name,
        "registry_url": state.registry_url,
    }
