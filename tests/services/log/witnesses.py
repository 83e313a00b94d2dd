"""Witnesses over real HTTP: an honest one, and the ways in which one can be dead, slow or hostile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from shared.crypto.signing import SigningKey
from shared.did import did_from_key
from shared.transparency.checkpoints import cosign, parse_checkpoint, verify_checkpoint
from shared.transparency.errors import ConsistencyNotProven, MalformedSubmission, NotSignedByLog, StaleSize, UnknownLog
from shared.transparency.witnessing import AddCheckpoint, Known, judge
from shared.witness_client import Witness

Behaviour = Callable[["TestWitness", str, bytes, asyncio.StreamWriter], Awaitable[None]]


class TestWitness:
    """One witness. `behaviour` may be changed at any time; `asked` counts its requests, `seen` the sizes submitted."""

    __test__ = False

    def __init__(self, number: int, origin: str, behaviour: Behaviour, now: int = 1_760_000_000) -> None:
        self.key = SigningKey(bytes([number]) * 32)
        self.did = did_from_key(bytes(self.key.verify_key))
        self.origin = origin
        self.behaviour = behaviour
        self.now = now
        self.port = 0
        self.known: Known | None = None
        self.note = ""
        self.asked = 0
        self.seen: list[int] = []

    @property
    def entry(self) -> Witness:
        """How the directory shows it."""
        return Witness(self.did, f"http://127.0.0.1:{self.port}", frozenset({self.key.verify_key}))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split(" ")
                length = 0
                while (header := await reader.readline()) not in (b"\r\n", b""):
                    name, _, value = header.decode().partition(":")
                    if name.lower() == "content-length":
                        length = int(value)
                body = await reader.readexactly(length)
                self.asked += 1
                if path.endswith("/add-checkpoint"):
                    self.seen.append(parse_checkpoint(AddCheckpoint.parse(body).checkpoint_text).size)
                await self.behaviour(self, f"{method} {path}", body, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def decide(self, body: bytes) -> tuple[int, str, bytes]:
        """Status, media type and body of an honest answer to a submission."""
        try:
            request = AddCheckpoint.parse(body)
            checkpoint = judge(self.known, request, self.origin)
        except UnknownLog:
            return 404, "text/plain", b""
        except NotSignedByLog:
            return 403, "text/plain", b""
        except MalformedSubmission:
            return 400, "text/plain", b""
        except StaleSize as stale:
            return 409, "text/x.tlog.size", f"{stale.size}\n".encode()
        except ConsistencyNotProven:
            return 422, "text/plain", b""
        self.known = Known(checkpoint.size, checkpoint.root)
        self.note = request.checkpoint_text
        return 200, "text/plain; charset=utf-8", cosign(checkpoint, self.did, self.key, self.now).encode()

    def shown(self) -> bytes:
        items = [{"origin": self.origin, "checkpoint": self.note}] if self.note else []
        return json.dumps({"items": items}).encode()


async def answer(writer: asyncio.StreamWriter, status: int, content_type: str, body: bytes, *headers: str) -> None:
    lines = [f"HTTP/1.1 {status} Whatever", f"content-type: {content_type}", f"content-length: {len(body)}", *headers]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()


async def honest(witness: TestWitness, request: str, body: bytes, writer: asyncio.StreamWriter) -> None:
    if request == "GET /v1/witness/checkpoints":
        await answer(writer, 200, "application/json", witness.shown())
    elif request == "POST /v1/witness/add-checkpoint":
        await answer(writer, *witness.decide(body))
    else:
        await answer(writer, 404, "text/plain", b"")


async def silent(_: TestWitness, __: str, ___: bytes, writer: asyncio.StreamWriter) -> None:
    """Takes the request and never says a word."""
    await asyncio.sleep(3600)


async def endless(_: TestWitness, __: str, ___: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def dripping(_: TestWitness, __: str, ___: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def other_signature(witness: TestWitness, _: str, body: bytes, writer: asyncio.StreamWriter) -> None:
    """In its own name, but over nothing that it was given."""
    status, content_type, line = witness.decide(body)
    if status == 200:
        # The last characters of the base64 are of the signature; the name and the key id before stay as they are.
        line = line[:-20] + b"A" * 16 + line[-4:]
    await answer(writer, status, content_type, line)


async def anothers_name(witness: TestWitness, _: str, body: bytes, writer: asyncio.StreamWriter) -> None:
    """A good signature in the name of somebody who is no witness."""
    checkpoint = verify_checkpoint(AddCheckpoint.parse(body).checkpoint_text, witness.origin)
    stranger = SigningKey(b"s" * 32)
    line = cosign(checkpoint, did_from_key(bytes(stranger.verify_key)), stranger, witness.now)
    await answer(writer, 200, "text/plain", line.encode())


async def garbage(_: TestWitness, __: str, ___: bytes, writer: asyncio.StreamWriter) -> None:
    await answer(writer, 200, "text/plain", b"\xff\x00<html>\n")


async def no_http(_: TestWitness, __: str, ___: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-whatever\r\n")
    await writer.drain()
    writer.close()


async def redirecting(witness: TestWitness, _: str, __: bytes, writer: asyncio.StreamWriter) -> None:
    await answer(writer, 307, "text/plain", b"", f"location: http://127.0.0.1:{witness.port}/v1/elsewhere")


async def compressed(witness: TestWitness, _: str, body: bytes, writer: asyncio.StreamWriter) -> None:
    status, content_type, line = witness.decide(body)
    await answer(writer, status, content_type, line, "content-encoding: gzip")


def always_size(*sizes: int) -> Behaviour:
    """409 with these sizes in turn, and nothing to show for it."""
    turn = iter(range(10**9))

    async def behave(_: TestWitness, request: str, __: bytes, writer: asyncio.StreamWriter) -> None:
        if request.startswith("GET"):
            await answer(writer, 200, "application/json", b'{"items": []}')
        else:
            size = f"{sizes[next(turn) % len(sizes)]}\n"
            await answer(writer, 409, "text/x.tlog.size", size.encode())

    return behave


def always_status(status: int) -> Behaviour:
    async def behave(_: TestWitness, __: str, ___: bytes, writer: asyncio.StreamWriter) -> None:
        await answer(writer, status, "text/plain", b"")

    return behave


@asynccontextmanager
async def served(*witnesses: TestWitness) -> AsyncIterator[None]:
    """Serve each at a port of its own; connections that are open at the end are cut."""
    running: set[asyncio.Task[None]] = set()

    def handler(witness: TestWitness) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(witness.serve(reader, writer))
            running.add(task)
            task.add_done_callback(running.discard)

        return handle

    servers = []
    for witness in witnesses:
        server = await asyncio.start_server(handler(witness), "127.0.0.1", witness.port)
        witness.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    try:
        yield
    finally:
        for server in servers:
            server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
