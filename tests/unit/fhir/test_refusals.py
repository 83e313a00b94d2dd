"""One named test for each way in which a Bundle or a resource is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from client.fhir import bundle, errors, resource
from client.fhir.bundle import BundleItem, assemble_bundle, read_bundle
from client.fhir.resource import MAX_DEPTH, MAX_RESOURCE_BYTES, dump_json, read_resource, write_resource
from shared.errors import PcehrError


def a_bundle(*entries: Any, **more: Any) -> bytes:
    return dump_json({"resourceType": "Bundle", "type": "collection", "entry": list(entries), **more})


def an_entry(**elements: Any) -> dict[str, Any]:
    return {"resource": {"resourceType": "Observation", **elements}}


def refused(data: bytes) -> str:
    with pytest.raises(PcehrError) as caught:
        read_bundle(data)
    return caught.value.code


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_not_json() -> None:
    assert refused(b'{"resourceType": "Bundle"') == "not_json"


def test_empty_file() -> None:
    assert refused(b"") == "not_json"


def test_text_after_the_json() -> None:
    assert refused(a_bundle() + b"{}") == "not_json"


def test_control_character_in_a_string() -> None:
    assert refused(b'{"resourceType": "Bun\x01dle"}') == "not_json"


def test_number_with_an_exponent_beyond_reason() -> None:
    assert refused(a_bundle(an_entry(x=0)).replace(b'"x":0', b'"x":1e' + b"9" * 30)) == "not_json"


def test_integer_with_too_many_digits() -> None:
    assert refused(a_bundle(an_entry(x=0)).replace(b'"x":0', b'"x":1' + b"0" * 5000)) == "not_json"


def test_byte_order_mark() -> None:
    assert refused(b"\xef\xbb\xbf" + a_bundle()) == "byte_order_mark"


def test_utf16_byte_order_mark() -> None:
    assert refused(a_bundle().decode().encode("utf-16")) == "byte_order_mark"


def test_invalid_utf8() -> None:
    assert refused(a_bundle(an_entry(note="\u00e9")).replace(b"\xc3\xa9", b"\xe9")) == "not_utf8"


def test_half_a_surrogate_pair() -> None:
    assert refused(a_bundle(an_entry(note="?")).replace(b"?", rb"\ud83d")) == "not_utf8"


def test_duplicate_member() -> None:
    assert refused(b'{"resourceType": "Bundle", "type": "batch", "type": "collection"}') == "duplicate_member"


def test_duplicate_member_deep_in_a_resource() -> None:
    data = a_bundle(an_entry(code={"text": "a"})).replace(b'{"text":"a"}', b'{"text":"a","text":"b"}')
    assert refused(data) == "duplicate_member"


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity"])
def test_not_a_number(word: bytes) -> None:
    assert refused(a_bundle(an_entry(x=0)).replace(b'"x":0', b'"x":' + word)) == "not_a_number"


def test_nested_too_deeply() -> None:
    assert refused(a_bundle(an_entry(x=nested(MAX_DEPTH)))) == "too_deep"


def test_nested_as_deeply_as_allowed() -> None:
    assert len(read_bundle(a_bundle(an_entry(x=nested(MAX_DEPTH - 1))))) == 1


def test_nested_so_deeply_that_a_parser_gives_up() -> None:
    assert refused(b"[" * 1_000_000) == "too_deep"


def test_document_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_BUNDLE_BYTES", 100)
    assert refused(a_bundle(an_entry(note="x" * 100))) == "document_too_large"


def test_too_many_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_ENTRIES", 2)
    assert len(read_bundle(a_bundle(an_entry(), an_entry()))) == 2
    assert refused(a_bundle(an_entry(), an_entry(), an_entry())) == "too_many_entries"


def test_resource_too_large() -> None:
    assert refused(a_bundle(an_entry(note="x" * MAX_RESOURCE_BYTES))) == "resource_too_large"


def test_single_resource_too_large() -> None:
    with pytest.raises(errors.ResourceTooLarge):
        read_resource(b" " * (MAX_RESOURCE_BYTES + 1))


@pytest.mark.parametrize("data", [b"[]", b"null", b'"Bundle"', b"{}", b'{"resourceType": "Patient"}'])
def test_not_a_bundle(data: bytes) -> None:
    assert refused(data) == "not_a_bundle"


def test_bundle_without_type() -> None:
    assert refused(b'{"resourceType": "Bundle"}') == "malformed_bundle"


@pytest.mark.parametrize("kind", ["message", "transaction-response", "batch-response", "folder"])
def test_unsupported_bundle_type(kind: str) -> None:
    assert refused(a_bundle(type=kind)) == "unsupported_bundle_type"


def test_entries_not_an_array() -> None:
    assert refused(a_bundle(entry={})) == "malformed_bundle"


@pytest.mark.parametrize("entry", [None, 1, "x", []])
def test_entry_not_an_object(entry: Any) -> None:
    assert refused(a_bundle(entry)) == "malformed_bundle"


@pytest.mark.parametrize("full_url", [1, "", {}])
def test_full_url_not_a_url(full_url: Any) -> None:
    assert refused(a_bundle({**an_entry(), "fullUrl": full_url})) == "malformed_bundle"


def test_entry_without_resource() -> None:
    deletion = {"request": {"method": "DELETE", "url": "Patient/1"}}
    assert refused(a_bundle(deletion, type="transaction")) == "entry_without_resource"


def test_resource_not_an_object() -> None:
    assert refused(a_bundle({"resource": []})) == "malformed_bundle"


@pytest.mark.parametrize("kind", [None, 1, "", "Pat ient", "Patient1", "Pátient", "Patient\n", "A" * 65])
def test_invalid_resource_type(kind: Any) -> None:
    assert refused(a_bundle({"resource": {"resourceType": kind}})) == "invalid_resource_type"


def test_single_resource_not_an_object() -> None:
    with pytest.raises(errors.InvalidResourceType):
        read_resource(b"[]")


@pytest.mark.parametrize("value", [1.5, b"x", (1,), {1: 2}, {"a": object()}])
def test_writing_what_is_not_json_in_fhir(value: Any) -> None:
    with pytest.raises(errors.MalformedResource):
        write_resource({"resourceType": "Observation", "x": value})


def test_writing_half_a_surrogate_pair() -> None:
    with pytest.raises(errors.MalformedResource):
        write_resource({"resourceType": "Observation", "x": "\ud83d"})


def test_writing_not_a_number() -> None:
    with pytest.raises(errors.NotANumber):
        write_resource({"resourceType": "Observation", "x": Decimal("NaN")})


def test_writing_a_structure_that_contains_itself() -> None:
    endless: dict[str, Any] = {"resourceType": "Observation"}
    endless["x"] = endless
    with pytest.raises(errors.TooDeep):
        write_resource(endless)


def test_assembling_two_versions_under_one_name() -> None:
    one, other = ({"resourceType": "Patient", "active": active} for active in (True, False))
    with pytest.raises(errors.MalformedBundle):
        assemble_bundle([BundleItem(one, "urn:uuid:1"), BundleItem(other, "urn:uuid:1")])


def test_assembling_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_ENTRIES", 1)
    with pytest.raises(errors.TooManyEntries):
        assemble_bundle([BundleItem({"resourceType": "Patient", "id": name}) for name in "ab"])


def test_assembling_more_than_can_be_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_BUNDLE_BYTES", 60)
    with pytest.raises(errors.TooManyEntries):
        assemble_bundle([BundleItem({"resourceType": "Patient", "id": "a" * 60})])


def test_no_refusal_repeats_the_input() -> None:
    for data in (b'{"secret": ', a_bundle({"resource": {"resourceType": "secret 1"}}), a_bundle({"secret": 1})):
        with pytest.raises(PcehrError) as caught:
            read_bundle(data)
        assert "secret" not in str(caught.value)


def test_every_refusal_has_its_own_code() -> None:
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, PcehrError)]
    own = [one for one in classes if one.__module__ == errors.__name__]
    assert len({one.code for one in own}) == len(own) > 0
    assert all(one.status in {400, 413} for one in own)
    assert resource.MAX_RESOURCE_BYTES < bundle.MAX_BUNDLE_BYTES
