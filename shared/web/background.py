"""Work that goes on beside the requests, for as long as the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any


def keep_running(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Start the work now, and cancel it when the stack is closed; it must bear being cancelled at any time."""
    stack.push_async_callback(_end, asyncio.create_task(work))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
