"""A platform of processes for races, and one whose records service has a planted fault."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from unittest import mock

import httpx

from client.embedded import platform as embedded
from client.embedded.platform import EmbeddedPlatform
from client.transport import Platform
from tests.conftest import temporary_folder
from tests.races.rounds import CONNECTIONS, Range


@asynccontextmanager
async def shooting_range(seed: int, *, records: str | None = None) -> AsyncIterator[Range]:
    """Everything that a round takes. `records` is another factory of the records service, `module:function`."""
    async with AsyncExitStack() as stack:
        home = stack.enter_context(temporary_folder()) / "home"
        if records is not None:
            stack.enter_context(_other_records(records))
        platform = await stack.enter_async_context(EmbeddedPlatform(home, base_port=None))
        client = await stack.enter_async_context(Platform(platform.registry_url))
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        http = await stack.enter_async_context(httpx.AsyncClient(limits=limits, timeout=60, trust_env=False))
        ready = Range(platform, client, http, Random(seed))
        await ready.begin()
        yield ready


@contextmanager
def _other_records(factory: str) -> Iterator[None]:
    """Start this in the place of the records service."""
    started = embedded.ChildProcess

    def start(command: list[str], **how: object) -> object:
        if "services.records.main:create" in command:
            root = str(Path(__file__).parents[2])
            code = f"import sys; sys.path.insert(0, {root!r}); from uvicorn.main import main; main()"
            command = [sys.executable, "-P", "-c", code, *command[command.index("--factory") :]]
            command[command.index("services.records.main:create")] = factory
        return started(command, **how)  # type: ignore[arg-type]

    with mock.patch.object(embedded, "ChildProcess", start):
        yield
