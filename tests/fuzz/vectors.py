"""Valid inputs out of the committed test vectors, so that a failing input fails in any other process as well."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[1] / "vectors"


@cache
def accepted(kind: str) -> list[dict[str, Any]]:
    """The vectors of this kind that must be accepted, at least one."""
    found = [
        vector
        for path in sorted(_FOLDER.glob("*.json"))
        for vector in json.loads(path.read_text("ascii"))["vectors"]
        if (vector["kind"], vector["expect"]) == (kind, "ok")
    ]
    assert found, kind
    return found


def inputs(kind: str, member: str = "data") -> list[bytes]:
    """One member, in hexadecimal, of each accepted vector of this kind."""
    return [bytes.fromhex(vector[member]) for vector in accepted(kind)]
