"""The cheapest HTTP there is: what measures a service shares the machine with it and should not count."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit


class Connection:
    """One connection to a service, kept alive and opened anew where the service has closed it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
        """The body of a good answer; raises RuntimeError with what the service said for any other."""
        reader, writer = await self._open()
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = head.partition("\r\ncontent-length:")[2].partition("\r\n")[0]
        answer = await reader.readexactly(int(length or 0))
        status = head.split(" ", 2)[1]
        if not status.startswith("2"):
            raise RuntimeError(f"{method} {path}: {status} {answer[:500]!r}")
        return answer

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> bytes:
        """As `send`, with a body that becomes JSON unless it is bytes already."""
        return await self.send("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and (self._streams[0].at_eof() or self._streams[1].is_closing()):
            await self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=1024 * 1024)
        return self._streams
