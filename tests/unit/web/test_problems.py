"""What no route has answered is refused as a problem all the same, and the documents say so."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.types import Message

from shared.schemas.common import Body
from shared.web.app import create_app
from shared.web.metrics import Metrics
from shared.web.rates import RequestRates


class Thing(Body):
    name: str


def new_app() -> FastAPI:
    router = APIRouter()

    @router.get("/things/{name}")
    async def look(name: str) -> dict[str, str]:
        return {"name": name}

    @router.put("/things/{name}")
    async def change(name: str, body: Thing) -> dict[str, str]:
        return {"name": body.name}

    @router.post("/whole")
    async def whole(request: Request) -> int:
        return len(await request.body())

    @asynccontextmanager
    async def nothing(_: FastAPI) -> AsyncIterator[None]:
        yield

    async def ready() -> None:
        pass

    return create_app(
        title="Test",
        description="",
        tags=[],
        routers=[router],
        lifespan=nothing,
        ready=ready,
        body_limits={},
        metrics=Metrics("test"),
        rates=RequestRates(),
    )


@pytest.fixture
def http() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(new_app()), base_url="http://service.test")


def refused(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_method_that_a_path_does_not_have_is_told_all_that_it_has(http: httpx.AsyncClient) -> None:
    response = await http.delete("/things/one")
    refused(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, PUT"


async def test_a_page_that_is_no_operation_has_its_own_methods(http: httpx.AsyncClient) -> None:
    response = await http.post("/openapi.json")
    refused(response, 405, "method_not_allowed")
    assert "GET" in response.headers["allow"]


@pytest.mark.parametrize(
    "content", [b'{"name":"\xff"}', b"[" * 100_000], ids=["no UTF-8", "nested deeper than anybody can read"]
)
async def test_a_body_that_cannot_be_read(http: httpx.AsyncClient, content: bytes) -> None:
    response = await http.put("/things/one", content=content, headers={"content-type": "application/json"})
    refused(response, 400, "malformed")


async def test_a_caller_that_goes_away_before_its_body_has_come_is_no_fault_of_the_service(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Otherwise anybody could make a service report failures."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/whole",
        "raw_path": b"/whole",
        "query_string": b"",
        "headers": [],
    }
    with caplog.at_level(logging.WARNING, "pcehr"):
        await new_app()(scope, receive, send)
    assert sent[0]["status"] == 400
    assert caplog.records == []


async def test_a_slash_in_the_place_of_a_parameter(http: httpx.AsyncClient) -> None:
    refused(await http.get("/things/one%2Ftwo"), 404, "no_such_route")


def test_the_document_says_so() -> None:
    operations: dict[str, Any] = new_app().openapi()["paths"]["/things/{name}"]
    assert "`no_such_route`" in operations["get"]["responses"]["404"]["description"]
    assert "400" not in operations["get"]["responses"]
    assert "`malformed`" in operations["put"]["responses"]["400"]["description"]
