"""Opaque positions in lists: the number of the last row seen, so that a page costs the same wherever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from shared.encoding import b64url, from_b64url
from shared.errors import Malformed


class Numbered(Protocol):
    @property
    def number(self) -> int: ...


Row = TypeVar("Row", bound=Numbered)


def encode(number: int) -> str:
    """The cursor of a row: its number, 8 bytes, in base64url."""
    return b64url(number.to_bytes(8, "big"))


def decode(cursor: str | None) -> int | None:
    """The number behind a cursor; raises `Malformed` for a text that no page has given out."""
    if cursor is None:
        return None
    number = int.from_bytes(from_b64url(cursor, 8), "big")
    if number >= 2**63:
        raise Malformed("The cursor is not one that this list gave out.")
    return number


def page(rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], str | None]:
    """The first `limit` of the rows, of which one more was asked for, and the cursor of the next page if any."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], encode(rows[limit - 1].number)
