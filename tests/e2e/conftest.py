"""One platform for the whole package: Postgres, registry, records and three proxies as processes on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from client.embedded.platform import EmbeddedPlatform
from tests.conftest import temporary_folder
from tests.e2e.actors import ActorMaker
from tests.warm import WarmPlatform


@pytest.fixture(scope="session")
def platform_home() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder / "home"


@pytest.fixture(scope="session")
async def platform(platform_home: Path) -> AsyncIterator[EmbeddedPlatform]:
    async with WarmPlatform(platform_home, base_port=None) as running:
        yield running


@pytest.fixture
async def make(platform: EmbeddedPlatform, tmp_path: Path) -> AsyncIterator[ActorMaker]:
    maker = ActorMaker(platform.registry_url, tmp_path)
    yield maker
    await maker.close()
