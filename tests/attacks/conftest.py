"""One platform and one cast for all attacks; what a run changes it changes in copies."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from client.embedded.platform import EmbeddedPlatform

# What the stage itself asserts is told in full too, which pytest does for tests and this file alone unless asked.
pytest.register_assert_rewrite("tests.attacks.stage", "tests.attacks.operators")

from tests.attacks.operators import Operators  # noqa: E402
from tests.attacks.stage import Cast, prepare  # noqa: E402
from tests.conftest import temporary_folder  # noqa: E402
from tests.warm import WarmPlatform  # noqa: E402


@pytest.fixture(scope="session")
def attacked_home() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
async def attacked(attacked_home: Path) -> AsyncIterator[EmbeddedPlatform]:
    async with WarmPlatform(attacked_home / "home", base_port=None) as running:
        yield running


@pytest.fixture(scope="session")
def machines() -> Iterator[Path]:
    """Where clients keep what they remember."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
def folder(machines: Path) -> Iterator[Path]:
    """For the machines of one run."""
    with tempfile.TemporaryDirectory(dir=machines) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def operators(attacked: EmbeddedPlatform) -> Operators:
    return Operators(attacked)


@pytest.fixture(scope="session")
async def cast(attacked: EmbeddedPlatform, machines: Path) -> Cast:
    return await prepare(attacked, machines)
