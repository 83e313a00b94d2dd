"""What people and programs get to see.

A command ends with exactly one `result`: for people tables and sentences on standard output, with `--json` one JSON
document there and nothing else. Progress goes to standard error, so that output can be piped.

Names, reasons, titles, codes and answers are written by others. Whatever a command prints passes through a `Terminal`
or `json_text`, which let no character through that a terminal would obey or that would show a text as another one
(`shared.plain_text`); `plain` makes one line of a text besides, so that it cannot pretend to be several of ours.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import simplejson
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.highlighter import JSONHighlighter
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from shared.plain_text import is_unfit, unfit

SHORT_ID = 10
"""Characters of an id in a table: unique among millions, and easily copied."""

NOT_A_TERMINAL_WIDTH = 160
"""Columns when the output is piped or captured, where Rich would otherwise fold everything at 80."""

Advance = Callable[[int, int], None]
"""Told how much of how much is done."""

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BREAKS = re.compile(r"[\t\n\x0b\x0c\r\x1c-\x1e\x85\u2028\u2029]")
"""What ends a line, here or in another program, and the tabulator."""
_NOT_PLAIN_ASCII = re.compile(r"[^\n\x20-\x7e]")


class Terminal(Console):
    """A console that prints no text as it is. Rich's own control codes are not text, and stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Segments of the renderable, in which `fit` has replaced what is unfit without moving what is beside it."""
        for segment in super().render(renderable, options):
            if segment.control or (segment.text.isascii() and segment.text.isprintable()):
                yield segment
            else:
                lines = segment.text.split("\n")
                yield Segment("\n".join(fit(line) for line in lines), segment.style)


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
            self.err.print(plain(text, style))

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
            task = bar.add_task(sentence, total=None)

            def advance(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            yield advance


def write_document(document: Any) -> None:
    """One JSON document on standard output, in UTF-8 whatever the terminal speaks; decimals keep their precision."""
    _write(json_text(document, indent="  "))


def write_line(document: Any) -> None:
    """One JSON document on one line of standard output, at once: for output that has no end."""
    _write(json_text(document))


def json_text(document: Any, *, indent: str | None = None) -> str:
    """JSON in which every character that is unfit to be printed is escaped, and means the same to who parses it."""
    text = simplejson.dumps(
        document,
        use_decimal=True,
        ensure_ascii=False,
        allow_nan=False,
        indent=indent,
        separators=(",", ": ") if indent else (",", ":"),
    )
    return _NOT_PLAIN_ASCII.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    if not is_unfit(match[0]):
        return match[0]
    pair = match[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{pair[at : at + 4]}" for at in range(0, len(pair), 4))


def _write(text: str) -> None:
    sys.stdout.flush()
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.buffer.write(text.encode("utf-8") + b"\n")
    else:
        sys.stdout.write(text + "\n")
    sys.stdout.flush()


def progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def _console(*, stderr: bool) -> Terminal:
    console = Terminal(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        return Terminal(stderr=stderr, highlight=False, markup=False, emoji=False, width=NOT_A_TERMINAL_WIDTH)
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


def fit(text: str) -> str:
    """The text with what is unfit to be printed taken out, or replaced where it would take up room on the screen."""
    found = set(unfit(text))
    if not found:
        return text
    return "".join(_REPLACEMENT * cell_len(char) if at in found else char for at, char in enumerate(text))


def one_line(text: str) -> str:
    """A text that others wrote, fit to be printed and on one line."""
    return fit(_BREAKS.sub(" ", text))


def plain(text: str, style: str = "") -> Text:
    """The same, ready to be printed. Nothing in it is markup."""
    return Text(one_line(text), style=style)


def json_block(document: Any) -> Text:
    """JSON for people: indented, in colours, every decimal as precise as it is."""
    block = Text(json_text(document, indent="  "))
    JSONHighlighter().highlight(block)
    return block


def state_text(state: str) -> Text:
    """A state with a colour that helps and says nothing that the word does not."""
    good = {"active", "complete", "approved", "sealed", "ready", "pinned"}
    bad = {"revoked", "denied", "expired", "away"}
    style = "green" if state in good else "red" if state in bad else "yellow"
    return plain(state, style)


def short(identifier: str) -> str:
    """The beginning of an id. A leading hyphen is left out, since a shell command would take it for an option."""
    return identifier.lstrip("-")[:SHORT_ID]


def short_did(did: str) -> str:
    """The beginning of a DID, without the part that all of them share."""
    return did.removeprefix("did:key:")[: SHORT_ID + 2] + "…"


def counted(number: int, noun: str, many: str | None = None) -> str:
    """A number and its noun, such as `1 record` and `2 records`; `many` is the plural where it is another."""
    return f"{number} {noun}" if number == 1 else f"{number} {many or noun + 's'}"


def when(seconds: int | None) -> str:
    """A time of the protocol in the reader's own time zone; in words where the calendar does not reach that far."""
    if seconds is None:
        return ""
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "after the year 9999" if seconds > 0 else "before the year 1"
