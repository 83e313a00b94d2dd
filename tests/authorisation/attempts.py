"""What an attempt is made of: how the requests of the matrix are built, and from whom they come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.authorisation.cast import Case, Cast
from tests.authorisation.matrix import Outcome, Role, State
from tests.services.signing_parties import TestParty


@dataclass(frozen=True)
class Ask:
    """A request, and a text that the answer holds when it shows what was asked for."""

    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str] | None = None
    content: bytes | str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    shows: str | None = None


@dataclass(frozen=True)
class Scene:
    """Who asks, about which grant. `caller` is whose token is sent, unless it is amiss, and who signs."""

    cast: Cast
    case: Case
    role: Role
    caller: TestParty

    @property
    def now(self) -> int:
        return self.cast.platform.clock()

    @property
    def entitled(self) -> bool:
        """Whether the caller is who may do it, whatever is amiss about the token."""
        return self.role in WITHOUT_GOOD_TOKEN


Build = Callable[[Scene], Awaitable[Ask]]
Who = Callable[[Cast, Case], TestParty]

WITHOUT_GOOD_TOKEN = frozenset({Role.NO_TOKEN, Role.EXPIRED_TOKEN, Role.OTHER_SERVICE, Role.RECORDS_SERVICE})


@dataclass(frozen=True)
class Tried:
    """How to try something. `who` may do it; done by the patient, it changes a grant that is in one of `changes`."""

    build: Build
    who: Who
    changes: frozenset[State]

    def uses_up(self, role: Role, state: State, outcome: Outcome) -> bool:
        """Whether the grant is another one afterwards, so that nothing else can be tried with it."""
        return outcome.allowed and state in self.changes and (role in WITHOUT_GOOD_TOKEN or role is Role.OWNER)


ATTEMPTS: dict[tuple[str, str, str], Tried] = {}
"""By service, operation, and what is tried in words: as the matrix names them."""


def the_owner(cast: Cast, _: Case) -> TestParty:
    return cast.owner


def the_recipient(_: Cast, case: Case) -> TestParty:
    return case.recipient


def the_author(cast: Cast, _: Case) -> TestParty:
    return cast.author


def a_proxy(cast: Cast, _: Case) -> TestParty:
    return cast.platform.second


def attempt(
    service: str, operation: str, tries: str, *, who: Who = the_owner, changes: Iterable[State] = ()
) -> Callable[[Build], Build]:
    """Enter a builder under the name that the matrix has for it."""

    def enter(build: Build) -> Build:
        place = (service, operation, tries)
        assert place not in ATTEMPTS, place
        ATTEMPTS[place] = Tried(build, who, frozenset(changes))
        return build

    return enter


def caller_of(role: Role, cast: Cast, case: Case, who: Who) -> TestParty:
    """The party that a role stands for."""
    parties = {
        Role.OWNER: cast.owner,
        Role.OTHER_PATIENT: cast.neighbour,
        Role.GRANTED: case.recipient,
        Role.OTHER_SCOPE: cast.other_scope,
        Role.EXPIRED: cast.expired,
        Role.REVOKED: cast.revoked,
        Role.AUTHOR: cast.author,
        Role.PROXY: cast.platform.second,
    }
    return parties.get(role) or who(cast, case)
