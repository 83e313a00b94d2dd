"""An answer is counted as it comes: no service may send little that becomes much."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest

from client.errors import UnexpectedAnswer
from client.http import Http, Request

URL = "http://registry.test/"


@pytest.mark.parametrize("status", [200, 422])
@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
async def test_a_compressed_answer_is_refused_unread(status: int, encoding: str) -> None:
    bomb = gzip.compress(json.dumps({"code": "0" * 1_000_000, "detail": ""}).encode())
    http = Http(httpx.MockTransport(lambda _: Packed(status, encoding, bomb)))
    with pytest.raises(UnexpectedAnswer, match="compressed"):
        await http.send(Request("GET", URL))
    await http.close()


async def test_a_plain_answer_is_asked_for_and_taken() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["accept-encoding"])
        return httpx.Response(200, content=b"plain", headers={"content-encoding": "identity"})

    http = Http(httpx.MockTransport(answer))
    assert await http.send(Request("GET", URL)) == b"plain"
    assert asked == ["identity"]
    await http.close()


class Packed(httpx.Response):
    """An answer that has not been decoded on the way, as it is with a network."""

    def __init__(self, status: int, encoding: str, data: bytes) -> None:
        async def stream():  # type: ignore[no-untyped-def]
            raise AssertionError("the body was read")
            yield data

        super().__init__(status, headers={"content-encoding": encoding}, content=stream())
