"""The checker itself: it explains what can be explained, and nothing else."""

from __future__ import annotations

import pytest

from tests.races.history import Operation, Unexplained, explain
from tests.races.specifications import amendment, approval, revocation, rotation


def op(
    kind: str, began: float, ended: float, answer: str = "ok", what: str = "", detail: int | None = None
) -> Operation:
    return Operation(kind, what, began, ended, answer, detail)


def test_a_disclosure_may_pass_a_revocation_that_is_under_way() -> None:
    history = [op("revoke", 0, 3), op("disclose", 1, 4), op("disclose", 1, 2, "grant_revoked")]
    order, _ = explain(history, False, revocation)
    assert [operation.answer for operation in order] == ["ok", "ok", "grant_revoked"]
    assert order[0].kind == "disclose"


def test_a_disclosure_after_an_acknowledged_revocation_is_found() -> None:
    with pytest.raises(Unexplained):
        explain([op("revoke", 0, 1), op("disclose", 2, 3)], False, revocation)


def test_a_disclosure_sent_after_a_refused_one_is_found() -> None:
    with pytest.raises(Unexplained):
        explain([op("revoke", 0, 9), op("disclose", 1, 2, "grant_revoked"), op("disclose", 3, 4)], False, revocation)


def test_a_refusal_before_anybody_revoked_is_found() -> None:
    with pytest.raises(Unexplained):
        explain([op("disclose", 0, 1, "grant_revoked"), op("revoke", 2, 3)], False, revocation)


def test_two_answers_to_one_approval_are_found() -> None:
    fine = [op("approve", 0, 2, what="a", detail=5), op("approve", 1, 2, what="a", detail=5)]
    explain(fine, frozenset(), approval)
    with pytest.raises(Unexplained):
        explain([*fine, op("approve", 0, 3, what="a", detail=6)], frozenset(), approval)


def test_an_approval_beside_a_denial_is_found() -> None:
    history = [op("approve", 0, 9, what="a", detail=5), op("deny", 0, 9, what="b", detail=5)]
    with pytest.raises(Unexplained):
        explain(history, frozenset(), approval)
    explain([history[0], op("deny", 0, 9, "already_answered", what="b")], frozenset(), approval)


def test_two_next_keys_are_found() -> None:
    one, other = op("rotate", 0, 9, what="a"), op("rotate", 0, 9, what="b")
    with pytest.raises(Unexplained):
        explain([one, other], "", rotation)
    explain([one, op("rotate", 0, 9, "stale_key_entry", what="b"), op("disclose", 0, 9, "wrong_signer")], "", rotation)


def test_two_versions_after_one_are_found() -> None:
    history = [op("amend", 0, 9, what="b after a"), op("amend", 0, 9, what="c after a")]
    with pytest.raises(Unexplained):
        explain(history, ("a",), amendment)
    lost = op("amend", 0, 9, "version_conflict", what="c after a")
    assert explain([lost, history[0], op("amend", 0, 9, what="d after b")], ("a",), amendment)[1] == ("a", "b", "d")
