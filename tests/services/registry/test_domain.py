"""The registry's rules, over values."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from services.registry import domain
from services.registry.errors import EpochGap, InvalidTarget
from shared import wire
from shared.statements import ScopeKey, Verified, verify_under
from shared.wire import Role
from tests.services.signing_parties import TestParty

PATIENT = TestParty(Role.PATIENT)
EPOCHS: list[Verified[ScopeKey]] = [
    verify_under(
        PATIENT.scope_key("allergies", epoch), ScopeKey, PATIENT.did, [bytes(PATIENT.identity_key().verify_key)]
    )
    for epoch in range(4)
]


@given(some.lists(some.sampled_from(EPOCHS), max_size=12))
def test_epochs_that_are_published_have_no_gap(batch: list[Verified[ScopeKey]]) -> None:
    try:
        plan = domain.plan_scope_keys(batch, {}, domain.ScopeKeys(newest={}, published={}))
    except EpochGap:
        highest = -1
        for statement in batch:
            if statement.payload.epoch > highest + 1:
                return
            highest = max(highest, statement.payload.epoch)
        pytest.fail("refused without a gap")
    assert [statement.payload.epoch for statement in plan.added] == list(range(len(plan.added)))
    assert len(plan.answer) == len(batch)
    # What was planned is what a repetition finds, and then nothing is left to do.
    again = domain.plan_scope_keys(
        batch,
        {statement.payload.jti: statement.id for statement in plan.new},
        domain.ScopeKeys(
            newest={statement.payload.scope: statement.payload.epoch for statement in plan.added},
            published={
                (statement.payload.scope, statement.payload.epoch): (statement.payload.delegating_key, statement.token)
                for statement in plan.added
            },
        ),
    )
    assert (again.new, again.added, again.answer) == ((), (), plan.answer)


@given(some.lists(some.integers(1, domain.MAX_PAGE_ENTRIES), max_size=30), some.integers(1, 20))
def test_a_page_is_bounded_and_never_stands_still(lengths: list[int], limit: int) -> None:
    count = domain.parties_on_page(lengths, limit)
    assert count <= min(limit, len(lengths))
    assert (count == 0) == (not lengths)
    assert count <= 1 or sum(lengths[:count]) <= domain.MAX_PAGE_ENTRIES


@given(some.text(max_size=120))
def test_folding_is_idempotent_in_search_and_bounded_in_sorting(text: str) -> None:
    assert len(domain.sort_name(text)) <= domain.MAX_SORT_NAME
    assert domain.folded(text) in domain.search_text(text, None)


def test_names_are_compared_without_case_and_compatibility_forms() -> None:
    assert domain.folded("STRASSE") == domain.folded("straße")
    assert domain.folded("ﬁne") == "fine"
    assert domain.folded("É") == domain.folded("e\u0301")


def test_an_empty_resource_is_the_registry() -> None:
    assert domain.audience_for("", frozenset()) == wire.REGISTRY_AUDIENCE
    with pytest.raises(InvalidTarget):
        domain.audience_for(wire.PROXIES_AUDIENCE, frozenset())
