"""The bare arithmetic in a loop: nothing around it but the parsing of what comes in and the bytes that go out."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from shared.crypto.umbral import Capsule, VerifiedKeyFrag, engine_name, reencrypt


def reencryptions(kfrag: bytes, capsules: Sequence[bytes]) -> list[bytes]:
    """Re-encrypt capsules (98 bytes each) one after the other with one kfrag (260 bytes)."""
    share = VerifiedKeyFrag.from_verified_bytes(kfrag)
    return [bytes(reencrypt(Capsule.from_bytes(capsule), share)) for capsule in capsules]


class BareProcesses:
    """The loop on so many cores: as many processes, each with its part of the capsules."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        # Not forked: a copy of this process would carry its event loop along.
        self._pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))

    async def reencrypt(self, kfrag: bytes, capsules: Sequence[bytes]) -> None:
        """Return when all processes are through with their parts, which differ by one capsule at most."""
        loop = asyncio.get_running_loop()
        parts = [capsules[start :: self._processes] for start in range(self._processes)]
        await asyncio.gather(*(loop.run_in_executor(self._pool, reencryptions, kfrag, part) for part in parts))

    async def start(self) -> None:
        """Start every process and load its engine."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self._pool, engine_name) for _ in range(2 * self._processes)))

    def close(self) -> None:
        self._pool.shutdown()
