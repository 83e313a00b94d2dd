"""Which process is killed, in which step of the flow, how long after its beginning: all from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

VICTIMS = {
    "registry": 3,
    "records": 4,
    "proxy-1": 2,
    "proxy-2": 2,
    "proxy-3": 2,
    "worker": 3,
    "postmaster": 2,
    "backend": 2,
    "client": 5,
}
"""How often each is chosen, in proportion. A worker is one of a proxy's processes, a backend one of Postgres's."""

LONGEST_DELAY = 0.6
"""Seconds into a step; most steps take less on an idle machine."""


@dataclass(frozen=True)
class Kill:
    """One kill of a plan."""

    number: int
    victim: str
    step: str
    delay: float
    choice: float
    """Which of several processes, or of several households, as a part of 1."""

    def __str__(self) -> str:
        return f"{self.number:4} {self.victim:10} {self.delay * 1000:4.0f} ms into {self.step}"


def plan_of(seed: str, kills: int, steps: Sequence[str]) -> list[Kill]:
    """The same seed gives the same plan. Every victim comes before any comes twice, so that short plans have all."""
    chance = random.Random(seed)
    victims = list(VICTIMS)
    chance.shuffle(victims)
    victims += chance.choices(list(VICTIMS), weights=list(VICTIMS.values()), k=max(0, kills - len(victims)))
    return [
        Kill(number, victim, chance.choice(steps), chance.uniform(0, LONGEST_DELAY), chance.random())
        for number, victim in enumerate(victims[:kills], start=1)
    ]
