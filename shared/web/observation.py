"""Watches every request from outside: its trace, its line in the log, and its place in the figures."""

from __future__ import annotations

import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import trace
from shared.web.access import PROBES
from shared.web.metrics import Metrics
from shared.web.tracing import span_of

UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
log = logging.getLogger("pcehr.access")


class ObserveRequests:
    """ASGI middleware, the outermost: begins the span, says its id in `x-request-id`, counts, times and logs.

    Route templates take the place of paths, and what is neither a route nor a common method has one name: a path may
    hold a DID, and any text at all would make any number of figures.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500
        started = time.perf_counter()
        with trace.working_for(span_of(scope)) as span:

            async def noting_send(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    MutableHeaders(scope=message)["x-request-id"] = span.request_id
                await send(message)

            try:
                await self.app(scope, receive, noting_send)
            finally:
                self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.seconds.labels(method, route).observe(seconds)
        log.log(
            _level(route, status),
            "request",
            extra={"method": method, "route": route, "status": status, "duration_ms": round(seconds * 1000, 1)},
        )


def _level(route: str, status: int) -> int:
    """What fails on this side is a warning; probes that succeed are many, and nobody wants to read them."""
    if status >= 500:
        return logging.WARNING
    return logging.DEBUG if route in PROBES and status < 400 else logging.INFO
