"""Which functions of the project the registry's decoders really run, seen by Python's own profiler."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from random import Random
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.decoder import Broken, Decoder, execute
from tests.fuzz.discovery import ROOT
from tests.fuzz.mutation import mutate

_CHANGED = 10
"""Inputs beside the samples, since some of the way is taken by what is refused only."""


def reached(decoders: Iterable[Decoder]) -> set[str]:
    """The qualified names of all functions that run while the decoders take their samples and some changed ones."""
    codes: set[CodeType] = set()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            codes.add(frame.f_code)

    random = Random(1)
    for decoder in decoders:
        inputs = [*decoder.samples, *(mutate(_any(decoder, random), random, decoder.samples) for _ in range(_CHANGED))]
        sys.setprofile(profile)
        try:
            for data in inputs:
                with suppress(Broken):
                    execute(decoder, data)
        finally:
            sys.setprofile(None)
    return {name for code in codes if (name := _qualified(code))}


def _any(decoder: Decoder, random: Random) -> bytes:
    return random.choice(decoder.samples) if decoder.samples else b""


def _qualified(code: CodeType) -> str | None:
    if not code.co_filename.startswith(f"{ROOT}/"):
        return None
    path = code.co_filename.removeprefix(f"{ROOT}/").removesuffix(".py").removesuffix("/__init__")
    return f"{path.replace('/', '.')}.{code.co_qualname}"
