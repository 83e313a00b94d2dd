"""Figures of the records service, beside those that every service has."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.records.repository import Store
from services.records.repository.deliveries import Kind, Waiting
from shared.clock import Clock
from shared.errors import DatabaseUnavailable

KINDS: tuple[Kind, ...] = ("shares", "revocation")


class Asked(Enum):
    """How it ended that a proxy was asked to re-encrypt."""

    OK = "ok"
    SLOW = "slow"
    """Not in time, or not before others had answered."""
    REFUSED = "refused"
    FAILED = "failed"
    """No connection, an error of its own, or no way to find out where it is."""
    MALFORMED = "malformed"
    """An answer, cfrags or a receipt that does not hold."""


class Delivered(Enum):
    """How one attempt at a delivery ended."""

    DONE = "done"
    REFUSED = "refused"
    """For good; it is not tried again."""
    FAILED = "failed"
    """It will be tried again."""


class Figures:
    """Counters of one app. Which proxy it was is in the patient's log and not here: a label would name it to all."""

    def __init__(self, registry: CollectorRegistry) -> None:
        asked = Counter("pcehr_proxies_asked", "Proxies asked to re-encrypt.", ("outcome",), registry=registry)
        deliveries = Counter(
            "pcehr_outbox_deliveries", "Attempts to deliver to a proxy.", ("kind", "outcome"), registry=registry
        )
        self.asked = {outcome: asked.labels(outcome.value) for outcome in Asked}
        self.delivered = {
            (kind, outcome): deliveries.labels(kind, outcome.value) for kind in KINDS for outcome in Delivered
        }


class OutboxFigures(Collector):
    """What waits in the outbox, read from its table when somebody looks; `pcehr_outbox_readable` says whether it was.

    All replicas read the same table and show the same figures.
    """

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._clock = clock
        self._store: Store | None = None
        self._waiting: dict[Kind, Waiting] | None = None
        registry.register(self)

    def watch(self, store: Store) -> None:
        """Read from this store from now on."""
        self._store = store

    async def read(self) -> None:
        """Raises `DatabaseUnavailable`."""
        if self._store is None:
            raise DatabaseUnavailable
        async with self._store.transaction() as repository:
            waiting = await repository.deliveries.waiting()
        self._waiting = {kind: Waiting(kind, 0, 0) for kind in KINDS} | {one.kind: one for one in waiting}

    def forget(self) -> None:
        self._waiting = None

    def collect(self) -> Iterable[Metric]:
        known = self._waiting
        yield GaugeMetricFamily(
            "pcehr_outbox_readable", "Whether the outbox could be read.", value=float(known is not None)
        )
        waiting = GaugeMetricFamily("pcehr_outbox_waiting", "Deliveries that wait for a proxy.", labels=("kind",))
        oldest = GaugeMetricFamily(
            "pcehr_outbox_oldest_seconds", "Age of the oldest delivery that waits; 0 if none does.", labels=("kind",)
        )
        for kind, found in (known or {}).items():
            waiting.add_metric((kind,), found.count)
            oldest.add_metric((kind,), max(self._clock() - found.oldest_at, 0) if found.count else 0)
        yield waiting
        yield oldest
