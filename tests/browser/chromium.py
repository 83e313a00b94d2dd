"""Headless Chromium, driven over the pipe of its own DevTools protocol: NUL-terminated JSON on descriptors 3 and 4.

So neither a driver nor a websocket library is needed, and there is no port that another user of the machine could find.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

PATIENCE = 30.0
"""Seconds after which something that should happen on a page counts as not happening."""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
MISSING = (
    "The browser tests need Chromium, and there is none; on Debian, as root:"
    " apt-get install --no-install-recommends chromium"
)
WIDTH = 1000
"""Of the window, in pixels; what a page of documentation shows without shrinking it."""
# Root has no sandbox to offer, and nothing but pages of our own is opened.
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    *("--remote-debugging-pipe", f"--window-size={WIDTH},1400"),
)
# A child gets its descriptors under the numbers they have here; Chromium wants 3 and 4.
_LAUNCHER = (
    "import os, sys; a, b = os.dup(int(sys.argv[1])), os.dup(int(sys.argv[2]));"
    " os.dup2(a, 3); os.dup2(b, 4); os.set_inheritable(3, True); os.set_inheritable(4, True);"
    " os.execv(sys.argv[3], sys.argv[3:])"
)


class BrowserError(Exception):
    """Chromium refused a command, has ended, or did not do in time what was waited for."""


class Chromium:
    """One browser; `running` starts and ends it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._ended = False

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[Chromium]:
        """A browser with an empty profile. Raises `BrowserError` with what to install where there is none."""
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            raise BrowserError(MISSING)
        to_child, from_child = os.pipe(), os.pipe()
        with (
            tempfile.TemporaryDirectory(prefix="pcehr-chromium-", ignore_cleanup_errors=True) as profile,
            tempfile.TemporaryFile() as complaints,
        ):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _LAUNCHER, str(to_child[0]), str(from_child[1]), program),
                *(*_FLAGS, f"--user-data-dir={profile}", "about:blank"),
                pass_fds=(to_child[0], from_child[1]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=complaints,
                start_new_session=True,
            )
            os.close(to_child[0])
            os.close(from_child[1])
            loop = asyncio.get_running_loop()
            reader = asyncio.StreamReader(limit=64 * 2**20)
            reading, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(from_child[0], "rb", 0)
            )
            writing, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(to_child[1], "wb", 0))
            browser = cls(reader, writing)
            listening = asyncio.create_task(browser._listen())
            try:
                await browser._hello(complaints)
                yield browser
            finally:
                listening.cancel()
                # Its helpers are in its group, and none has anything to save.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
                writing.close()
                reading.close()
                await asyncio.gather(listening, return_exceptions=True)

    async def _hello(self, complaints: BinaryIO) -> None:
        """Wait until the browser answers; one that cannot start says why on its standard error only."""
        try:
            await self.send("Browser.getVersion")
        except BrowserError as error:
            complaints.seek(0)
            said = complaints.read()[-2000:].decode(errors="replace")
            raise BrowserError(f"Chromium does not start ({error}): {said}") from None

    async def page(self) -> Page:
        """A new, empty page."""
        target = await self.send("Target.createTarget", {"url": "about:blank"})
        attached = await self.send("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Network", "Log"):
            await page.send(f"{domain}.enable")
        # Fields get their events only on a page that believes it is looked at, and one of several is not.
        await page.send("Emulation.setFocusEmulationEnabled", {"enabled": True})
        return page

    async def send(self, method: str, params: dict[str, Any] | None = None, session: str | None = None) -> Any:
        """Give a command; returns its result or raises `BrowserError`."""
        if self._ended:
            raise BrowserError("Chromium has ended")
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = session
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps(message).encode() + b"\0")
        try:
            async with asyncio.timeout(PATIENCE):
                result = await answer
        except TimeoutError:
            raise BrowserError(f"no answer to {method}") from None
        finally:
            del self._answers[number]
        if "error" in result:
            raise BrowserError(f"{method}: {result['error']['message']}")
        return result["result"]

    async def _listen(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                if "id" in message:
                    answer = self._answers.get(message["id"])
                    if answer is not None and not answer.done():
                        answer.set_result(message)
                elif (page := self._pages.get(message.get("sessionId", ""))) is not None:
                    page.note(message["method"], message["params"])
        self._ended = True
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(BrowserError("Chromium has ended"))


class Page:
    """One tab: what it asked the network for, what it complained about, and ways to use it."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session
        self.requested: list[str] = []
        self.errors: list[str] = []

    def note(self, method: str, params: dict[str, Any]) -> None:
        """Keep what an event says, if it is of interest."""
        if method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requested.append(params["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"].get("exception", {}).get("description")))
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(" ".join(str(argument.get("value")) for argument in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])

    async def send(self, method: str, params: dict[str, Any] | None = None) -> Any:
        return await self._browser.send(method, params, self._session)

    def strangers(self, url: str) -> set[str]:
        """The hosts, with their ports, that the page has asked for anything, other than the one of this URL."""
        # What is in the page itself is asked of nobody.
        asked = {urlsplit(url) for url in self.requested}
        return {part.netloc for part in asked if part.scheme not in ("data", "blob", "about")} - {urlsplit(url).netloc}

    async def open(self, url: str) -> None:
        failed = (await self.send("Page.navigate", {"url": url})).get("errorText")
        if failed:
            raise BrowserError(f"{url}: {failed}")

    async def value(self, script: str) -> Any:
        """The value of an expression on the page; that of a promise, once it is kept."""
        answer = await self.send(
            "Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True}
        )
        if "exceptionDetails" in answer:
            raise BrowserError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    async def until(self, script: str) -> Any:
        """The value of an expression, once it is true."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not (value := await self.value(script)):
            if asyncio.get_running_loop().time() > deadline:
                raise BrowserError(f"never true: {script}")
            await asyncio.sleep(0.05)
        return value

    async def click(self, selector: str) -> None:
        """Click on the first element of a selector, once it is there."""
        await self.until(f"document.querySelector({json.dumps(selector)}) !== null")
        await self.value(f"document.querySelector({json.dumps(selector)}).click()")

    async def fill(self, selector: str, text: str) -> None:
        """Replace what a field holds, as typing would, and leave it: some fields tell the page only then."""
        await self.until(f"document.querySelector({json.dumps(selector)}) !== null")
        await self.value(
            f"(field => {{ field.focus(); field.select(); }})(document.querySelector({json.dumps(selector)}))"
        )
        await self.send("Input.insertText", {"text": text})
        await self.value(f"document.querySelector({json.dumps(selector)}).blur()")

    async def choose(self, selector: str, option: str) -> None:
        """Choose from a list by the option's value."""
        await self.value(
            f"(list => {{ list.value = {json.dumps(option)}; list.dispatchEvent(new Event('change', {{bubbles: true}}))"
            f" }})(document.querySelector({json.dumps(selector)}))"
        )

    async def attach(self, selector: str, file: Path) -> None:
        """Choose a file of this machine for an upload."""
        root = (await self.send("DOM.getDocument"))["root"]["nodeId"]
        field = await self.send("DOM.querySelector", {"nodeId": root, "selector": selector})
        await self.send("DOM.setFileInputFiles", {"files": [str(file)], "nodeId": field["nodeId"]})

    async def picture(self, *, top: int, height: int) -> bytes:
        """A strip of the page as PNG, in the page's full width; `top` and `height` in pixels."""
        clip = {"x": 0, "y": top, "width": WIDTH, "height": height, "scale": 1}
        shot = await self.send("Page.captureScreenshot", {"format": "png", "clip": clip, "captureBeyondViewport": True})
        return base64.b64decode(shot["data"])
