"""One platform of processes for all races."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.races.rounds import Range
from tests.races.running import shooting_range


@pytest.fixture(scope="module")
async def ready() -> AsyncIterator[Range]:
    async with shooting_range(seed=1) as made:
        yield made
