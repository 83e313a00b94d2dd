"""A platform of a test's own: what is killed and filled up here is of no use to another test afterwards."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from client.embedded.platform import EmbeddedPlatform
from tests.conftest import temporary_folder
from tests.warm import WarmChild, WarmPlatform

WHOLE = os.environ.get("PCEHR_CHAOS") == "whole"
"""Whether `make chaos` runs: everything, and not the spread that every run of the suite has time for."""


class Hasty(WarmChild):
    """Tries again a second after a failure at the latest: what is away here is soon back, and somebody waits for it."""

    def __init__(self, command: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str]) -> None:
        super().__init__(command, log=log, cwd=cwd, env={**env, "PCEHR_OUTBOX_MAX_BACKOFF_SECONDS": "1"})


class HastyPlatform(WarmPlatform):
    process = Hasty


@pytest.fixture
def chaos_home() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
async def platform(chaos_home: Path) -> AsyncIterator[EmbeddedPlatform]:
    async with HastyPlatform(chaos_home / "home", base_port=None) as running:
        yield running
