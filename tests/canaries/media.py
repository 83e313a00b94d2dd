"""Where a secret could be lying about: dumps, files of the database, logs, memory, traffic. Each comes in pieces."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import asyncpg

_PIECE = 8 * 1024 * 1024
_PAGE = 4_096
_BREAK = bytes(64)
"""Stands between two places that are not next to each other."""
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+\s*(.*)")
_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33
_SO_ATTACH_FILTER = 26


async def dump(url: str) -> list[bytes]:
    """Every row of every table of a database, as text."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        pieces = []
        for table in tables:
            rows = await connection.fetch(f"SELECT t::text AS row FROM {table['name']} t")
            pieces += [row["row"].encode() + _BREAK for row in rows]
        return pieces
    finally:
        await connection.close()


def files(folder: Path, pattern: str = "*") -> Iterator[bytes]:
    """All files below a folder; one that goes away meanwhile is left out."""
    for path in sorted(folder.rglob(pattern)):
        if path.is_file():
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                while piece := file.read(_PIECE):
                    yield piece
            yield _BREAK


def family(process: int) -> list[int]:
    """A process and all that it has started."""
    found = [process]
    for member in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{member}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def memory(process: int, *, shared: bool = True) -> Iterator[bytes]:
    """What a process has in memory and could have written there: everything that is writable or belongs to no file."""
    try:
        maps = Path(f"/proc/{process}/maps").read_text()
        with Path(f"/proc/{process}/mem").open("rb", buffering=0) as mem:
            for start, end, rights, name in _MAPPING.findall(maps):
                if rights[0] != "r" or name.startswith("[v") or (name.startswith("/") and rights[1] != "w"):
                    continue
                if rights[3] == "s" and not shared:
                    continue
                yield from _region(mem.fileno(), int(start, 16), int(end, 16))
                yield _BREAK
    except (FileNotFoundError, ProcessLookupError):
        return


def _region(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    size = _PIECE
    while start < end:
        try:
            piece = os.pread(descriptor, min(size, end - start), start)
        except OSError:
            # Somewhere in here is a page that was taken away meanwhile: what stands around it is read page by page.
            start, size = (start + _PAGE, size) if size == _PAGE else (start, _PAGE)
            continue
        if not piece:
            # The process has ended.
            return
        yield piece
        start, size = start + len(piece), size if size == _PIECE or start % _PIECE else _PIECE


def _filter(ports: list[int]) -> bytes:
    """A program for the kernel (classic BPF; McCanne and Jacobson, 1993): TCP over IPv4 from or to these ports."""
    load_half, load_byte, load_half_of_packet, load_size_of_header, jump_if, give = 0x28, 0x30, 0x48, 0xB1, 0x15, 0x06
    length = 9 + 2 * len(ports)
    refuse, accept = length - 2, length - 1
    program = [(load_half, 0, 0, 12), (jump_if, 0, refuse - 2, 0x0800), (load_byte, 0, 0, 23)]
    program += [(jump_if, 0, refuse - 4, socket.IPPROTO_TCP), (load_size_of_header, 0, 0, 14)]
    for place in (14, 16):
        program.append((load_half_of_packet, 0, 0, place))
        program += [(jump_if, accept - at - 1, 0, port) for at, port in enumerate(ports, len(program))]
    program += [(give, 0, 0, 0), (give, 0, 0, 0xFFFFFFFF)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


class Capture:
    """What goes from and to these ports over the loopback interface by TCP, put together again.

    Needs the right to see it (CAP_NET_RAW).
    """

    def __init__(self, ports: Iterable[int]) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 256 * 1024 * 1024)
        program = _filter(list(ports))
        code = ctypes.create_string_buffer(program)
        # The kernel leaves out what is of other ports, so that a busy machine makes nothing be missed.
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(code))
        )
        self._socket.bind(("lo", _ETH_P_ALL))
        self._socket.settimeout(0.2)
        self._flows: dict[bytes, dict[int, bytes]] = defaultdict(dict)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                self._take(self._socket.recv(1 << 17))

    def _take(self, frame: bytes) -> None:
        """An Ethernet frame with TCP over IPv4; each is seen twice, going out and coming in."""
        packet = frame[14:]
        size = (packet[0] & 15) * 4
        segment = packet[size : struct.unpack("!H", packet[2:4])[0]]
        payload = segment[(segment[12] >> 4) * 4 :]
        if payload:
            (number,) = struct.unpack("!I", segment[4:8])
            self._flows[segment[:4]][number] = payload

    def ports(self) -> set[int]:
        """The ports that something was sent from."""
        return {struct.unpack("!H", flow[:2])[0] for flow in list(self._flows)}

    def streams(self) -> Iterator[bytes]:
        """Each direction of each connection, in the order of its bytes."""
        for flow in list(self._flows.values()):
            segments = dict(flow)
            yield b"".join(segments[number] for number in sorted(segments))
            yield _BREAK

    async def caught_up_with(self, last: bytes, tries: int = 120) -> None:
        """Returns when the answer that holds this has been taken in as well, up to a minute."""
        for _ in range(tries):
            if any(b"HTTP/1.1 4" in stream and last in stream for stream in self.streams()):
                return
            await asyncio.sleep(0.5)
        raise AssertionError("what was sent last has not been seen")

    def lost(self) -> int:
        """Frames that came too fast to be taken."""
        _, dropped = struct.unpack("II", self._socket.getsockopt(263, 6, 8))
        return int(dropped)
