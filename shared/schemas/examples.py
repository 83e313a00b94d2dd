"""Examples for the OpenAPI documents: real statements, signed by parties whose seeds are public test values.

`examples.json` is written by `python -m tests.examples.generate`; since key-entries never lapse, those in it can be
posted as they are from Swagger UI.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _examples() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files("shared.schemas").joinpath("examples.json").read_text("utf-8"))
    return loaded


def example(name: str) -> Any:
    """The example of this name; an unknown name is a mistake in the caller and raises KeyError."""
    return _examples()[name]
