"""Files and records: what becomes of a file that is stored, and where an opened record is written."""

from __future__ import annotations

import json
import stat
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest

from client.cli.documents import (
    FHIR_MEDIA_TYPE,
    records_from_file,
    resource_of,
    save,
    scope_map,
    workspace,
)
from client.cli.failures import UnreadableFile
from client.fhir.errors import DuplicateMember, NotJson, UnsupportedBundleType
from client.fhir.resource import Resource, same_resource, write_resource
from client.header import RecordHeader
from client.records import NewRecord
from client.reports import OpenedRecord, Override, Settings

GLUCOSE: Resource = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "2339-0", "display": "Glucose"}]},
    "category": [
        {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}
    ],
    "effectiveDateTime": "2023-05-14",
    "valueQuantity": {"value": Decimal("98.0"), "unit": "mg/dL"},
}
ALLERGY: Resource = {"resourceType": "AllergyIntolerance", "code": {"text": "Penicillin"}}


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def bundle(*resources: Resource) -> bytes:
    entries = b",".join(
        b'{"fullUrl": "urn:uuid:%d", "resource": %s}' % (at, write_resource(resource))
        for at, resource in enumerate(resources)
    )
    return b'{"resourceType": "Bundle", "type": "collection", "entry": [%s]}' % entries


def opened(body: bytes, header: dict[str, Any], path: Path | None = None) -> OpenedRecord:
    """A record as a session hands it over; nothing here looks at the manifest."""
    return OpenedRecord(
        record_id="01890000-0000-7000-8000-000000000000",
        version=1,
        scope="documents",
        epoch=0,
        author="did:key:x",
        header=RecordHeader(length=len(body), **header),
        body=b"" if path else body,
        manifest=cast(Any, None),
        path=path,
    )


def as_opened(record: NewRecord) -> OpenedRecord:
    body = record.body.read_bytes() if isinstance(record.body, Path) else record.body
    members = record.header().to_json()
    del members["length"]
    return opened(body, members)


def test_a_bundle_becomes_one_record_for_each_resource(tmp_path: Path) -> None:
    path = written(tmp_path / "b.json", bundle(GLUCOSE, ALLERGY))
    records = records_from_file(path, scope_map())
    assert [record.scope for record in records] == ["laboratory", "allergies"]
    assert [record.title for record in records] == ["Glucose", "Penicillin"]
    assert [record.date for record in records] == ["2023-05-14", None]
    assert [record.full_url for record in records] == ["urn:uuid:0", "urn:uuid:1"]
    assert {record.media_type for record in records} == {FHIR_MEDIA_TYPE}


def test_a_bundle_is_known_by_what_it_holds(tmp_path: Path) -> None:
    assert len(records_from_file(written(tmp_path / "export.txt", b"\n " + bundle(ALLERGY)), scope_map())) == 1


def test_a_single_resource_is_a_record(tmp_path: Path) -> None:
    (record,) = records_from_file(written(tmp_path / "r.json", write_resource(ALLERGY)), scope_map())
    assert (record.resource_type, record.scope, record.full_url) == ("AllergyIntolerance", "allergies", None)


def test_a_scope_that_is_named_overrules_the_rules(tmp_path: Path) -> None:
    path = written(tmp_path / "b.json", bundle(GLUCOSE, ALLERGY))
    assert {record.scope for record in records_from_file(path, scope_map(), "knee")} == {"knee"}


def test_the_patients_own_rules_go_before_the_common_ones(tmp_path: Path) -> None:
    rule = Override(scope="diabetes", system="http://loinc.org", code="2339-0")
    path = written(tmp_path / "b.json", bundle(GLUCOSE, ALLERGY))
    records = records_from_file(path, scope_map(Settings(overrides=(rule,))))
    assert [record.scope for record in records] == ["diabetes", "allergies"]


