"""Project Wycheproof's vectors (https://github.com/C2SP/wycheproof, `testvectors_v1`, Apache License 2.0), cut down to
the members that are used here and grouped by key; nothing else of them is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Vector = dict[str, Any]


def load(name: str) -> list[Vector]:
    """Each test with its `key`; what is in hexadecimal stays so."""
    return list(_read(Path(__file__).with_name(f"{name}_test.json")))


def _read(path: Path) -> Iterator[Vector]:
    content = json.loads(path.read_text("ascii"))
    for group in content["groups"]:
        for test in group["tests"]:
            yield dict(zip(content["members"], test, strict=True)) | {"key": group["key"]}


def named(vector: Vector) -> str:
    """For the name of a test."""
    return f"{vector['id']}-{vector['result']}-{'-'.join(vector['flags'].split())}"
