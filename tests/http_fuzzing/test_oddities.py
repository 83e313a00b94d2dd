"""Headers, queries and bodies that no schema speaks of, at every operation: refused or taken, as the document says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.http_fuzzing.conftest import Prepared

Headers = list[tuple[str, bytes]]

HEADERS: dict[str, Headers] = {
    "a range beyond everything": [("range", b"bytes=0-18446744073709551616")],
    "a range of nothing": [("range", b"bytes=-,,-1--5")],
    "an entity tag that is none": [("if-none-match", b'"\xff'), ("if-match", b"*, *")],
    "a date that is none": [("if-modified-since", b"Thu, 99 Foo 99999 99:99:99 GMT")],
    "a media type that nobody has": [("accept", b"application/nothing;q=9"), ("accept-charset", b"\xff")],
    "two media types": [("content-type", b"application/json"), ("content-type", b"text/plain")],
    "a media type with a charset that is none": [("content-type", b'application/json; charset="\xff"')],
    "an encoding that is not there": [("content-encoding", b"gzip")],
    "two access tokens": [("authorization", b"Bearer a.b.c"), ("authorization", b"Bearer d.e.f")],
    "an access token that is no text": [("authorization", b"Bearer \xff\xfe")],
    "another scheme": [("authorization", b"Basic AAAA")],
    "a trace that is none": [("traceparent", b"00-\xff-0-0"), ("tracestate", b"=" * 600)],
    "a last event beyond everything": [("last-event-id", b"9223372036854775808")],
    "a last event of many digits": [("last-event-id", b"9" * 5_000)],
    "a last event before everything": [("last-event-id", b"-1")],
    "two last events": [("last-event-id", b"1"), ("last-event-id", b"x")],
    "a host that nobody has": [("x-forwarded-host", b"\xff"), ("forwarded", b"for=\xff")],
}
QUERIES = {
    "a NUL": "q=%00&cursor=%00&grant=%00&scope=%00&box=%00&limit=%00&start=%00",
    "no UTF-8": "q=%ff%fe&cursor=%c0%80&grant=%ff&scope=%ff&box=%ff",
    "a surrogate": "q=%ed%a0%80&cursor=%ed%a0%80",
    "more than a bigint": "start=9223372036854775808&from=9223372036854775808&to=1&version=9223372036854775808",
    "many digits": f"limit={'9' * 5_000}&start={'9' * 5_000}&from={'9' * 5_000}&to=1&version={'9' * 5_000}",
    "the last of what is allowed": "limit=1&start=9007199254740991&from=0&to=9007199254740991&version=1000000",
    "twice": "limit=1&limit=2&box=inbox&box=sent&q=a&q=b&start=0&start=1",
    "no name": "=&&&=&;",
    "percent signs": "q=%&cursor=%zz&limit=%2",
    "a cursor that nobody gave": "cursor=AAAAAAAAAAA&limit=1&box=inbox&start=0",
    "the longest cursor": f"cursor={'_' * 256}&limit=1&box=given&start=0",
}
BODIES = {
    "nothing": b"",
    "no UTF-8": b'{"statement":"\xff\xfe"}',
    "a surrogate": b'{"statement":"\\ud800","grant":"\\ud800","request":"\\udfff"}',
    "a NUL": b'{"statement":"' + b"\\u0000" * 100 + b'"}',
    "no number": b'{"size":NaN,"leaves":[Infinity]}',
    "a number of many digits": b'{"size":' + b"9" * 5_000 + b"}",
    "nested deep": b"[" * 100_000,
    "a member twice": b'{"size":1,"size":2,"leaves":[]}',
    "no object": b"[null]",
    "a form that is none": b"grant_type=%ff&grant_type=%00&client_assertion=%ed%a0%80",
}
PLACES = ["%00", "%ff%fe", "%E2%80%AE", "did:key:%00", "..", "a" * 5_000]
"""What may stand where a path has a parameter."""


def operations(document: dict[str, Any], there: dict[str, str]) -> Iterator[tuple[str, str, set[str]]]:
    """Method, path and declared statuses; `there` has ids of what is there."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path.format_map(there), set(operation["responses"])


def odd_paths(document: dict[str, Any]) -> Iterator[tuple[str, str, set[str]]]:
    """The same for paths that lead nowhere."""
    for place in PLACES:
        nowhere = dict.fromkeys(("did", "record", "grant", "sha256"), place)
        yield from (one for one in operations(document, nowhere) if place in one[1])


def requests(method: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is tried with an operation: a name, and what goes to the HTTP client."""
    for name, headers in HEADERS.items():
        yield name, {"headers": headers, "content": b"{}" if method != "GET" else None}
    for name, query in QUERIES.items():
        yield name, {"query": query}
    if method != "GET":
        for name, body in BODIES.items():
            for media_type in (b"application/json", b"application/x-www-form-urlencoded", b"text/plain"):
                yield f"{name} as {media_type.decode()}", {"headers": [("content-type", media_type)], "content": body}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("service", ["registry", "records", "proxy"])
async def test_nothing_odd_breaks_an_operation(prepared: Prepared, service: str) -> None:
    platform, known = prepared.platform, await prepared.known(service, "patient")
    token = (await platform.token(prepared.parties["patient"], service)).encode()
    document = platform.apps[service].openapi()
    there = {
        "did": prepared.parties["patient"].did,
        "record": known.record,
        "grant": known.grant,
        "sha256": known.body_hash,
    }
    tries = [
        (operation, name, details)
        for operation in operations(document, there)
        for name, details in requests(operation[0])
    ]
    tries += [(operation, "a path that leads nowhere", {}) for operation in odd_paths(document)]
    wrong = []
    for (method, path, declared), name, details in tries:
        status, media_type = await _answer(platform.http, method, platform.urls[service] + path, token, **details)
        problem = status < 400 or media_type == "application/problem+json" or (path, status) == WITNESS_CONFLICT
        if status >= 500 or not problem or not (str(status) in declared or (status == 400 and "4XX" in declared)):
            wrong.append((method, path, name, status, media_type))
    assert wrong == []
    assert len(tries) > 400


WITNESS_CONFLICT = ("/v1/witness/add-checkpoint", 409)
"""The protocol of C2SP wants text there."""


async def _answer(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    token: bytes,
    *,
    headers: Headers = [],  # noqa: B006
    query: str = "",
    content: bytes | None = None,
) -> tuple[int, str]:
    """Status and media type; what comes after the head of an answer is of no interest here."""
    named = {name for name, _ in headers}
    own: Headers = [] if "authorization" in named else [("authorization", b"Bearer " + token)]
    request = httpx.Request(method, f"{url}?{query}", headers=[*own, *headers], content=content)
    response = await http.send(request, stream=True)
    await response.aclose()
    return response.status_code, response.headers.get("content-type", "")
