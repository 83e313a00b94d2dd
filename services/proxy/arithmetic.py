"""Umbral off the event loop: a pool of worker processes, with a bound on what is in flight.

Threads would not do: umbral-pre holds the interpreter's lock while it works. Workers are started afresh (`forkserver`,
or `spawn` where there is none) and never forked from the service, whose memory holds its keys.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.context import BaseContext
from typing import TypeVar

from prometheus_client import CollectorRegistry

from services.proxy import worker
from services.proxy.errors import Overloaded, WorkerLost
from services.proxy.figures import Figures

BATCH = 50
"""Capsules in one batch: some 50 ms of work in umbral-pre, so that one long request does not hold up all others."""
BATCHES_PER_WORKER = 2
"""In flight for each worker: one at work, and one already there when it is done."""
REQUESTS_PER_WORKER = 32
"""Requests whose batches may be in flight or wait, for each worker; whoever comes later is told to try again."""

log = logging.getLogger("pcehr.proxy")
T = TypeVar("T")


class Arithmetic:
    """The worker processes. `start` before the first use, `close` after the last."""

    def __init__(self, workers: int, figures: Figures | None = None) -> None:
        self._figures = figures or Figures(CollectorRegistry())
        self._figures.workers.set(workers)
        self._figures.workers_busy.set_function(lambda: min(self._pieces, self._workers))
        self._figures.queued.set_function(lambda: max(self._pieces - self._workers, 0))
        self._pieces = 0
        self._workers = workers
        self._context = _context()
        self._pool = self._new_pool()
        self._places = asyncio.Semaphore(workers * BATCHES_PER_WORKER)
        self._requests = 0

    async def start(self) -> None:
        """Start a worker and load its engine now, so that a missing engine shows at start and not at a patient's."""
        await self._run(worker.ready)

    async def close(self) -> None:
        """End the workers, once they have finished what they are at; what waits is abandoned."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    async def reencrypt(self, batches: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[list[bytes]]:
        """For each kfrag (260 bytes) and its capsules (98 bytes each): the cfrags (359 bytes each), in order.

        Raises `MalformedKeyMaterial` for bytes that are no capsule, `Overloaded`, or `WorkerLost`.
        """
        pieces = [
            (index, partial(worker.timed_batch, kfrag, list(capsules[start : start + BATCH])))
            for index, (kfrag, capsules) in enumerate(batches)
            for start in range(0, len(capsules), BATCH)
        ]
        done = await self._all([piece for _, piece in pieces])
        results: list[list[bytes]] = [[] for _ in batches]
        for (index, _), (cfrags, seconds) in zip(pieces, done, strict=True):
            results[index].extend(cfrags)
            self._figures.capsules.inc(len(cfrags))
            self._figures.batch_seconds.observe(seconds)
        return results

    async def accept(
        self, shares: Sequence[worker.ShareToAccept], *, verifying_key: bytes, receiving_key: bytes
    ) -> None:
        """Verify and try kfrags (see `worker.accept_shares`); also raises `Overloaded` or `WorkerLost`."""
        await self._all(
            [
                partial(worker.accept_shares, list(shares[start : start + BATCH]), verifying_key, receiving_key)
                for start in range(0, len(shares), BATCH)
            ]
        )

    async def _all(self, pieces: Sequence[Callable[[], T]]) -> list[T]:
        """The results of all pieces of one request, in order; or the first error, once every piece has ended."""
        if self._requests >= self._workers * REQUESTS_PER_WORKER:
            raise Overloaded
        self._requests += 1
        try:
            done = await asyncio.gather(*(self._run(piece) for piece in pieces), return_exceptions=True)
        finally:
            self._requests -= 1
        results: list[T] = []
        for outcome in done:
            if isinstance(outcome, BaseException):
                raise outcome
            results.append(outcome)
        return results

    async def _run(self, piece: Callable[[], T]) -> T:
        self._pieces += 1
        try:
            async with self._places:
                pool = self._pool
                try:
                    return await asyncio.get_running_loop().run_in_executor(pool, piece)
                except BrokenProcessPool:
                    self._replace(pool)
                    raise WorkerLost from None
        finally:
            self._pieces -= 1

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        """A pool that has lost a worker never works again. Many requests find that out; one of them replaces it."""
        if self._pool is broken:
            log.warning("a worker process died; the pool is replaced")
            self._figures.workers_lost.inc()
            self._pool = self._new_pool()
            broken.shutdown(wait=False, cancel_futures=True)

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._workers, mp_context=self._context, initializer=worker.initialise)


def _context() -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # The server imports the worker's module once; each worker then starts within milliseconds.
    context.set_forkserver_preload([worker.__name__])
    return context
