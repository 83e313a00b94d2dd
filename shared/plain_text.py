"""Text that people read and somebody else wrote: which characters have no place in it.

A terminal obeys control characters, and so it may obey whoever chose a name; characters that change the direction of
reading, or that show nothing, make one text look like another. They are found here by their category in the Unicode
Character Database, version `unicodedata.unidata_version`, and refused in names (`shared.wire.Label`) or replaced where
something is shown (`client.cli.output`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_UNFIT_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls, formats, surrogates, private use, unassigned, and the separators of lines and paragraphs."""

_SHOW_NOTHING = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Marks, fillers and a Braille pattern of other categories that are invisible all the same."""

_NON_JOINER, _JOINER = "\u200c", "\u200d"
_VIRAMA = 9
"""Canonical combining class of the sign that takes the vowel from a consonant in the scripts of India."""

_NOT_PRINTABLE_ASCII = re.compile(r"[^\x20-\x7e]")


def is_unfit(character: str) -> bool:
    """Whether a character on its own has no place in a text for people."""
    return unicodedata.category(character) in _UNFIT_CATEGORIES or character in _SHOW_NOTHING


def unfit(text: str) -> Iterator[int]:
    """Indexes of the characters that have no place in a text for people, in order.

    Joiners are format characters, and some scripts cannot be written without them: both may follow a virama, and the
    non-joiner may stand between two Arabic letters, as RFC 5892, appendix A, allows them in domain names.
    """
    for match in _NOT_PRINTABLE_ASCII.finditer(text):
        if is_unfit(match[0]) and not _joins(text, match.start()):
            yield match.start()


def _joins(text: str, at: int) -> bool:
    if text[at] not in (_NON_JOINER, _JOINER) or at == 0:
        return False
    if unicodedata.combining(text[at - 1]) == _VIRAMA:
        return True
    around = (text[at - 1], text[at + 1 : at + 2] or " ")
    return text[at] == _NON_JOINER and all(unicodedata.bidirectional(letter) == "AL" for letter in around)
