"""The browser of these tests: it says what it lacks, and it notices what must not be on a page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.browser import chromium as browser_module
from tests.browser.chromium import BrowserError, Chromium, Page
from tests.browser.swagger import SwaggerPage


async def test_without_chromium_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser_module.shutil, "which", lambda _: None)
    with pytest.raises(BrowserError, match="apt-get install --no-install-recommends chromium"):
        async with Chromium.running():
            pass


async def test_a_chromium_that_cannot_start_is_not_waited_for_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\necho 'libexample.so: cannot open shared object file' >&2\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(BrowserError, match=r"does not start.*libexample\.so"):
        async with Chromium.running():
            pass


FOREIGN = {
    "a picture": '<img src="http://localhost:{port}/empty">',
    "a script": '<script src="http://localhost:{port}/empty"></script>',
    "a frame": '<iframe src="http://localhost:{port}/empty"></iframe>',
    "a call": '<script>fetch("http://localhost:{port}/empty", {{mode: "no-cors"}})</script>',
    "a socket": '<script>new WebSocket("ws://localhost:{port}/empty")</script>',
}
FAULTY = {
    "an error in the console": '<script>console.error("it is wrong")</script>',
    "an exception": "<script>throw new Error('it is wrong')</script>",
    "a promise that nobody catches": "<script>Promise.reject(new Error('it is wrong'))</script>",
    "a file that is missing": '<img src="/missing">',
}


@dataclass
class Site:
    """A server with one page, and an empty file besides; anything else is a 404."""

    port: int
    page: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A browser keeps connections ready that it then has no use for.
        with contextlib.suppress(asyncio.IncompleteReadError):
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
            found = {"/": self.page, "/empty": ""}.get(path)
            body = (found or "").encode()
            head = (
                f"HTTP/1.1 {'404 Not Found' if found is None else '200 OK'}\r\n"
                f"Content-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site(0)
    async with await asyncio.start_server(site.answer, "127.0.0.1", 0) as server:
        site.port = server.sockets[0].getsockname()[1]
        yield site


async def look_at(page: Page, site: Site, content: str) -> SwaggerPage:
    site.page = f'<!doctype html><link rel="icon" href="data:,"><p>A page.</p>{content}'
    await page.open(f"{site.url}/")
    await page.until("document.readyState === 'complete'")
    return SwaggerPage(page, site.url)


async def complained(swagger: SwaggerPage) -> bool:
    """Whether the check fails within a second: what a page does reaches us a little later."""
    for _ in range(20):
        try:
            swagger.assert_clean()
        except AssertionError:
            return True
        await asyncio.sleep(0.05)
    return False


@pytest.mark.browser
@pytest.mark.parametrize("kind", FOREIGN)
async def test_a_page_that_asks_another_host_is_not_clean(page: Page, site: Site, kind: str) -> None:
    # The same server under another name is another host; it answers, so it is the asking that is found out.
    swagger = await look_at(page, site, FOREIGN[kind].format(port=site.port))
    assert await complained(swagger)
    assert swagger.page.strangers(site.url) == {f"localhost:{site.port}"}


@pytest.mark.browser
@pytest.mark.parametrize("kind", FAULTY)
async def test_a_page_with_an_error_is_not_clean(page: Page, site: Site, kind: str) -> None:
    swagger = await look_at(page, site, FAULTY[kind])
    assert await complained(swagger)
    assert swagger.page.strangers(site.url) == set()
    assert len(swagger.page.errors) == 1


@pytest.mark.browser
async def test_a_page_with_a_picture_of_its_own_is_clean(page: Page, site: Site) -> None:
    assert not await complained(await look_at(page, site, '<img src="/empty"><img src="data:,">'))
