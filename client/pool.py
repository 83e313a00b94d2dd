"""Opening many envelopes at once, in other processes.

The engines hold Python's lock while they work, so threads gain nothing. The workers are lean programs of their own
(`client.envelope_worker`) and no copies of this one: they start in a tenth of a second whatever program uses the
client, and of its secrets each gets the one receiving key that it needs, by a pipe of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from client.embedded.process import environment
from client.envelopes import Envelope, OpeningKeys, Unwrapped, open_envelopes
from shared.crypto.umbral import engine_name

WORTH_A_POOL = {"umbral-pre": 128, "umbral": 32}
"""Records from which on starting workers costs less than it saves, by engine (opening one envelope with two
re-encryptions takes 2.7 or 12 ms, starting a worker 50 to 100 ms of processor time)."""

_MAX_WORKERS = 8


class EnvelopePool:
    """Use it as an async context manager. Workers start as soon as the records that are `expected` are worth it."""

    def __init__(self) -> None:
        self._expected = 0
        self._starting: asyncio.Task[list[_Worker]] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._starting is not None:
            for worker in await self._starting:
                await worker.stop()

    def expect(self, records: int) -> None:
        """So many more envelopes will have to be opened; nobody waits for the workers that may start now."""
        self._expected += records
        worth = self._expected >= WORTH_A_POOL.get(engine_name(), 0)
        if worth and self._starting is None and _processors() > 1:
            self._starting = asyncio.create_task(_start_all(_processors()))

    async def open(self, keys: OpeningKeys, envelopes: Sequence[Envelope]) -> list[Unwrapped]:
        """What becomes of each envelope, in order. The part of a worker that dies is done here."""
        # Shielded, since whoever gives up waiting for workers must not keep the others from getting, and ending, them.
        workers = [] if self._starting is None else await asyncio.shield(self._starting)
        if not workers or any(not envelope.fits for envelope in envelopes):
            return await asyncio.to_thread(open_envelopes, keys, list(envelopes))
        count = len(workers)
        parts = [list(envelopes[index::count]) for index in range(count)]
        answers = await asyncio.gather(
            *(worker.open(keys, part) for worker, part in zip(workers, parts, strict=True) if part)
        )
        return [answers[index % count][index // count] for index in range(len(envelopes))]


class _Worker:
    """One process, which answers one caller at a time."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._free = asyncio.Lock()

    async def open(self, keys: OpeningKeys, envelopes: list[Envelope]) -> list[Unwrapped]:
        async with self._free:
            try:
                return await self._ask(keys, envelopes)
            except (OSError, asyncio.IncompleteReadError):
                return await asyncio.to_thread(open_envelopes, keys, envelopes)

    async def _ask(self, keys: OpeningKeys, envelopes: list[Envelope]) -> list[Unwrapped]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(keys.frame() + len(envelopes).to_bytes(2, "big"))
        self._process.stdin.writelines(envelope.frame() for envelope in envelopes)
        # The answers, some bytes for each frame, wait in the pipe until they are read.
        await self._process.stdin.drain()
        sizes = [Unwrapped.size(len(envelope.cfrags)) for envelope in envelopes]
        answer = await self._process.stdout.readexactly(sum(sizes))
        unwrapped, start = [], 0
        for size in sizes:
            unwrapped.append(Unwrapped.parse(answer[start : start + size]))
            start += size
        return unwrapped

    async def stop(self) -> None:
        """End the process, whatever it is doing: nobody waits for its answers any more."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.communicate()


async def _start_all(count: int) -> list[_Worker]:
    workers: list[_Worker] = []
    with contextlib.suppress(OSError):
        for _ in range(count):
            workers.append(_Worker(await _start()))
    return workers


async def _start() -> Process:
    return await asyncio.create_subprocess_exec(
        # Nothing from the current folder, which may hold what others named; and no passphrase in the environment.
        *(sys.executable, "-P", "-m", "client.envelope_worker"),
        env=environment({}),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
    )


def _processors() -> int:
    return min(_MAX_WORKERS, os.cpu_count() or 1)
