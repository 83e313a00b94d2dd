"""What a million records of others cost each route.

Two platforms side by side in one run, of real processes over loopback on one real Postgres with fsync: one whose
tables hold few strangers' rows, one whose tables hold many. The same parties with data of equal size call every route
that reads or writes tables, at the one and the other in turns. The routes are those of the OpenAPI documents.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx

from bench.caller import Caller
from bench.figure import Effort, Figure, Goal, ratio_figure
from bench.filled_platform import FilledPlatform, filled_platform
from bench.populate import Strangers
from bench.routes import OPERATIONS, Operation, forgotten
from client.embedded.postgres import EmbeddedPostgres

TITLE = "Each route with a million records of others, and with ten thousand"
GOAL = Goal(1.1)
FEW, MANY = Strangers(records=10_000, grants=1_000), Strangers(records=1_000_000, grants=100_000)
QUICK_FEW, QUICK_MANY = Strangers(records=1_000, grants=100), Strangers(records=10_000, grants=1_000)
PAIRS_A_ROUND = 4
"""A tenth more is little beside what one call differs from the next by."""


async def figures(effort: Effort) -> list[Figure]:
    """One figure for each route, and how long filling took. Raises ValueError for a route that is left out, and
    `bench.caller.Refused` where a service refuses."""
    few, many = (QUICK_FEW, QUICK_MANY) if effort.quick else (FEW, MANY)
    async with AsyncExitStack() as stack:
        # Postgres may run as another user than who measures.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pcehr-bench-")))
        folder.chmod(0o711)  # noqa: ASYNC240  Nothing else runs here yet.
        server = await stack.enter_async_context(EmbeddedPostgres(folder / "postgres"))
        platforms = [
            await stack.enter_async_context(filled_platform(folder / name, server, size))
            for name, size in (("many", many), ("few", few))
        ]
        await _leave_nothing_out(platforms[0])
        callers = [await stack.enter_async_context(Caller(platform)) for platform in platforms]
        for caller in callers:
            await caller.settle()
        taken = await _measured(callers, 2 if effort.quick else effort.rounds * PAIRS_A_ROUND)
    filled_many, filled_few = (platform.filling for platform in platforms)
    filling = Figure(
        f"filling {many.records:,} records and {many.grants:,} grants; {few.records:,} and {few.grants:,}",
        filled_many / filled_few,
        filled_many / filled_few,
        filled_many / filled_few,
        measured=f"{filled_many:.0f} / {filled_few:.0f} s",
    )
    return [filling] + [
        ratio_figure(operation.name, *taken[operation.name], goal=None if effort.quick else GOAL)
        for operation in OPERATIONS
    ]


async def _leave_nothing_out(platform: FilledPlatform) -> None:
    documents = {}
    async with httpx.AsyncClient(trust_env=False) as http:
        for service, name in (("registry", "registry"), ("records", "records"), ("proxy", "proxy-1")):
            documents[service] = (await http.get(f"{platform.urls[name]}/openapi.json")).raise_for_status().json()
    if left_out := forgotten(documents):
        raise ValueError(f"routes that are neither called nor named: {', '.join(sorted(left_out))}")


async def _measured(callers: list[Caller], rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """By operation, the seconds of each call with many and with few; one round before them is not counted."""
    taken: dict[str, tuple[list[float], list[float]]] = {operation.name: ([], []) for operation in OPERATIONS}
    for number in range(rounds + 1):
        for operation in OPERATIONS:
            # Who is second finds the processor's caches warm, so that each is second as often.
            order = (0, 1) if number % 2 else (1, 0)
            for place in order:
                seconds = await _seconds_of(operation, callers[place])
                if number:
                    taken[operation.name][place].append(seconds)
    return taken


async def _seconds_of(operation: Operation, caller: Caller) -> float:
    request = await operation.prepare(caller)
    started = time.perf_counter()
    if operation.stream:
        response = await caller.http.send(request, stream=True)
        await anext(response.aiter_bytes())
        seconds = time.perf_counter() - started
        await response.aclose()
    else:
        await caller.done(request)
        seconds = time.perf_counter() - started
    if operation.finish is not None:
        await operation.finish(caller, request)
    return seconds
