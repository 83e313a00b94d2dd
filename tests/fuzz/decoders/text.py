"""Bytes as the text that a decoder of text is given."""

from __future__ import annotations

from collections.abc import Callable


def text(data: bytes) -> str:
    """Any bytes as a string. What is no UTF-8 becomes lone surrogates, which JSON can carry into a string too."""
    return data.decode("utf-8", "surrogateescape")


def raw(text: str) -> bytes:
    """The inverse of `text`."""
    return text.encode("utf-8", "surrogateescape")


def of_text(use: Callable[[str], str | None]) -> Callable[[bytes], bytes | None]:
    """A decoder of text as one of bytes."""

    def run(data: bytes) -> bytes | None:
        again = use(text(data))
        return None if again is None else raw(again)

    return run
