"""Passes connections on: `relay.py PORT=HOST:PORT …` listens on each port and connects to the host behind it.

The host's name is looked up anew for each connection, and of its addresses one is taken at random. So replicas behind
one name share the load, and one that has gone is passed over.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from contextlib import suppress

CONNECT_SECONDS = 2.0
_PIECE = 65_536


async def listen(doors: list[str], host: str) -> list[asyncio.Server]:
    """Open the doors, each written `PORT=HOST:PORT`."""
    servers = []
    for door in doors:
        port, _, target = door.partition("=")
        name, _, target_port = target.rpartition(":")
        servers.append(await _open(host, int(port), name, int(target_port)))
    return servers


async def _open(host: str, port: int, name: str, target_port: int) -> asyncio.Server:
    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await _connect(name, target_port)
        except OSError:
            # Whoever connected sees the same as if nobody listened.
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        except OSError:
            # One side has gone, which the other one must learn at once.
            writer.transport.abort()
            there_writer.transport.abort()
        finally:
            # What is still on its way out goes out first.
            writer.close()
            there_writer.close()

    return await asyncio.start_server(accepted, host, port)


async def _connect(name: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    addresses = [str(address[0]) for *_, address in found]
    for address in random.sample(addresses, len(addresses)):
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncio.open_connection(address, port)
    raise OSError(f"nobody behind {name} answers")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, to its end; the end is passed on, while the other direction may go on."""
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
    if not writer.transport.is_closing():
        writer.write_eof()
    await writer.drain()


async def main(doors: list[str]) -> None:
    # Reachable from its own network only, unless the port is published.
    servers = await listen(doors, "0.0.0.0")  # noqa: S104
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1:]))
