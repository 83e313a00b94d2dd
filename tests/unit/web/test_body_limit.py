"""What a request says of its own length is believed only where it is a number within the bound."""

from __future__ import annotations

from typing import Any

import pytest

from shared.web.limits import DEFAULT_BODY_LIMIT, BodyLimit


async def status_for(declared: bytes) -> int:
    """The status that a request is answered with whose Content-Length is this; 200 where it gets through."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", declared)]}
    await BodyLimit(app, {})(scope, send, send)  # type: ignore[arg-type]
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    "declared", [b"", b"-1", b"1_0", b"\xb2", b"%d" % (DEFAULT_BODY_LIMIT + 1), b"9" * 5_000], ids=len
)
async def test_a_length_that_is_none_or_too_large_is_refused(declared: bytes) -> None:
    assert await status_for(declared) == 413


@pytest.mark.parametrize("declared", [b"0", b"%d" % DEFAULT_BODY_LIMIT])
async def test_a_length_within_the_bound_gets_through(declared: bytes) -> None:
    assert await status_for(declared) == 200
