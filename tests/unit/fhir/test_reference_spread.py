"""A resource that refers to a sensitive one must not tell on it."""

from __future__ import annotations

from typing import Any

import pytest

from client.fhir.bundle import BundleItem
from client.fhir.references import REVEALING_FIELDS
from client.fhir.scopes import Override, ScopeMap

SNOMED = "http://snomed.info/sct"
MAP = ScopeMap.load()


def item(name: str, kind: str, **elements: Any) -> BundleItem:
    return BundleItem({"resourceType": kind, "id": name, **elements}, f"urn:uuid:{name}")


def to(name: str) -> dict[str, str]:
    return {"reference": f"urn:uuid:{name}"}


def coded(name: str, kind: str, code: str, system: str = SNOMED) -> BundleItem:
    return item(name, kind, code={"coding": [{"system": system, "code": code}]})


DEPRESSION = coded("depression", "Condition", "370143000")
OPIOIDS = coded("opioids", "Condition", "5602001")
KNEE = coded("knee", "Condition", "239873007")


@pytest.mark.parametrize(
    ("kind", "elements"),
    [
        ("Claim", {"diagnosis": [{"sequence": 1, "diagnosisReference": to("depression")}]}),
        ("ExplanationOfBenefit", {"diagnosis": [{"diagnosisReference": to("depression")}]}),
        ("Claim", {"procedure": [{"procedureReference": to("depression")}]}),
        ("Claim", {"prescription": to("depression")}),
        ("Claim", {"supportingInfo": [{"valueReference": to("depression")}]}),
        ("Encounter", {"reasonReference": [to("depression")]}),
        ("Encounter", {"diagnosis": [{"condition": to("depression")}]}),
        ("MedicationRequest", {"reasonReference": [to("depression")]}),
        ("MedicationDispense", {"authorizingPrescription": [to("depression")]}),
        ("DiagnosticReport", {"result": [to("depression")]}),
        ("Observation", {"hasMember": [to("depression")]}),
        ("Observation", {"derivedFrom": [to("depression")]}),
        ("CarePlan", {"addresses": [to("depression")]}),
        ("CarePlan", {"activity": [{"reference": to("depression")}]}),
        ("Goal", {"addresses": [to("depression")]}),
        ("Composition", {"section": [{"section": [{"entry": [to("depression")]}]}]}),
        ("List", {"entry": [{"item": to("depression")}]}),
        ("DocumentReference", {"context": {"related": [to("depression")]}}),
    ],
)
def test_revealing_reference_spreads(kind: str, elements: dict[str, Any]) -> None:
    assert MAP.scopes_for_bundle([item("it", kind, **elements), DEPRESSION]) == ["mental-health"] * 2


@pytest.mark.parametrize("field", ["subject", "patient", "encounter", "performer", "provider", "requester", "location"])
def test_other_references_do_not_spread(field: str) -> None:
    assert field not in REVEALING_FIELDS
    items = [item("it", "Procedure", **{field: to("depression")}), DEPRESSION]
    assert MAP.scopes_for_bundle(items) == ["procedures", "mental-health"]


def test_a_sensitive_resource_does_not_pull_in_what_it_refers_to() -> None:
    condition = item("d", "Condition", code=DEPRESSION.resource["code"], subject=to("p"), encounter=to("e"))
    items = [item("p", "Patient"), item("e", "Encounter"), condition]
    assert MAP.scopes_for_bundle(items) == ["demographics", "encounters", "mental-health"]


def test_reference_to_an_ordinary_resource_changes_nothing() -> None:
    assert MAP.scopes_for_bundle([item("c", "CarePlan", addresses=[to("knee")]), KNEE]) == ["care-plans", "conditions"]


@pytest.mark.parametrize(
    "reference",
    [
        "Condition/depression",
        "http://example.org/fhir/Condition/depression",
        "Condition/depression/_history/3",
        "urn:uuid:depression",
    ],
)
def test_forms_of_a_reference(reference: str) -> None:
    items = [item("c", "CarePlan", addresses=[{"reference": reference}]), DEPRESSION]
    assert MAP.scopes_for_bundle(items)[0] == "mental-health"


def test_full_url_of_a_server() -> None:
    condition = BundleItem(dict(DEPRESSION.resource), "https://example.org/fhir/Condition/depression")
    plan = item("c", "CarePlan", addresses=[{"reference": "https://example.org/fhir/Condition/depression"}])
    assert MAP.scopes_for_bundle([plan, condition])[0] == "mental-health"


