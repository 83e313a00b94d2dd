"""Names under `.localhost` are this machine's own, without asking a resolver (RFC 6761, section 6.3)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator

import httpx
import pytest
import stamina

from client.errors import ServiceUnreachable
from client.http import Http, Request

NAME = "proxy-1.localhost"


@pytest.fixture(autouse=True)
def _no_pauses() -> object:
    with stamina.set_testing(True, attempts=1):
        yield


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A resolver that knows no name; the names it was asked for."""
    names: list[str] = []
    system = socket.getaddrinfo

    def resolve(host: object, *arguments: object, **options: object) -> object:
        text = host.decode() if isinstance(host, bytes) else str(host)
        if text != "127.0.0.1":
            names.append(text)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return system(host, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return names


class Listener:
    """Answers each request on the loopback interface with 204, and keeps what it was sent."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener()
    server = await asyncio.start_server(listener.answer, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    yield listener
    server.close()


@pytest.mark.parametrize("name", [NAME, "a.b.localhost", "PROXY-1.LOCALHOST"])
async def test_is_reached_on_the_loopback_interface_by_a_system_that_does_not_know_it(
    listener: Listener, asked: list[str], name: str
) -> None:
    http = Http()
    try:
        await http.send(Request("GET", f"http://{name}:{listener.port}/v1/identity?x=1"))
    finally:
        await http.close()
    [head] = listener.heads
    assert head.startswith("GET /v1/identity?x=1 HTTP/1.1\r\n")
    assert f"\r\nhost: {name.lower()}:{listener.port}\r\n" in head.replace("Host:", "host:")
    assert asked == []


async def test_a_body_and_the_headers_arrive_as_they_were_sent(listener: Listener) -> None:
    http = Http()
    try:
        await http.send(Request("PUT", f"http://{NAME}:{listener.port}/", token="a-token", form={"a": "b"}))
    finally:
        await http.close()
    head = listener.heads[0].lower()
    assert "\r\nauthorization: bearer a-token\r\n" in head
    assert "\r\ncontent-length: 3\r\n" in head


@pytest.mark.parametrize(
    "name", ["localhost.example", "notlocalhost", "proxy-1.localhost.example", "127.0.0.1.example"]
)
async def test_a_name_that_only_looks_like_one_is_asked_for(listener: Listener, asked: list[str], name: str) -> None:
    http = Http()
    try:
        with pytest.raises(ServiceUnreachable):
            await http.send(Request("GET", f"http://{name}:{listener.port}/"))
    finally:
        await http.close()
    assert asked == [name]
    assert listener.heads == []


async def test_an_http_proxy_of_the_environment_is_not_asked(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    http = Http()
    try:
        await http.send(Request("GET", f"http://{NAME}:{listener.port}/"))
    finally:
        await http.close()
    assert len(listener.heads) == 1


async def test_nobody_there_is_said_under_the_name_that_was_asked_for() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://{NAME}:{free.getsockname()[1]}"
        http = Http()
        try:
            with pytest.raises(ServiceUnreachable, match=NAME):
                await http.send(Request("GET", url))
        finally:
            await http.close()


async def test_the_tls_handshake_is_for_the_name() -> None:
    named: list[str | None] = []

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = lambda _object, name, _context: named.append(name)
        incoming.write(await reader.read(16_384))
        with pytest.raises(ssl.SSLError):
            # There is no certificate, so the server gets no further than the name.
            context.wrap_bio(incoming, outgoing, server_side=True).do_handshake()
        writer.close()

    server = await asyncio.start_server(hello, "127.0.0.1", 0)
    http = Http()
    try:
        with pytest.raises(ServiceUnreachable):
            await http.send(Request("GET", f"https://{NAME}:{server.sockets[0].getsockname()[1]}/"))
    finally:
        await http.close()
        server.close()
    assert named == [NAME]


async def test_a_transport_that_stands_in_for_the_network_is_used_for_these_names_too() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(204)

    http = Http(httpx.MockTransport(answer))
    await http.send(Request("GET", f"http://{NAME}:8411/"))
    await http.close()
    assert str(seen[0].url) == "http://127.0.0.1:8411/"
    assert seen[0].headers["host"] == f"{NAME}:8411"
