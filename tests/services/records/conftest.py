"""A running records service for each test, on a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import FreshDatabases
from tests.services.records.world import World


@pytest.fixture
async def idle_world(fresh_database: FreshDatabases, tmp_path: Path) -> World:
    """A world whose service has not been started."""
    return World(await fresh_database("records"), tmp_path / "blobs")


@pytest.fixture
async def world(idle_world: World) -> AsyncIterator[World]:
    async with idle_world.running():
        yield idle_world
