"""What the client makes of a stream of events, also of one that a dishonest records service sends."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from client.errors import UnexpectedAnswer
from client.notices import _event, _lines

DID = "did:key:z6Mkix354vg5XQCL8eGLSC3ASLG9eNdq7qghLNYUtSp28oiL"
DATA = f'{{"at":1767225600,"other":"{DID}","count":2}}'


async def lines_of(*pieces: bytes) -> list[str]:
    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [line async for line in _lines(stream())]


async def test_lines_are_whole_however_they_arrive() -> None:
    assert await lines_of(b"id", b": 1\r", b"\nda", b"ta: x\n", b"\n") == ["id: 1", "data: x", ""]


async def test_a_line_without_an_end_is_refused() -> None:
    with pytest.raises(UnexpectedAnswer):
        await lines_of(*[b"x" * 8192] * 4)


def test_an_event_is_read() -> None:
    number, notice = _event({"id": "7", "event": "disclosed", "data": DATA})
    assert (number, notice.kind, notice.other, notice.count, notice.grant) == (7, "disclosed", DID, 2, None)


def test_an_id_alone_says_where_the_stream_begins() -> None:
    assert _event({"id": "7"}) == (7, None)


@pytest.mark.parametrize(
    "fields",
    [
        {"data": DATA},
        {"id": "x", "data": DATA},
        {"id": "1", "data": "no JSON"},
        {"id": "1", "data": "[]"},
        {"id": "1", "data": '{"at":1,"other":"nobody"}'},
        {"id": "1", "data": DATA.replace("z6Mki", "z6Mk0")},
        {"id": "-1", "data": DATA},
        {"id": str(2**63), "data": DATA},
        {"id": "1", "data": DATA[:-1] + ',"count":0}'},
    ],
)
def test_what_is_no_notice_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(UnexpectedAnswer):
        _event(fields)
