"""A light load: a patient goes on storing, a practice goes on opening, and what was acknowledged is written down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from client.reports import GrantReport
from shared.errors import PcehrError
from tests.e2e.actors import Actor, ActorMaker, granted, note

PAUSE = 0.2
MORE_SECONDS = 180.0


@dataclass
class Load:
    """What the load has seen. `longest_wait` is the longest time between two acknowledged records, in seconds."""

    owner: Actor
    reader: Actor
    grant: GrantReport
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    refused: int = 0
    opened: int = 0
    not_opened: int = 0
    longest_wait: float = 0.0
    _progress: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def store(self) -> None:
        last = time.monotonic()
        for number in range(1_000_000):
            text = f"value {number}"
            try:
                [stored] = await self.owner.patient.add_records([note(text)])
            except PcehrError:
                self.refused += 1
            else:
                self.acknowledged[stored.record_id] = text.encode()
                self.longest_wait = max(self.longest_wait, time.monotonic() - last)
                last = time.monotonic()
                await self._tell()
            await asyncio.sleep(PAUSE)

    async def open(self) -> None:
        while True:
            newest = list(self.acknowledged)[-5:]
            try:
                report = await self.reader.recipient.fetch(self.grant.id, record_ids=newest)
            except PcehrError:
                self.not_opened += 1
            else:
                self.opened += len(report.opened)
                await self._tell()
            await asyncio.sleep(PAUSE)

    async def more(self, count: int = 5) -> None:
        """Returns when so many more records have been acknowledged and the practice has opened some."""
        acknowledged, opened = len(self.acknowledged), self.opened
        async with asyncio.timeout(MORE_SECONDS), self._progress:
            await self._progress.wait_for(
                lambda: len(self.acknowledged) >= acknowledged + count and self.opened > opened
            )

    async def _tell(self) -> None:
        async with self._progress:
            self._progress.notify_all()

    async def check_nothing_lost(self) -> None:
        """Every acknowledged record is there as it was written, for its owner and for the practice."""
        stored = {record.record_id: record.body for record in await self.owner.patient.export()}
        assert self.acknowledged.items() <= stored.items()
        opened = {record.record_id: record.body for record in (await self.reader.recipient.fetch(self.grant.id)).opened}
        assert self.acknowledged.items() <= opened.items()


@asynccontextmanager
async def under_load(make: ActorMaker) -> AsyncIterator[Load]:
    """The load runs within the block; afterwards everything acknowledged is looked for."""
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("before the load")])
    load = Load(owner, reader, await granted(owner, reader, scopes=["allergies"]))
    tasks = [asyncio.create_task(load.store()), asyncio.create_task(load.open())]
    try:
        yield load
        for task in tasks:
            assert not task.done(), "the load ends by itself only when it meets what it does not expect"
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [end for end in ends if not isinstance(end, asyncio.CancelledError)] == []
    assert load.acknowledged
    await load.check_nothing_lost()
