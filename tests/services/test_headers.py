"""What a browser is told with every answer of every route of every service, good or bad."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from tests.conftest import FreshDatabases
from tests.services.proxy.world import World as ProxyWorld
from tests.services.records.world import World as RecordsWorld
from tests.services.registry.running import running, settings_for
from tests.services.signing_parties import TestClock

EVERYWHERE = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}
FOREIGN = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}


@pytest.fixture(params=["registry", "records", "proxy"])
async def app(request: pytest.FixtureRequest, fresh_database: FreshDatabases, tmp_path: Path) -> AsyncIterator[FastAPI]:
    url = await fresh_database(request.param)
    if request.param == "registry":
        async with running(settings_for(url), TestClock()) as registry:
            yield registry.app
    elif request.param == "records":
        async with RecordsWorld(url, tmp_path / "blobs").running() as records:
            yield records.app
    else:
        proxy = ProxyWorld(url)
        async with proxy.running():
            yield proxy.app


def requests(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every method of every route, also those that no document names, and what is refused before any route."""
    for path, operations in app.openapi()["paths"].items():
        for method in (*operations, "options"):
            yield method.upper(), path.replace("{", "").replace("}", "")
    yield from (("GET", path) for path in ("/docs", "/openapi.json", "/nowhere", "/static-offline-docs/swagger-ui.css"))
    yield from (("POST", "/docs"), ("TRACE", "/healthz"))


async def answers(app: FastAPI, scheme: str) -> list[httpx.Response]:
    found = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"{scheme}://service.example") as http:
        for method, path in requests(app):
            found.append(await http.request(method, path, headers=FOREIGN))
        found.append(await http.post("/v1/anything", headers=FOREIGN | {"content-length": str(2**40)}))
    return found


async def test_headers_of_every_route(app: FastAPI) -> None:
    found = await answers(app, "https")
    assert len(found) > 20
    assert {200, 404, 405, 413} <= {answer.status_code for answer in found}
    for answer in found:
        place = f"{answer.request.method} {answer.request.url.path} {answer.status_code}"
        assert {name: answer.headers.get(name) for name in EVERYWHERE} == EVERYWHERE, place
        assert answer.headers["strict-transport-security"] == "max-age=63072000", place
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none';"), place
        assert "frame-ancestors 'none'" in policy, place
        if answer.request.url.path != "/docs":
            assert policy == "default-src 'none'; frame-ancestors 'none'", place
        # No page of another origin may read anything, and none is told that it might ask.
        assert [name for name in answer.headers if name.startswith("access-control-")] == [], place
        assert "set-cookie" not in answer.headers, place
        assert not answer.is_redirect, place


async def test_by_http_nothing_is_said_about_https(app: FastAPI) -> None:
    assert all("strict-transport-security" not in answer.headers for answer in await answers(app, "http"))
