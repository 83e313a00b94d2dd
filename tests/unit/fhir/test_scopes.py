"""Which scope a resource is filed under: the table, the sensitive codes, the patient's own rules."""

from __future__ import annotations

from typing import Any

import pytest

from client.fhir.errors import InvalidOverride, InvalidScopeName, InvalidVocabulary
from client.fhir.scopes import Override, ScopeMap, check_scope_name, read_vocabulary

LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
ICD10 = "http://hl7.org/fhir/sid/icd-10"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
OBSERVATION = "http://terminology.hl7.org/CodeSystem/observation-category"
SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"
LABEL = "http://terminology.hl7.org/CodeSystem/v3-ActCode"

MAP = ScopeMap.load()


def concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def scope_of(kind: str, **elements: Any) -> str:
    return MAP.scope_for({"resourceType": kind, **elements})


@pytest.mark.parametrize(
    ("kind", "scope"),
    [
        ("Patient", "demographics"),
        ("AllergyIntolerance", "allergies"),
        ("MedicationRequest", "medications"),
        ("Condition", "conditions"),
        ("Immunization", "immunizations"),
        ("DiagnosticReport", "laboratory"),
        ("ImagingStudy", "imaging"),
        ("Procedure", "procedures"),
        ("QuestionnaireResponse", "assessments"),
        ("Encounter", "encounters"),
        ("DocumentReference", "documents"),
        ("CarePlan", "care-plans"),
        ("Practitioner", "care-team"),
        ("Device", "devices"),
        ("FamilyMemberHistory", "family-history"),
        ("ExplanationOfBenefit", "billing"),
        ("MolecularSequence", "genetics"),
        ("Observation", "other"),
        ("Provenance", "other"),
        ("NoSuchType", "other"),
    ],
)
def test_by_type(kind: str, scope: str) -> None:
    assert scope_of(kind) == scope


@pytest.mark.parametrize(
    ("kind", "element", "system", "code", "scope"),
    [
        ("Observation", "category", OBSERVATION, "vital-signs", "vital-signs"),
        ("Observation", "category", OBSERVATION, "laboratory", "laboratory"),
        ("Observation", "category", OBSERVATION, "imaging", "imaging"),
        ("Observation", "category", OBSERVATION, "social-history", "social-history"),
        ("Observation", "category", OBSERVATION, "procedure", "procedures"),
        ("Observation", "category", OBSERVATION, "survey", "assessments"),
        ("Observation", "category", OBSERVATION, "exam", "assessments"),
        ("Observation", "code", LOINC, "85354-9", "vital-signs"),
        ("Observation", "code", LOINC, "72166-2", "social-history"),
        ("DiagnosticReport", "category", SECTION, "RAD", "imaging"),
        ("DiagnosticReport", "category", SECTION, "LAB", "laboratory"),
        ("DiagnosticReport", "category", LOINC, "LP29684-5", "imaging"),
        ("DiagnosticReport", "category", LOINC, "34117-2", "documents"),
        ("DiagnosticReport", "category", SECTION, "GE", "genetics"),
        ("ServiceRequest", "category", SNOMED, "108252007", "laboratory"),
        ("ServiceRequest", "category", SNOMED, "363679005", "imaging"),
        ("Encounter", "type", SNOMED, "185349003", "encounters"),
        ("Encounter", "type", SNOMED, "387713003", "procedures"),
        ("Encounter", "type", SNOMED, "33879002", "immunizations"),
        ("Encounter", "type", SNOMED, "79094001", "mental-health"),
        ("Encounter", "type", SNOMED, "56876005", "substance-use"),
    ],
)
def test_by_code_and_category(kind: str, element: str, system: str, code: str, scope: str) -> None:
    assert scope_of(kind, **{element: [concept(system, code)]}) == scope


def test_code_comes_before_category() -> None:
    smoking = concept(LOINC, "72166-2")
    assert scope_of("Observation", category=[concept(OBSERVATION, "survey")], code=smoking) == "social-history"


def test_ordinary_rules_look_at_their_own_element_only() -> None:
    assert scope_of("Observation", component=[{"code": concept(LOINC, "8480-6")}]) == "other"


