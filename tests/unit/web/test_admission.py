"""Who is let in before a body is read: nobody too often, and large bodies for holders of valid access tokens only."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shared.errors import Unauthenticated
from shared.tokens import Caller
from shared.web.access import FREE_BODY_BYTES, Admission
from shared.web.rates import Rate, RequestRates
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
    return client(read, RequestRates())


def client(read: list[int], rates: RequestRates, address: str = "203.0.113.9") -> httpx.AsyncClient:
    async def take(request: Request) -> JSONResponse:
        read.append(len(await request.body()))
        return JSONResponse({})

    app = Starlette(routes=[Route("/v1/records", take, methods=["POST", "GET"]), Route("/readyz", take)])
    app.state.access_tokens = Tokens()
    app.add_middleware(Admission, rates=rates, operations=["POST /v1/"])
    transport = httpx.ASGITransport(app, client=(address, 4711))
    return httpx.AsyncClient(transport=transport, base_url="http://records.test")


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


GOOD = {"authorization": "Bearer good"}
BAD = {"authorization": "Bearer bad"}


async def test_a_party_above_its_rate_waits_before_its_body_is_read(read: list[int]) -> None:
    beyond: list[str] = []
    http = client(read, RequestRates(party=Rate(per_second=0.1, burst=2), refused=beyond.append))
    answers = [await http.post("/v1/records", content=LARGE, headers=GOOD) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[-1].json()["code"] == "too_many_requests"
    assert 9 <= int(answers[-1].headers["retry-after"]) <= 10
    assert read == [len(LARGE)] * 2
    assert beyond == ["party"]


async def test_an_address_above_its_rate_waits_and_a_party_at_it_does_not(read: list[int]) -> None:
    beyond: list[str] = []
    http = client(read, RequestRates(address=Rate(per_second=0.1, burst=20), refused=beyond.append))
    answers = [await http.post("/v1/records", content=LARGE, headers=BAD) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 429, 429]
    assert "retry-after" in answers[-1].headers
    assert beyond == ["address"] * 2
    assert (await http.get("/v1/records")).status_code == 429
    assert (await http.post("/v1/records", content=LARGE, headers=GOOD)).status_code == 200


async def test_probes_are_always_answered(read: list[int]) -> None:
    http = client(read, RequestRates(address=Rate(per_second=0.1, burst=1)))
    assert (await http.get("/v1/records")).status_code == 200
    assert (await http.get("/v1/records")).status_code == 429
    assert [(await http.get("/readyz")).status_code for _ in range(5)] == [200] * 5


async def test_a_refusal_for_asking_too_often_is_kept_back_and_nobody_waits_behind_it(
    read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for one of them: the second is refused at once, the first after everything else."""
    monkeypatch.setattr("shared.web.access.MOST_HELD", 1)
    http = client(read, RequestRates(address=Rate(per_second=0.1, burst=1)))
    assert (await http.get("/v1/records")).status_code == 200
    held = asyncio.create_task(http.get("/v1/records"))
    await asyncio.sleep(0)
    assert (await http.get("/v1/records")).status_code == 429
    assert (await http.get("/v1/records", headers=GOOD)).status_code == 200
    assert not held.done()
    assert (await held).status_code == 429
