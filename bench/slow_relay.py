"""Stands before a service and passes on, a while later, whatever is sent to it; answers come back at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
_PIECE = 65_536


class SlowRelay:
    """Listens on one port and connects to another, on this machine, while the block lasts."""

    def __init__(self, port: int, target: int, *, seconds: float) -> None:
        self._port, self._target, self._seconds = port, target, seconds
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, HOST, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)
        await self._server.wait_closed()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._pass(reader, writer))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there_reader, there_writer = await asyncio.open_connection(HOST, self._target)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(reader, there_writer, self._seconds))
                    group.create_task(_pump(there_reader, writer, 0))
            finally:
                there_writer.close()
                writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """One direction, to its end."""
    with suppress(OSError):
        while piece := await reader.read(_PIECE):
            await asyncio.sleep(seconds)
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()