@pytest.mark.parametrize(
    ("system", "code", "scope"),
    [
        (ICD10, "F32.1", "mental-health"),
        (ICD10CM, "F43.10", "mental-health"),
        (ICD10CM, "F4310", "mental-health"),
        ("urn:oid:2.16.840.1.113883.6.90", "F20.9", "mental-health"),
        ("http://fhir.de/CodeSystem/bfarm/icd-10-gm", "f32.1", "mental-health"),
        (ICD10, "X61", "mental-health"),
        (ICD10CM, "F10.20", "substance-use"),
        (ICD10, "F19", "substance-use"),
        (ICD10, "F64.0", "sexual-health"),
        (ICD10, "A54", "sexual-health"),
        (ICD10CM, "B20", "sexual-health"),
        (ICD10CM, "Z30.09", "sexual-health"),
        (ICD10CM, "T74.11XA", "domestic-violence"),
        (ICD10CM, "Z15.01", "genetics"),
        ("http://hl7.org/fhir/sid/icd-9-cm", "296.32", "mental-health"),
        ("http://hl7.org/fhir/sid/icd-9-cm", "303.90", "substance-use"),
        ("http://hl7.org/fhir/sid/icd-9-cm", "V25.09", "sexual-health"),
        ("http://hl7.org/fhir/sid/icpc-2", "P76", "mental-health"),
        ("http://hl7.org/fhir/sid/icpc-2", "P15", "substance-use"),
        ("http://www.whocc.no/atc", "N06AB06", "mental-health"),
        ("http://www.whocc.no/atc", "G03AC08", "sexual-health"),
        (SNOMED, "370143000", "mental-health"),
        (SNOMED, "21897009", "mental-health"),
        (SNOMED, "47505003", "mental-health"),
        (SNOMED, "58214004", "mental-health"),
        (SNOMED, "13746004", "mental-health"),
        (SNOMED, "5602001", "substance-use"),
        (SNOMED, "86406008", "sexual-health"),
        (SNOMED, "65200003", "sexual-health"),
        (SNOMED, "706893006", "domestic-violence"),
        (LOINC, "44261-6", "mental-health"),
        (LOINC + "|2.77", "55758-7", "mental-health"),
        (LOINC, "69737-5", "mental-health"),
        (LOINC, "75626-2", "substance-use"),
        (LOINC, "82667-7", "substance-use"),
        (LOINC, "21613-5", "sexual-health"),
        (LOINC, "51969-4", "genetics"),
        (RXNORM, "312938", "mental-health"),
        (RXNORM, "389221", "sexual-health"),
        (LABEL, "PSY", "mental-health"),
        (LABEL, "HIV", "sexual-health"),
        (ICD10, "G30", "conditions"),
        (ICD10, "A49", "conditions"),
        (ICD10, "Z31.4", "conditions"),
        (SNOMED, "F32", "conditions"),
        (LABEL, "AMB", "conditions"),
        ("http://example.org/codes", "F32.1", "conditions"),
    ],
)
def test_sensitive_codes(system: str, code: str, scope: str) -> None:
    assert scope_of("Condition", code=concept(system, code)) == scope


DEPRESSION = concept(SNOMED, "370143000")


@pytest.mark.parametrize(
    ("kind", "elements"),
    [
        ("Encounter", {"reasonCode": [DEPRESSION]}),
        ("Encounter", {"type": [concept(SNOMED, "185349003")], "reasonCode": [DEPRESSION]}),
        ("Claim", {"item": [{"productOrService": DEPRESSION}]}),
        ("Claim", {"diagnosis": [{"diagnosisCodeableConcept": DEPRESSION}]}),
        ("MedicationRequest", {"medicationCodeableConcept": concept(RXNORM, "312938")}),
        ("MedicationRequest", {"contained": [{"resourceType": "Medication", "code": concept(RXNORM, "312938")}]}),
        ("FamilyMemberHistory", {"condition": [{"code": DEPRESSION}]}),
        ("Observation", {"category": [concept(OBSERVATION, "vital-signs")], "valueCodeableConcept": DEPRESSION}),
        ("DocumentReference", {"meta": {"security": [{"system": LABEL, "code": "PSYTHPN"}]}}),
        ("Patient", {"extension": [{"url": "urn:x", "valueCoding": DEPRESSION["coding"][0]}]}),
    ],
)
def test_sensitive_wins_wherever_it_stands(kind: str, elements: dict[str, Any]) -> None:
    assert scope_of(kind, **elements) == "mental-health"


def test_sensitive_by_type_of_a_contained_resource() -> None:
    assert scope_of("Observation", contained=[{"resourceType": "MolecularSequence"}]) == "genetics"


def test_of_several_sensitive_scopes_the_first_in_the_vocabulary_wins() -> None:
    codes = [concept(ICD10, "B20"), concept(ICD10, "F32"), concept(ICD10, "F10"), concept(ICD10, "T74")]
    assert scope_of("Encounter", reasonCode=codes) == "domestic-violence"
    assert scope_of("Encounter", reasonCode=codes[:3]) == "substance-use"
    assert scope_of("Encounter", reasonCode=codes[:2]) == "mental-health"


