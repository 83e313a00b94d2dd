"""What a party is told as it happens: server-sent events of the records service (docs/spec.md, section 14).

A notice proves nothing. It says where to look; what is there is fetched and verified as ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from pydantic import ValidationError

from client.errors import ServiceRefused, ServiceUnreachable, UnexpectedAnswer
from client.http import parse_json
from client.session import Session
from shared.errors import Malformed
from shared.schemas.records import NoticeOut

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_MAX_LINE = 16 * 1024
"""Characters; a notice has some hundreds."""
_LAST_NUMBER = 2**63 - 1
"""Beyond it no service takes a number back as where to go on."""


@dataclass(frozen=True)
class Notice:
    """One notice. `number` counts the party's notices and is what to go on after; times are seconds since the epoch."""

    number: int
    kind: str
    at: int
    other: str
    request: str | None
    grant: str | None
    count: int | None


async def follow(session: Session, after: int | None = None) -> AsyncIterator[Notice]:
    """Notices after number `after`, or from now on, each as it comes; goes on over as many streams as it takes.

    Raises `ServiceRefused` or `UnexpectedAnswer` for what waiting does not mend.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            async for number, notice in _one_stream(session, after):
                after, pause = number, _FIRST_PAUSE
                if notice is not None:
                    yield notice
            # The stream ended as it should, and the next one begins at once where it ended.
            pause = _FIRST_PAUSE
        except (ServiceUnreachable, ServiceRefused) as failure:
            if isinstance(failure, ServiceRefused) and failure.status not in (429, 503):
                raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


async def _one_stream(session: Session, after: int | None) -> AsyncIterator[tuple[int, Notice | None]]:
    """Where the stream has got to, and the notice that took it there; none at its beginning."""
    pieces = session.platform.events(await session.credentials(), after)
    fields: dict[str, str] = {}
    async for line in _lines(pieces):
        if line:
            name, _, value = line.partition(":")
            # A line that begins with a colon is a comment, which keeps the connection alive.
            if name:
                fields[name] = value.removeprefix(" ")
        elif fields:
            yield _event(fields)
            fields = {}


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Whole lines, of bounded length; raises `UnexpectedAnswer`."""
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > _MAX_LINE:
            raise UnexpectedAnswer("The records service sent a line without an end.")
        for line in whole:
            yield line.rstrip(b"\r").decode("utf-8", "replace")


def _event(fields: dict[str, str]) -> tuple[int, Notice | None]:
    try:
        number = int(fields["id"])
        if not 0 <= number <= _LAST_NUMBER:
            raise ValueError
        if "data" not in fields:
            return number, None
        told = NoticeOut.model_validate(parse_json(fields["data"].encode()))
    except (KeyError, ValueError, ValidationError, Malformed):
        raise UnexpectedAnswer("The records service sent an event that is not a notice.") from None
    kind = fields.get("event", "message")
    return number, Notice(number, kind, told.at, told.other, told.request, told.grant, told.count)
