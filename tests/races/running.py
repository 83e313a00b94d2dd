"""A platform of processes for races, and one whose records service has a planted fault."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import httpx

from client.transport import Platform
from tests.conftest import temporary_folder
from tests.races.rounds import CONNECTIONS, Range
from tests.warm import WarmChild, WarmPlatform


@asynccontextmanager
async def shooting_range(seed: int, *, records: str | None = None) -> AsyncIterator[Range]:
    """Everything that a round takes. `records` is another factory of the records service, `module:function`."""
    async with AsyncExitStack() as stack:
        home = stack.enter_context(temporary_folder()) / "home"
        kind = WarmPlatform if records is None else _with_records(records)
        platform = await stack.enter_async_context(kind(home, base_port=None))
        client = await stack.enter_async_context(Platform(platform.registry_url))
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        http = await stack.enter_async_context(httpx.AsyncClient(limits=limits, timeout=60, trust_env=False))
        ready = Range(platform, client, http, Random(seed))
        await ready.begin()
        yield ready


def _with_records(factory: str) -> type[WarmPlatform]:
    """The platform with this in the place of the records service."""

    class Changed(WarmChild):
        def __init__(self, command: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str]) -> None:
            changed = [factory if word == "services.records.main:create" else word for word in command]
            super().__init__(changed, log=log, cwd=cwd, env=env)

    class ChangedPlatform(WarmPlatform):
        process = Changed

    return ChangedPlatform
