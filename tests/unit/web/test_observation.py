"""Every request from outside: one line, one id that header, problem and line agree on, and bounded labels."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from shared.errors import DatabaseUnavailable, NotFound
from shared.web.app import create_app
from shared.web.metrics import Metrics
from shared.web.rates import RequestRates

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "did:key:z6MkNeedle"
FIELDS = ("method", "route", "status", "duration_ms")


async def ready() -> None:
    """Always."""


def new_app(ready: Any = ready, lifespan: Any = None) -> FastAPI:
    router = APIRouter(prefix="/v1")

    @router.get("/parties/{did}")
    async def party(did: str) -> dict[str, str]:
        if did == "nobody":
            raise NotFound
        if did == "broken":
            raise ValueError(SECRET)
        return {"did": did}

    @asynccontextmanager
    async def nothing(_: FastAPI) -> AsyncIterator[None]:
        yield

    return create_app(
        title="Test",
        description="",
        tags=[],
        routers=[router],
        lifespan=lifespan or nothing,
        ready=ready,
        body_limits={},
        metrics=Metrics("test"),
        rates=RequestRates(),
    )


@pytest.fixture
def http() -> httpx.AsyncClient:
    return client(new_app())


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service.test")


@pytest.fixture(autouse=True)
def from_debug_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pcehr")


def access(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The lines about requests."""
    records = [record for record in caplog.records if record.name == "pcehr.access"]
    return [{"level": record.levelname, **{name: getattr(record, name) for name in FIELDS}} for record in records]


async def test_a_request_leaves_one_line_with_the_template_of_its_route(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await http.get(f"/v1/parties/{SECRET}", params={"q": SECRET})).status_code == 200
    [line] = access(caplog)
    assert line.pop("duration_ms") >= 0
    assert line == {"level": "INFO", "method": "GET", "route": "/v1/parties/{did}", "status": 200}
    own = [vars(record) for record in caplog.records if record.name.startswith("pcehr")]
    assert SECRET not in str(own)


@pytest.mark.parametrize(("did", "status"), [("nobody", 404), ("broken", 500)])
async def test_problem_header_and_line_agree_on_the_trace(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, did: str, status: int
) -> None:
    response = await http.get(f"/v1/parties/{did}", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert response.status_code == status
    assert response.json()["trace_id"] == TRACE
    assert re.fullmatch(f"{TRACE}-[0-9a-f]{{16}}", response.headers["x-request-id"])
    assert access(caplog)[0]["status"] == status


@pytest.mark.parametrize(
    "path",
    ["/v1/parties/someone", "/v1/parties/nobody", "/nowhere", "/metrics", "/healthz", "/docs"],
)
async def test_every_answer_has_a_request_id_of_its_own(http: httpx.AsyncClient, path: str) -> None:
    ids = {(await http.get(path)).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


async def test_two_traceparents_begin_a_new_trace(http: httpx.AsyncClient) -> None:
    header = ("traceparent", f"00-{TRACE}-{PARENT}-01")
    response = await http.get("/v1/parties/nobody", headers=[header, header])
    assert response.json()["trace_id"] != TRACE


async def test_what_the_caller_calls_the_request_is_not_repeated(http: httpx.AsyncClient) -> None:
    response = await http.get("/v1/parties/nobody", headers={"x-request-id": SECRET, "tracestate": f"a={SECRET}"})
    assert SECRET not in str(response.headers)


@pytest.mark.parametrize(
    ("path", "level"),
    [("/healthz", "DEBUG"), ("/readyz", "DEBUG"), ("/metrics", "DEBUG"), ("/nowhere", "INFO")],
)
async def test_probes_that_succeed_are_logged_for_debugging_only(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, path: str, level: str
) -> None:
    await http.get(path)
    assert access(caplog)[0]["level"] == level


async def test_what_fails_on_this_side_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def away() -> None:
        raise DatabaseUnavailable

    async with client(new_app(away)) as http:
        await http.get("/readyz")
        await http.get("/v1/parties/broken")
        await http.get("/v1/parties/nobody")
    assert [(line["status"], line["level"]) for line in access(caplog)] == [
        (503, "WARNING"),
        (500, "WARNING"),
        (404, "INFO"),
    ]


async def test_an_unexpected_error_is_told_by_kind_and_place(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await http.get("/v1/parties/broken")
    [record] = [record for record in caplog.records if record.name == "pcehr.web"]
    told = vars(record)
    assert told["error"] == "builtins.ValueError"
    assert told["frames"][-1].endswith(" party")
    assert SECRET not in str(told)


async def test_why_a_start_failed_is_told_by_kind_and_place(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def failing(_: FastAPI) -> AsyncIterator[None]:
        raise ValueError(SECRET)
        yield

    app = new_app(lifespan=failing)
    with pytest.raises(ValueError, match=SECRET):
        async with app.router.lifespan_context(app):
            pass
    [record] = [record for record in caplog.records if record.name == "pcehr.web"]
    assert vars(record)["frames"][-1].endswith(" failing")
    assert SECRET not in str(vars(record))


async def test_no_label_is_unbounded(http: httpx.AsyncClient) -> None:
    for number in range(20):
        await http.get(f"/v1/parties/{number}")
        await http.get(f"/nowhere/{number}")
        await http.request(f"M{number}", "/v1/parties/x")
        await http.request(f"M{number}", "/nowhere")
    figures = (await http.get("/metrics")).text
    counted = [line for line in figures.splitlines() if line.startswith("pcehr_http_requests_total{")]
    labels = {line.removeprefix("pcehr_http_requests_total{").rpartition("}")[0] for line in counted}
    assert labels == {
        'method="GET",route="/v1/parties/{did}",status="200"',
        'method="GET",route="unmatched",status="404"',
        'method="other",route="/v1/parties/{did}",status="405"',
        'method="other",route="unmatched",status="404"',
    }
