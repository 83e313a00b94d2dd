"""The pictures of docs/swagger.md: with `PCEHR_PICTURES=FOLDER` they are written there, which `make pictures` does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.embedded.platform import EmbeddedPlatform
from shared.wire import RECORDS_AUDIENCE
from tests.browser.chromium import Page
from tests.browser.palette import with_palette
from tests.browser.swagger import SwaggerPage
from tests.e2e.actors import ActorMaker

pytestmark = pytest.mark.browser
MAX_BYTES = 100 * 1024
"""A reader on a slow line loads all of them."""


async def keep(page: Page, file: Path, *, first: str = "body", last: str) -> None:
    """From the upper edge of the first element of one selector to the lower edge of the last element of another."""
    edges = await page.value(
        f"(() => {{ const from = document.querySelector({json.dumps(first)}).getBoundingClientRect();"
        f" const to = [...document.querySelectorAll({json.dumps(last)})].at(-1).getBoundingClientRect();"
        f" return [Math.floor(from.top + scrollY), Math.ceil(to.bottom + scrollY)]; }})()"
    )
    top, bottom = max(edges[0] - 10, 0), edges[1] + 10
    picture = await with_palette(page, await page.picture(top=top, height=bottom - top))
    assert len(picture) <= MAX_BYTES
    file.write_bytes(picture)  # noqa: ASYNC240  Nothing else runs here.


@pytest.mark.parametrize("service", ["registry", "records", "proxy-1"])
async def test_the_operations_of_a_service(
    page: Page, platform: EmbeddedPlatform, pictures: Path, service: str
) -> None:
    await SwaggerPage.of(page, platform.urls[service])
    await keep(page, pictures / f"{service.removesuffix('-1')}.png", last=".opblock-tag-section")


async def test_the_box_for_the_token(page: Page, platform: EmbeddedPlatform, make: ActorMaker, pictures: Path) -> None:
    alice = await make.patient()
    swagger = await SwaggerPage.of(page, platform.urls["records"])
    await swagger.offer(await alice.session.platform.token(await alice.session.credentials(), RECORDS_AUDIENCE))
    await keep(page, pictures / "authorize.png", first=".auth-wrapper", last=".modal-ux")


async def test_a_call_and_its_answer(page: Page, platform: EmbeddedPlatform, pictures: Path) -> None:
    swagger = await SwaggerPage.of(page, platform.urls["registry"])
    assert (await swagger.execute("post /v1/patients")).status == 201
    await keep(page, pictures / "answer.png", first=".opblock.is-open", last=".live-responses-table")
