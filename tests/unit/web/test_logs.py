"""Lines of a log: their form, and that nothing personal can get into one by accident."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared import trace
from shared.errors import TooLarge
from shared.web.logs import FIELDS, MAX_FRAMES, MAX_MESSAGE, configure, log_unexpected

SECRET = "did:key:z6MkNeedle"

pytestmark = pytest.mark.usefixtures("logging_as_before")


class Written:
    """What a test has written to stdout."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._so_far = ""

    def getvalue(self) -> str:
        self._so_far += self._capsys.readouterr().out
        return self._so_far


@pytest.fixture
def stdout(capsys: pytest.CaptureFixture[str]) -> Written:
    return Written(capsys)


def lines(stdout: Written) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_time_level_logger_message_and_service(stdout: Written) -> None:
    configure("records", "json")
    before = datetime.now(UTC)
    logging.getLogger("pcehr.records").warning("two\nlines %s", "and a value")
    [line] = lines(stdout)
    written = datetime.fromisoformat(line.pop("time"))
    assert line == {
        "level": "warning",
        "logger": "pcehr.records",
        "message": "two\nlines and a value",
        "service": "records",
    }
    assert written.utcoffset() == timedelta(0)
    assert abs(written - before) < timedelta(seconds=10)
    assert stdout.getvalue().count("\n") == 1


def test_a_line_names_the_request_it_belongs_to(stdout: Written) -> None:
    configure("records", "json")
    first = trace.new_trace()
    with trace.working_for(first):
        logging.getLogger("pcehr").info("here")
    with trace.working_for(first.child()) as second:
        logging.getLogger("pcehr").info("there")
    begun, continued = lines(stdout)
    assert begun["trace_id"] == continued["trace_id"] == first.trace_id
    assert "parent_id" not in begun
    assert continued["parent_id"] == begun["span_id"] == first.span_id
    assert continued["request_id"] == f"{second.trace_id}-{second.span_id}"


def test_only_the_fields_agreed_on_are_written(stdout: Written) -> None:
    configure("proxy", "json")
    logging.getLogger("pcehr").info("m", extra={"outcome": "done", "did": SECRET, "path": f"/v1/parties/{SECRET}"})
    logging.getLogger("another").warning("m", extra={"outcome": SECRET})
    own, foreign = lines(stdout)
    assert own["outcome"] == "done"
    assert SECRET not in stdout.getvalue()
    assert "outcome" not in foreign
    assert not {"did", "path", "query", "headers", "body"} & set(FIELDS)


def _fail() -> None:
    raise ValueError(SECRET) from KeyError(SECRET)


def _deep(depth: int) -> None:
    if depth == 0:
        _fail()
    _deep(depth - 1)


def test_of_an_exception_only_its_kind_and_its_places_are_told(stdout: Written) -> None:
    configure("proxy", "json")
    try:
        _deep(20)
    except ValueError as error:
        log_unexpected(logging.getLogger("pcehr.proxy"), "unexpected", error)
        logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=error)
        logging.getLogger("pcehr.proxy").exception("while at work")
    for line in lines(stdout):
        assert line["error"] == "builtins.ValueError"
        assert len(line["frames"]) == MAX_FRAMES
        assert line["frames"][-1].startswith("tests/unit/web/test_logs.py:")
        assert line["frames"][-1].endswith(" _fail")
    assert SECRET not in stdout.getvalue()


def test_of_an_error_of_the_platforms_own_the_code_is_told(stdout: Written) -> None:
    configure("proxy", "json")
    log_unexpected(logging.getLogger("pcehr"), "unexpected", TooLarge(SECRET))
    [line] = lines(stdout)
    assert line["code"] == "too_large"
    assert SECRET not in stdout.getvalue()


async def test_what_asyncio_says_of_a_lost_task_holds_no_exception_text(stdout: Written) -> None:
    configure("records", "json")

    async def fail(secret: str) -> None:
        raise ValueError(secret)

    loop = asyncio.get_running_loop()
    task = asyncio.create_task(fail(SECRET))
    await asyncio.wait({task})
    loop.default_exception_handler(
        {"message": "Task exception was never retrieved", "exception": task.exception(), "task": task}
    )
    [line] = lines(stdout)
    assert (line["logger"], line["message"]) == ("asyncio", "Task exception was never retrieved")
    assert line["error"] == "builtins.ValueError"
    assert SECRET not in stdout.getvalue()


