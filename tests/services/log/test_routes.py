"""The routes: over HTTP, in a real app, against what the definition says."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from shared.db import log
from shared.encoding import b64url, from_b64url
from shared.schemas.log import EntriesOut, InclusionIn, InclusionOut
from shared.transparency.checkpoints import sign_checkpoint, verify_checkpoint
from shared.transparency.merkle import leaf_hash, verify_consistency, verify_inclusion
from shared.web.app import create_app
from shared.web.log import BODY_LIMITS, TAG, entries_router, router
from shared.web.metrics import Metrics
from shared.web.rates import RequestRates
from tests.services.log.conftest import KEY, PATIENTS, World, happened, naive_root

DATA = [hashlib.sha256(b"%d" % number).digest() * 2 for number in range(40)]
LEAVES = [leaf_hash(data) for data in DATA]


def app_of(world: World | None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    async def ready() -> None:
        return None

    app = create_app(
        title="A log",
        description="A log.",
        tags=[TAG],
        routers=[router, entries_router],
        lifespan=lifespan,
        ready=ready,
        body_limits=BODY_LIMITS,
        metrics=Metrics("log"),
        rates=RequestRates(),
    )
    if world is not None:
        app.state.log = world.log
    return app


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://log.example") as client:
        yield client


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A published tree of 21 leaves, ten more that are signed but not published, and nine without a place."""
    for count, publish in ((21, True), (10, False)):
        size = await world.count("log_entries")
        async with world.database.transaction() as session:
            await log.append(session, DATA[size : size + count])
        await world.log.sequence(publish=publish)
    async with world.database.transaction() as session:
        await log.append(session, DATA[31:])
    async with client_of(app_of(world)) as client:
        yield client


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


def hashes(items: list[str]) -> list[bytes]:
    return [from_b64url(item, 32) for item in items]


async def test_the_checkpoint_is_a_signed_note_in_plain_text(world: World, http: httpx.AsyncClient) -> None:
    response = await http.get("/v1/log/checkpoint")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    checkpoint = verify_checkpoint(response.text, world.log.origin)
    assert (checkpoint.size, checkpoint.root) == (21, naive_root(LEAVES[:21]))


async def test_consistency_from_every_published_size(http: httpx.AsyncClient) -> None:
    for old in range(22):
        for new in sorted({old, 7, 8, 16, 20, 21} - set(range(old))):
            response = await http.get("/v1/log/consistency", params={"from": old, "to": new})
            path = hashes(response.json()["path"])
            verify_consistency(old, naive_root(LEAVES[:old]), new, naive_root(LEAVES[:new]), path)


@pytest.mark.parametrize(
    "query",
    [
        {"from": 5, "to": 22},
        {"from": 6, "to": 5},
        {"from": -1, "to": 5},
        {"from": 0, "to": 2**63},
        {"from": 0},
        {"to": 3},
        {"from": "x", "to": 3},
    ],
    ids=str,
)
async def test_consistency_of_other_sizes_is_refused(http: httpx.AsyncClient, query: dict[str, Any]) -> None:
    assert problem(await http.get("/v1/log/consistency", params=query)) == (422, "invalid_request")


@pytest.mark.parametrize("known", [0, 1, 8, 20, 21])
async def test_inclusion_of_every_leaf_at_once(world: World, http: httpx.AsyncClient, known: int) -> None:
    order = [LEAVES[(number * 8) % 21] for number in range(21)]
    response = await http.post("/v1/log/inclusion", json={"leaves": [b64url(leaf) for leaf in order], "size": known})
    answer = response.json()
    checkpoint = verify_checkpoint(answer["checkpoint"], world.log.origin)
    verify_consistency(known, naive_root(LEAVES[:known]), 21, checkpoint.root, hashes(answer["consistency"]))
    for leaf, item in zip(order, answer["items"], strict=True):
        assert LEAVES[item["index"]] == leaf
        verify_inclusion(leaf, item["index"], 21, hashes(item["path"]), checkpoint.root)


