"""Swagger UI of one service, used as a person uses it: look, authorize, fill in, execute, read the answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.browser.chromium import Page


@dataclass(frozen=True)
class Answer:
    """What the page shows after a call."""

    status: int
    text: str
    """Everything in the box of the answer: body, headers, and `Undocumented` if the OpenAPI document lacks it."""
    body: str


class SwaggerPage:
    """A page of documentation that has been drawn; operations are named as `post /v1/patients`."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url

    @classmethod
    async def of(cls, page: Page, service_url: str) -> SwaggerPage:
        await page.open(f"{service_url}/docs")
        # The tags stand there before the operations, and the schemas come last.
        await page.until("document.querySelectorAll('.opblock, section.models h4').length > 1")
        return cls(page, service_url)

    def assert_clean(self) -> None:
        """No error in the console, and no request to another host."""
        assert self.page.errors == []
        assert self.page.strangers(self.url) == set()

    async def operations(self) -> list[str]:
        """What the page shows, in its order."""
        shown = await self.page.value(
            "[...document.querySelectorAll('.opblock')].map(block => block.querySelector('.opblock-summary-method')"
            ".innerText.toLowerCase() + ' ' + block.querySelector('[data-path]').dataset.path)"
        )
        return list(shown)

    async def authorize(self, token: str) -> None:
        await self.offer(token)
        await self.page.click(".auth-btn-wrapper button.authorize")
        # The box now offers the way out, which means that the token was taken.
        await self.page.until("document.querySelector('.auth-btn-wrapper')?.innerText.includes('Logout')")
        await self.page.click(".auth-btn-wrapper button.btn-done")

    async def offer(self, token: str) -> None:
        """Open *Authorize* and fill in the token, no more."""
        await self.page.click("button.authorize")
        await self.page.fill(".auth-container input", token)

    async def unfold(self, operation: str) -> str:
        """Open an operation; returns the selector of its box."""
        method, path = operation.split(" ")
        box = f"[data-operation={json.dumps(operation)}]"
        if not await self.page.value(f"document.querySelector({json.dumps(box)}) !== null"):
            mark = f".opblock-{method} [data-path={json.dumps(path)}]"
            await self.page.value(
                f"document.querySelector({json.dumps(mark)}).closest('.opblock').dataset.operation"
                f" = {json.dumps(operation)}"
            )
            await self.page.click(f"{box} .opblock-summary-control")
        # Swagger UI draws the button first and then looks up the schemas; until it has, the button does nothing.
        await self.page.until(
            f"(box => box?.querySelector('button.execute')"
            f" && ui.getSystem().specSelectors.specResolvedSubtree(['paths', {json.dumps(path)}, '{method}'])"
            f" && (!box.querySelector('textarea')"
            f" || ui.getSystem().oas3Selectors.requestBodyValue({json.dumps(path)}, '{method}')) ? true : false)"
            f"(document.querySelector({json.dumps(box)}))"
        )
        return box

    async def fold(self, operation: str) -> None:
        """Close an operation; a page with many open ones is slow."""
        box = f"[data-operation={json.dumps(operation)}]"
        await self.page.click(f"{box} .opblock-summary-control")
        await self.page.value(f"document.querySelector({json.dumps(box)}).removeAttribute('data-operation')")

    async def execute(
        self, operation: str, *, body: str | None = None, file: Path | None = None, **parameters: str
    ) -> Answer:
        """Press *Execute*, with these parameters, and with the example that the page shows if no body is given."""
        box = await self.unfold(operation)
        # An answer of before would be taken for the one to come.
        await self.page.value(f"document.querySelector({json.dumps(f'{box} .btn-clear')})?.click()")
        for name, value in parameters.items():
            field = f"{box} tr[data-param-name={json.dumps(name)}]"
            if await self.page.value(f"document.querySelector({json.dumps(f'{field} select')}) !== null"):
                await self.page.choose(f"{field} select", value)
            else:
                await self.page.fill(f"{field} input", value)
        if body is not None:
            await self.page.fill(f"{box} textarea.body-param__text", body)
        if file is not None:
            await self.page.attach(f"{box} input[type=file]", file)
        await self.page.click(f"{box} button.execute")
        row = f"{box} .live-responses-table tbody tr"
        status = await self.page.until(
            f"document.querySelector({json.dumps(f'{row} .response-col_status')})?.innerText"
        )
        return Answer(
            status=int(status.split()[0]),
            text=await self.page.value(f"document.querySelector({json.dumps(row)}).innerText"),
            body=await self.page.value(
                f"document.querySelector({json.dumps(f'{row} .highlight-code pre')})?.innerText ?? ''"
            ),
        )
