"""The matrix: who may do what, for every operation, role and state of the grant, read from `matrix/*.toml`.

Each entry is an *attempt*: an operation and what is tried with it. Its members are `tries` (in words), `grant` (whether
what happens may depend on the state of the grant; then every state is tried), and for each role what comes of it:
either one outcome, or a table of outcomes by state. A key may name several roles, or states, with blanks between them;
`everybody` names all roles. An outcome is a status and a word:

    "200 shown"         allowed, and the answer holds what was asked for
    "200 done"          allowed, and the answer holds nothing of the patient's
    "200 nothing"       a list without anything of the patient's in it
    "200 own"           what the caller itself has or has made, and nothing else of the patient's
    "404 not_found"     refused, with this code of the problem
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "matrix"
EVERYBODY = "everybody"


class Role(StrEnum):
    """Who asks. The first three, and the last, are whoever may do it, with something amiss about the access token."""

    NO_TOKEN = "no_token"
    EXPIRED_TOKEN = "expired_token"
    OTHER_SERVICE = "other_service"
    OWNER = "patient_owner"
    OTHER_PATIENT = "other_patient"
    GRANTED = "recipient_granted"
    OTHER_SCOPE = "recipient_other_scope"
    EXPIRED = "recipient_expired"
    REVOKED = "recipient_revoked"
    AUTHOR = "author_append"
    PROXY = "proxy"
    RECORDS_SERVICE = "records_service"


class State(StrEnum):
    """What has become of the grant that the attempt is about."""

    NONE = "none"
    REQUESTED = "requested"
    PENDING = "pending"
    ACTIVE = "active"
    COMPLETE = "complete"
    EXPIRED = "expired"
    REVOKED = "revoked"


ALLOWED_WORDS = frozenset({"shown", "done", "nothing", "own"})


@dataclass(frozen=True)
class Outcome:
    """A status, and the code of the problem or what an answer holds."""

    status: int
    word: str

    @classmethod
    def of(cls, text: str) -> Outcome:
        status, _, word = text.partition(" ")
        if not status.isdigit() or not word.isidentifier():
            raise MatrixError(f"no outcome: {text!r}")
        outcome = cls(int(status), word)
        if outcome.allowed != (word in ALLOWED_WORDS):
            raise MatrixError(f"the word does not fit the status: {text!r}")
        return outcome

    @property
    def allowed(self) -> bool:
        return 200 <= self.status < 300

    def __str__(self) -> str:
        return f"{self.status} {self.word}"


@dataclass(frozen=True)
class Attempt:
    """An operation ("GET /v1/records") of a service, what is tried with it, and what comes of it."""

    service: str
    operation: str
    tries: str
    grant: bool
    outcomes: Mapping[tuple[Role, State], Outcome]

    @property
    def states(self) -> tuple[State, ...]:
        """The states in which it is tried; where the grant plays no part, one stands for all."""
        return tuple(State) if self.grant else (State.COMPLETE,)

    @property
    def name(self) -> str:
        return f"{self.service} {self.operation}: {self.tries}"

    def cells(self) -> Iterator[tuple[Role, State, Outcome]]:
        """Every role in every state, by state."""
        for state in self.states:
            for role in Role:
                yield role, state, self.outcomes[role, state]


class MatrixError(ValueError):
    """The data are incomplete, contradict themselves, or say what cannot be."""


def load(folder: Path = FOLDER) -> list[Attempt]:
    """The whole matrix; raises `MatrixError` where a role or a state is missing or named twice."""
    return [
        attempt
        for path in sorted(folder.glob("*.toml"))
        for attempt in parse(path.stem, tomllib.loads(path.read_text("utf-8")))
    ]


def parse(service: str, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Attempt]:
    """The attempts of one service's file."""
    for operation, entries in data.items():
        for entry in entries:
            members = dict(entry)
            tries, grant = str(members.pop("tries")), bool(members.pop("grant", False))
            place = f"{service} {operation}: {tries}"
            yield Attempt(service, operation, tries, grant, _outcomes(place, members, grant=grant))


def check_operations(attempts: Sequence[Attempt], documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `MatrixError` unless the matrix has the operations of the OpenAPI documents, and no others."""
    declared = {
        (service, f"{method.upper()} {path}")
        for service, document in documents.items()
        for path, operations in document["paths"].items()
        for method in operations
    }
    covered = {(attempt.service, attempt.operation) for attempt in attempts}
    if declared != covered:
        raise MatrixError(f"missing: {sorted(declared - covered)}; gone: {sorted(covered - declared)}")
    names = [attempt.name for attempt in attempts]
    if len(set(names)) != len(names):
        raise MatrixError("two attempts have one name")


def _outcomes(place: str, members: Mapping[str, Any], *, grant: bool) -> dict[tuple[Role, State], Outcome]:
    found: dict[tuple[Role, State], Outcome] = {}
    for roles, value in members.items():
        if isinstance(value, str):
            by_state = dict.fromkeys(State, value)
        elif grant:
            by_state = dict(_expanded(value, State, place))
        else:
            raise MatrixError(f"{place}: the grant plays no part, so there is one outcome for {roles}")
        for role, outcomes in _expanded({roles: by_state}, Role, place):
            for state, outcome in outcomes.items():
                if (role, state) in found:
                    raise MatrixError(f"{place}: {role}, {state} is there twice")
                found[role, state] = Outcome.of(outcome)
    missing = [(role.value, state.value) for role in Role for state in State if (role, state) not in found]
    if missing:
        raise MatrixError(f"{place}: missing: {missing}")
    return found


def _expanded(table: Mapping[str, Any], kind: type[StrEnum], place: str) -> Iterator[tuple[Any, Any]]:
    """The table with a key for each of the names in its keys."""
    seen = set()
    for key, value in table.items():
        for name in list(kind) if key == EVERYBODY and kind is Role else key.split():
            try:
                member = kind(name)
            except ValueError:
                raise MatrixError(f"{place}: {name!r} is none of {[one.value for one in kind]}") from None
            if member in seen:
                raise MatrixError(f"{place}: {name!r} is there twice")
            seen.add(member)
            yield member, value
