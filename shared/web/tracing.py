"""The trace of a request across services: taken from whoever asks, handed on to whoever is asked."""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
from starlette.types import Scope

from shared import trace


def span_of(scope: Scope) -> trace.Span:
    """The span of an incoming request: in the caller's trace if it names one properly, else in a new one."""
    headers = [value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"]
    return trace.continue_trace(headers)


def service_client(timeout: float, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """The client by which a service asks others; `timeout` in seconds is for each step of a request.

    Every request carries the trace of what it is made for. No cookie is kept: one party's answers must leave no trace
    in what is asked for others.
    """
    return httpx.AsyncClient(
        timeout=timeout,
        transport=transport,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        event_hooks={"request": [_hand_on]},
    )


async def _hand_on(request: httpx.Request) -> None:
    request.headers["traceparent"] = (trace.current() or trace.new_trace()).traceparent
