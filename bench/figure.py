"""A figure of the benchmarks: a ratio of something measured to its baseline, both measured in turns in one run.

Machines are shared and noisy, so that no time means anything by itself. A chapter of the benchmarks is a module with

    TITLE: str
    async def figures(effort: Effort) -> list[Figure]

and `python -m bench` puts the chapters together.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How long a chapter may measure: `rounds` of each pair in turns. `quick` is for seeing that it runs at all."""

    rounds: int = 30
    quick: bool = False


@dataclass(frozen=True)
class Goal:
    """A bound that a ratio should keep."""

    bound: float
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"

    def met_by(self, ratio: float) -> bool:
        return ratio >= self.bound if self.at_least else ratio <= self.bound


@dataclass(frozen=True)
class Figure:
    """`ratio` is that of the medians, `low` and `high` are the quartiles of the ratios pair by pair; `measured` tells
    the two medians to people."""

    name: str
    ratio: float
    low: float
    high: float
    goal: Goal | None = None
    measured: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is kept; None for a figure that has none."""
        return None if self.goal is None else self.goal.met_by(self.ratio)


def ratio_figure(
    name: str, seconds: Sequence[float], baseline: Sequence[float], *, goal: Goal | None = None, per: str = ""
) -> Figure:
    """The figure of pairs of seconds measured in turns; needs at least two pairs."""
    pairs = [one / other for one, other in zip(seconds, baseline, strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4, method="inclusive")
    one, other = statistics.median(seconds), statistics.median(baseline)
    measured = f"{one * 1000:.2f} / {other * 1000:.2f} ms{per}"
    return Figure(name, one / other, low, high, goal, measured)


async def in_turns(
    rounds: int, *acts: Callable[[], Awaitable[object]], before: Callable[[], Awaitable[object]] | None = None
) -> list[list[float]]:
    """Seconds that each act took, round by round; one round before them is not counted, nor is what is done `before`
    each round."""
    taken: list[list[float]] = [[] for _ in acts]
    for number in range(rounds + 1):
        if before is not None:
            await before()
        for act, own in zip(acts, taken, strict=True):
            started = time.perf_counter()
            await act()
            if number:
                own.append(time.perf_counter() - started)
    return taken
