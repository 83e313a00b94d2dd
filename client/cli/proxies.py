"""`pcehr proxies`: the proxies that a patient's shares go to, and no others."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from client.cli.context import Cli
from client.cli.failures import UnknownProxy
from client.cli.output import counted, state_text, table
from client.cli.values import full_id
from client.errors import TooFewProxies, VerificationFailed
from client.fingerprint import fingerprint
from client.session import Session
from shared.errors import PcehrError
from shared.identity import VerifiedParty
from shared.wire import MAX_SHARES, Role

app = typer.Typer(help="List, pin and forget the proxies that your shares go to.", no_args_is_help=True)

_DID_KEY = "did:key:"

Proxies = dict[str, VerifiedParty | None]
"""Proxies by DID; None for one that the registry does not show, or not as a proxy."""


@app.command("list")
def list_proxies(ctx: typer.Context) -> None:
    """List the proxies of the directory and those you have pinned. Shares of a grant go to pinned ones only.

    The first grant pins those of the directory. Fingerprints are for comparing with whoever runs a proxy.
    """
    cli = Cli.of(ctx)

    async def work() -> tuple[Proxies, list[str]]:
        async with cli.patient() as patient:
            return await _known(patient.session), patient.session.state.proxies

    known, pinned = cli.run(work())
    rows = [
        [
            did,
            (proxy.current.payload.endpoint or "") if proxy else "",
            state_text("pinned" if did in pinned else "not pinned") if proxy else Text("not shown", style="red"),
            " ".join(fingerprint(proxy)) if proxy else "",
        ]
        for did, proxy in known.items()
    ]
    cli.output.result(
        {"proxies": [_document(did, proxy, pinned) for did, proxy in known.items()]},
        table("Proxies", ["Id", "Address", "Pinned", "Fingerprint"], rows, empty="The directory has no proxies."),
        *(
            []
            if pinned or not rows
            else [Text("None is pinned yet; the first grant pins them. Next: pcehr proxies pin")]
        ),
    )


@app.command("pin")
def pin(
    ctx: typer.Context,
    proxy: Annotated[
        list[str] | None,
        typer.Argument(help="Ids (DIDs) or their beginnings.", show_default="all of the directory, up to 16"),
    ] = None,
) -> None:
    """Choose the proxies that shares of later grants go to, in place of those pinned now. Earlier grants stay as they
    are."""
    cli = Cli.of(ctx)

    async def work() -> list[str]:
        async with cli.patient() as patient:
            known = await _known(patient.session) if proxy else {}
            chosen = list(dict.fromkeys(_named(typed, known) for typed in proxy)) if proxy else None
            if chosen is not None and len(chosen) > MAX_SHARES:
                raise TooFewProxies(f"At most {MAX_SHARES} proxies can be pinned; these are {len(chosen)}.")
            return await patient.pin_proxies(chosen)

    pinned = cli.run(work())
    cli.output.result(
        {"pinned": pinned},
        Text(
            f"{counted(len(pinned), 'proxy', 'proxies')} pinned; shares of later grants go to these and to no others."
        ),
        Text("`pcehr proxies list` shows them, with the fingerprints to compare."),
    )


@app.command("forget")
def forget(
    ctx: typer.Context,
    proxy: Annotated[
        list[str] | None, typer.Argument(help="Ids (DIDs) or their beginnings.", show_default="all")
    ] = None,
) -> None:
    """Take proxies from those that are pinned. Where none is left, the next grant pins those of the directory anew.

    What a proxy has of earlier grants it keeps until they end: pcehr revoke GRANT
    """
    cli = Cli.of(ctx)

    async def work() -> list[str]:
        async with cli.patient() as patient:
            state = patient.session.state
            pinned = state.proxies
            gone = {_named(typed, pinned) for typed in proxy} if proxy else set(pinned)
            return state.pin([did for did in pinned if did not in gone])

    left = cli.run(work())
    cli.output.result(
        {"pinned": left},
        Text(
            f"{counted(len(left), 'proxy', 'proxies')} left."
            if left
            else "No proxy is pinned any more; the next grant pins those of the directory anew."
        ),
    )


async def _known(session: Session) -> Proxies:
    """The pinned proxies and those of the directory, each once, with their chains of keys verified."""
    listed = [card.did async for card in session.platform.proxies()]
    known: Proxies = {}
    for did in dict.fromkeys([*session.state.proxies, *listed]):
        try:
            party = await session.party(did)
        except VerificationFailed:
            known[did] = None
        except PcehrError as refused:
            if refused.code != "unknown_party":
                raise
            known[did] = None
        else:
            known[did] = party if party.role is Role.PROXY else None
    return known


def _named(typed: str, known: Proxies | list[str]) -> str:
    """A DID by its beginning, with or without the part that all of them share."""
    whole = typed if typed.startswith(_DID_KEY) else f"{_DID_KEY}{typed}"
    return full_id(whole, known, UnknownProxy)


def _document(did: str, proxy: VerifiedParty | None, pinned: list[str]) -> dict[str, Any]:
    return {
        "did": did,
        "endpoint": proxy.current.payload.endpoint if proxy else None,
        "pinned": did in pinned,
        "shown": proxy is not None,
        "fingerprint": " ".join(fingerprint(proxy)) if proxy else None,
    }
