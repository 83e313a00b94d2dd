"""Which resource of a Bundle reveals which other one, by following references (FHIR R4, References page).

Only references in fields that carry a reason, a diagnosis or a result are followed: a Claim whose diagnosis is a
Condition says what that Condition says, even where it holds nothing but the reference, since amount, date and
provider do the rest. `subject`, `patient`, `encounter`, performers and places are not followed; every record of a
patient would otherwise end in one scope.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from client.fhir.bundle import BundleItem
from client.fhir.resource import Resource

REVEALING_FIELDS: Final = frozenset(
    {
        "addresses",  # CarePlan, Goal
        "assessment",  # Condition.stage
        "authorizingPrescription",  # MedicationDispense
        "basedOn",  # DiagnosticReport, Observation, Procedure, MedicationRequest …
        "claim",  # ExplanationOfBenefit, Claim.related
        "claimResponse",  # ExplanationOfBenefit, Claim.insurance
        "complicationDetail",  # Procedure
        "condition",  # Encounter.diagnosis
        "derivedFrom",  # Observation
        "detail",  # Condition.evidence
        "diagnosisReference",  # Claim, ExplanationOfBenefit
        "entry",  # Composition.section
        "focus",  # Observation, Task, Communication
        "goal",  # CarePlan
        "hasMember",  # Observation
        "investigation",  # ClinicalImpression
        "item",  # List.entry
        "itemReference",  # ClinicalImpression.finding
        "medicationReference",  # MedicationRequest, MedicationStatement …
        "originalPrescription",  # Claim, ExplanationOfBenefit
        "outcomeReference",  # CarePlan.activity, Goal
        "partOf",  # Procedure, Observation, MedicationAdministration
        "prescription",  # Claim, ExplanationOfBenefit
        "problem",  # ClinicalImpression
        "procedureReference",  # Claim, ExplanationOfBenefit
        "reasonReference",  # Encounter, MedicationRequest, Procedure, ServiceRequest …
        "reference",  # CarePlan.activity
        "referral",  # Claim, ExplanationOfBenefit
        "related",  # DocumentReference.context
        "request",  # ClaimResponse
        "result",  # DiagnosticReport
        "supportingInfo",  # CarePlan, ServiceRequest
        "supportingInformation",  # MedicationRequest
        "valueReference",  # Claim.supportingInfo, ExplanationOfBenefit.supportingInfo
    }
)
"""Names of the fields whose references are followed; the comment names the R4 resources that have them."""


def revealed_by(items: Sequence[BundleItem]) -> list[list[int]]:
    """For each item, the positions of the items of the same list that refer to it in a revealing field.

    A reference is resolved as FHIR R4 says (Bundle, "Resolving references in Bundles"): by the entry's fullUrl, or
    as `Type/id`, with or without a server before it and a version behind it. One that leads out of the Bundle is
    nobody's business here, and a search (`Condition?identifier=…`) cannot be resolved without a server.
    """
    positions = _positions(items)
    referrers: list[set[int]] = [set() for _ in items]
    for at, item in enumerate(items):
        for reference in _revealing_references(item.resource):
            for target in _resolve(reference, positions):
                if target != at:
                    referrers[target].add(at)
    return [sorted(found) for found in referrers]


def _positions(items: Sequence[BundleItem]) -> dict[str, list[int]]:
    positions: dict[str, list[int]] = defaultdict(list)
    for at, item in enumerate(items):
        if item.full_url is not None:
            positions[item.full_url].append(at)
        kind, identifier = item.resource.get("resourceType"), item.resource.get("id")
        if isinstance(kind, str) and isinstance(identifier, str):
            positions[f"{kind}/{identifier}"].append(at)
            if item.full_url is None:
                # Without a fullUrl, the id is what a "urn:uuid:" reference is most likely made from.
                positions[f"urn:uuid:{identifier}"].append(at)
    return positions


def _resolve(reference: str, positions: dict[str, list[int]]) -> list[int]:
    whole = reference.partition("/_history/")[0]
    if whole in positions:
        return positions[whole]
    # A server's address before "Type/id" differs between exports of one record, so it does not count.
    return positions.get("/".join(whole.split("/")[-2:]), [])


def _revealing_references(resource: Resource) -> Iterator[str]:
    stack: list[tuple[str, Any]] = list(resource.items())
    while stack:
        name, value = stack.pop()
        if isinstance(value, list):
            stack.extend((name, element) for element in value)
        elif isinstance(value, dict):
            target = value.get("reference")
            if isinstance(target, str) and name in REVEALING_FIELDS:
                yield target
            stack.extend(value.items())
