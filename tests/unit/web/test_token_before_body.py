"""Large bodies are read only for the holder of a valid access token."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shared.errors import Unauthenticated
from shared.tokens import Caller
from shared.web.access import FREE_BODY_BYTES, TokenBeforeBody
from shared.wire import Role


class Tokens:
    """Takes one token; stands at the edge where the registry's keys would come from."""

    async def verify(self, token: str) -> Caller:
        if token != "good":
            raise Unauthenticated
        return Caller("did:key:zDemo", Role.PATIENT)


@pytest.fixture
def read() -> list[int]:
    return []


@pytest.fixture
def http(read: list[int]) -> httpx.AsyncClient:
    async def take(request: Request) -> JSONResponse:
        read.append(len(await request.body()))
        return JSONResponse({})

    app = Starlette(routes=[Route("/v1/records", take, methods=["POST", "GET"])])
    app.state.access_tokens = Tokens()
    app.add_middleware(TokenBeforeBody, operations=["POST /v1/"])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://records.test")


LARGE = b"x" * (FREE_BODY_BYTES + 1)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer bad"}, {"authorization": "Basic good"}], ids=str)
async def test_a_large_body_without_a_valid_token_is_not_read(
    http: httpx.AsyncClient, read: list[int], headers: dict[str, str]
) -> None:
    response = await http.post("/v1/records", content=LARGE, headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
    assert read == []


async def test_a_body_of_unknown_length_counts_as_large(http: httpx.AsyncClient, read: list[int]) -> None:
    async def pieces() -> Any:
        yield b"x"

    assert (await http.post("/v1/records", content=pieces())).status_code == 401
    assert read == []


async def test_the_holder_of_a_token_is_served(http: httpx.AsyncClient, read: list[int]) -> None:
    response = await http.post("/v1/records", content=LARGE, headers={"authorization": "Bearer good"})
    assert response.status_code == 200
    assert read == [len(LARGE)]


async def test_a_small_body_is_left_to_the_route(http: httpx.AsyncClient, read: list[int]) -> None:
    assert (await http.post("/v1/records", content=b"x")).status_code == 200
    assert (await http.get("/v1/records")).status_code == 200
    assert read == [1, 0]