@pytest.mark.parametrize(
    ("message", "args", "shown"),
    [
        ('%s - "WebSocket %s" %d', ("127.0.0.1:1", f"/v1/parties/{SECRET}", 403), '… - "WebSocket …" 403'),
        ("connection to %(host)s", ({"host": SECRET},), "connection to …"),
        ("%d of them", (SECRET,), "%d of them"),
        (f"Traceback (most recent call last):\n  {SECRET}", (), "Traceback (most recent call last):"),
        (ValueError(SECRET), (), "ValueError"),
        (OSError(98, f"address already in use: {SECRET}"), (), "Address already in use"),
    ],
    ids=["arguments", "named-arguments", "arguments-that-do-not-fit", "more-lines", "an-exception", "an-os-error"],
)
def test_a_librarys_message_is_cut_down_to_what_cannot_be_personal(
    stdout: Written, message: Any, args: tuple[Any, ...], shown: str
) -> None:
    configure("records", "json")
    logging.getLogger("uvicorn.error").error(message, *args)
    [line] = lines(stdout)
    assert line["message"] == shown
    assert SECRET not in stdout.getvalue()


def test_a_message_has_a_bound(stdout: Written) -> None:
    configure("records", "json")
    logging.getLogger("another").error("x" * 10_000)
    assert len(lines(stdout)[0]["message"]) == MAX_MESSAGE


def test_libraries_say_nothing_below_a_warning(stdout: Written) -> None:
    configure("records", "json", "debug")
    logging.getLogger("httpx").info("HTTP Request: %s %s", "GET", SECRET)
    logging.getLogger("asyncpg").debug("a query")
    logging.getLogger("pcehr.records").debug("own")
    assert [line["message"] for line in lines(stdout)] == ["own"]


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_is_the_one_set(stdout: Written, level: Any, heard: list[str]) -> None:
    configure("records", "json", level)
    for name in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("pcehr.records"), name)("m")
    assert [line["level"] for line in lines(stdout)] == heard


def test_what_uvicorn_has_set_up_is_taken_down(stdout: Written) -> None:
    own = logging.StreamHandler(io.StringIO())
    for name in ("uvicorn", "uvicorn.access"):
        logging.getLogger(name).addHandler(own)
    logging.getLogger("uvicorn").propagate = False
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    configure("records", "json")
    logging.getLogger("uvicorn.error").info("Application startup complete.")
    assert [line["message"] for line in lines(stdout)] == ["Application startup complete."]
    # uvicorn asks this question to learn whether it should write its own line, which holds path and query.
    assert not logging.getLogger("uvicorn.access").hasHandlers()


def test_configuring_again_does_not_write_twice(stdout: Written) -> None:
    configure("records", "json")
    configure("records", "json")
    logging.getLogger("pcehr").info("once")
    assert len(lines(stdout)) == 1


def test_without_a_setting_it_is_json_where_nobody_watches(stdout: Written) -> None:
    configure("records")
    logging.getLogger("pcehr").info("m")
    assert lines(stdout)[0]["message"] == "m"


def test_without_a_setting_it_is_text_on_a_terminal(stdout: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    configure("records")
    logging.getLogger("pcehr").info("m")
    assert stdout.getvalue().split()[1:] == ["INFO", "pcehr", "m"]


def test_text_is_one_line_without_control_characters(stdout: Written) -> None:
    configure("records", "text")
    extra = {"deliveries": [1, 2], "outcome": "done\x1b[31m"}
    with trace.working_for(trace.new_trace()) as span:
        logging.getLogger("pcehr").info("a\nb\x1b[31m\u2028c", extra=extra)
    [line] = stdout.getvalue().splitlines()
    assert "deliveries=1,2" in line
    assert f"trace_id={span.trace_id}" in line
    assert line.isprintable()


def test_a_line_that_cannot_be_written_is_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("records", "json")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    logging.getLogger("pcehr").info("a line")
    monkeypatch.undo()
    assert capsys.readouterr().err == ""
