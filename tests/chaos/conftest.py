"""A platform of a test's own: what is killed and filled up here is of no use to another test afterwards."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from client.embedded.platform import EmbeddedPlatform
from tests.conftest import temporary_folder

WHOLE = os.environ.get("PCEHR_CHAOS") == "whole"
"""Whether `make chaos` runs: everything, and not the spread that every run of the suite has time for."""


@pytest.fixture(autouse=True)
def what_broken_connections_leave() -> Iterator[None]:
    """asyncpg does not close a connection whose server dies in the middle of the handshake; it is collected here, since
    it would be the next test's fault otherwise."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def chaos_home() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
async def platform(chaos_home: Path) -> AsyncIterator[EmbeddedPlatform]:
    async with EmbeddedPlatform(chaos_home / "home", base_port=None) as running:
        yield running
