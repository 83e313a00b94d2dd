"""Logs: one line for each event on stdout, as JSON or as text, and nothing personal in it.

A line holds what is listed in `FIELDS` and nothing else that a caller may attach. Of an exception it tells the kind
and the places in the code it came through, never its text. What libraries log is cut down as well: their first line,
with numbers only where they put values in. So no DID, no path, no query and no body can get in by accident.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from shared import trace
from shared.errors import PcehrError

LogFormat = Literal["json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]

FIELDS = (
    "method",
    "route",
    "status",
    "duration_ms",
    "code",
    "kind",
    "outcome",
    "delivery",
    "deliveries",
    "attempts",
    "setting",
    "problem",
    "error",
    "frames",
)
"""What a caller may attach with `extra=`; docs/operations.md says what each means."""

MAX_FRAMES = 8
MAX_MESSAGE = 300
"""Characters of a message."""

OWN = "pcehr"
"""Loggers below it take care themselves that their messages name nobody."""

_ROOT = Path(__file__).parents[2]


def configure(service: str, log_format: LogFormat | None = None, level: LogLevel = "info") -> None:
    """Send all logs of this process to stdout; may be called again, and the last call counts.

    Without a format it is text on a terminal and JSON everywhere else, so that a container needs no setting. Called by
    the composition roots, which uvicorn calls after it has set up its own logging: that is taken down here. Libraries
    say nothing below a warning, since what they have to say then is about single requests.
    """
    if log_format is None:
        log_format = "text" if sys.stdout.isatty() else "json"
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Stdout)]:
        root.removeHandler(handler)
    handler = _Stdout()
    handler.setFormatter(JsonFormatter(service) if log_format == "json" else TextFormatter(service))
    root.addHandler(handler)
    number = getattr(logging, level.upper())
    root.setLevel(max(number, logging.WARNING))
    for name in (OWN, "uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(number if name in (OWN, "uvicorn") else logging.NOTSET)
    # Its lines hold paths and queries; `shared.web.observation` writes one without. uvicorn looks for handlers.
    logging.getLogger("uvicorn.access").propagate = False
    # Otherwise a line that cannot be written would be shown on stderr, with everything that was to go into it.
    logging.raiseExceptions = False


def log_unexpected(log: logging.Logger, message: str, error: BaseException) -> None:
    """An error line about an exception that nobody foresaw: its kind and the places it came through."""
    fields = exception_fields(type(error), error, error.__traceback__)
    log.error("%s: %s", message, type(error).__name__, extra=fields, stacklevel=2)


def exception_fields(
    kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
) -> dict[str, Any]:
    """What may be told of an exception. `frames` are `file:line function`, the innermost last."""
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{_short(code.co_filename)}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    fields: dict[str, Any] = {"error": f"{kind.__module__}.{kind.__qualname__}", "frames": frames[-MAX_FRAMES:]}
    if isinstance(error, PcehrError):
        fields["code"] = error.code
    return fields


class _Stdout(logging.StreamHandler[Any]):
    """Writes to what is stdout at that moment, so that nothing keeps a stream that somebody has replaced."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout

    @stream.setter
    def stream(self, _: Any) -> None:
        raise AttributeError("it is always stdout")


class JsonFormatter(logging.Formatter):
    """One JSON object in one line; members that do not apply are absent."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_line(record, self._service), separators=(",", ":"), default=lambda _: "…")


class TextFormatter(logging.Formatter):
    """The same for people at a terminal."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = _line(record, self._service)
        head = (line.pop("time"), line.pop("level").upper().ljust(7), line.pop("logger"), line.pop("message"))
        del line["service"]
        rest = [f"{name}={_shown(value)}" for name, value in line.items()]
        text = " ".join([*head, *rest])
        return "".join(character if character.isprintable() else " " for character in text)


def _line(record: logging.LogRecord, service: str) -> dict[str, Any]:
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": _message(record)[:MAX_MESSAGE],
        "service": service,
    }
    own = record.name.partition(".")[0] == OWN
    line |= {name: getattr(record, name) for name in FIELDS if own and hasattr(record, name)}
    if record.exc_info and record.exc_info[0] is not None:
        line |= exception_fields(*record.exc_info)
    span = trace.current()
    if span is not None:
        line |= {"trace_id": span.trace_id, "span_id": span.span_id, "request_id": span.request_id}
        if span.parent_id is not None:
            line["parent_id"] = span.parent_id
    return line


def _message(record: logging.LogRecord) -> str:
    if record.name.partition(".")[0] == OWN:
        return record.getMessage()
    if isinstance(record.msg, OSError) and record.msg.errno is not None:
        # Of the text only what the error number stands for: no address and no path.
        return os.strerror(record.msg.errno)
    if not isinstance(record.msg, str):
        return type(record.msg).__name__
    try:
        text = record.msg % _only_numbers(record.args) if record.args else record.msg
    except (TypeError, ValueError, KeyError):
        text = record.msg
    # What follows the first line is a traceback, or the representation of an object.
    return text.strip().partition("\n")[0]


def _only_numbers(args: Any) -> Any:
    if isinstance(args, Mapping):
        return {name: _number(value) for name, value in args.items()}
    return tuple(_number(value) for value in args)


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) else "…"


def _short(filename: str) -> str:
    """A file's path from the project's root, or from the folder that packages are installed in."""
    path = Path(filename)
    if path.is_relative_to(_ROOT) and "site-packages" not in path.parts:
        return str(path.relative_to(_ROOT))
    return filename.rpartition("site-packages/")[2] if "site-packages/" in filename else path.name


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
