"""What is read is what was written: decimals with their precision, any text, any order of entries."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.fhir.bundle import BundleItem, assemble_bundle, read_bundle
from client.fhir.resource import dump_json, read_resource, same_resource, write_resource

texts = st.text(st.characters(exclude_categories=["Cs"]))
decimals = st.decimals(allow_nan=False, allow_infinity=False) | st.builds(
    lambda sign, digits, exponent: Decimal((sign, tuple(digits), exponent)),
    st.integers(0, 1),
    st.lists(st.integers(0, 9), min_size=1, max_size=40),
    st.integers(-40, 40),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | decimals | texts,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
    max_leaves=20,
)
resource_types = st.from_regex(r"[A-Za-z]{1,64}", fullmatch=True)
fhir_resources = st.builds(
    lambda kind, elements: {**elements, "resourceType": kind},
    resource_types,
    st.dictionaries(texts, values, max_size=6),
)


@given(fhir_resources)
def test_write_then_read(resource: dict[str, Any]) -> None:
    data = write_resource(resource)
    again = read_resource(data)
    assert same_resource(again, resource)
    assert write_resource(again) == data
    assert list(again) == list(resource)


@given(st.lists(st.tuples(fhir_resources, st.integers(0, 10**6)), max_size=5, unique_by=lambda pair: pair[1]))
def test_assemble_then_read(pairs: list[tuple[dict[str, Any], int]]) -> None:
    items = [BundleItem(resource, f"urn:example:{number}") for resource, number in pairs]
    data = assemble_bundle(items)
    assert assemble_bundle(reversed(items)) == data
    again = {item.full_url: item.resource for item in read_bundle(data)}
    assert len(again) == len(items)
    assert all(same_resource(again[item.full_url], item.resource) for item in items)


@given(decimals, decimals)
def test_decimals_are_the_same_when_sign_digits_and_exponent_are(one: Decimal, other: Decimal) -> None:
    a, b = ({"resourceType": "X", "x": number} for number in (one, other))
    assert same_resource(a, b) == (one.as_tuple() == other.as_tuple())


@given(st.integers(-(10**9), 10**9), st.integers(0, 12), st.integers(1, 12))
def test_trailing_zeros_make_a_difference(digits: int, places: int, zeros: int) -> None:
    one = Decimal(digits).scaleb(-places)
    other = Decimal(digits * 10**zeros).scaleb(-places - zeros)
    assert one == other
    assert not same_resource({"resourceType": "X", "x": one}, {"resourceType": "X", "x": other})


@pytest.mark.parametrize(
    "number", ["1.50", "0.010", "100", "-0", "-0.0", "0.0", "1.0E-7", "1E+5", "0.1000000000000000000000000000000001"]
)
def test_numbers_come_back_as_they_are_written(number: str) -> None:
    data = b'{"resourceType":"Observation","valueQuantity":{"value":' + number.encode() + b"}}"
    assert write_resource(read_resource(data)) == data


def test_spellings_of_one_precision_are_written_in_one_way() -> None:
    spelt = [b'{"resourceType":"X","x":' + number + b"}" for number in (b"1e5", b"1E5", b"1e+05")]
    assert {write_resource(read_resource(data)) for data in spelt} == {b'{"resourceType":"X","x":1E+5}'}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"1.50", b"1.5"),
        (b"1", b"1.0"),
        (b"0", b"-0"),
        (b"1", b"true"),
        (b"0", b"false"),
        (b'"1"', b"1"),
        (b"[]", b"{}"),
    ],
)
def test_different_things_are_not_the_same(one: bytes, other: bytes) -> None:
    a, b = (read_resource(b'{"resourceType":"X","x":' + value + b"}") for value in (one, other))
    assert not same_resource(a, b)


def test_order_of_members_says_nothing_and_order_of_elements_does() -> None:
    assert same_resource({"resourceType": "X", "a": 1, "b": 2}, {"b": 2, "a": 1, "resourceType": "X"})
    assert not same_resource({"resourceType": "X", "a": [1, 2]}, {"resourceType": "X", "a": [2, 1]})


@pytest.mark.parametrize("kind", ["transaction", "batch", "collection", "document", "searchset", "history"])
def test_every_type_of_bundle_with_records_is_read(kind: str) -> None:
    entry = {
        "fullUrl": "http://example.org/fhir/Patient/1",
        "resource": {"resourceType": "Patient", "id": "1"},
        "request": {"method": "POST", "url": "Patient"},
        "search": {"mode": "match"},
    }
    data = dump_json({"resourceType": "Bundle", "type": kind, "entry": [entry]})
    assert read_bundle(data) == [
        BundleItem({"resourceType": "Patient", "id": "1"}, "http://example.org/fhir/Patient/1")
    ]


def test_what_belongs_to_the_exchange_is_dropped() -> None:
    entry = {"resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient"}}
    data = dump_json({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    assert b"request" not in assemble_bundle(read_bundle(data))


def test_bundle_without_entries() -> None:
    assert read_bundle(b'{"resourceType": "Bundle", "type": "collection"}') == []
    assert assemble_bundle([]) == b'{"resourceType":"Bundle","type":"collection"}'


def test_patient_comes_first_and_the_same_item_once() -> None:
    patient = BundleItem({"resourceType": "Patient"}, "urn:uuid:2")
    allergy = BundleItem({"resourceType": "AllergyIntolerance"}, "urn:uuid:1")
    assert read_bundle(assemble_bundle([allergy, patient, allergy])) == [patient, allergy]


def test_versions_of_one_resource_may_share_a_full_url() -> None:
    versions = [
        BundleItem({"resourceType": "Patient", "meta": {"versionId": number}}, "http://example.org/Patient/1")
        for number in ("1", "2")
    ]
    assert read_bundle(assemble_bundle(versions)) == versions
