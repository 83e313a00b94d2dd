"""So many executions of one decoder on changed samples, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.fuzz.decoder import Decoder, execute
from tests.fuzz.mutation import mutate

_KEPT = 200
"""Accepted inputs that join the samples, so that later changes build on them."""


def inputs(decoder: Decoder, seed: int) -> Iterator[bytes]:
    """Changed samples without end; whoever takes one says by `send(True)` that it was accepted."""
    random = Random(f"{seed} {decoder.name}")
    corpus = list(decoder.samples) or [b""]
    while True:
        data = mutate(random.choice(corpus), random, corpus)
        if (yield data) and len(corpus) < _KEPT:
            corpus.append(data)


def campaign(decoder: Decoder, executions: int, seed: int) -> int:
    """How many of the inputs were accepted; raises `Broken`."""
    changed, accepted = inputs(decoder, seed), 0
    data = next(changed)
    for _ in range(executions):
        took = execute(decoder, data)
        accepted += took
        data = changed.send(took)
    return accepted
