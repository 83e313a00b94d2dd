"""A platform of a test's own: what is killed and filled up here is of no use to another test afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client.embedded.platform import EmbeddedPlatform

WHOLE = os.environ.get("PCEHR_CHAOS") == "whole"
"""Whether `make chaos` runs: everything, and not the spread that every run of the suite has time for."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Not pytest's: root's is closed to the user that Postgres runs as."""
    folder = Path(tempfile.mkdtemp(prefix="pcehr-chaos-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def chaos_home() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
async def platform(chaos_home: Path) -> AsyncIterator[EmbeddedPlatform]:
    async with EmbeddedPlatform(chaos_home / "home", base_port=None) as running:
        yield running