def test_odd_content_is_filed_without_complaint() -> None:
    assert MAP.scope_for({"resourceType": 3, "code": [{"system": 1, "code": 2}, None], "category": "x"}) == "other"


def test_vocabulary_has_words_for_patients() -> None:
    assert len({scope.name for scope in MAP.scopes}) == len(MAP.scopes)
    for scope in MAP.scopes:
        assert scope.title
        assert scope.description.endswith(".")
        assert scope.description.count(". ") == 0
    sensitive = {scope.name for scope in MAP.scopes if MAP.is_sensitive(scope.name)}
    assert sensitive == {"domestic-violence", "substance-use", "mental-health", "sexual-health", "genetics"}


@pytest.mark.parametrize("name", ["a", "mental-health", "2nd-opinion", "a" * 64])
def test_scope_names(name: str) -> None:
    assert check_scope_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "a--b", "A", "a b", "a_b", "é", "a\n", "a" * 65])
def test_invalid_scope_name(name: str) -> None:
    with pytest.raises(InvalidScopeName):
        check_scope_name(name)


def test_override_by_type() -> None:
    mine = MAP.with_overrides([Override("pictures", resource_type="ImagingStudy")])
    assert mine.scope_for({"resourceType": "ImagingStudy"}) == "pictures"
    assert mine.scope_for({"resourceType": "Condition"}) == "conditions"
    assert MAP.scope_for({"resourceType": "ImagingStudy"}) == "imaging"


def test_override_by_coding_anywhere() -> None:
    mine = MAP.with_overrides([Override("my-knee", system=SNOMED, code="239873007")])
    encounter = {"resourceType": "Encounter", "reasonCode": [concept(SNOMED, "239873007")]}
    assert mine.scope_for(encounter) == "my-knee"


def test_override_by_type_and_coding() -> None:
    mine = MAP.with_overrides([Override("my-knee", resource_type="Condition", system=SNOMED, code="239873007")])
    knee = concept(SNOMED, "239873007")
    assert mine.scope_for({"resourceType": "Condition", "code": knee}) == "my-knee"
    assert mine.scope_for({"resourceType": "Encounter", "reasonCode": [knee]}) == "encounters"


def test_first_override_wins_even_over_sensitive_codes() -> None:
    mine = MAP.with_overrides(
        [Override("conditions", system=SNOMED, code="370143000"), Override("private", resource_type="Condition")]
    )
    assert mine.scope_for({"resourceType": "Condition", "code": DEPRESSION}) == "conditions"
    assert mine.scope_for({"resourceType": "Condition"}) == "private"


@pytest.mark.parametrize(
    "parts",
    [{}, {"system": SNOMED}, {"code": "1"}, {"resource_type": "Patient", "code": "1"}, {"resource_type": ""}],
)
def test_override_that_says_too_little(parts: dict[str, str]) -> None:
    with pytest.raises(InvalidOverride):
        Override("mine", **parts)


def test_override_with_an_invalid_name() -> None:
    with pytest.raises(InvalidScopeName):
        Override("My Scope", resource_type="Patient")


TABLE = """
[systems]
snomed = ["http://snomed.info/sct"]
[[scope]]
name = "secret"
title = "Secret"
description = "Secret."
sensitive = true
[[scope]]
name = "other"
title = "Other"
description = "Other."
[types]
{types}
[[ordinary]]
scope = "other"
element = "code"
types = ["Observation"]
system = "snomed"
codes = ["1"]
[[sensitive]]
scope = "{scope}"
system = "{system}"
codes = ["2"]
"""


@pytest.mark.parametrize(
    ("types", "scope", "system"),
    [
        ('other = ["Patient"]', "other", "snomed"),
        ('other = ["Patient"]', "secret", "nowhere"),
        ('missing = ["Patient"]', "secret", "snomed"),
        ('other = ["Patient"]\nsecret = ["Patient"]', "secret", "snomed"),
    ],
)
def test_vocabulary_that_contradicts_itself(types: str, scope: str, system: str) -> None:
    with pytest.raises(InvalidVocabulary):
        read_vocabulary(TABLE.format(types=types, scope=scope, system=system))


def test_vocabulary_without_a_last_resort() -> None:
    table = TABLE.format(types='secret = ["Patient"]', scope="secret", system="snomed")
    with pytest.raises(InvalidVocabulary):
        read_vocabulary(table.replace('name = "other"', 'name = "rest"'))
