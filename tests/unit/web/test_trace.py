"""`traceparent` by the letter of W3C Trace Context: what is continued, and what begins a new trace."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from shared import trace
from shared.web.tracing import service_client

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"


def test_a_valid_traceparent_is_continued() -> None:
    span = trace.continue_trace([GOOD])
    assert (span.trace_id, span.parent_id, span.sampled) == (TRACE, PARENT, True)
    assert re.fullmatch("[0-9a-f]{16}", span.span_id)
    assert span.span_id != PARENT
    assert span.traceparent == f"00-{TRACE}-{span.span_id}-01"


@pytest.mark.parametrize(
    ("flags", "sampled", "sent"),
    [("00", False, "00"), ("01", True, "01"), ("02", False, "00"), ("ff", True, "01")],
)
def test_of_the_flags_only_the_known_one_goes_on(flags: str, sampled: bool, sent: str) -> None:
    span = trace.continue_trace([f"00-{TRACE}-{PARENT}-{flags}"])
    assert span.sampled is sampled
    assert span.traceparent.endswith(f"-{sent}")


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(f"01-{TRACE}-{PARENT}-01", id="as-long-as-version-00"),
        pytest.param(f"01-{TRACE}-{PARENT}-01-what-comes-later", id="with-more-after-the-flags"),
        pytest.param(f"cc-{TRACE}-{PARENT}-01-", id="with-a-hyphen-after-the-flags"),
    ],
)
def test_a_later_version_is_read_as_far_as_it_is_known(header: str) -> None:
    span = trace.continue_trace([header])
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
    assert span.traceparent.startswith("00-")


HOSTILE = {
    "empty": "",
    "no-fields": "x",
    "version-ff": f"ff-{TRACE}-{PARENT}-01",
    "version-of-one-digit": f"0-{TRACE}-{PARENT}-01",
    "version-that-is-no-number": f"0x-{TRACE}-{PARENT}-01",
    "trace-id-of-zeros": f"00-{32 * '0'}-{PARENT}-01",
    "parent-id-of-zeros": f"00-{TRACE}-{16 * '0'}-01",
    "trace-id-in-upper-case": f"00-{TRACE.upper()}-{PARENT}-01",
    "parent-id-in-upper-case": f"00-{TRACE}-{PARENT.upper()}-01",
    "flags-in-upper-case": f"00-{TRACE}-{PARENT}-0A",
    "trace-id-too-short": f"00-{TRACE[:-1]}-{PARENT}-01",
    "trace-id-too-long": f"00-{TRACE}0-{PARENT}-01",
    "parent-id-too-short": f"00-{TRACE}-{PARENT[:-1]}-01",
    "flags-too-long": f"00-{TRACE}-{PARENT}-011",
    "flags-missing": f"00-{TRACE}-{PARENT}",
    "no-hexadecimal": f"00-{TRACE[:-1]}g-{PARENT}-01",
    "more-in-version-00": f"{GOOD}-more",
    "hyphen-after-version-00": f"{GOOD}-",
    "no-hyphen-before-more": f"01-{TRACE}-{PARENT}-01more",
    "other-separator": GOOD.replace("-", "_"),
    "space-before": f" {GOOD}",
    "space-after": f"{GOOD} ",
    "line-feed-after": f"{GOOD}\n",
    "two-in-one": f"{GOOD},{GOOD}",
    "digits-of-another-script": f"00-{TRACE[:-1]}\u0661-{PARENT}-01",
    "a-log-line": f'00-{TRACE}-{PARENT}-01","message":"forged',
    "longer-than-the-bound": f"01-{TRACE}-{PARENT}-01-{'a' * trace.MAX_TRACEPARENT}",
}


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_malformed_traceparent_is_ignored_and_a_new_trace_begins(header: str) -> None:
    assert trace.parse_traceparent(header) is None
    span = trace.continue_trace([header])
    assert re.fullmatch("[0-9a-f]{32}", span.trace_id)
    assert span.trace_id not in (TRACE, 32 * "0")
    assert span.parent_id is None


@pytest.mark.parametrize("headers", [[], [GOOD, GOOD]], ids=["none", "two"])
def test_without_exactly_one_traceparent_a_new_trace_begins(headers: list[str]) -> None:
    span = trace.continue_trace(headers)
    assert span.trace_id != TRACE
    assert span.parent_id is None


def test_what_is_made_here_is_valid_and_never_the_same() -> None:
    made = [trace.new_trace() for _ in range(100)]
    assert len({span.trace_id for span in made}) == len({span.span_id for span in made}) == 100
    for span in made:
        assert trace.parse_traceparent(span.traceparent) == trace.Span(span.trace_id, span.span_id)


def test_a_span_is_current_inside_its_block_only() -> None:
    outer, inner = trace.new_trace(), trace.new_trace()
    assert trace.current() is None
    with trace.working_for(outer):
        with trace.working_for(inner):
            assert trace.current() is inner
        assert trace.current() is outer
    assert trace.current() is None


async def test_every_call_to_another_service_carries_the_current_trace() -> None:
    sent: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["traceparent"])
        return httpx.Response(200)

    async with service_client(5, httpx.MockTransport(answer)) as http:
        with trace.working_for(trace.continue_trace([GOOD])) as span:
            await asyncio.gather(*(http.get("http://other.test/") for _ in range(3)))
        # In the background nobody has asked, and each call is a trace of its own.
        await http.get("http://other.test/")
        await http.get("http://other.test/")
    assert sent[:3] == 3 * [span.traceparent]
    assert len({trace_of(header) for header in sent}) == 3


def trace_of(header: str) -> str:
    parsed = trace.parse_traceparent(header)
    assert parsed is not None
    return parsed.trace_id
