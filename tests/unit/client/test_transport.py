"""HTTP at the network's edge: tokens, repeating, bounds, and what a dishonest or broken service may send."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import stamina

from client.errors import AnswerTooLarge, ServiceRefused, ServiceUnreachable, UnexpectedAnswer, hint_for
from client.http import Http, Request, repeatedly
from client.transport import Credentials, Platform
from shared.schemas.examples import example
from shared.schemas.records import RecordIn
from tests.unit.client.world import RECORDS, REGISTRY, Clock

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def _no_pauses() -> Any:
    with stamina.set_testing(True, attempts=4):
        yield


class Service:
    """Answers discovery and tokens; everything else goes to `handler`."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.tokens = 0
        self.assertions: list[str] = []
        self.refuse_tokens: list[int] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/.well-known/pcehr":
            return httpx.Response(
                200,
                json={
                    "issuer": REGISTRY,
                    "token_endpoint": f"{REGISTRY}/v1/oauth/token",
                    "jwks_uri": REGISTRY,
                    "records_url": RECORDS,
                    "threshold": 2,
                    "registry_log": "pcehr/registry/z6Mk",
                    "records_log": "pcehr/records/z6Mk",
                    "witness_faults": 0,
                },
            )
        if request.url.path == "/v1/oauth/token":
            self.assertions.append(request.content.decode())
            if self.refuse_tokens:
                return httpx.Response(self.refuse_tokens.pop())
            self.tokens += 1
            return httpx.Response(
                200, json={"access_token": f"token-{self.tokens}", "token_type": "Bearer", "expires_in": 300}
            )
        return self.handler(request)


def platform_of(handler: Handler) -> tuple[Platform, Service, Clock]:
    service, clock = Service(handler), Clock()
    return Platform(REGISTRY, clock=clock, transport=httpx.MockTransport(service)), service, clock


counter = iter(range(10**6))
WHO = Credentials("did:key:z", lambda endpoint: f"assertion-{next(counter)}-for-{endpoint}")


def problem(code: str, status: int, detail: str = "No.", *, headers: Any = ()) -> httpx.Response:
    body = {"type": f"urn:pcehr:problem:{code}", "title": "No.", "status": status, "detail": detail, "code": code}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json", **dict(headers)})


def empty_page(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"items": [], "next": None})


async def all_grants(platform: Platform) -> list[Any]:
    return [grant async for grant in platform.grants(WHO, "given")]


async def test_a_token_is_used_until_shortly_before_its_end() -> None:
    platform, service, clock = platform_of(empty_page)
    await all_grants(platform)
    await all_grants(platform)
    assert service.tokens == 1
    clock.now += 269
    await all_grants(platform)
    assert service.tokens == 1
    clock.now += 1
    await all_grants(platform)
    assert service.tokens == 2


async def test_each_audience_and_party_has_its_own_token() -> None:
    platform, service, _ = platform_of(empty_page)
    assert await platform.token(WHO, "a") != await platform.token(WHO, "b")
    assert await platform.token(Credentials("did:key:y", lambda _: "x"), "a") == "token-3"
    assert service.tokens == 3


async def test_a_refused_token_is_fetched_anew_once() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return problem("unauthenticated", 401) if len(seen) == 1 else empty_page(request)

    platform, _, _ = platform_of(handler)
    assert await all_grants(platform) == []
    assert seen == ["Bearer token-1", "Bearer token-2"]


async def test_a_token_refused_twice_is_an_error() -> None:
    platform, service, _ = platform_of(lambda _: problem("unauthenticated", 401))
    with pytest.raises(ServiceRefused) as refusal:
        await all_grants(platform)
    assert (refusal.value.code, refusal.value.status) == ("unauthenticated", 401)
    assert service.tokens == 2
    assert "clock" in refusal.value.hint


async def test_an_assertion_is_never_sent_twice() -> None:
    platform, service, _ = platform_of(empty_page)
    service.refuse_tokens = [503, 503]
    await all_grants(platform)
    assert len(service.assertions) == len(set(service.assertions)) == 3


async def test_forgotten_tokens_are_fetched_anew() -> None:
    platform, service, _ = platform_of(empty_page)
    await all_grants(platform)
    platform.forget_tokens(WHO.did)
    await all_grants(platform)
    assert service.tokens == 2


@pytest.mark.parametrize("status", [503])
async def test_an_outage_is_repeated(status: int) -> None:
    calls = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        return problem("database_unavailable", status) if calls < 3 else empty_page(request)

    platform, _, _ = platform_of(handler)
    assert await all_grants(platform) == []
    assert calls == 3


