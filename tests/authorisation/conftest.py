"""One platform and one cast for the whole matrix."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.authorisation.cast import Cast, prepare
from tests.authorisation.matrix import Attempt, load
from tests.authorisation.run import spares
from tests.conftest import FreshDatabases
from tests.services.loopback import Loopback, loopback
from tests.services.signing_parties import TestClock


@pytest.fixture(scope="package")
def matrix() -> list[Attempt]:
    return load()


@pytest.fixture(scope="package")
async def platform(fresh_database: FreshDatabases, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Loopback]:
    folder: Path = tmp_path_factory.mktemp("authorisation")
    async with loopback(fresh_database, folder, TestClock()) as running:
        yield running


@pytest.fixture(scope="package")
async def cast(platform: Loopback, matrix: list[Attempt]) -> Cast:
    return await prepare(platform, spares(matrix))
