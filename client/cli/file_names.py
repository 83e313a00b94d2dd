"""Names of files that others chose, made fit for a folder of this machine, or of the next one it is copied to.

Windows forbids more than others do, and ignores case as macOS does; what is written on one machine is often unpacked
on another, so its rules hold everywhere (Microsoft, "Naming Files, Paths, and Namespaces").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from shared.plain_text import unfit

MAX_BYTES = 200
"""Of a name in UTF-8; file systems allow 255, and a number may have to go in."""

_MAX_ENDING = 20
_BESIDES = frozenset(" .()+,-_")
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])", re.IGNORECASE)
"""Names of devices on Windows, whatever ending follows."""


def safe_name(said: str) -> str:
    """A name without what could lead elsewhere, hide the file, or name a device; empty where nothing is left of it.

    What follows the last slash or backslash counts. Letters of all scripts, digits and marks stay.
    """
    last = re.split(r"[/\\]", said)[-1]
    normal = unicodedata.normalize("NFC", last)
    bad = set(unfit(normal))
    kept = "".join("_" if at in bad or not _is_kept(char) else char for at, char in enumerate(normal))
    name = kept.lstrip(". -").rstrip(". ")
    if _RESERVED.fullmatch(name.partition(".")[0].rstrip(" ")):
        name = f"_{name}"
    return _shortened(name, "").rstrip(". ")


class FileNames:
    """The names in one folder, such that no two of them differ in case or normalization alone."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = {_folded(name) for name in taken}
        self._next: dict[str, int] = {}

    def free(self, name: str) -> str:
        """This name, or the first one like it with a number that is not taken; it is taken from now on."""
        found, number = name, self._next.get(_folded(name), 2)
        while _folded(found) in self._taken:
            found = _shortened(name, f"-{number}")
            number += 1
        self._next[_folded(name)] = number
        self._taken.add(_folded(found))
        return found


def _is_kept(char: str) -> bool:
    return char in _BESIDES or unicodedata.category(char)[0] in "LMN" or char in "\u200c\u200d"


def _shortened(name: str, number: str) -> str:
    """The name with the number before its ending, in no more than `MAX_BYTES`; the ending stays as it is."""
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending.encode()) > _MAX_ENDING:
        stem, dot, ending = name, "", ""
    tail = f"{number}{dot}{ending}"
    # Cut between characters, not within the bytes of one.
    stem = stem.encode()[: MAX_BYTES - len(tail.encode())].decode("utf-8", "ignore")
    return stem + tail


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
