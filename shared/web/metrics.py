"""Figures for Prometheus that every service has. Labels are few and fixed, never values from a request."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Protocol

from fastapi import APIRouter, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.db.engine import PoolUse
from shared.registry_client import Lookup

READ_SECONDS = 1.0
"""At most so long does a scrape wait for figures that have to be read."""
KEPT_SECONDS = 1.0
"""They are not read more often."""


class ReadFigures(Protocol):
    """Figures that are read from somewhere when they are wanted."""

    async def read(self) -> None:
        """Bring them up to date; may raise anything."""

    def forget(self) -> None:
        """They are not known; a figure that may be old is worse than none."""


class Metrics:
    """The collectors of one app; each app has its own registry, so that tests can make many."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "pcehr_http_requests", "HTTP requests served.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "pcehr_http_request_seconds", "Time to serve a request.", ("method", "route"), registry=self.registry
        )
        self._beyond = Counter(
            "pcehr_requests_beyond_bounds",
            "Requests refused since a party, an address or what is kept of one has reached its bound.",
            ("bound",),
            registry=self.registry,
        )
        for bound in ("party", "address", "sign_ups", "quota"):
            self._beyond.labels(bound)
        build = Gauge(
            "pcehr_build_info", "1, with what runs as labels.", ("service", "version", "python"), registry=self.registry
        )
        build.labels(service, version("pcehr"), platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._pool = _PoolCollector()
        self.registry.register(self._pool)
        self._readings: list[_Reading] = []

    def count_beyond(self, bound: str) -> None:
        """Count a request refused for its `bound`: `party`, `address`, `sign_ups` or `quota`."""
        self._beyond.labels(bound).inc()

    def watch_pool(self, use: Callable[[], PoolUse]) -> None:
        """Show how this pool of database connections is used."""
        self._pool.use = use

    def count_lookups(self) -> Callable[[Lookup], None]:
        """A counter of `PartyDirectory`'s look-ups, to be handed to it."""
        lookups = Counter(
            "pcehr_party_lookups",
            "Look-ups of a party's chain of keys: from the cache, from the registry, or failed.",
            ("outcome",),
            registry=self.registry,
        )
        by_outcome = {outcome: lookups.labels(outcome.value) for outcome in Lookup}
        return lambda outcome: by_outcome[outcome].inc()

    def read_before(self, figures: ReadFigures) -> None:
        """Have these figures read before any are shown. Whatever comes of it, `/metrics` answers."""
        self._readings.append(_Reading(figures))

    def router(self) -> APIRouter:
        """`GET /metrics` in the Prometheus text format."""
        router = APIRouter(tags=["operations"])

        @router.get("/metrics", response_class=Response, summary="Figures for Prometheus")
        async def metrics() -> Response:
            for reading in self._readings:
                await reading.done()
            return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

        return router


class _Reading:
    """Reads for one scrape at a time and not too often: nobody must be able to work the database with it."""

    def __init__(self, figures: ReadFigures) -> None:
        self._figures = figures
        self._task: asyncio.Task[None] | None = None
        self._not_before = float("-inf")

    async def done(self) -> None:
        """When the figures have been read, or it has taken too long."""
        if self._task is None or (self._task.done() and time.monotonic() >= self._not_before):
            self._task = asyncio.create_task(self._read())
            self._not_before = time.monotonic() + KEPT_SECONDS
        # Not cancelled: giving a connection back that does not answer would take longer still.
        finished, _ = await asyncio.wait({self._task}, timeout=READ_SECONDS)
        if not finished:
            self._figures.forget()

    async def _read(self) -> None:
        try:
            await self._figures.read()
        except Exception:
            self._figures.forget()


class _PoolCollector(Collector):
    use: Callable[[], PoolUse] | None = None

    def collect(self) -> Iterable[Metric]:
        if self.use is None:
            return
        use = self.use()
        name = "pcehr_database_connections"
        yield GaugeMetricFamily(f"{name}_max", "The most connections that may be open.", value=use.size)
        yield GaugeMetricFamily(f"{name}_open", "Connections that are open.", value=use.open)
        yield GaugeMetricFamily(f"{name}_in_use", "Connections that a transaction has.", value=use.in_use)
        yield GaugeMetricFamily(f"{name}_waiting", "Transactions that wait for a connection.", value=use.waiting)
        yield CounterMetricFamily(
            f"{name}_waits", "Transactions that found no free connection and had to wait.", value=use.waits
        )
        yield CounterMetricFamily(
            f"{name}_timeouts", "Transactions that waited in vain, and were refused.", value=use.timeouts
        )
