"""The committed demonstration Bundle: made by its program, valid in structure, filed under many scopes."""

from __future__ import annotations

import base64
from collections import Counter
from decimal import Decimal
from importlib import resources
from typing import Any

from client.fhir.bundle import BundleItem, assemble_bundle, read_bundle, same_resource
from client.fhir.make_demo_bundle import FILE_NAME, demo_bundle
from client.fhir.references import revealed_by
from client.fhir.scopes import ScopeMap, codings
from client.fhir.summary import describe

DATA = (resources.files("client.fhir") / FILE_NAME).read_bytes()

REQUIRED = {
    # Elements with a minimum cardinality of 1 in FHIR R4, for the types in the Bundle.
    "AllergyIntolerance": ["patient"],
    "CarePlan": ["status", "intent", "subject"],
    "CareTeam": [],
    "Claim": ["status", "type", "use", "patient", "created", "provider", "priority", "insurance"],
    "Condition": ["subject"],
    "Coverage": ["status", "beneficiary", "payor"],
    "Device": [],
    "DiagnosticReport": ["status", "code"],
    "DocumentReference": ["status", "content"],
    "Encounter": ["status", "class"],
    "ExplanationOfBenefit": [
        "status",
        "type",
        "use",
        "patient",
        "created",
        "insurer",
        "provider",
        "outcome",
        "insurance",
    ],
    "FamilyMemberHistory": ["status", "patient", "relationship"],
    "Goal": ["lifecycleStatus", "description", "subject"],
    "ImagingStudy": ["status", "subject"],
    "Immunization": ["status", "vaccineCode", "patient", "occurrenceDateTime"],
    "MedicationRequest": ["status", "intent", "medicationCodeableConcept", "subject"],
    "Observation": ["status", "code"],
    "Organization": ["name"],
    "Patient": [],
    "Practitioner": [],
    "Procedure": ["status", "subject"],
}


def items() -> list[BundleItem]:
    return read_bundle(DATA)


def decimals(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {text for child in value.values() for text in decimals(child)}
    if isinstance(value, list):
        return {text for child in value for text in decimals(child)}
    return {str(value)} if isinstance(value, Decimal) else set()


def test_the_program_gives_the_committed_bytes() -> None:
    assert demo_bundle() == DATA


def test_required_elements_are_there() -> None:
    for item in items():
        assert set(REQUIRED[item.resource["resourceType"]]) <= item.resource.keys()
    assert {item.resource["resourceType"] for item in items()} == REQUIRED.keys()


def test_no_element_is_empty() -> None:
    def check(value: Any) -> None:
        # FHIR R4, JSON page: no empty objects, arrays or strings, and no null outside arrays.
        assert value not in ({}, [], "", None)
        for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(child)

    for item in items():
        check(item.resource)


def test_every_reference_leads_to_an_entry() -> None:
    urls = [item.full_url for item in items()]
    assert len(set(urls)) == len(urls)

    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert "reference" not in value or value["reference"] in urls or isinstance(value["reference"], dict)
            value = list(value.values())
        for child in value if isinstance(value, list) else ():
            check(child)

    for item in items():
        assert item.full_url == f"urn:uuid:{item.resource['id']}"
        check(item.resource)


def test_many_resources_under_many_scopes() -> None:
    scopes = Counter(ScopeMap.load().scopes_for_bundle(items()))
    assert scopes.total() >= 80
    assert len(scopes) >= 10
    assert scopes["mental-health"] >= 3
    assert scopes["sexual-health"] >= 1
    assert scopes["other"] == 0


def test_one_of_the_sensitive_resources_is_so_by_reference_only() -> None:
    scope_map, found = ScopeMap.load(), items()
    alone = [scope_map.scope_for(item.resource) for item in found]
    together = scope_map.scopes_for_bundle(found)
    moved = {
        (item.resource["resourceType"], was)
        for item, was, now in zip(found, alone, together, strict=True)
        if was != now and now == "mental-health"
    }
    assert moved == {("CarePlan", "care-plans"), ("Claim", "billing"), ("ExplanationOfBenefit", "billing")}


def test_no_ordinary_resource_points_at_a_sensitive_one() -> None:
    scope_map, found = ScopeMap.load(), items()
    scopes = scope_map.scopes_for_bundle(found)
    for target, referrers in enumerate(revealed_by(found)):
        if scope_map.is_sensitive(scopes[target]):
            assert all(scopes[at] == scopes[target] for at in referrers)


def test_decimals_and_text_survive() -> None:
    again = {item.full_url: item.resource for item in read_bundle(assemble_bundle(items()))}
    assert all(same_resource(again[item.full_url], item.resource) for item in items())
    assert {"1.50", "1.5", "0.010", "100.00"} <= decimals(list(again.values()))
    assert "Żółtawa".encode() in assemble_bundle(items())


def test_the_attachment_can_be_opened() -> None:
    (letter,) = [item.resource for item in items() if item.resource["resourceType"] == "DocumentReference"]
    attachment = letter["content"][0]["attachment"]
    data = base64.b64decode(attachment["data"], validate=True)
    assert len(data) == attachment["size"]
    assert data.decode("utf-8").startswith("Demo letter")


def test_people_are_called_demo() -> None:
    for item in items():
        if item.resource["resourceType"] in {"Patient", "Practitioner"}:
            assert describe(item.resource).title.startswith("Demo ")


def test_every_code_is_a_coding_with_its_system() -> None:
    assert all(codings(item.resource) for item in items() if "code" in item.resource)
