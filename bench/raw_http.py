"""HTTP with next to no cost of its own: requests as bytes, over connections that are kept, to this machine only.

A client that checks what it gets takes longer than the services it measures; what is sent here is made beforehand, and
of an answer only its status is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

HOST = "127.0.0.1"
ANSWER_SECONDS = 30.0
"""A service that takes longer does not answer."""


def request(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A whole request, as it goes over the wire."""
    lines = {"host": HOST, "content-length": str(len(body))} | dict(headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


class Connection:
    """One connection at a time, from the loopback address `source`; made anew when the service has closed it."""

    def __init__(self, url: str, *, source: str = HOST) -> None:
        parts = urlsplit(url)
        if parts.hostname != HOST or parts.port is None:
            raise ValueError("the benchmarks ask this machine and no other")
        self._port = parts.port
        self._source = source
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> int:
        """Send a request and return the status of its answer, once all of the answer is there."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port, local_addr=(self._source, 0))
        reader, writer = self._streams
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                headers = head.lower()
                length = headers.partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
            if b"connection: close" in headers:
                self.close()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            self.close()
            raise
        return int(head[9:12])

    def close(self) -> None:
        """Close it; the next request makes another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
