"""Many seeds on all cores, or one of them told step by step.

python -m tests.simulation                              100,000 seeds of each group and number of liars
python -m tests.simulation --seeds 5000 --first 100000  others
python -m tests.simulation --only 3 5 1 --seed 17       that run, with everything that happens in it
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from rich.console import Console

from tests.simulation.network import Node
from tests.simulation.simulation import GROUPS, Broken, liars_that_make_sense, simulate

CHUNK = 500
Case = tuple[int, int, int]
console = Console(highlight=False)


def cases() -> Iterator[Case]:
    """Every (t, n, k)."""
    for threshold, shares in GROUPS:
        for liars in liars_that_make_sense(threshold):
            yield threshold, shares, liars


def run_chunk(case: Case, first: int, count: int) -> tuple[Counter[str], list[tuple[int, str]]]:
    """What the runs of these seeds have come to, and those that broke something."""
    seen: Counter[str] = Counter()
    broken = []
    for seed in range(first, first + count):
        try:
            outcome = simulate(*case, seed)
        except Broken as fault:
            broken.append((seed, str(fault)))
        else:
            seen["runs"] += 1
            seen["sealed"] += outcome.sealed
            seen["sealed while there were faults"] += outcome.during_faults
            seen["undisclosed capsules"] += outcome.undisclosed
            seen["disclosed before"] += outcome.disclosed
            seen["liars"] += outcome.liars
    return seen, broken


def campaign(first: int, count: int, jobs: int) -> int:
    """Run them all; returns how many seeds broke something."""
    failures = 0
    with ProcessPoolExecutor(jobs) as pool:
        for case in cases():
            started, seen = time.monotonic(), Counter[str]()
            ends = [
                pool.submit(run_chunk, case, begin, min(CHUNK, first + count - begin))
                for begin in range(first, first + count, CHUNK)
            ]
            for number, end in enumerate(ends, 1):
                figures, broken = end.result()
                seen += figures
                failures += len(broken)
                for seed, fault in broken:
                    console.print(f"{fault}\n  replay: python -m tests.simulation --only {_words(case)} --seed {seed}")
                if console.is_terminal:
                    console.print(f"(t, n, k) = {case}: {number * CHUNK} seeds", end="\r")
            told = ", ".join(f"{value} {name}" for name, value in seen.items())
            console.print(f"(t, n, k) = {case}: {told}; {time.monotonic() - started:.0f} s")
    console.print(f"seeds {first} to {first + count - 1}: {failures} broke a property")
    return failures


def replay(case: Case, seed: int) -> int:
    """One run, told."""
    try:
        console.print(simulate(*case, seed, tell=_tell))
    except Broken as fault:
        console.print(f"BROKEN  {fault}")
        return 1
    return 0


def _tell(now: float, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    if call.__name__ in ("_still", "_arrive"):
        _, call, arguments = arguments
    whose = getattr(call, "__self__", None)
    index = getattr(whose, "index", "")
    shown = [argument for argument in arguments if not isinstance(argument, Node) and not callable(argument)]
    console.print(f"{now:8.2f}  {type(whose).__name__}{index}.{call.__name__} {shown}")


def _words(case: Case) -> str:
    return " ".join(map(str, case))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100_000, help="how many of each case")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, nargs=3, metavar=("T", "N", "K"))
    parser.add_argument("--seed", type=int)
    asked = parser.parse_args()
    if asked.only is not None and asked.seed is not None:
        return replay(tuple(asked.only), asked.seed)
    return min(campaign(asked.first, asked.seeds, asked.jobs), 1)


if __name__ == "__main__":
    sys.exit(main())
