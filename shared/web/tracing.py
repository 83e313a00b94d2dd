"""The trace of a request across services: taken from whoever asks, handed on to whoever is asked."""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path

import httpx
from starlette.types import Scope

from shared import trace
from shared.tls import only_in_private, trust


def span_of(scope: Scope) -> trace.Span:
    """The span of an incoming request: in the caller's trace if it names one properly, else in a new one."""
    headers = [value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"]
    return trace.continue_trace(headers)


def service_client(
    timeout: float,
    transport: httpx.AsyncBaseTransport | None = None,
    *,
    ca_file: Path | None = None,
    require_https: bool = False,
) -> httpx.AsyncClient:
    """The client by which a service asks others; `timeout` in seconds is for each step of a request.

    Peers are trusted by the certificates in `ca_file` alone, where it is given; with `require_https` none is asked
    without TLS but on this machine. Every request carries the trace of what it is made for. No cookie is kept: one
    party's answers must leave no trace in what is asked for others.
    """
    return httpx.AsyncClient(
        timeout=timeout,
        transport=transport,
        # Whatever stands in for the network makes no connections, and reading all authorities takes long.
        verify=trust(ca_file) if transport is None else True,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        event_hooks={"request": [*([only_in_private] if require_https else []), _hand_on]},
    )


async def _hand_on(request: httpx.Request) -> None:
    request.headers["traceparent"] = (trace.current() or trace.new_trace()).traceparent
