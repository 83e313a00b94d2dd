"""What the platform adds for those who use it: opening, storing and approving, beside their bare cryptography.

Everything as the SDK does it, on the processes of a whole platform on this machine; `bench.chart_crypto` says what is
counted as bare. Where a figure says "in a loop", one process does it, one thing after the other; where it says "on all
cores", as many processes as there are cores share it, as the platform's own share the work.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.chart_crypto import BareChart, OnAllCores, Parties, approve
from bench.figure import Effort, Figure, Goal, in_turns, ratio_figure
from bench.slow_relay import SlowRelay
from client.cli.documents import records_from_items
from client.embedded.home import free_ports
from client.embedded.platform import EmbeddedPlatform
from client.fhir.bundle import read_bundle
from client.fhir.make_demo_bundle import demo_bundle
from client.fhir.scopes import ScopeMap
from client.patient import Patient
from client.records import NewRecord
from client.reports import GrantReport
from shared.schemas.records import GrantState
from shared.wire import Action, Purpose
from tests.e2e.actors import Actor, ActorMaker, in_a_month

TITLE = "Opening, storing and approving, client included"

RESOURCES = 500
SCOPES = 12
SLOW = "proxy-1"
DELAY = 1.0
OPENINGS = 10
"""Openings with a slow proxy for each round; the slowest of a hundred must be found among them."""


class Behind(EmbeddedPlatform):
    """A platform one of whose services can be started behind the port that others know it by."""

    hidden_at: int | None = None

    def _launch(self, service: Any) -> None:
        moved = service.name == SLOW and self.hidden_at is not None
        super()._launch(replace(service, port=self.hidden_at) if moved else service)


async def figures(effort: Effort) -> list[Figure]:
    """Opening one record and a chart, storing a chart, approving, and opening while one proxy is slow."""
    with tempfile.TemporaryDirectory(prefix="pcehr-bench-") as name:
        folder = Path(name)
        # Postgres may run as another user than who measures.
        folder.chmod(0o711)  # noqa: ASYNC240  Nothing else runs here yet.
        async with Behind(folder / "home", base_port=None) as platform:
            maker = ActorMaker(platform.registry_url, folder)
            try:
                return [
                    *await _one_record(maker, effort),
                    *await _charts(maker, effort),
                    *await _approval(maker, effort),
                    await _one_slow_proxy(maker, platform, effort),
                ]
            finally:
                await maker.close()


async def _one_record(maker: ActorMaker, effort: Effort) -> list[Figure]:
    owner, reader = await maker.patient(), await maker.recipient()
    records = chart(1)
    patient = patient_of(owner, records)
    await patient.add_records(records)
    grant = await _granted(patient, reader, records)
    held = await reader.recipient.grant(grant.id)
    listed = await reader.recipient.listing(held)
    bare = BareChart([bytes_of(record) for record in records])

    async def open_listed() -> None:
        assert len((await reader.recipient.open(held, listed)).opened) == 1

    async def fetch() -> None:
        assert len((await reader.recipient.fetch(grant.id)).opened) == 1

    async def bare_crypto() -> None:
        bare.open_one()

    opening, fetching, crypto = await in_turns(effort.rounds, open_listed, fetch, bare_crypto)
    return [
        ratio_figure("open one listed record, 2 of 3 ÷ its bare crypto in a loop", opening, crypto, goal=Goal(3)),
        ratio_figure("look up a grant, list and open its one record ÷ the same crypto", fetching, crypto),
    ]


async def _charts(maker: ActorMaker, effort: Effort) -> list[Figure]:
    records = chart(RESOURCES // 10 if effort.quick else RESOURCES)
    bodies = [bytes_of(record) for record in records]
    owner, reader, writer = await maker.patient(), await maker.recipient(), await maker.patient()
    patient, writing = patient_of(owner, records), patient_of(writer, records)
    await patient.add_records(records)
    grant = await _granted(patient, reader, records)
    loop, cores = BareChart(bodies), OnAllCores(bodies)

    async def fetch() -> None:
        report = await reader.recipient.fetch(grant.id)
        assert len(report.opened) == len(records)

    async def store() -> None:
        assert len(await writing.add_records(records)) == len(records)

    async def store_in_a_loop() -> None:
        loop.store()

    rounds = max(2, effort.rounds // 5)
    try:
        opening, open_cores, storing, store_cores, store_loop = await in_turns(
            rounds, fetch, cores.open, store, cores.store, store_in_a_loop
        )
    finally:
        cores.close()
    name = f"a chart of {len(records)} resources"
    return [
        ratio_figure(f"open {name} ÷ its bare crypto on all cores", opening, open_cores, goal=Goal(1.3)),
        ratio_figure(f"store {name} ÷ its bare crypto in a loop", storing, store_loop, goal=Goal(1.5)),
        ratio_figure(f"store {name} ÷ its bare crypto on all cores", storing, store_cores),
    ]


async def _approval(maker: ActorMaker, effort: Effort) -> list[Figure]:
    owner, reader = await maker.patient(), await maker.recipient()
    records = one_of_each_scope(SCOPES)
    patient, parties = patient_of(owner, records), Parties()
    await patient.add_records(records)
    until_needed: list[float] = []
    until_all: list[float] = []
    crypto: list[float] = []
    for number in range(effort.rounds + 1):
        request = await _asked(patient, reader, records)
        started = time.perf_counter()
        grant = await patient.approve(request)
        needed = time.perf_counter() - started
        await _complete(patient, grant)
        all_three = time.perf_counter() - started
        started = time.perf_counter()
        approve(parties, SCOPES)
        bare = time.perf_counter() - started
        if number:
            until_needed.append(needed)
            until_all.append(all_three)
            crypto.append(bare)
    name = f"approve one request over {SCOPES} scopes"
    return [
        ratio_figure(f"{name}, until all 3 proxies have proved it ÷ its bare crypto", until_all, crypto, goal=Goal(2)),
        ratio_figure(f"{name}, until 2 of 3 have ÷ the same crypto", until_needed, crypto),
    ]


async def _one_slow_proxy(maker: ActorMaker, platform: Behind, effort: Effort) -> Figure:
    owner, reader = await maker.patient(), await maker.recipient()
    records = chart(1)
    patient = patient_of(owner, records)
    await patient.add_records(records)
    grant = await _granted(patient, reader, records)
    held = await reader.recipient.grant(grant.id)
    listed = await reader.recipient.listing(held)
    async with _delayed(platform):
        taken = []
        for _ in range(OPENINGS * effort.rounds):
            started = time.perf_counter()
            assert len((await reader.recipient.open(held, listed)).opened) == 1
            taken.append(time.perf_counter() - started)
    part = len(taken) // 3
    parts = [_p99(taken[start : start + part]) for start in range(0, 3 * part, part)]
    ratios = [slow / median for median, slow in parts]
    median, slow = _p99(taken)
    return Figure(
        f"open one listed record while one proxy is {DELAY:g} s late: p99 ÷ p50",
        slow / median,
        min(ratios),
        max(ratios),
        Goal(3),
        f"{slow * 1000:.2f} / {median * 1000:.2f} ms, slowest {max(taken) * 1000:.0f} ms, of {len(taken)}",
    )


@asynccontextmanager
async def _delayed(platform: Behind) -> AsyncIterator[None]:
    """One proxy answers late while the block lasts; it was as fast as the others until then."""
    port = int(platform.urls[SLOW].rpartition(":")[2])
    await platform.kill(SLOW)
    platform.hidden_at = free_ports(1)[0]
    async with SlowRelay(port, platform.hidden_at, seconds=DELAY):
        await platform.start(SLOW)
        yield


def chart(count: int) -> list[NewRecord]:
    """So many resources: those of the demonstration, over and over."""
    items = read_bundle(demo_bundle())
    records = records_from_items(items, ScopeMap.load().scopes_for_bundle(items))
    return [records[number % len(records)] for number in range(count)]


def one_of_each_scope(count: int) -> list[NewRecord]:
    found: dict[str, NewRecord] = {}
    for record in chart(RESOURCES):
        found.setdefault(record.scope, record)
    return list(found.values())[:count]


def patient_of(actor: Actor, records: Sequence[NewRecord]) -> Patient:
    return Patient(actor.session, known_scopes=names_of(records))


def names_of(records: Sequence[NewRecord]) -> list[str]:
    return sorted({record.scope for record in records})


def bytes_of(record: NewRecord) -> bytes:
    assert isinstance(record.body, bytes)
    return record.body


async def _asked(patient: Patient, reader: Actor, records: Sequence[NewRecord]) -> str:
    return await reader.recipient.request(
        patient.session.did,
        scopes=names_of(records),
        actions=[Action.READ],
        purpose=Purpose.TREAT,
        reason="Planned treatment",
        expires=in_a_month(),
    )


async def _granted(patient: Patient, reader: Actor, records: Sequence[NewRecord]) -> GrantReport:
    grant = await patient.approve(await _asked(patient, reader, records))
    await _complete(patient, grant)
    return grant


async def _complete(patient: Patient, grant: GrantReport) -> None:
    while grant.state is not GrantState.COMPLETE:
        await asyncio.sleep(0.005)
        grant = await patient.grant(grant.id)


def _p99(seconds: Sequence[float]) -> tuple[float, float]:
    """The median, and what 99 of 100 do not exceed."""
    return statistics.median(seconds), sorted(seconds)[max(0, -(-99 * len(seconds) // 100) - 1)]
