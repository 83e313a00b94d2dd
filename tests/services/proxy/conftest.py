"""A running proxy on real Postgres for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conftest import FreshDatabases
from tests.services.proxy.world import World


@pytest.fixture
async def idle_world(fresh_database: FreshDatabases) -> World:
    """A world whose proxy has not been started."""
    return World(await fresh_database("proxy"))


@pytest.fixture
async def world(idle_world: World) -> AsyncIterator[World]:
    async with idle_world.running():
        yield idle_world
