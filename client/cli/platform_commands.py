"""`pcehr up` and `pcehr demo`: the whole platform on this machine."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from client import config
from client.cli.context import Cli
from client.cli.output import Output, plain, table
from client.cli.running import run
from client.demo import Options, run_demo
from client.embedded.home import Home
from client.embedded.platform import EmbeddedPlatform

DEFAULT_PORT = 8400


def up(
    ctx: typer.Context,
    *,
    home: Annotated[
        Path | None,
        typer.Option(help="Folder for data, secrets and logs.", show_default="PCEHR_HOME, or your data folder"),
    ] = None,
    proxies: Annotated[
        int | None, typer.Option(help="How many proxies; may grow later.", show_default="3, or as before", min=1)
    ] = None,
    threshold: Annotated[int, typer.Option(help="How many proxies must take part to open a record.", min=1)] = 2,
    port: Annotated[
        int | None,
        typer.Option(help="Port of the registry; the other services follow.", show_default="8400, or as before"),
    ] = None,
    postgres: Annotated[
        str | None,
        typer.Option(
            help="URL of a Postgres superuser, to use that server instead of the embedded one.",
            envvar="PCEHR_POSTGRES_URL",
        ),
    ] = None,
) -> None:
    """Start the platform on this machine and keep it running until Ctrl-C.

    Starts Postgres, the registry, the records service and the re-encryption proxies, each as a process of its own.
    Data and secrets stay in the home folder and are found again at the next start.
    """
    output = Cli.of(ctx).output
    folder = home or config.home()
    if port is None and Home(folder).is_new:
        port = DEFAULT_PORT
    platform = EmbeddedPlatform(
        folder,
        proxies=proxies,
        threshold=threshold,
        base_port=port,
        postgres_url=postgres,
        progress=output.note,
    )
    with contextlib.suppress(KeyboardInterrupt):
        run(_keep_running(platform, output))
        return
    output.note("The platform has stopped. Its data are kept; `pcehr up` starts it again.")


async def _keep_running(platform: EmbeddedPlatform, output: Output) -> None:
    async with platform:
        output.result(
            {
                "registry_url": platform.registry_url,
                "home": str(platform.home),
                "pid": os.getpid(),
                "services": [
                    {"name": name, "url": url, "docs": f"{url}/docs", "pid": platform.pids[name]}
                    for name, url in platform.urls.items()
                ],
            },
            table(
                "The platform is running",
                ["Service", "Address", "Try it in a browser (Swagger)"],
                [[name, url, f"{url}/docs"] for name, url in platform.urls.items()],
                empty="",
            ),
            plain(f"Data, secrets and logs: {platform.home}"),
            plain(f"Next, in another terminal: {_elsewhere(platform)}pcehr init patient"),
            Text("Ctrl-C stops the platform; its data are kept."),
        )
        await platform.watch()


def _elsewhere(platform: EmbeddedPlatform) -> str:
    """What the next command needs to find a platform that is not in the usual folder."""
    return "" if platform.home == config.home().absolute() else f"PCEHR_HOME={platform.home} "


def demo(
    ctx: typer.Context,
    *,
    bundle: Annotated[
        Path | None,
        typer.Option(help="A FHIR R4 Bundle to use instead of the one that is included.", exists=True, dir_okay=False),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary folder afterwards.")] = False,
) -> None:
    """Tell the whole story once, on a platform made for it, and check every claim.

    Two patients, a hospital, a doctor's practice and an insurer: records are stored, disclosed, refused and
    withdrawn, while proxies fail. Ends with status 0 only if everything held. Nothing is left behind.
    """
    output = Cli.of(ctx).output
    outcome: dict[str, Any] = run(run_demo(Options(bundle=bundle, keep=keep), output))
    if outcome["failed_checks"]:
        raise typer.Exit(1)
