"""The loop that deletes what nobody can ask for any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

PERIOD_SECONDS = 60.0

log = logging.getLogger("pcehr.proxy")


async def keep_house(prune: Callable[[], Awaitable[None]], *, period: float = PERIOD_SECONDS) -> None:
    """Call `prune` every `period` seconds until cancelled; a failure is logged by its kind and tried again."""
    while True:
        try:
            await prune()
        except Exception as error:
            # A database that is away comes back, and the loop must be there then.
            log.warning("pruning has to wait: %s", type(error).__name__)
        await asyncio.sleep(period)
