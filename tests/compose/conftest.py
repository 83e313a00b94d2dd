"""Two stacks for the whole run. These tests need an engine and are left out unless asked for: `make compose-test`."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.compose.stack import Stack
from tests.e2e.actors import ActorMaker

_figures: list[str] = []
"""What was measured; shown at the end of the run."""


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[Stack]:
    stack = Stack(f"pcehr-test-{secrets.token_hex(4)}")
    try:
        await stack.up()
        _figures.append(f"all healthy after {stack.seconds_to_healthy:.1f} s")
        yield stack
    finally:
        await stack.down()


@pytest.fixture(scope="session")
async def stack_with_doors() -> AsyncIterator[Stack]:
    """Another one, whose registry and records service have two replicas each."""
    stack = Stack(f"pcehr-test-{secrets.token_hex(4)}", doors=True)
    try:
        await stack.up()
        yield stack
    finally:
        await stack.down()


@pytest.fixture
async def make(stack: Stack, tmp_path: Path) -> AsyncIterator[ActorMaker]:
    """Parties outside the containers, who reach what is published on the loopback interface."""
    maker = ActorMaker(stack.registry_url, tmp_path)
    yield maker
    await maker.close()


@pytest.fixture
async def make_at_doors(stack_with_doors: Stack, tmp_path: Path) -> AsyncIterator[ActorMaker]:
    maker = ActorMaker(stack_with_doors.registry_url, tmp_path)
    yield maker
    await maker.close()


@pytest.fixture(scope="session")
def figures() -> list[str]:
    """Lines to be shown at the end of the run."""
    return _figures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section("measured")
        for line in _figures:
            terminalreporter.write_line(line)
