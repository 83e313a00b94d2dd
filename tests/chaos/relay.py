"""A relay in front of Postgres that reads the protocol and breaks the connection before, or after, a chosen write.

It knows nothing of a service's code: what it counts are the messages of PostgreSQL's protocol, version 3 (chapter
"Frontend/Backend Protocol" of its manual). A point is a statement that writes, or a commit of one that has written,
named by the first write of its transaction, as in `INSERT grants: INSERT outbox` or `INSERT grants: COMMIT`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102
_WRITE = re.compile(r'\b(INSERT INTO|UPDATE|DELETE FROM)\s+"?([a-z_]+)', re.IGNORECASE)


@dataclass
class Trap:
    """What is to happen at a point, once. `after` lets the server do what it was asked, and keeps its answer back."""

    point: str
    after: bool
    strike: Callable[[], None]
    sprung: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class _Link:
    """One connection: what has been prepared on it, and the writes of the transaction that is open."""

    statements: dict[bytes, str] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    caught: Trap | None = None

    def point(self, kind: bytes, body: bytes) -> str | None:
        """The name of the point that a message of the client's is, if it is one."""
        if kind == b"P":
            name, sql, _ = body.split(b"\0", 2)
            self.statements[name] = sql.decode()
        elif kind == b"B":
            return self._write(self.statements.get(body.split(b"\0", 2)[1], ""))
        elif kind == b"Q":
            sql = body.rstrip(b"\0").decode().strip().rstrip(";").upper()
            if sql == "COMMIT":
                return self._named("COMMIT") if self.writes else None
            if sql.startswith(("BEGIN", "ROLLBACK")):
                self.writes = []
        return None

    def _write(self, sql: str) -> str | None:
        found = _WRITE.search(sql.replace("FOR UPDATE", "").replace("DO UPDATE", ""))
        if found is None:
            return None
        write = f"{found[1].split()[0].upper()} {found[2]}"
        self.writes.append(write)
        return self._named(write)

    def _named(self, what: str) -> str:
        return f"{self.writes[0]}: {what}"


class Relay:
    """Use it as an async context manager; clients connect to `port` on the loopback interface."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.passed: list[str] = []
        """The points that have been passed since this list was last emptied."""
        self.trap: Trap | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
            try:
                if await _start(reader, writer, up_reader, up_writer):
                    await self._pump(reader, writer, up_reader, up_writer)
            finally:
                # At once, as when a process dies; nobody waits for what is still in a buffer.
                writer.transport.abort()
                up_writer.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        """Returns when one side has gone, or the connection is to be broken."""
        link = _Link()
        ways = {
            asyncio.create_task(self._requests(link, reader, up_writer)),
            asyncio.create_task(self._answers(link, up_reader, writer)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _requests(self, link: _Link, reader: asyncio.StreamReader, up_writer: asyncio.StreamWriter) -> None:
        while True:
            kind, body = await _message(reader)
            point = link.point(kind, body)
            if point is not None:
                self.passed.append(point)
                trap = self.trap
                if trap is not None and trap.point == point and not trap.sprung.is_set():
                    trap.sprung.set()
                    if not trap.after:
                        trap.strike()
                        return
                    link.caught = trap
            up_writer.write(kind + struct.pack("!i", len(body) + 4) + body)
            await up_writer.drain()

    async def _answers(self, link: _Link, up_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            kind, body = await _message(up_reader)
            if link.caught is not None:
                # Ready for the next query: the server has done all that it was asked.
                if kind == b"Z":
                    link.caught.strike()
                    return
                continue
            writer.write(kind + struct.pack("!i", len(body) + 4) + body)
            await writer.drain()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind = await reader.readexactly(1)
    (length,) = struct.unpack("!i", await reader.readexactly(4))
    return kind, await reader.readexactly(length - 4)


async def _start(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    up_reader: asyncio.StreamReader,
    up_writer: asyncio.StreamWriter,
) -> bool:
    """Pass on how a connection begins, with messages that have no kind; False where it was only to cancel another."""
    while True:
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        body = await reader.readexactly(length - 4)
        up_writer.write(struct.pack("!i", length) + body)
        await up_writer.drain()
        (code,) = struct.unpack("!i", body[:4])
        if code == _CANCEL:
            return False
        if code not in (_SSL, _GSS):
            return True
        writer.write(await up_reader.readexactly(1))
        await writer.drain()
