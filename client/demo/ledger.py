"""What the demonstration claims, what it measured, and which of its claims did not hold."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from client.cli.output import Output
from shared.errors import PcehrError

NOT_REFUSED = "not_refused"
"""What stands in place of a code where something went through that should not have."""


class Ledger:
    """Keeps the account. A claim that fails is named and does not end the story, so that all that fail are seen."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.failed: list[str] = []
        self.claims = 0
        self.refused: dict[str, str] = {}
        """What was tried without a right to it, and the code of the refusal."""
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, key: str, title: str) -> Iterator[None]:
        """One chapter: its title before, how long it took after."""
        self._print(Text(f"\n{len(self.seconds) + 1}. {title}", style="bold cyan"))
        begun = time.monotonic()
        yield
        self.seconds[key] = round(time.monotonic() - begun, 3)
        self._print(Text(f"   {self.seconds[key]:.1f} s", style="dim"))

    def tell(self, sentence: str) -> None:
        """Sentences that explain."""
        self._print(Padding(Text(sentence), (0, 0, 0, 3)))

    def claim(self, sentence: str, holds: bool) -> None:
        """A sentence that is checked."""
        self.claims += 1
        if holds:
            self._print(_marked(("✓", "green"), Text(sentence)))
        else:
            self.failed.append(sentence)
            self._print(_marked(("✗", "bold red"), Text(sentence, style="red")))

    async def refusal(self, key: str, sentence: str, attempt: Awaitable[Any], codes: Collection[str]) -> None:
        """An attempt that must be refused, with one of these codes."""
        try:
            await attempt
        except PcehrError as error:
            self.refuse(key, sentence, error.code, codes)
        else:
            self.refuse(key, sentence, NOT_REFUSED, codes)

    def refuse(self, key: str, sentence: str, code: str, codes: Collection[str]) -> None:
        """Note how an attempt ended."""
        self.refused[key] = code
        self.claim(f"Refused ({code}): {sentence}", code in codes)

    def _print(self, text: RenderableType) -> None:
        if not self.output.as_json:
            self.output.out.print(text)


def _marked(mark: tuple[str, str], text: Text) -> RenderableType:
    """A mark in the margin, and a text that is folded beside it and not below."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    grid.add_row(Text(*mark), text)
    return Padding(grid, (0, 0, 0, 3))