@pytest.mark.parametrize(
    ("name", "content", "media_type"),
    [
        ("letter.pdf", b"%PDF-1.7", "application/pdf"),
        ("note.txt", b"{not json", "text/plain"),
        ("list.json", b'{"anything": 1}', "application/json"),
        ("numbers.json", b"[1, 2]", "application/json"),
        ("scan", b"\x00\x01", "application/octet-stream"),
        ("empty.bin", b"", "application/octet-stream"),
    ],
)
def test_any_other_file_is_kept_as_it_is(tmp_path: Path, name: str, content: bytes, media_type: str) -> None:
    path = written(tmp_path / name, content)
    (record,) = records_from_file(path, scope_map())
    assert (record.media_type, record.scope, record.filename) == (media_type, "documents", name)
    # It is read while it is encrypted, and not before.
    assert record.body == path


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"{", NotJson),
        (b'{"resourceType": "Bundle", "type": "collection", "type": "batch"}', DuplicateMember),
        (b'{"resourceType": "Bundle", "type": "searching"}', UnsupportedBundleType),
    ],
)
def test_json_that_is_damaged_is_not_stored_as_something_else(
    tmp_path: Path, content: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        records_from_file(written(tmp_path / "b.json", content), scope_map())


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="nothing"):
        records_from_file(tmp_path / "nothing.json", scope_map())


def test_what_was_stored_comes_back_as_a_bundle_with_files_beside_it(tmp_path: Path) -> None:
    source = written(tmp_path / "b.json", bundle(GLUCOSE, ALLERGY))
    letter = written(tmp_path / "letter.pdf", b"%PDF")
    records = [*records_from_file(source, scope_map()), *records_from_file(letter, scope_map())]
    target = tmp_path / "out" / "all.json"
    target.parent.mkdir()
    assert save(map(as_opened, records), target) == {
        "bundle": str(target),
        "resources": 2,
        "files": [str(tmp_path / "out" / "all-files" / "letter.pdf")],
    }
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    entries = json.loads(target.read_bytes(), parse_float=Decimal)["entry"]
    assert same_resource(entries[1]["resource"], GLUCOSE)
    assert b"98.0" in target.read_bytes()
    assert (tmp_path / "out" / "all-files" / "letter.pdf").read_bytes() == b"%PDF"


def test_nothing_is_written_where_there_is_nothing(tmp_path: Path) -> None:
    target = tmp_path / "all.json"
    assert save([], target) == {"bundle": None, "resources": 0, "files": []}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("../../etc/passwd", "passwd"),
        ("/absolute", "absolute"),
        (".hidden", "hidden"),
        ("a\u202eb;c.txt", "a_b_c.txt"),
        ("..", "01890000-0000-7000-8000-000000000000.txt"),
        (None, "01890000-0000-7000-8000-000000000000.txt"),
    ],
)
def test_an_authors_file_name_leads_nowhere_else(tmp_path: Path, said: str | None, place: str) -> None:
    header = {"media_type": "text/plain", **({"filename": said} if said else {})}
    save([opened(b"text", header)], tmp_path / "x.json")
    assert [path.name for path in (tmp_path / "x-files").iterdir()] == [place]


def test_two_files_of_one_name_are_both_kept(tmp_path: Path) -> None:
    header = {"media_type": "text/plain", "filename": "note.txt"}
    save([opened(b"first", header), opened(b"second", header)], tmp_path / "x.json")
    folder = tmp_path / "x-files"
    assert (folder / "note.txt").read_bytes() == b"first"
    assert (folder / "note-2.txt").read_bytes() == b"second"


def test_a_large_resource_is_read_from_its_file(tmp_path: Path) -> None:
    with workspace(tmp_path / "x.json") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        record = opened(b"", {"media_type": FHIR_MEDIA_TYPE}, written(folder / "r", write_resource(ALLERGY)))
        assert resource_of(record) == ALLERGY
        save([record], tmp_path / "x.json")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
