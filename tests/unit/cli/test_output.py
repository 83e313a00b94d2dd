"""What is printed: whatever others wrote, a terminal obeys none of it, and a program reads all of it."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from client.cli import failures, watch
from client.cli.output import (
    Output,
    Terminal,
    fit,
    json_block,
    json_text,
    one_line,
    plain,
    progress_bar,
    state_text,
    table,
    when,
    write_document,
    write_line,
)
from client.cli.records import report
from client.errors import ServiceRefused
from client.notices import Notice
from client.reports import Problem
from shared.plain_text import is_unfit, unfit
from shared.wire import MAX_TIME

HOSTILE = st.text(
    alphabet=st.one_of(
        st.characters(categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")),
        st.sampled_from("\x1b\x07\x08\x7f\x85\x9b\u061c\u200b\u200d\u202e\u2066\u2069\ufeff\u3164[]31m;\n\r\t :/漢eé"),
        st.characters(),
    ),
    max_size=40,
)
ATTACKS = [
    "\x1b[2J\x1b[31mgone",
    "\x1b]0;title\x07",
    "\x9b31mred",
    "\x8fDCS",
    "practice\u202etxt.exe",
    "a\u2066b\u2069c",
    "a\u200bb\ufeffc",
    "\x08\x08\x08\x08you",
    "one\r\nAuthor   you",
    "one\u2028two\x85three\x0bfour",
    "[red]red[/red][link=https://example.org]x[/link]",
    ":smile: [/] [bold",
    "\ud800\udfff",
    "\U000e0001\U0010fffd\u0378",
]


def terminal(width: int = 200) -> Terminal:
    """A terminal without colours, so that no escape in what it prints can be Rich's own."""
    return Terminal(
        file=io.StringIO(),
        force_terminal=True,
        color_system=None,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
    )


def output_to(console: Terminal, *, as_json: bool = False) -> Output:
    output = Output(as_json=as_json)
    output.out = output.err = console
    return output


def printed(console: Terminal) -> str:
    return cast(io.StringIO, console.file).getvalue()


def assert_fit(text: str) -> None:
    assert [hex(ord(text[at])) for at in unfit(text) if text[at] != "\n"] == []


def everything(text: str, console: Terminal) -> None:
    """The text in every place that a text of somebody else's can be in."""
    output = output_to(console)
    output.result(None, table("Title", ["Name", "Reason"], [[text, plain(text)], [state_text(text), 1]], empty=""))
    output.result(None, table("Title", ["Name"], [], empty=text))
    output.result(None, plain(text), Text(text), Text.assemble(("Name  ", "bold"), text), Panel(Text(text)), text)
    output.result(None, json_block({"value": text, text: [text]}))
    output.note(text, style="red")
    failures.show(output, ServiceRefused(text, 500, text))
    with contextlib.suppress(BaseException):
        report(output, [], [Problem(text, text, record_id=text)], None)
    console.print(watch._line(Notice(1, text, 2**70, text, text, text, 3)))


@given(HOSTILE)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_nothing_unfit_is_ever_printed(text: str) -> None:
    console = terminal()
    everything(text, console)
    assert_fit(printed(console))


@pytest.mark.parametrize("text", ATTACKS)
def test_attacks_on_a_terminal_are_words(text: str) -> None:
    console = terminal()
    everything(text, console)
    assert_fit(printed(console))


def test_commands_print_to_such_a_terminal() -> None:
    output = Output(as_json=False)
    assert isinstance(output.out, Terminal)
    assert isinstance(output.err, Terminal)


def test_a_traceback_is_fit_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PCEHR_DEBUG", "1")
    failures.show(output_to(terminal()), ServiceRefused("x", 400, "\x1b[2J\x9b\u202ereversed"))
    shown = capsys.readouterr().err
    assert "reversed" in shown
    assert_fit(shown)


def test_rich_as_it_is_would_let_them_through() -> None:
    """The control: without the `Terminal` the property does not hold."""
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200)
    console.print(Text("\x1b[2J\x9b31m\u202e"))
    assert list(unfit(cast(io.StringIO, console.file).getvalue())) != []


