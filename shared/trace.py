"""Which requests belong together, across processes: `traceparent` of W3C Trace Context.

W3C Recommendation of 23 November 2021, https://www.w3.org/TR/trace-context-1/, section 3.2. A trace id stands for a
whole operation of a client's, a span id for one request of it at one service. Both are random, and nothing about a
party can be read from them. `tracestate` is not passed on: it may hold anything at all, of anybody, and the services
belong to operators who need not trust each other.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

MAX_TRACEPARENT = 128
"""Characters; version 00 has 55, and a later one may add to them."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]*)?")
_SAMPLED = 0x01


@dataclass(frozen=True)
class Span:
    """One request at one service, or one piece of work in the background.

    `trace_id` is 32 and `span_id` 16 lower-case hexadecimal digits; `parent_id` is the span that asked for this one,
    None where this one began the trace. `sampled` says that the caller may keep what belongs to the trace.
    """

    trace_id: str
    span_id: str
    parent_id: str | None = None
    sampled: bool = True

    @property
    def traceparent(self) -> str:
        """The header for whatever is asked on behalf of this span."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"

    @property
    def request_id(self) -> str:
        """What names this one request to whom it was made by: `x-request-id`."""
        return f"{self.trace_id}-{self.span_id}"

    def child(self) -> Span:
        """Another span of the same trace, which this one has asked for."""
        return Span(self.trace_id, _random_id(8), self.span_id, self.sampled)


def new_trace() -> Span:
    """The first span of a new trace."""
    return Span(_random_id(16), _random_id(8))


def continue_trace(headers: Sequence[str]) -> Span:
    """The span of a request that came with these `traceparent` headers.

    It belongs to the caller's trace where there is exactly one header and it is well-formed; anything else is ignored
    and a new trace begins, as the Recommendation asks.
    """
    parent = parse_traceparent(headers[0]) if len(headers) == 1 else None
    return new_trace() if parent is None else parent.child()


def parse_traceparent(header: str) -> Span | None:
    """The span that a `traceparent` names, or None for what is none.

    Refused are upper-case digits, ids of zeros only, version ff, and for version 00 anything after the flags. Of a
    later version the four fields known here are read; unknown flags are dropped.
    """
    if len(header) > MAX_TRACEPARENT:
        return None
    match = _TRACEPARENT.fullmatch(header)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    if trace_id == 32 * "0" or span_id == 16 * "0":
        return None
    return Span(trace_id, span_id, sampled=bool(int(flags, 16) & _SAMPLED))


_current: ContextVar[Span | None] = ContextVar("pcehr_span", default=None)


def current() -> Span | None:
    """The span that the running task works for, if any."""
    return _current.get()


@contextmanager
def working_for(span: Span) -> Iterator[Span]:
    """Inside the block, and in tasks that it starts, `span` is the current one."""
    token = _current.set(span)
    try:
        yield span
    finally:
        _current.reset(token)


def _random_id(size: int) -> str:
    """Hexadecimal digits of so many random bytes, not all of them zero, which would mean 'none'."""
    while (made := secrets.token_bytes(size)) == bytes(size):
        pass
    return made.hex()
