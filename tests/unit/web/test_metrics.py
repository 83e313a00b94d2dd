"""Figures: what every service shows, and that reading some of them can neither fail nor hold up the rest."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Iterable
from importlib.metadata import version

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from shared.db.engine import PoolUse
from shared.errors import DatabaseUnavailable
from shared.registry_client import Lookup
from shared.web import metrics as module
from shared.web.metrics import Metrics


class Read(Collector):
    """A figure that somebody has to be asked for."""

    def __init__(self) -> None:
        self.asked = 0
        self.known: int | None = None
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None

    async def read(self) -> None:
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        self.known = self.asked

    def forget(self) -> None:
        self.known = None

    def collect(self) -> Iterable[Metric]:
        if self.known is not None:
            yield GaugeMetricFamily("test_read", "Read.", value=self.known)


async def shown(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and labels."""
    app = FastAPI()
    app.include_router(metrics.router())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service.test") as http:
        response = await http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("test")


@pytest.fixture
def read(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.setattr(module, "READ_SECONDS", 0.05)
    monkeypatch.setattr(module, "KEPT_SECONDS", 0.0)
    read = Read()
    metrics.registry.register(read)
    metrics.read_before(read)
    return read


async def test_build_and_process_are_shown(metrics: Metrics) -> None:
    figures = await shown(metrics)
    python = platform.python_version()
    assert figures[f"pcehr_build_info python={python} service=test version={version('pcehr')}"] == 1
    assert figures["process_resident_memory_bytes"] > 0
    assert figures["process_open_fds"] > 0


async def test_the_pool_is_shown_once_there_is_one(metrics: Metrics) -> None:
    assert not [name for name in await shown(metrics) if name.startswith("pcehr_database")]
    metrics.watch_pool(lambda: PoolUse(size=10, open=7, in_use=6, waiting=3, waits=5, timeouts=2))
    figures = await shown(metrics)
    assert {name: value for name, value in figures.items() if name.startswith("pcehr_database")} == {
        "pcehr_database_connections_max": 10,
        "pcehr_database_connections_open": 7,
        "pcehr_database_connections_in_use": 6,
        "pcehr_database_connections_waiting": 3,
        "pcehr_database_connections_waits_total": 5,
        "pcehr_database_connections_timeouts_total": 2,
    }


async def test_lookups_are_counted_by_how_they_ended(metrics: Metrics) -> None:
    count = metrics.count_lookups()
    for outcome, times in ((Lookup.HIT, 3), (Lookup.MISS, 2)):
        for _ in range(times):
            count(outcome)
    figures = await shown(metrics)
    assert [figures[f"pcehr_party_lookups_total outcome={name}"] for name in ("hit", "miss", "failed")] == [3, 2, 0]


async def test_figures_are_read_before_they_are_shown(metrics: Metrics, read: Read) -> None:
    assert (await shown(metrics))["test_read"] == 1


@pytest.mark.parametrize("error", [DatabaseUnavailable(), RuntimeError("a surprise")], ids=["away", "surprise"])
async def test_figures_that_cannot_be_read_are_left_out_and_the_rest_is_shown(
    metrics: Metrics, read: Read, error: Exception
) -> None:
    await shown(metrics)
    read.error = error
    figures = await shown(metrics)
    assert "test_read" not in figures
    assert "process_open_fds" in figures
    read.error = None
    assert (await shown(metrics))["test_read"] == 3


async def test_figures_that_take_too_long_are_left_out_and_nobody_asks_twice(metrics: Metrics, read: Read) -> None:
    read.hold = asyncio.Event()
    for _ in range(3):
        assert "test_read" not in await shown(metrics)
    assert read.asked == 1
    read.hold.set()
    await asyncio.sleep(0)
    read.hold = None
    assert (await shown(metrics))["test_read"] == 2


async def test_many_scrapes_read_once(metrics: Metrics, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_SECONDS", 60.0)
    await asyncio.gather(*(shown(metrics) for _ in range(10)))
    await shown(metrics)
    assert read.asked == 1
