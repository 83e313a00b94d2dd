"""Many runs of the machine on all cores: `python -m tests.consent_model --runs 1000 --steps 50 --first 1`.

Each seed stands for ten runs, and the same seed gives the same steps: `--first SEED --runs 10 --jobs 1` plays them
again, with `--shrink` looking for the shortest steps that still disagree. `--controls` looks for the planted faults.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console

from client.embedded.postgres import EmbeddedPostgres
from tests.conftest import FreshDatabases
from tests.consent_model.controls import CONTROLS
from tests.consent_model.platform import PROXIES, Databases
from tests.consent_model.running import Figures, planted, platform, run

RUNS_OF_A_SEED = 10
CONTROL_RUNS = 20
console = Console(highlight=False)


@dataclass(frozen=True)
class Part:
    """What one process does: all of its seeds one after the other, against a platform of its own."""

    databases: Databases
    seeds: Sequence[int]
    steps: int
    shrink: bool


@dataclass(frozen=True)
class End:
    """What a seed, or a planted fault, came to; `fault` is the disagreement."""

    name: str
    figures: Figures
    fault: str | None


def play(part: Part) -> list[End]:
    """The runs of some seeds."""
    logging.disable(logging.CRITICAL)
    ends = []
    with platform(part.databases) as machine:
        for seed in part.seeds:
            before = Figures(machine.steps, machine.questions)
            fault = None
            try:
                run(machine, runs=RUNS_OF_A_SEED, steps=part.steps, with_seed=seed, shrink=part.shrink)
            except Exception as error:
                fault = "".join(traceback.format_exception(error))
            figures = Figures(machine.steps - before.steps, machine.questions - before.questions)
            ends.append(End(f"seed {seed}", figures, fault))
    return ends


def look_for_planted(databases: Databases, steps: int) -> list[End]:
    """Whether each planted fault leads to a disagreement."""
    logging.disable(logging.CRITICAL)
    ends = []
    with platform(databases) as machine:
        for control in CONTROLS:
            before, fault = Figures(machine.steps, machine.questions), "not found"
            try:
                with planted(control.faults):
                    run(machine, runs=CONTROL_RUNS, steps=steps, with_seed=2)
            except AssertionError:
                fault = None
            figures = Figures(machine.steps - before.steps, machine.questions - before.questions)
            ends.append(End(control.name, figures, fault))
            console.print(f"{control.name}: {'found' if fault is None else fault} after {figures.steps} steps")
    return ends


async def databases_for(server: EmbeddedPostgres, count: int) -> list[Databases]:
    """So many sets of new databases."""
    fresh = FreshDatabases(server)
    return [
        {name: await fresh(name) for name in ("registry", "records")} | {host: await fresh("proxy") for host in PROXIES}
        for _ in range(count)
    ]


def campaign(pool: ProcessPoolExecutor, rounds: Sequence[Sequence[Part]]) -> int:
    """Play all parts, those of a round at the same time; returns how many seeds disagreed."""
    started, figures, failures = time.monotonic(), Figures(0, 0), 0
    for parts in rounds:
        for end in itertools.chain.from_iterable(pool.map(play, parts)):
            figures = Figures(figures.steps + end.figures.steps, figures.questions + end.figures.questions)
            if end.fault is not None:
                failures += 1
                console.print(f"{end.name} disagrees:\n{end.fault}", markup=False)
                console.print(f"  replay: python -m tests.consent_model --first {end.name[5:]} --runs 10 --jobs 1")
        spent = time.monotonic() - started
        console.print(f"{figures.steps} steps, {figures.questions} questions, {failures} disagreements; {spent:.0f} s")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--controls", action="store_true")
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + max(1, asked.runs // RUNS_OF_A_SEED))
    jobs = min(asked.jobs, len(seeds))
    with tempfile.TemporaryDirectory(prefix="pcehr-consent-") as folder, asyncio.Runner() as runner:
        Path(folder).chmod(0o711)
        server = EmbeddedPostgres(Path(folder) / "postgres")
        runner.run(server.start())
        try:
            sets = runner.run(databases_for(server, 1 if asked.controls else jobs))
            if asked.controls:
                return int(any(end.fault for end in look_for_planted(sets[0], asked.steps)))
            console.print(f"seeds {seeds[0]} to {seeds[-1]}, ten runs of {asked.steps} steps each, {jobs} at a time")
            with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
                # Short parts, so that what has been done is told now and then; a platform takes a moment to start.
                pieces = [seeds[at : at + 5] for at in range(0, len(seeds), 5)]
                return min(1, campaign(pool, _rounds(pieces, sets, asked)))
        finally:
            runner.run(server.stop())


def _rounds(pieces: list[range], sets: list[Databases], asked: argparse.Namespace) -> list[list[Part]]:
    """Parts that run at the same time, so that no two of them share databases."""
    return [
        [Part(databases, piece, asked.steps, asked.shrink) for databases, piece in zip(sets, pieces[at:], strict=False)]
        for at in range(0, len(pieces), len(sets))
    ]


if __name__ == "__main__":
    sys.exit(main())
