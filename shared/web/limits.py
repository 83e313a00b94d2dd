"""Bounds the size of request bodies before anything reads them, and sets the headers every response carries."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import TooLarge
from shared.web.problems import problem_response

DEFAULT_BODY_LIMIT = 512 * 1024
"""Bytes; enough for any single statement and what goes with it."""

_MAX_DIGITS = 20
"""Of a Content-Length; a length of 64 bits has no more."""

_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}
_HSTS = "max-age=63072000"
"""Two years; not for subdomains, which may belong to others."""
_CSP = "default-src 'none'; frame-ancestors 'none'"
# Swagger UI starts from an inline script and draws inline SVG, so its page alone gets a wider policy.
_DOCS_CSP = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; frame-ancestors 'none'"
)


class BodyLimit:
    """ASGI middleware: a body longer than the operation's bound is refused with 413 before it is parsed.

    `limits` maps "METHOD /path/prefix" to bytes; the longest matching prefix counts.
    """

    def __init__(self, app: ASGIApp, limits: Mapping[str, int]) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = body_limit(self.limits, scope["method"], scope["path"])
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        if declared is not None and not _is_at_most(declared, limit):
            await problem_response(TooLarge(f"The body may have at most {limit} bytes."))(scope, receive, send)
            return
        received, exceeded, started = 0, False, False

        async def counting_receive() -> Message:
            nonlocal received, exceeded
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    exceeded = True
                    raise TooLarge(f"The body may have at most {limit} bytes.")
            return message

        async def watching_send(message: Message) -> None:
            nonlocal started
            # FastAPI answers 400 to whatever is raised while it reads a body, so its answer is not the one to send.
            if started or not exceeded:
                started = True
                await send(message)

        try:
            await self.app(scope, counting_receive, watching_send)
        except TooLarge:
            if not exceeded:
                raise
        if exceeded and not started:
            await problem_response(TooLarge(f"The body may have at most {limit} bytes."))(scope, receive, send)


def _is_at_most(declared: bytes, limit: int) -> bool:
    """Whether a Content-Length is a number up to `limit`. One of thousands of digits is not even counted out."""
    return declared.isdigit() and len(declared) <= _MAX_DIGITS and int(declared) <= limit


class ResponseHeaders:
    """ASGI middleware: no caching, sniffing or framing, a content security policy, and after https never http again.

    Nothing is said about other origins, so that no page of theirs reads an answer (CORS).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def adding_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if scope.get("scheme") == "https":
                    headers.setdefault("strict-transport-security", _HSTS)
                headers.setdefault("content-security-policy", _DOCS_CSP if scope["path"] == "/docs" else _CSP)
            await send(message)

        await self.app(scope, receive, adding_send if scope["type"] == "http" else send)


def body_limit(limits: Mapping[str, int], method: str, path: str) -> int:
    """The bound in bytes for one operation."""
    matching = [prefix for prefix in limits if f"{method} {path}".startswith(prefix)]
    return limits[max(matching, key=len)] if matching else DEFAULT_BODY_LIMIT
