"""When all has settled: what the platform has, held against the ledgers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx

from client.embedded.platform import EmbeddedPlatform
from tests.chaos import ledger
from tests.chaos.compare import problems
from tests.chaos.effects import Effects, effects_of

SETTLED_SECONDS = 180.0
AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What reading the tables raises while Postgres is away."""


async def settled_account(platform: EmbeddedPlatform, ledgers: Iterable[Path]) -> tuple[list[str], Effects]:
    """Waits until nothing waits any more; what still does after `SETTLED_SECONDS` is a problem of its own."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while True:
        with contextlib.suppress(*AWAY):
            effects = await effects_of(platform)
            if not effects.unsettled or time.monotonic() > deadline:
                break
        await asyncio.sleep(0.5)
    found = [f"stuck: {one}" for one in effects.unsettled]
    found += problems(entries_of(ledgers), effects, names_of(platform))
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        for name, url in platform.urls.items():
            if (await http.get(f"{url}/readyz")).status_code != 204:
                found.append(f"stuck: {name} is not ready")
    return found, effects


def entries_of(ledgers: Iterable[Path]) -> list[ledger.Entry]:
    """What has been acknowledged by now, in all ledgers that have been begun."""
    return [entry for path in ledgers if path.exists() for entry in ledger.read(path)]


def names_of(platform: EmbeddedPlatform) -> dict[str, str]:
    """The services by the host and port in their addresses."""
    return {urlsplit(url).netloc: name for name, url in platform.urls.items()}


@asynccontextmanager
async def watched(platform: EmbeddedPlatform) -> AsyncIterator[None]:
    """The platform brings back what ends, as under `pcehr up`, as long as the block lasts."""
    watching = asyncio.create_task(platform.watch())
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
