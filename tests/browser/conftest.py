"""A platform and a browser for the whole package."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client.embedded.platform import EmbeddedPlatform
from tests.browser.chromium import BrowserError, Chromium, Page
from tests.e2e.conftest import make, platform_home

__all__ = ["make", "platform_home"]

PICTURES = os.environ.get("PCEHR_PICTURES")
"""The folder that pictures for the documentation go to; without it they are made and thrown away."""


@pytest.fixture(scope="session")
async def platform(platform_home: Path) -> AsyncIterator[EmbeddedPlatform]:
    # A reader's own platform has these addresses, so that the pictures show what the reader sees.
    async with EmbeddedPlatform(platform_home, base_port=8400 if PICTURES else None) as running:
        yield running


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Chromium]:
    try:
        async with Chromium.running() as browser:
            yield browser
    except BrowserError as error:
        # Never skipped: without a browser nobody knows whether the pages work.
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
async def page(chromium: Chromium) -> AsyncIterator[Page]:
    page = await chromium.page()
    yield page
    await page.send("Page.close")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return Path(PICTURES) if PICTURES else tmp_path
