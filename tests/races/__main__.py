"""Hundreds of rounds of each race: `python -m tests.races --rounds 500 --seed 1 [--only "approve twice"]`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter

from rich.console import Console

from tests.races.rounds import RACES
from tests.races.running import shooting_range

console = Console(highlight=False)


async def play(rounds: int, seed: int, only: list[str]) -> int:
    """Play all rounds; returns how many had an outcome that no order explains."""
    failures = 0
    async with shooting_range(seed) as ready:
        for name in only or RACES:
            started, answers = time.monotonic(), Counter[str]()
            for number in range(1, rounds + 1):
                try:
                    history = await RACES[name](ready)
                except AssertionError as fault:
                    failures += 1
                    console.print(f"{name}, round {number} with seed {seed}: {fault}")
                else:
                    answers.update(f"{operation.kind} {operation.answer}" for operation in history)
                if number % 25 == 0:
                    console.print(f"{name}: {number} of {rounds} rounds, {time.monotonic() - started:.0f} s")
            told = ", ".join(f"{count} {answer}" for answer, count in sorted(answers.items()))
            console.print(f"{name}: {rounds} rounds, {told}")
    console.print(f"{failures} rounds without an explanation")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1, help="when which request is sent")
    parser.add_argument("--only", action="append", default=[], choices=list(RACES))
    asked = parser.parse_args()
    return min(asyncio.run(play(asked.rounds, asked.seed, asked.only)), 1)


if __name__ == "__main__":
    sys.exit(main())
