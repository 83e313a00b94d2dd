"""Which statements the services issue, and from which place in the code.

A place is a call on a session in a module that holds SQL, found in the source; a statement is noted together with the
place that it came from. So whoever adds a query adds a place, and a run that has not been there is known to be
incomplete.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import greenlet
from sqlalchemy import Engine, event

ROOT = Path(__file__).parents[3]
_CALLS = {"execute", "scalar", "scalars", "get", "flush"}
"""What a session is asked for statements with."""


@dataclass(frozen=True, order=True)
class Place:
    """A call in the source; `path` is relative to the project, `name` the function around it."""

    path: str
    name: str
    first_line: int
    last_line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.first_line} {self.name}"


@dataclass(frozen=True)
class Issued:
    """A statement as the driver got it, with the arguments it had when it was last issued."""

    place: Place
    sql: str
    arguments: Sequence[Any]


def modules_with_sql(service: str) -> list[Path]:
    """The modules of one service, and those it shares with others, that issue statements."""
    own = ROOT / "services" / service
    found = [own / "repository.py"] if (own / "repository.py").exists() else sorted((own / "repository").glob("*.py"))
    found += sorted((ROOT / "shared" / "db" / "log").glob("*.py"))
    # The registry is where chains are kept; the others keep what they have seen of them.
    return found if service == "registry" else [*found, ROOT / "shared" / "db" / "known_parties.py"]


def places_in(path: Path) -> list[Place]:
    """Every place in a module that a statement may come from."""
    relative = str(path.relative_to(ROOT))
    found: list[Place] = []

    def look(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                look(child, f"{name}.{child.name}" if name else child.name)
                continue
            if _is_call_on_session(child):
                assert isinstance(child, ast.Call)
                found.append(Place(relative, name, child.lineno, child.end_lineno or child.lineno))
            look(child, name)

    look(ast.parse(path.read_text("utf-8")), "")
    return found


def _is_call_on_session(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in _CALLS:
        return False
    asked = node.func.value
    return (isinstance(asked, ast.Name) and asked.id == "session") or (
        isinstance(asked, ast.Attribute) and asked.attr == "_session"
    )


class Recorder:
    """Notes the statements that come from the places given."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._by_path: dict[str, list[Place]] = {}
        for place in places:
            self._by_path.setdefault(str(ROOT / place.path), []).append(place)
        self._issued: dict[tuple[Place, str], Issued] = {}

    @property
    def issued(self) -> list[Issued]:
        return list(self._issued.values())

    @property
    def places(self) -> set[Place]:
        return {place for place, _ in self._issued}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note what every engine of this process executes."""
        event.listen(Engine, "before_cursor_execute", self._note)
        try:
            yield
        finally:
            event.remove(Engine, "before_cursor_execute", self._note)

    def _note(self, _conn: Any, _cursor: Any, sql: str, arguments: Any, _context: Any, many: bool) -> None:
        place = self._place()
        if place is not None:
            self._issued[place, sql] = Issued(place, sql, arguments[0] if many else arguments)

    def _place(self) -> Place | None:
        for frame in _frames():
            for place in self._by_path.get(frame.f_code.co_filename, ()):
                if place.first_line <= frame.f_lineno <= place.last_line:
                    return place
        return None


def _frames() -> Iterator[FrameType]:
    """The frames of this moment, innermost first. SQLAlchemy's asyncio runs its synchronous core in a greenlet, whose
    frames end where it was begun and go on in the greenlet that waits for it."""
    frame: FrameType | None = sys._getframe(1)
    running = greenlet.getcurrent()
    while frame is not None:
        while frame is not None:
            yield frame
            frame = frame.f_back
        running = running.parent
        frame = running.gr_frame if running is not None else None


def missing(places: Sequence[Place], reasons: Mapping[str, str], seen: set[Place]) -> list[Place]:
    """Places that nothing came from, apart from those in functions that there is a reason not to go to."""
    return sorted(place for place in places if place not in seen and place.name not in reasons)
