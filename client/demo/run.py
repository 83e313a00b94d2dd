"""Sets the stage for the story, has it told, and clears up."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from rich.text import Text

from client.cli.output import Output, table
from client.demo.ledger import Ledger
from client.demo.plan import plan_for
from client.demo.story import Story
from client.embedded.platform import EmbeddedPlatform
from client.fhir.bundle import read_bundle
from client.fhir.make_demo_bundle import FILE_NAME
from client.fhir.scopes import ScopeMap


@dataclass(frozen=True)
class Options:
    """What the demonstration may be asked to do differently."""

    bundle: Path | None = None
    keep: bool = False


async def run_demo(options: Options, output: Output) -> dict[str, Any]:
    """Tell the story, print its outcome as `output` wants it, and return it.

    `failed_checks` is empty if everything held. Raises the errors of `client.fhir.errors` for a bundle that is none,
    and whatever ends the story before its end.
    """
    items = read_bundle(_bundle(options.bundle))
    ledger = Ledger(output)
    story = Story(ledger, plan_for(items, ScopeMap.load()))
    ledger.tell(
        "Health records that only a patient can open, and those whom the patient chooses. Every service runs on this"
        " machine as a process of its own; they share nothing but the network."
    )
    async with _home(options.keep, output) as home:
        await story.tell(EmbeddedPlatform(home, base_port=None, progress=output.note if _verbose() else None))
    outcome = story.outcome()
    output.result(outcome, *_closing(story, ledger))
    return outcome


def _bundle(path: Path | None) -> bytes:
    return path.read_bytes() if path is not None else (resources.files("client.fhir") / FILE_NAME).read_bytes()


def _verbose() -> bool:
    return os.environ.get("PCEHR_DEBUG") == "1"


@asynccontextmanager
async def _home(keep: bool, output: Output) -> AsyncIterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="pcehr-demo-"))
    # Root's Postgres runs as another user, who has to pass through here.
    home.chmod(  # noqa: ASYNC240  One call, before anything else runs.
        0o711 if os.geteuid() == 0 else 0o700
    )
    try:
        yield home
    finally:
        if keep:
            output.note(f"Everything is kept in {home}.")
        else:
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)


def _closing(story: Story, ledger: Ledger) -> list[Any]:
    durations = [[key.replace("_", " "), f"{seconds:.1f} s"] for key, seconds in ledger.seconds.items()]
    durations.append(["all together", f"{sum(ledger.seconds.values()):.1f} s"])
    parts: list[Any] = [
        Text(""),
        table("Who could read what", ["Party", "Holds", "Before", "After consent ended"], story.readers(), empty=""),
        Text(""),
        table("How long it took", ["Step", "Time"], durations, empty=""),
        Text(""),
    ]
    if ledger.failed:
        parts.append(Text(f"{len(ledger.failed)} of {ledger.claims} checks failed:", style="bold red"))
        parts += [Text(f"  ✗ {sentence}", style="red") for sentence in ledger.failed]
    else:
        parts.append(Text(f"All {ledger.claims} checks held.", style="bold green"))
    return parts
