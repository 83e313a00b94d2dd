"""The matrix notices: with one rule taken out of a service, or one cell of the data changed, it does not come true.

The rule that is taken out is replaced in the running service; all else of it, and the runner, are as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import true

import services.proxy.domain
import services.records.repository.visibility
import services.records.service.disclosures
import services.records.service.reading
import services.records.service.statements
import services.records.service.writing
import services.registry.domain
import shared.web.access
from shared.errors import NotFound
from shared.tokens import Caller, verify_access_token
from tests.authorisation.cast import Cast
from tests.authorisation.matrix import Attempt, Outcome, Role, State
from tests.authorisation.run import disagreements

pytestmark = [
    # Seconds; the first test waits until everything is prepared.
    pytest.mark.timeout(1200),
    # What asyncio says of a connection between services that was given up while it was being made.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def nothing(*_: object, **__: object) -> None:
    """In the place of a rule that refuses by raising."""


def everything(*_: object, **__: object) -> Any:
    """In the place of a condition in SQL."""
    return true()


def any_audience(token: str, *, audience: str, **others: Any) -> Caller:
    """In the place of the check of access tokens: takes those for another service."""
    for one in (audience, "urn:pcehr:registry", "urn:pcehr:records"):
        try:
            return verify_access_token(token, audience=one, **others)
        except shared.web.access.Unauthenticated:
            continue
    raise shared.web.access.Unauthenticated


def any_time(token: str, *, now: int, **others: Any) -> Caller:
    """In the place of the check of access tokens: takes those that have expired."""
    return verify_access_token(token, now=now - 400 if now else now, **others)


FAULTS: dict[str, tuple[Any, str, Callable[..., Any], str, Role]] = {
    "anybody uses a grant": (
        services.records.service.disclosures,
        "check_disclosure",
        nothing,
        "records POST /v1/disclosures: a record that the grant covers",
        Role.OTHER_SCOPE,
    ),
    "anybody writes to the patient": (
        services.records.service.writing,
        "check_author",
        nothing,
        "records POST /v1/records: a new record of the patient's, under its own grant",
        Role.OTHER_PATIENT,
    ),
    "anybody sees a record": (
        services.records.repository.visibility,
        "visible_to",
        everything,
        "records GET /v1/records/{record}: a record that the grant does not cover",
        Role.GRANTED,
    ),
    "statements of others are taken": (
        services.records.service.statements,
        "_check_own",
        nothing,
        "records POST /v1/records: what the patient has signed",
        Role.PROXY,
    ),
    "a proxy works for anybody": (
        services.proxy.domain,
        "check_use",
        nothing,
        "proxy POST /v1/reencryptions: a capsule that the grant covers",
        Role.REVOKED,
    ),
    "anybody reads which scopes there are": (
        services.registry.domain,
        "check_may_read_scope_keys",
        nothing,
        "registry GET /v1/patients/{did}/scope-keys: all of the patient's",
        Role.AUTHOR,
    ),
    "tokens of another service are taken": (
        shared.web.access,
        "verify_access_token",
        any_audience,
        "records GET /v1/me/records: lists",
        Role.OTHER_SERVICE,
    ),
    "expired tokens are taken": (
        shared.web.access,
        "verify_access_token",
        any_time,
        "records GET /v1/me/records: lists",
        Role.EXPIRED_TOKEN,
    ),
}
"""Module and name of the rule, what stands in its place, and a cell of the matrix that then is false."""


def find(matrix: list[Attempt], name: str) -> Attempt:
    [attempt] = [one for one in matrix if one.name == name]
    return attempt


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_rule_that_is_missing_is_noticed(
    cast: Cast, matrix: list[Attempt], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    module, rule, double, name, role = FAULTS[fault]
    monkeypatch.setattr(module, rule, double)
    found = await disagreements(cast, find(matrix, name))
    assert role in {one.role for one in found}, found


async def test_a_refusal_that_tells_whose_it_is_is_noticed(
    cast: Cast, matrix: list[Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    class TellingNotFound(NotFound):
        def __init__(self) -> None:
            super().__init__(f"It is a record of {cast.owner.did}, which you may not see.")

    monkeypatch.setattr(services.records.service.reading, "NotFound", TellingNotFound)
    found = await disagreements(
        cast, find(matrix, "records GET /v1/records/{record}: a record that the grant does not cover")
    )
    assert {one.found for one in found} == {f"it shows {[cast.owner.did]}"}
    assert Role.GRANTED in {one.role for one in found}


async def test_a_cell_that_is_wrong_is_noticed(cast: Cast, matrix: list[Attempt]) -> None:
    right = find(matrix, "records GET /v1/grants/{grant}: the grant")
    cell = (Role.OTHER_PATIENT, State.ACTIVE)
    wrong = dataclasses.replace(right, outcomes={**right.outcomes, cell: Outcome(200, "shown")})
    [found] = await disagreements(cast, wrong)
    assert (found.role, found.state, found.found) == (*cell, "404 not_found")
