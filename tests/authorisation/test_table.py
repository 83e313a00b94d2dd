"""The data of the matrix: what is left out or added is noticed, and the page for reviewers is written from them."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

import pytest

from tests.authorisation.document import PATH, text_of
from tests.authorisation.matrix import FOLDER, Attempt, MatrixError, Outcome, Role, State, check_operations, parse
from tests.authorisation.run import ATTEMPTS

OPERATION = "GET /v1/records"
DOCUMENTS = {"records": {"paths": {"/v1/records": {"get": {}}}}}


def entry(**changes: Any) -> dict[str, Any]:
    """An attempt with one outcome for everybody, unless changed; what is None is left out."""
    members = {"tries": "lists", "grant": True, "everybody": "404 not_found"} | changes
    return {name: value for name, value in members.items() if value is not None}


def attempts(*entries: dict[str, Any]) -> list[Attempt]:
    return list(parse("records", {OPERATION: entries}))


def test_the_page_for_reviewers_is_the_matrix(matrix: list[Attempt]) -> None:
    assert PATH.read_text("utf-8") == text_of(matrix), "write it anew: python -m tests.authorisation.document"


def test_every_attempt_of_the_matrix_is_made_and_no_other(matrix: list[Attempt]) -> None:
    assert {(one.service, one.operation, one.tries) for one in matrix} == ATTEMPTS.keys()


def test_an_operation_that_is_missing_from_the_data_is_noticed() -> None:
    document = copy.deepcopy(DOCUMENTS)
    document["records"]["paths"]["/v1/records"]["delete"] = {}
    with pytest.raises(MatrixError, match=r"missing: .*DELETE /v1/records"):
        check_operations(attempts(entry()), document)


def test_an_operation_that_is_gone_from_the_document_is_noticed() -> None:
    with pytest.raises(MatrixError, match=r"gone: .*GET /v1/records"):
        check_operations(attempts(entry()), {"records": {"paths": {}}})


@pytest.mark.parametrize("role", Role)
def test_a_role_that_is_missing_is_noticed(role: Role) -> None:
    others = " ".join(one for one in Role if one is not role)
    with pytest.raises(MatrixError, match="missing"):
        attempts(entry(everybody=None, **{others: "404 not_found"}))


@pytest.mark.parametrize("state", State)
def test_a_state_that_is_missing_is_noticed(state: State) -> None:
    others = " ".join(one for one in State if one is not state)
    with pytest.raises(MatrixError, match="missing"):
        attempts(entry(everybody={others: "404 not_found"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"no_token": "401 unauthenticated"},
        {"everybody": None, "doctor": "404 not_found"},
        {"everybody": {"lost": "404 not_found"}},
        {"everybody": {"none none": "404 not_found"}},
        {"everybody": "404 shown"},
        {"everybody": "200 not_found"},
        {"everybody": "refused"},
        {"grant": False, "everybody": {" ".join(State): "404 not_found"}},
    ],
    ids=[
        "role twice",
        "no role",
        "no state",
        "state twice",
        "shown and refused",
        "code and allowed",
        "no status",
        "no grant",
    ],
)
def test_what_cannot_be_is_noticed(changes: dict[str, Any]) -> None:
    with pytest.raises(MatrixError):
        attempts(entry(**changes))


def test_two_attempts_of_one_name_are_noticed() -> None:
    with pytest.raises(MatrixError, match="one name"):
        check_operations(attempts(entry(), entry()), DOCUMENTS)


def test_every_state_is_tried_where_the_grant_plays_a_part() -> None:
    [attempt] = attempts(entry())
    assert {(role, state) for role, state, _ in attempt.cells()} == {(role, state) for role in Role for state in State}
    assert {outcome for _, _, outcome in attempt.cells()} == {Outcome(404, "not_found")}


def test_the_grant_plays_a_part_in_everything_about_records_and_consent() -> None:
    """What is left out of the states is named here, so that nothing is left out by mistake."""
    data = tomllib.loads((FOLDER / "records.toml").read_text("utf-8"))
    without = {operation for operation, entries in data.items() if not any(one.get("grant") for one in entries)}
    assert {name.partition(" ")[2] for name in without} == {
        "/v1/me/records",
        "/v1/disclosure-requests",
        "/v1/blobs/{sha256}",
        "/v1/me/audit",
        "/v1/me/audit/erasures",
        "/v1/me/events",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/log/checkpoint",
        "/v1/log/consistency",
        "/v1/log/inclusion",
    }