@pytest.mark.parametrize("text", ["[red]not red[/red]", ":smile:", "[link=https://example.org]x[/link]", "[/]"])
def test_markup_in_a_name_is_shown_as_it_is_written(text: str) -> None:
    console = terminal()
    output = output_to(console)
    output.result(None, table("Title", ["Name"], [[text]], empty=""), plain(text), text)
    output.note(text)
    assert printed(console).count(text) == 4


def test_what_is_fit_is_left_alone() -> None:
    text = "Żółta 診療所 عيادة می\u200cخواهم 👩 — “x” 1 < 2"
    console = terminal()
    console.print(plain(text))
    assert printed(console) == text + "\n"
    assert fit(text) == one_line(text) == text


def test_one_text_is_one_line() -> None:
    assert one_line("one\ntwo\r\nthree\u2028four\x85five\tsix") == "one two  three four five six"
    console = terminal()
    console.print(table("T", ["A"], [["x\n└──┘\nGrant active"]], empty=""))
    assert len(printed(console).splitlines()) == 6


def test_a_hostile_cell_moves_no_other_cell() -> None:
    quiet, loud = terminal(), terminal()
    quiet.print(table("T", ["A", "B"], [["ab", "x"], ["cd", "y"]], empty=""))
    loud.print(table("T", ["A", "B"], [["a\x1b\x9b\u202eb", "x"], ["cd", "y"]], empty=""))
    assert printed(loud) == printed(quiet)


def test_the_colours_are_richs_own_and_stay() -> None:
    console = Terminal(file=io.StringIO(), force_terminal=True, color_system="standard", width=80)
    console.print(Text.assemble(("good", "green"), " \x1b[31mbad"))
    assert printed(console) == "\x1b[32mgood\x1b[0m [31mbad\n"


@given(HOSTILE)
@settings(deadline=None)
def test_a_progress_bar_and_a_spinner_are_fit_too(text: str) -> None:
    console = terminal()
    with progress_bar(console) as bar:
        bar.add_task(text, total=1)
    console.print(bar.make_tasks_table(bar.tasks))
    assert text.strip() == "" or printed(console)
    controls = ("\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[1A", "\r")
    shown = printed(console)
    for control in controls:
        shown = shown.replace(control, "")
    assert_fit(shown)


# --- JSON -----------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | HOSTILE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
@settings(deadline=None)
def test_json_is_fit_for_a_terminal_and_means_the_same(value: Any) -> None:
    for indent in (None, "  "):
        text = json_text(value, indent=indent)
        assert all(char == "\n" or not is_unfit(char) for char in text)
        # Two halves of a pair side by side are one character to whoever parses them, however they are written.
        assert json.loads(text) == json.loads(json.dumps(value))
    assert "\n" not in json_text(value)


def test_json_says_what_can_be_read_as_it_is() -> None:
    assert json_text({"name": "診療所 ż"}) == '{"name":"診療所 ż"}'
    assert json_text("\x9b\u202e\U000e0041\x7f") == '"\\u009b\\u202e\\udb40\\udc41\\u007f"'


@pytest.mark.parametrize("write", [write_document, write_line])
def test_documents_are_written_in_utf_8(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    write({"name": "診\x9b\udcff"})
    assert raw.getvalue().strip().endswith(b'"\xe8\xa8\xba\\u009b\\udcff"' + (b"}" if write is write_line else b"\n}"))


# --- times ------------------------------------------------------------------------------------------------------------


@given(st.integers())
def test_every_time_can_be_shown(seconds: int) -> None:
    assert when(seconds)


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"])
@pytest.mark.parametrize("seconds", [0, -1, MAX_TIME, MAX_TIME + 1, 2**40, 2**63, 2**200, -(2**200)])
def test_times_at_the_end_of_the_calendar_are_shown_in_every_zone(
    monkeypatch: pytest.MonkeyPatch, zone: str, seconds: int
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert when(seconds)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_time_that_no_calendar_reaches_is_said_in_words() -> None:
    assert when(2**40) == "after the year 9999"
    assert when(-(2**60)) == "before the year 1"
    assert when(None) == ""