async def test_the_same_leaf_may_be_asked_for_twice(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/log/inclusion", json={"leaves": [b64url(LEAVES[3])] * 200, "size": 0})
    assert [item["index"] for item in response.json()["items"]] == [3] * 200


async def test_a_leaf_in_no_row_is_not_found(http: httpx.AsyncClient) -> None:
    leaves = [b64url(LEAVES[0]), b64url(bytes(32))]
    assert problem(await http.post("/v1/log/inclusion", json={"leaves": leaves, "size": 0})) == (404, "not_found")


@pytest.mark.parametrize(("leaf", "known"), [(25, 0), (35, 0), (0, 22), (0, 2**53 - 1)])
async def test_what_is_not_published_yet_is_to_be_asked_for_later(
    http: httpx.AsyncClient, leaf: int, known: int
) -> None:
    response = await http.post("/v1/log/inclusion", json={"leaves": [b64url(LEAVES[leaf])], "size": known})
    assert problem(response) == (503, "not_in_log_yet")
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    "body",
    [
        {"leaves": [], "size": 0},
        {"leaves": [b64url(bytes(32))] * 201, "size": 0},
        {"leaves": [b64url(bytes(31))], "size": 0},
        {"leaves": [b64url(bytes(32))], "size": -1},
        {"leaves": [b64url(bytes(32))], "size": 2**63},
        {"leaves": [b64url(bytes(32))]},
        {"leaves": [b64url(bytes(32))], "size": 0, "more": 1},
    ],
    ids=["none", "too many", "short", "negative", "too large", "no size", "unknown member"],
)
async def test_an_inclusion_request_out_of_bounds_is_refused(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert problem(await http.post("/v1/log/inclusion", json=body)) == (422, "invalid_request")


async def test_a_body_that_is_too_large_is_not_read(http: httpx.AsyncClient) -> None:
    assert problem(await http.post("/v1/log/inclusion", content=b" " * 17_000)) == (413, "too_large")


async def test_entries_are_those_under_the_published_checkpoint(http: httpx.AsyncClient) -> None:
    async def items(**query: int) -> list[bytes]:
        answer = (await http.get("/v1/log/entries", params=query)).json()
        assert answer["size"] == 21
        return [from_b64url(item) for item in answer["items"]]

    assert await items(start=0) == DATA[:21]
    assert await items(start=5, limit=3) == DATA[5:8]
    assert await items(start=20, limit=1000) == DATA[20:21]
    assert await items(start=21) == []
    assert await items(start=2**53 - 1) == []


@pytest.mark.parametrize("query", [{"start": -1}, {"start": 0, "limit": 0}, {"start": 0, "limit": 1001}, {}], ids=str)
async def test_entries_out_of_bounds_are_refused(http: httpx.AsyncClient, query: dict[str, int]) -> None:
    assert problem(await http.get("/v1/log/entries", params=query)) == (422, "invalid_request")


@pytest.mark.parametrize("without_log", [True, False], ids=["before the start is done", "before the first checkpoint"])
async def test_before_anything_is_published_it_says_later(world: World, without_log: bool) -> None:
    await world.append(happened(PATIENTS[0]))
    async with client_of(app_of(None if without_log else world)) as http:
        for response in (
            await http.get("/v1/log/checkpoint"),
            await http.get("/v1/log/consistency", params={"from": 0, "to": 0}),
            await http.post("/v1/log/inclusion", json={"leaves": [b64url(bytes(32))], "size": 0}),
            await http.get("/v1/log/entries", params={"start": 0}),
        ):
            assert problem(response) == (503, "not_in_log_yet")


async def test_a_log_that_is_halted_still_shows_what_it_has_published(world: World, http: httpx.AsyncClient) -> None:
    assert await world.log.refute(sign_checkpoint(KEY, "records", 99, bytes(32)))
    assert (await http.get("/v1/log/checkpoint")).status_code == 200
    response = await http.post("/v1/log/inclusion", json={"leaves": [b64url(LEAVES[0])], "size": 0})
    assert response.status_code == 200


def test_the_openapi_document_says_all_of_it() -> None:
    document = app_of(None).openapi()
    expected = {
        ("/v1/log/checkpoint", "get"): {"200", "429", "500", "503"},
        ("/v1/log/consistency", "get"): {"200", "422", "429", "500", "503"},
        ("/v1/log/inclusion", "post"): {"200", "400", "404", "413", "422", "429", "500", "503"},
        ("/v1/log/entries", "get"): {"200", "422", "429", "500", "503"},
    }
    for (path, method), statuses in expected.items():
        operation = document["paths"][path][method]
        assert operation["tags"] == ["log"]
        assert set(operation["responses"]) == statuses
        assert operation["summary"]
        assert operation["description"]
    assert document["paths"]["/v1/log/inclusion"]["post"]["x-max-body-bytes"] == 16 * 1024
    for name in ("InclusionIn", "InclusionOut", "ConsistencyOut", "EntriesOut"):
        assert document["components"]["schemas"][name]["examples"]


def test_the_examples_verify() -> None:
    proven = InclusionOut.model_validate(InclusionOut.model_json_schema()["examples"][0])
    checkpoint = verify_checkpoint(proven.checkpoint, proven.checkpoint.partition("\n")[0])
    asked = InclusionIn.model_validate(InclusionIn.model_json_schema()["examples"][0])
    first, second = (leaf_hash(from_b64url(item)) for item in EntriesOut.model_json_schema()["examples"][0]["items"])
    assert hashes(asked.leaves) == [first]
    verify_inclusion(first, 0, 2, hashes(proven.items[0].path), checkpoint.root)
    verify_inclusion(second, 1, 2, [first], checkpoint.root)
    verify_consistency(asked.size, first, 2, checkpoint.root, hashes(proven.consistency))
