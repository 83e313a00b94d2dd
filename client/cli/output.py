"""What people and programs get to see.

A command ends with exactly one `result`: for people tables and sentences on standard output, with `--json` one JSON
document there and nothing else. Progress goes to standard error, so that output can be piped.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from client.fhir.resource import dump_json

SHORT_ID = 10
"""Characters of an id in a table: unique among millions, and easily copied."""

NOT_A_TERMINAL_WIDTH = 160
"""Columns when the output is piped or captured, where Rich would otherwise fold everything at 80."""

Advance = Callable[[int, int], None]
"""Told how much of how much is done."""


class Output:
    """Where a command's words go; `as_json` decides for which kind of reader they are."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)

    def result(self, document: Any, *renderables: RenderableType) -> None:
        """Print the one document, or else the renderables."""
        if self.as_json:
            write_document(document)
        else:
            for renderable in renderables:
                self.out.print(renderable)

    def note(self, text: str, *, style: str = "") -> None:
        """A remark on the way, for people only; on standard error. Nothing in it is markup."""
        if not self.as_json:
            self.err.print(Text(text, style=style))

    @contextmanager
    def working(self, sentence: str) -> Iterator[None]:
        """A spinner on standard error for a wait whose length nobody knows."""
        if self.as_json or not self.err.is_terminal:
            yield
        else:
            with self.err.status(escape(sentence)):
                yield

    @contextmanager
    def progress(self, sentence: str) -> Iterator[Advance | None]:
        """A bar on standard error; None where nobody would see it."""
        if self.as_json or not self.err.is_terminal:
            yield None
            return
        with progress_bar(self.err) as bar:
            task = bar.add_task(escape(sentence), total=None)

            def advance(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            yield advance


def write_document(document: Any) -> None:
    """One JSON document on standard output, in UTF-8 whatever the terminal speaks; decimals keep their precision."""
    sys.stdout.flush()
    text = dump_json(document, indent="  ") + b"\n"
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.buffer.write(text)
    else:
        sys.stdout.write(text.decode("utf-8"))
    sys.stdout.flush()


def progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        return Console(stderr=stderr, highlight=False, width=NOT_A_TERMINAL_WIDTH)
    return console


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> RenderableType:
    """A table of plain texts; `empty` is said instead where there are no rows. Nothing in a cell is markup."""
    built = Table(header_style="bold", expand=False)
    for at, column in enumerate(columns):
        built.add_column(column, overflow="fold", no_wrap=at == 0)
    for row in rows:
        built.add_row(*(cell if isinstance(cell, Text) else plain(str(cell)) for cell in row))
    # Above and not within, where a title is folded to the width of a narrow table.
    return Group(Text(title, style="bold"), built) if built.row_count else Text(empty)


def plain(text: str) -> Text:
    """Text that others wrote, without what could drive a terminal or reverse the direction of reading."""
    return Text("".join(char if unicodedata.category(char)[0] != "C" else " " for char in text))


def state_text(state: str) -> Text:
    """A state with a colour that helps and says nothing that the word does not."""
    good = {"active", "complete", "approved", "sealed", "ready"}
    bad = {"revoked", "denied", "expired", "away"}
    style = "green" if state in good else "red" if state in bad else "yellow"
    return Text(state, style=style)


def short(identifier: str) -> str:
    """The beginning of an id. A leading hyphen is left out, since a shell command would take it for an option."""
    return identifier.lstrip("-")[:SHORT_ID]


def short_did(did: str) -> str:
    """The beginning of a DID, without the part that all of them share."""
    return did.removeprefix("did:key:")[: SHORT_ID + 2] + "…"


def counted(number: int, noun: str) -> str:
    """A number and its noun, such as `1 record` and `2 records`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def when(seconds: int | None) -> str:
    """A time of the protocol in the reader's own time zone."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
