"""A platform in memory for each test."""

from __future__ import annotations

import pytest

from tests.unit.client.world import World


@pytest.fixture
def world() -> World:
    return World()