async def test_no_answer_is_repeated_and_then_unreachable() -> None:
    calls = 0

    def handler(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        raise httpx.ConnectError("refused")

    platform, _, _ = platform_of(handler)
    with pytest.raises(ServiceUnreachable) as failure:
        await all_grants(platform)
    assert calls == 4
    assert RECORDS in failure.value.detail
    assert "running" in failure.value.hint


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("not_found", 404),
        ("version_conflict", 409),
        ("refused", 422),
        ("internal_error", 500),
        ("not_enough_proxies", 503),
    ],
)
async def test_a_decision_is_not_repeated(code: str, status: int) -> None:
    calls = 0

    def handler(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        return problem(code, status, "Because.")

    platform, _, _ = platform_of(handler)
    with pytest.raises(ServiceRefused) as refusal:
        await all_grants(platform)
    assert calls == 1
    assert (refusal.value.code, refusal.value.status) == (code, status)
    # What to quote to whoever runs the service, where the reason is on its side.
    assert re.fullmatch(r"Because\. \(trace [0-9a-f]{32}\)" if status >= 500 else r"Because\.", refusal.value.detail)
    assert hint_for(refusal.value)


async def test_what_came_too_soon_is_repeated_after_the_pause_asked_for() -> None:
    calls = 0
    pauses: list[float] = []

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        return problem("too_many_requests", 429, headers={"retry-after": "1"}) if calls < 2 else empty_page(request)

    platform, _, _ = platform_of(handler)
    hooks = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([lambda details: pauses.append(details.wait_for)])
    try:
        with stamina.set_testing(False):
            assert await all_grants(platform) == []
    finally:
        stamina.instrumentation.set_on_retry_hooks(hooks)
    assert (calls, pauses) == (2, [1.0])


@pytest.mark.parametrize("pause", [None, "0", "21", "3600", "-1", "1.5", "soon", "9" * 400, "\u0661"])
async def test_a_pause_that_nobody_would_wait_is_told_instead(pause: str | None) -> None:
    calls = 0

    def handler(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        headers = {} if pause is None else {"retry-after": pause.encode()}
        return problem("too_many_requests", 429, "Repeat the request in 3600 s.", headers=headers)

    platform, _, _ = platform_of(handler)
    with pytest.raises(ServiceRefused) as refusal:
        await all_grants(platform)
    assert calls == 1
    assert refusal.value.detail == "Repeat the request in 3600 s."
    assert "repeat the command" in hint_for(refusal.value)


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"code":1}', b"[" * 100_000])
async def test_a_refusal_that_is_no_problem_is_still_a_refusal(content: bytes) -> None:
    platform, _, _ = platform_of(lambda _: httpx.Response(418, content=content))
    with pytest.raises(ServiceRefused) as refusal:
        await all_grants(platform)
    assert refusal.value.code == "http_error"


async def test_a_refusal_cannot_write_to_the_terminal() -> None:
    platform, _, _ = platform_of(lambda _: problem("re\x1bfused", 422, "a\x1b[2Jb" + "c" * 10_000))
    with pytest.raises(ServiceRefused) as refusal:
        await all_grants(platform)
    assert "\x1b" not in refusal.value.detail + refusal.value.code
    assert len(refusal.value.detail) < 1000


MALFORMED_HASH = b'{"items":[{"id":"%s","grant":"","state":"active","received_at":1,"proxies":[],"disclosed":0}]}' % (
    b"!" * 43
)
"""Refused by the member's own check, whose exception pydantic lets through as it is."""


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[]", b'{"items":1}', b'{"items":[],"more":1}', b"[" * 100_000, MALFORMED_HASH],
)
async def test_an_answer_of_another_shape_is_unexpected(content: bytes) -> None:
    platform, _, _ = platform_of(lambda _: httpx.Response(200, content=content))
    with pytest.raises(UnexpectedAnswer):
        await all_grants(platform)


async def test_a_list_that_does_not_get_on_is_unexpected() -> None:
    platform, _, _ = platform_of(lambda _: httpx.Response(200, json={"items": [], "next": "same"}))
    with pytest.raises(UnexpectedAnswer):
        await all_grants(platform)


async def test_pages_are_followed_to_the_end() -> None:
    cursors: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        cursor = request.url.params.get("cursor")
        cursors.append(cursor)
        following = {None: "b", "b": "c", "c": None}[cursor]
        return httpx.Response(200, json={"items": [], "next": following})

    platform, _, _ = platform_of(handler)
    assert await all_grants(platform) == []
    assert cursors == [None, "b", "c"]


async def test_an_answer_is_read_up_to_its_bound_only() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 1000

    http = Http(httpx.MockTransport(lambda _: httpx.Response(200, content=endless())))
    with pytest.raises(AnswerTooLarge):
        await http.send(Request("GET", RECORDS), limit=10_000)
    assert sent < 20
    await http.close()


async def test_a_redirect_is_not_followed() -> None:
    platform, _, _ = platform_of(lambda _: httpx.Response(307, headers={"location": "http://elsewhere.test/"}))
    with pytest.raises(ServiceRefused) as refusal:
        await all_grants(platform)
    assert refusal.value.status == 307


async def test_a_batch_acknowledged_in_part_is_unexpected() -> None:
    platform, _, _ = platform_of(lambda _: httpx.Response(200, json={"items": []}))
    with pytest.raises(UnexpectedAnswer):
        await platform.add_records(WHO, [_record_in()])


@pytest.mark.parametrize("address", ["not a url", "ftp://registry.test", "http://[", "http://"])
async def test_an_address_that_is_none_is_unreachable(address: str) -> None:
    async with Platform(address) as platform:
        with pytest.raises(ServiceUnreachable):
            await platform.discovery()


async def test_nothing_but_outages_is_repeated() -> None:
    calls = 0

    async def operation() -> None:
        nonlocal calls
        calls += 1
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  Any other exception passes through as it is.
        await repeatedly(operation)
    assert calls == 1


def _record_in() -> Any:
    return RecordIn(**example("record"))
