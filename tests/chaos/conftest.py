"""A platform of a test's own: what is killed and filled up here is of no use to another test afterwards."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from client.embedded.platform import EmbeddedPlatform
from tests.conftest import temporary_folder
from tests.warm import WarmPlatform

WHOLE = os.environ.get("PCEHR_CHAOS") == "whole"
"""Whether `make chaos` runs: everything, and not the spread that every run of the suite has time for."""


@pytest.fixture
def chaos_home() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
async def platform(chaos_home: Path) -> AsyncIterator[EmbeddedPlatform]:
    async with WarmPlatform(chaos_home / "home", base_port=None) as running:
        yield running
