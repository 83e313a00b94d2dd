"""Titles and dates for headers and tables."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.fhir.summary import MAX_TITLE, ResourceSummary, describe


@pytest.mark.parametrize(
    ("resource", "title"),
    [
        ({"resourceType": "Condition", "code": {"text": "Asthma", "coding": [{"display": "x"}]}}, "Asthma"),
        ({"resourceType": "Condition", "code": {"coding": [{"code": "1"}, {"display": "Asthma"}]}}, "Asthma"),
        ({"resourceType": "Immunization", "vaccineCode": {"text": "MMR"}}, "MMR"),
        ({"resourceType": "MedicationRequest", "medicationCodeableConcept": {"text": "Aspirin"}}, "Aspirin"),
        ({"resourceType": "MedicationRequest", "medicationReference": {"display": "Aspirin"}}, "Aspirin"),
        ({"resourceType": "Patient", "name": [{"given": ["Demo", "D."], "family": "Patient"}]}, "Demo D. Patient"),
        ({"resourceType": "Patient", "name": [{"text": "Demo Patient", "family": "x"}]}, "Demo Patient"),
        ({"resourceType": "Organization", "name": "Demo Practice"}, "Demo Practice"),
        ({"resourceType": "Device", "deviceName": [{"name": "Monitor"}]}, "Monitor"),
        ({"resourceType": "ImagingStudy", "description": "Chest"}, "Chest"),
        ({"resourceType": "Goal", "description": {"text": "Walk"}}, "Walk"),
        ({"resourceType": "Encounter", "type": [{"text": "Check up"}]}, "Check up"),
        ({"resourceType": "Claim", "item": [{"productOrService": {"text": "Check up"}}]}, "Check up"),
        ({"resourceType": "ExplanationOfBenefit"}, "Explanation Of Benefit"),
        ({"resourceType": "Condition", "code": {"text": "  a\n\tb\x1b[2J\u202ec  "}}, "a b [2J c"),
        ({"resourceType": "Condition", "code": {"text": "\u0000"}}, "Condition"),
        ({"resourceType": "Condition", "code": 7, "name": [None, {"given": "x"}]}, "Condition"),
        ({"resourceType": None}, "Resource"),
    ],
)
def test_title(resource: dict[str, Any], title: str) -> None:
    assert describe(resource).title == title


@pytest.mark.parametrize(
    ("elements", "date"),
    [
        ({"effectiveDateTime": "2020-05-17T09:00:00+02:00", "issued": "2021-01-01"}, "2020-05-17"),
        ({"effectivePeriod": {"start": "2020-05-17"}}, "2020-05-17"),
        ({"period": {"end": "2020-05-17"}}, "2020-05-17"),
        ({"onsetDateTime": "2020-05"}, "2020-05"),
        ({"onsetDateTime": "2020"}, "2020"),
        ({"onsetDateTime": "2020-13-01"}, None),
        ({"onsetDateTime": "2020-02-30", "recordedDate": "2020-03-01"}, "2020-03-01"),
        ({"onsetString": "long ago"}, None),
        ({"date": 2020}, None),
        ({"date": "yesterday"}, None),
        ({}, None),
    ],
)
def test_date(elements: dict[str, Any], date: str | None) -> None:
    assert describe({"resourceType": "Observation", **elements}).date == date


def test_a_birth_date_is_not_a_clinical_date() -> None:
    assert describe({"resourceType": "Patient", "birthDate": "1985-01-01"}).date is None


def test_long_title_is_cut() -> None:
    title = describe({"resourceType": "Condition", "code": {"text": "word " * 100}}).title
    assert len(title) <= MAX_TITLE
    assert title.endswith("word…")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)
fields = st.sampled_from(["resourceType", "code", "name", "type", "item", "category", "period", "date", "text"])


@given(st.dictionaries(fields, json_values))
def test_anything_has_a_summary(resource: dict[str, Any]) -> None:
    summary = describe(resource)
    assert isinstance(summary, ResourceSummary)
    assert 0 < len(summary.title) <= MAX_TITLE
    assert summary.title.isprintable()
