"""What is searched for, in each form in which it could be lying about, and the search for all of it at once."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ahocorasick_rs import BytesAhoCorasick

_OVERLAP = 8_192
"""Bytes that two pieces of a medium share, so that nothing is missed where one ends; no form is longer."""
_SHORTEST = 12
"""Bytes of a form: fewer occur by chance."""


@dataclass(frozen=True)
class Needle:
    """One secret: what kind of one it is, its bytes, and the one service, if any, that holds it by right."""

    kind: str
    value: bytes
    holder: str | None = None

    def __repr__(self) -> str:
        return f"<{self.kind} of {self.holder or 'a party'}>"


def forms(value: bytes) -> Iterator[bytes]:
    """As it is, reversed (numbers in memory are little-endian), hexadecimal, base64, UTF-16, in JSON, compressed."""
    yield value
    yield value[::-1]
    yield value.hex().encode()
    yield value.hex().upper().encode()
    for offset in range(3):
        # The characters that depend on what stands before and after are cut off.
        plain = base64.b64encode(bytes(offset) + value)
        inner = plain[-(-offset * 4 // 3) : len(plain) - (0 if (offset + len(value)) % 3 == 0 else 4)]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))
    yield zlib.compress(value)[2:-4]
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return
    yield text.encode("utf-16-le")
    yield text.encode("utf-16-be")
    yield json.dumps(text)[1:-1].encode()


class Search:
    """Looks for all needles at once."""

    def __init__(self, needles: Iterable[Needle]) -> None:
        self._of_pattern: dict[bytes, Needle] = {}
        for needle in needles:
            for form in forms(needle.value):
                if len(form) >= _SHORTEST:
                    self._of_pattern.setdefault(form, needle)
        self._patterns = list(self._of_pattern)
        assert max(map(len, self._patterns)) <= _OVERLAP
        self._automaton = BytesAhoCorasick(self._patterns)

    @property
    def size(self) -> int:
        """How many forms are looked for."""
        return len(self._patterns)

    def found(self, medium: Iterable[bytes]) -> set[Needle]:
        """The needles in a medium that comes in pieces, each of which follows the one before."""
        seen: set[int] = set()
        before = b""
        for piece in medium:
            joined = before + piece
            seen.update(index for index, _, _ in self._automaton.find_matches_as_indexes(joined))
            before = joined[-_OVERLAP:]
        return {self._of_pattern[self._patterns[index]] for index in seen}
