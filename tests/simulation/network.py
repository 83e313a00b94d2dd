"""Time, the network, and processes that crash. Everything random comes from one generator, so that a seed is a run."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

Tell = Callable[[float, Callable[..., None], tuple[Any, ...]], None]
"""Hears of everything that happens: when, what, and with which arguments."""


@dataclass(frozen=True)
class Weather:
    """How bad it is until the faults end (seconds from the beginning); from then on nothing is lost any more."""

    loss: float
    repeats: float
    slowness: float
    faults_end: float


class Node:
    """A process. What it writes to its members is on disk unless `crash` forgets it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.up = True
        self.life = 0

    def crash(self) -> None:
        """Whatever was under way is lost, with everything in memory."""
        self.up = False
        self.life += 1

    def restart(self) -> None:
        """Go on with what is on disk."""
        self.up = True

    def later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Do something after a while, unless the process crashes before."""
        self.network.after(seconds, self._still, self.life, call, arguments)

    def _still(self, life: int, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self.up and self.life == life:
            call(*arguments)


class Network:
    """Brings messages late, twice, out of order or not at all. Times are seconds from the beginning."""

    def __init__(self, random: Random, weather: Weather, until: float, tell: Tell | None = None) -> None:
        self.random = random
        self.weather = weather
        self.until = until
        self.now = 0.0
        self._tell = tell
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Let something happen."""
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, call, arguments))

    def send(self, to: Node, call: Callable[..., None], *arguments: Any) -> None:
        """Bring a request to a process, if all goes well; who is down hears nothing."""
        self._carry(self._arrive, to, call, arguments)

    def answer(self, to: Node, life: int, call: Callable[..., None], *arguments: Any) -> None:
        """Bring an answer to the process that asked in this life of its own; a later one has no such connection."""
        self._carry(to._still, life, call, arguments)

    def run(self) -> None:
        """Let things happen, one after the other, as long as there are any and time is not over (`until`)."""
        events = self._events
        while events and events[0][0] <= self.until:
            self.now, _, call, arguments = heapq.heappop(events)
            if self._tell is not None:
                self._tell(self.now, call, arguments)
            call(*arguments)

    def _carry(self, call: Callable[..., None], *arguments: Any) -> None:
        random, weather = self.random.random, self.weather
        if self.now >= weather.faults_end:
            self.after(0.05 + 0.1 * random(), call, *arguments)
            return
        if random() >= weather.loss:
            self.after(0.02 + weather.slowness * random() ** 3, call, *arguments)
        if random() < weather.repeats:
            self.after(0.02 + 3 * weather.slowness * random(), call, *arguments)

    def _arrive(self, to: Node, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if to.up:
            call(*arguments)
