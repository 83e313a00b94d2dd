"""Who writes, asks for and gets what in the demonstration, and how its claims are kept."""

from __future__ import annotations

from importlib import resources

import pytest

from client.cli.output import Output
from client.demo.ledger import NOT_REFUSED, Ledger
from client.demo.plan import plan_for
from client.fhir.bundle import BundleItem, read_bundle
from client.fhir.scopes import ScopeMap
from shared.errors import Forbidden, NotFound

RULES = ScopeMap.load()


def items_of(*kinds: str) -> list[BundleItem]:
    return [BundleItem({"resourceType": kind}) for kind in kinds]


def test_the_included_bundle_has_something_for_everybody() -> None:
    items = read_bundle((resources.files("client.fhir") / "demo_bundle.json").read_bytes())
    plan = plan_for(items, RULES)
    assert "laboratory" in plan.by_hospital
    assert "laboratory" in plan.granted
    assert any(RULES.is_sensitive(name) for name in plan.asked)
    assert not any(RULES.is_sensitive(name) for name in plan.granted)


@pytest.mark.parametrize(
    "kinds",
    [
        ("Observation", "AllergyIntolerance", "Claim"),
        ("Claim",),
        ("Patient",),
        ("AllergyIntolerance",),
        ("Basic", "Claim", "Encounter"),
    ],
)
def test_whatever_a_bundle_holds_less_is_granted_than_asked_for(kinds: tuple[str, ...]) -> None:
    plan = plan_for(items_of(*kinds), RULES)
    assert set(plan.granted) < set(plan.asked)
    assert set(plan.granted) & set(plan.scopes)
    assert set(plan.by_hospital) | set(plan.by_patient) == set(plan.scopes)
    assert not set(plan.by_hospital) & set(plan.by_patient)


def test_shares_of_a_plan_are_whole() -> None:
    plan = plan_for(items_of("AllergyIntolerance", "Claim", "AllergyIntolerance"), RULES)
    items, scopes = plan.share(["allergies"])
    assert len(items) == 2
    assert scopes == ["allergies", "allergies"]


async def test_a_claim_that_fails_is_named_and_does_not_end_the_story() -> None:
    ledger = Ledger(Output(as_json=True))
    ledger.claim("this holds", True)
    ledger.claim("this does not", False)
    ledger.claim("this holds too", True)
    assert ledger.failed == ["this does not"]
    assert ledger.claims == 3


async def test_a_refusal_with_the_wrong_code_or_none_at_all_fails() -> None:
    async def refuse(error: Exception | None) -> None:
        if error is not None:
            raise error

    ledger = Ledger(Output(as_json=True))
    await ledger.refusal("a", "first", refuse(NotFound()), {"not_found"})
    assert ledger.failed == []
    await ledger.refusal("b", "second", refuse(Forbidden()), {"not_found"})
    await ledger.refusal("c", "third", refuse(None), {"not_found"})
    assert ledger.refused == {"a": "not_found", "b": "forbidden", "c": NOT_REFUSED}
    assert len(ledger.failed) == 2


async def test_a_step_is_measured() -> None:
    ledger = Ledger(Output(as_json=True))
    with ledger.step("first", "The first"):
        pass
    assert 0 <= ledger.seconds["first"] < 1
