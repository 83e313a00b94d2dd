"""docs/authorisation.md, written from the matrix: `python -m tests.authorisation.document`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.authorisation.matrix import Attempt, Outcome, Role, State, load
from tests.services.loopback import SERVICES

PATH = Path(__file__).parents[2] / "docs" / "authorisation.md"

TITLES = {"registry": "Registry", "records": "Records service", "proxy": "A proxy"}
ROLES = {
    Role.NO_TOKEN: ("without a token", "whoever may do it, without an access token"),
    Role.EXPIRED_TOKEN: ("with an expired token", "whoever may do it, with an access token that has expired"),
    Role.OTHER_SERVICE: ("with another service's token", "whoever may do it, with a token for another service"),
    Role.OWNER: ("the patient", "the patient whose records they are"),
    Role.OTHER_PATIENT: ("another patient", "a patient with records of its own"),
    Role.GRANTED: (
        "the recipient",
        "the recipient of the grant that is looked at, over one scope, to read, append and amend",
    ),
    Role.OTHER_SCOPE: ("a recipient of another scope", "has a grant of the same patient's over another scope"),
    Role.EXPIRED: ("an expired recipient", "had a grant over the same scope, and opened the record, until it lapsed"),
    Role.REVOKED: (
        "a revoked recipient",
        "had a grant over the same scope, and opened the record, until it was revoked",
    ),
    Role.AUTHOR: ("an author", "has a grant over the same scope to append, and nothing else"),
    Role.PROXY: ("a proxy", "a proxy of the platform; at a proxy another one"),
    Role.RECORDS_SERVICE: (
        "the records service",
        "with statements that others have signed, and an access token that it makes with the only key it has",
    ),
}
STATES = {
    State.NONE: "the patient has signed it and given it to nobody, and nobody has asked",
    State.REQUESTED: "the recipient has asked, the patient has not answered",
    State.PENDING: "given; fewer proxies than are needed have their share",
    State.ACTIVE: "enough proxies have their share, one has not",
    State.COMPLETE: "all proxies have their share",
    State.EXPIRED: "it was complete, the record was opened, and it has lapsed",
    State.REVOKED: "it was complete, the record was opened, and the patient has revoked it",
}
WORDS = {
    "shown": "**allowed**: shows it",
    "done": "**allowed**",
    "own": "**allowed**: the caller's own, nothing else of the patient's",
    "nothing": "an answer with nothing of the patient's",
}

_HEAD = """\
# Who may do what

For every operation of the three services, what happens when each of {roles} parties tries it, in each of {states}
states of a grant: {cells} answers for {attempts} things tried with {operations} operations. This page is written from
the data in `tests/authorisation/matrix` (`python -m tests.authorisation.document`); `tests/authorisation` sends every
one of these requests to running services and holds the answers against it. An operation, a party or a state that the
data leave out makes the tests fail.

Beside the status, each answer is searched for what is the patient's: ids, statements, keys and ciphertexts. A refusal
holds none of it, and a list holds nothing of others'. What leaves a service is signed or encrypted all the same: who is
shown a record here still needs keys to read it ([threat-model.md](threat-model.md)).
"""


_TOKENS = """
The first three parties and the last are whoever may do it, with something amiss about the access token. Where they are
allowed, no token is asked for: the signed statement in the request proves who it comes from, whoever hands it in.
"""


def text_of(matrix: Sequence[Attempt]) -> str:
    """The whole page."""
    head = _HEAD.format(
        roles=len(Role),
        states=len(State),
        cells=sum(1 for attempt in matrix for _ in attempt.cells()),
        attempts=len(matrix),
        operations=len({(attempt.service, attempt.operation) for attempt in matrix}),
    )
    parts = [head, "\n## The parties\n\n| | |\n| --- | --- |\n"]
    parts += [f"| {name} | {meaning} |\n" for name, meaning in ROLES.values()]
    parts.append("\n## The states of a grant\n\n| | |\n| --- | --- |\n")
    parts += [f"| {state} | {meaning} |\n" for state, meaning in STATES.items()]
    parts.append(_TOKENS)
    for service in SERVICES:
        parts.append(f"\n## {TITLES[service]}\n")
        own = [attempt for attempt in matrix if attempt.service == service]
        parts += [_table(attempt) for attempt in own if not _same_for_all(attempt)]
        parts.append("\n### The same for everybody\n\n| operation | tries | answer |\n| --- | --- | --- |\n")
        parts += [
            f"| `{attempt.operation}` | {attempt.tries} | {_said(next(iter(attempt.outcomes.values())))} |\n"
            for attempt in own
            if _same_for_all(attempt)
        ]
    return "".join(parts)


def _same_for_all(attempt: Attempt) -> bool:
    return len(set(attempt.outcomes.values())) == 1


def _table(attempt: Attempt) -> str:
    columns = ("who", "the grant is", "answer") if attempt.grant else ("who", "answer")
    lines = [f"\n### `{attempt.operation}`: {attempt.tries}\n\n", _row(*columns), _row(*("---" for _ in columns))]
    groups: dict[tuple[Outcome, ...], list[Role]] = {}
    for role in Role:
        groups.setdefault(tuple(attempt.outcomes[role, state] for state in State), []).append(role)
    for outcomes, roles in groups.items():
        who = ", ".join(ROLES[role][0] for role in roles)
        for outcome in dict.fromkeys(outcomes):
            states = [state for state, one in zip(State, outcomes, strict=True) if one == outcome]
            when = "in any state" if len(states) == len(State) else ", ".join(states)
            lines.append(_row(who, when, _said(outcome)) if attempt.grant else _row(who, _said(outcome)))
    return "".join(lines)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _said(outcome: Outcome) -> str:
    return (
        f"{outcome.status} {WORDS[outcome.word]}" if outcome.allowed else f"{outcome.status} refused: `{outcome.word}`"
    )


if __name__ == "__main__":
    PATH.write_text(text_of(load()), "utf-8")