def test_item_without_full_url_is_found_by_its_id() -> None:
    condition = BundleItem(DEPRESSION.resource)
    assert MAP.scopes_for_bundle([item("c", "CarePlan", addresses=[to("depression")]), condition])[0] == "mental-health"


@pytest.mark.parametrize("reference", ["Condition/elsewhere", "#depression", "depression", "", "Condition?code=1"])
def test_reference_out_of_the_bundle_is_left_alone(reference: str) -> None:
    items = [item("c", "CarePlan", addresses=[{"reference": reference}]), DEPRESSION]
    assert MAP.scopes_for_bundle(items)[0] == "care-plans"


def test_reference_to_a_type_that_has_another_id() -> None:
    items = [item("c", "CarePlan", addresses=[{"reference": "Procedure/depression"}]), DEPRESSION]
    assert MAP.scopes_for_bundle(items)[0] == "care-plans"


def test_spreads_along_a_chain() -> None:
    items = [
        item("benefit", "ExplanationOfBenefit", claim=to("claim")),
        item("claim", "Claim", prescription=to("drug")),
        item("drug", "MedicationRequest", reasonReference=[to("depression")]),
        DEPRESSION,
    ]
    assert MAP.scopes_for_bundle(items) == ["mental-health"] * 4
    assert MAP.scopes_for_bundle(items[::-1]) == ["mental-health"] * 4


def test_circle_of_references_ends() -> None:
    items = [
        item("a", "CarePlan", goal=[to("b")]),
        item("b", "Goal", addresses=[to("a"), to("b"), to("depression")]),
        DEPRESSION,
    ]
    assert MAP.scopes_for_bundle(items) == ["mental-health"] * 3


def test_own_code_wins_over_what_is_referred_to() -> None:
    visit = item("v", "Encounter", reasonCode=[KNEE.resource["code"]], reasonReference=[to("opioids")])
    mind = item("m", "Encounter", reasonCode=[DEPRESSION.resource["code"]], reasonReference=[to("opioids")])
    assert MAP.scopes_for_bundle([visit, mind, OPIOIDS])[:2] == ["substance-use", "mental-health"]


def test_of_two_referred_to_the_first_in_the_vocabulary_wins() -> None:
    for order in (["depression", "opioids"], ["opioids", "depression"]):
        plan = item("c", "CarePlan", addresses=[to(name) for name in order])
        assert MAP.scopes_for_bundle([plan, DEPRESSION, OPIOIDS])[0] == "substance-use"


def test_nearest_wins_over_a_longer_way() -> None:
    items = [
        item("plan", "CarePlan", addresses=[to("depression")], goal=[to("goal")]),
        item("goal", "Goal", addresses=[to("opioids")]),
        DEPRESSION,
        OPIOIDS,
    ]
    assert MAP.scopes_for_bundle(items)[:2] == ["mental-health", "substance-use"]


def test_override_that_takes_a_diagnosis_out_stops_the_spreading() -> None:
    mine = MAP.with_overrides([Override("conditions", system=SNOMED, code="370143000")])
    items = [item("c", "CarePlan", addresses=[to("depression")]), DEPRESSION]
    assert mine.scopes_for_bundle(items) == ["care-plans", "conditions"]


def test_override_of_the_referring_resource_is_final() -> None:
    mine = MAP.with_overrides([Override("my-plans", resource_type="CarePlan")])
    items = [item("c", "CarePlan", addresses=[to("depression")]), DEPRESSION]
    assert mine.scopes_for_bundle(items) == ["my-plans", "mental-health"]


def test_own_scope_for_a_coding_takes_along_what_reveals_it() -> None:
    mine = MAP.with_overrides([Override("my-knee", system=SNOMED, code="239873007")])
    plan = item("c", "CarePlan", addresses=[to("knee"), to("depression")])
    assert mine.scopes_for_bundle([plan, KNEE, DEPRESSION]) == ["my-knee", "my-knee", "mental-health"]


def test_own_scope_for_a_type_does_not_spread() -> None:
    mine = MAP.with_overrides([Override("diagnoses", resource_type="Condition")])
    assert mine.scopes_for_bundle([item("c", "CarePlan", addresses=[to("knee")]), KNEE]) == ["care-plans", "diagnoses"]


def test_nothing_to_file() -> None:
    assert MAP.scopes_for_bundle([]) == []


def test_a_long_chain_is_quick() -> None:
    items = [item(str(at), "Observation", partOf=[to(str(at + 1))]) for at in range(5000)]
    items.append(coded("5000", "Condition", "370143000"))
    assert set(MAP.scopes_for_bundle(items)) == {"mental-health"}
