"""One request over HTTP: bounded answers, problems as errors, and repeating what may be repeated.

Every operation of the platform may be repeated as it is, because the same statement has one effect. Repeated is only
what had no answer, what was answered with 503 and says by that that nothing was changed, and what came too soon after
others: that after the pause the service asks for, if it is one that a person would wait.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import stamina

from client import config
from client.errors import AnswerTooLarge, InsecureAddress, ServiceRefused, ServiceUnreachable, UnexpectedAnswer
from client.loopback import Loopback
from shared.tls import HttpsRequired, only_in_private, trust
from shared.trace import new_trace

MAX_JSON = 64 * 1024 * 1024
"""Bytes; a page of a hundred records with their bodies stays below a fifth of it."""

_MAX_PROBLEM = 64 * 1024
_MAX_DETAIL = 600
_ATTEMPTS = 4
_MAX_WAIT = 5.0
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_LIMITS = httpx.Limits(max_connections=20, max_keepalive_connections=10)
_LONGEST_PAUSE = 20
"""Seconds; who asks for a longer pause is told to the person instead."""
_FINAL_503 = frozenset({"not_enough_proxies"})
"""Refusals with 503 that are an answer and not an outage."""

T = TypeVar("T")
Body = Callable[[], AsyncIterator[bytes]]
"""Makes the body of a request anew for each attempt."""


@dataclass(frozen=True)
class Request:
    """One HTTP request. `body` streams; `json` and `form` are sent whole."""

    method: str
    url: str
    params: Mapping[str, str | int] | None = None
    json: Any = None
    form: Mapping[str, str] | None = None
    body: Body | None = None
    length: int | None = None
    token: str | None = None
    last_event_id: int | None = None


class Http:
    """One httpx client, opened and closed with the platform.

    All its requests belong to one trace (W3C Trace Context), which services pass on and write into their logs, so that
    whoever runs them can find out what became of a command. Its id is random and of this object alone: two commands
    cannot be told to be of the same person by it.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        tls = trust(config.ca_file())
        self._trace = new_trace()
        self._client = httpx.AsyncClient(
            timeout=_TIMEOUT,
            verify=tls,
            transport=transport,
            follow_redirects=False,
            # An HTTP proxy that the environment names has no business with services on this machine.
            mounts={
                **dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]")),
                "all://*.localhost": Loopback(transport or httpx.AsyncHTTPTransport(verify=tls, limits=_LIMITS)),
            },
            limits=_LIMITS,
            event_hooks={"request": [only_in_private] if config.require_https() else []},
            # A few compressed bytes become gigabytes before anybody can count them; services here compress nothing.
            headers={"accept": "application/json", "accept-encoding": "identity"},
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def send(self, request: Request, *, limit: int = MAX_JSON) -> bytes:
        """The body of a successful answer, of at most `limit` bytes.

        Raises `ServiceRefused`, `ServiceUnreachable` or `AnswerTooLarge`.
        """
        answer = bytearray()
        async for piece in self.stream(request, limit=limit):
            answer += piece
        return bytes(answer)

    async def stream(self, request: Request, *, limit: int) -> AsyncIterator[bytes]:
        """The body of a successful answer in pieces; raises as `send` does, also in the middle."""
        received = 0
        try:
            async with self._client.stream(
                request.method,
                request.url,
                params=dict(request.params) if request.params else None,
                json=request.json,
                data=dict(request.form) if request.form else None,
                content=request.body() if request.body else None,
                headers=_headers(request) | {"traceparent": self._trace.child().traceparent},
            ) as response:
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise UnexpectedAnswer(f"{_host(request.url)} compressed its answer, which was not asked for.")
                if not response.is_success:
                    raise await _refusal(response, self._trace.trace_id)
                async for piece in response.aiter_bytes():
                    received += len(piece)
                    if received > limit:
                        raise AnswerTooLarge
                    yield piece
        except HttpsRequired:
            raise InsecureAddress(
                f"{_host(request.url)} is not reached by https, which PCEHR_REQUIRE_HTTPS asks for."
            ) from None
        except (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError):
            raise ServiceUnreachable(f"{_host(request.url)} could not be reached.") from None


async def repeatedly(operation: Callable[[], Awaitable[T]], *, attempts: int = _ATTEMPTS) -> T:
    """The result of `operation`, tried again with growing pauses while nobody answers or the answer is an outage."""
    async for attempt in stamina.retry_context(
        on=_may_be_repeated, attempts=attempts, timeout=60.0, wait_initial=0.2, wait_max=_MAX_WAIT, wait_jitter=0.2
    ):
        with attempt:
            return await operation()
    raise ServiceUnreachable


def parse_json(data: bytes) -> Any:
    """Parse an answer; raises `UnexpectedAnswer`."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise UnexpectedAnswer from None


def _may_be_repeated(error: Exception) -> bool | float:
    """Whether to try again; a number is the pause in seconds."""
    if isinstance(error, ServiceRefused):
        if error.code == "too_many_requests":
            pause = error.retry_after
            return float(pause) if pause is not None and 0 < pause <= _LONGEST_PAUSE else False
        return error.status == 503 and error.code not in _FINAL_503
    return isinstance(error, ServiceUnreachable)


def _headers(request: Request) -> dict[str, str]:
    headers = {}
    if request.token is not None:
        headers["authorization"] = f"Bearer {request.token}"
    if request.body is not None:
        headers["content-type"] = "application/octet-stream"
        headers["content-length"] = str(request.length)
    if request.last_event_id is not None:
        headers["last-event-id"] = str(request.last_event_id)
    return headers


async def _refusal(response: httpx.Response, trace_id: str) -> ServiceRefused:
    data = bytearray()
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > _MAX_PROBLEM:
            break
    status = response.status_code
    # What to quote to whoever runs the service; a refusal with 4xx says by itself what is wrong.
    trace = f" (trace {trace_id})" if status >= 500 else ""
    try:
        problem = json.loads(bytes(data[:_MAX_PROBLEM]))
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ServiceRefused("http_error", status, f"{_host(str(response.url))} answered with status {status}.{trace}")
    return ServiceRefused(_plain(code, 64), status, _plain(detail, _MAX_DETAIL) + trace, retry_after=_pause(response))


def _pause(response: httpx.Response) -> int | None:
    """Retry-After in seconds (RFC 9110 section 10.2.3), the form that services here use; None for anything else."""
    value = response.headers.get("retry-after", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def _plain(text: str, size: int) -> str:
    """What a service says, fit for a terminal: no control characters, no more than `size` characters."""
    return "".join(character for character in text[:size] if character.isprintable())


def _host(url: str) -> str:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return "The address"
    return f"{parts.scheme}://{parts.netloc.decode('ascii', 'replace')}"
