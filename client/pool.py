"""Checking many re-encryptions at once, in other processes.

The engines hold Python's lock while they work, so threads gain nothing. The workers are lean programs of their own
(`client.cfrag_worker`) and no copies of this one: they start in a tenth of a second whatever program uses the client,
and they get public values only, so that secrets never leave the process that opened the keystore.
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

from client.cfrags import CfragTask, check_all_cfrags
from client.embedded.process import environment
from shared.crypto.umbral import CFRAG_SIZE, engine_name

WORTH_A_POOL = {"umbral-pre": 256, "umbral": 64}
"""Records from which on starting workers costs less than it saves, by engine (checking one re-encryption takes 0.9 or
3.9 ms, starting a worker 100 to 150 ms of processor time)."""

_MAX_WORKERS = 8
_MAX_CFRAGS = 255


class CfragPool:
    """Use it as an async context manager. Workers start at once if `expected` records are worth it."""

    def __init__(self, *, expected: int) -> None:
        wanted = expected >= WORTH_A_POOL.get(engine_name(), 0) and _processors() > 1
        self._count = _processors() if wanted else 0
        self._workers: list[_Worker] = []

    async def __aenter__(self) -> Self:
        with contextlib.suppress(OSError):
            for _ in range(self._count):
                self._workers.append(_Worker(await _start()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._workers:
            await worker.stop()

    async def check(self, tasks: Sequence[CfragTask]) -> list[tuple[bool, ...]]:
        """Which re-encryptions of each capsule hold, in order. The part of a worker that dies is done here."""
        if not self._workers or any(not _fits(task) for task in tasks):
            return await asyncio.to_thread(check_all_cfrags, list(tasks))
        count = len(self._workers)
        parts = [list(tasks[index::count]) for index in range(count)]
        answers = await asyncio.gather(*(worker.check(part) for worker, part in zip(self._workers, parts, strict=True)))
        return [answers[index % count][index // count] for index in range(len(tasks))]


class _Worker:
    """One process, which answers one caller at a time."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._free = asyncio.Lock()

    async def check(self, tasks: list[CfragTask]) -> list[tuple[bool, ...]]:
        async with self._free:
            try:
                return await self._ask(tasks)
            except (OSError, asyncio.IncompleteReadError):
                return await asyncio.to_thread(check_all_cfrags, tasks)

    async def _ask(self, tasks: list[CfragTask]) -> list[tuple[bool, ...]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answers = []
        for task in tasks:
            # The answers, a few bytes for each frame, wait in the pipe until they are read.
            self._process.stdin.write(task.frame())
        await self._process.stdin.drain()
        for task in tasks:
            verdict = await self._process.stdout.readexactly(len(task.cfrags))
            answers.append(tuple(byte == 1 for byte in verdict))
        return answers

    async def stop(self) -> None:
        """End the process, whatever it is doing: nobody waits for its answers any more."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.communicate()


async def _start() -> Process:
    return await asyncio.create_subprocess_exec(
        # Nothing from the current folder, which may hold what others named; and no passphrase in the environment.
        *(sys.executable, "-P", "-m", "client.cfrag_worker"),
        env=environment({}),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
    )


def _fits(task: CfragTask) -> bool:
    """Whether a frame can carry it; what a service sends may have any length."""
    return len(task.cfrags) <= _MAX_CFRAGS and all(len(cfrag) == CFRAG_SIZE for cfrag in task.cfrags)


def _processors() -> int:
    return min(_MAX_WORKERS, os.cpu_count() or 1)
