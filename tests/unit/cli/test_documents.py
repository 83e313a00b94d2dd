"""Files and records: what becomes of a file that is stored, and where an opened record is written."""

from __future__ import annotations

import json
import stat
import unicodedata
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
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
from client.fhir.bundle import BundleItem, read_bundle
from client.fhir.errors import DuplicateMember, NotJson, ResourceTooLarge, UnsupportedBundleType
from client.fhir.resource import MAX_RESOURCE_BYTES, Resource, read_resource, same_resource, write_resource
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


NOW = 1_800_000_000
PATIENT = "did:key:patient"
ID = "01890000-0000-7000-8000-000000000000"


def opened(
    body: bytes, header: dict[str, Any], path: Path | None = None, *, record_id: str = ID, author: str = PATIENT
) -> OpenedRecord:
    """A record as a session hands it over; of the manifest nothing here looks at more than whose it is, and when."""
    return OpenedRecord(
        record_id=record_id,
        version=1,
        scope="documents",
        epoch=0,
        author=author,
        header=RecordHeader(length=len(body), **header),
        body=b"" if path else body,
        manifest=cast(Any, SimpleNamespace(payload=SimpleNamespace(aud=PATIENT, iat=NOW))),
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
    saved = save(map(as_opened, records), target)
    assert saved.problems == []
    assert saved.document() == {
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
    assert save([], target).document() == {"bundle": None, "resources": 0, "files": []}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("../../etc/passwd", "passwd"),
        ("/absolute", "absolute"),
        (".hidden", "hidden"),
        ("..\\\\server\\share\\x.txt", "x.txt"),
        ("-rf", "rf"),
        ("CON", "_CON"),
        ("con.txt", "_con.txt"),
        ("Lpt1.tar.gz", "_Lpt1.tar.gz"),
        ("com\u00b9", "_com\u00b9"),
        ("console.txt", "console.txt"),
        ("a:b|c*?.txt", "a_b_c__.txt"),
        ("\x1b[2Jx.txt", "__2Jx.txt"),
        ("note.txt. . ", "note.txt"),
        ("e\u0301.txt", "\u00e9.txt"),
        ("\u0939\u093f\u0902\u0926\u0940.txt", "\u0939\u093f\u0902\u0926\u0940.txt"),
        ("\ufdd0\ue000.txt", "__.txt"),
        ("a\u202eb;c.txt", "a_b_c.txt"),
        ("..", "01890000-0000-7000-8000-000000000000.txt"),
        (None, "01890000-0000-7000-8000-000000000000.txt"),
    ],
)
def test_an_authors_file_name_leads_nowhere_else(tmp_path: Path, said: str | None, place: str) -> None:
    header = {"media_type": "text/plain", **({"filename": said} if said else {})}
    save([opened(b"text", header)], tmp_path / "x.json")
    assert [path.name for path in (tmp_path / "x-files").iterdir()] == [place]


@pytest.mark.parametrize("said", ["漢" * 255, "漢" * 250 + ".pdf", "a" * 251 + ".txt", "x." + "漢" * 200, "é" * 255])
def test_a_long_name_is_cut_to_what_a_file_system_takes(tmp_path: Path, said: str) -> None:
    header = {"media_type": "text/plain", "filename": said}
    written = save([opened(b"first", header), opened(b"second", header)], tmp_path / "x.json")
    assert written.problems == []
    assert [path.read_bytes() for path in written.files] == [b"first", b"second"]
    assert all(len(path.name.encode()) <= 255 for path in written.files)
    if said[-4:] in (".pdf", ".txt"):
        assert all(path.suffix == said[-4:] for path in written.files)


def test_names_that_another_file_system_takes_for_one_are_kept_apart(tmp_path: Path) -> None:
    names = ["Note.txt", "note.txt", "NOTE.TXT", "\u00e9.txt", "E\u0301.txt", "note-2.txt"]
    records = [opened(name.encode(), {"media_type": "text/plain", "filename": name}) for name in names]
    written = save(records, tmp_path / "x.json")
    assert [path.read_bytes() for path in written.files] == [name.encode() for name in names]
    folded = {unicodedata.normalize("NFC", path.name).casefold() for path in written.files}
    assert len(folded) == len(names)


def test_a_file_that_is_there_already_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "x-files").mkdir()
    (tmp_path / "x-files" / "NOTE.txt").write_bytes(b"mine")
    save([opened(b"theirs", {"media_type": "text/plain", "filename": "note.txt"})], tmp_path / "x.json")
    assert (tmp_path / "x-files" / "NOTE.txt").read_bytes() == b"mine"
    assert (tmp_path / "x-files" / "note-2.txt").read_bytes() == b"theirs"


# --- one record that does not fit costs no other ----------------------------------------------------------------------


OTHER_ID = "01890000-0000-7000-8000-000000000001"
FHIR = {"media_type": FHIR_MEDIA_TYPE}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"not JSON at all", "not_json"),
        (b'{"resourceType": "Patient", "resourceType": "Patient"}', "duplicate_member"),
        (b"[1, 2]", "invalid_resource_type"),
        (b'{"resourceType": 7}', "invalid_resource_type"),
        (b"\xff\xfe{}", "byte_order_mark"),
        (b"[" * 5_000, "too_deep"),
        (b'{"resourceType": "Binary", "data": "' + b"A" * MAX_RESOURCE_BYTES + b'"}', "resource_too_large"),
    ],
    ids=["text", "twice", "array", "type", "mark", "deep", "large"],
)
def test_a_body_that_is_no_fhir_is_a_file_and_a_problem(tmp_path: Path, body: bytes, code: str) -> None:
    records = [
        opened(body, FHIR, record_id=OTHER_ID),
        opened(write_resource(ALLERGY), FHIR),
        opened(b"text", {"media_type": "text/plain", "filename": "note.txt"}),
    ]
    written = save(records, tmp_path / "x.json")
    assert [(problem.code, problem.record_id) for problem in written.problems] == [(code, OTHER_ID)]
    assert read_bundle((tmp_path / "x.json").read_bytes()) == [BundleItem(ALLERGY)]
    assert (tmp_path / "x-files" / f"{OTHER_ID}.json").read_bytes() == body
    assert (tmp_path / "x-files" / "note.txt").read_bytes() == b"text"


def test_a_resource_too_large_for_memory_is_not_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(2**34)
    with pytest.raises(ResourceTooLarge):
        resource_of(opened(b"", FHIR, huge))


def test_of_two_resources_at_one_place_the_patients_own_has_it(tmp_path: Path) -> None:
    place = {**FHIR, "full_url": "urn:uuid:1"}
    theirs: Resource = {"resourceType": "AllergyIntolerance", "code": {"text": "None known"}}
    records = [
        opened(write_resource(theirs), place, record_id=OTHER_ID, author="did:key:other"),
        opened(write_resource(ALLERGY), place),
        opened(write_resource(GLUCOSE), {**FHIR, "full_url": "urn:uuid:2"}, author="did:key:other"),
    ]
    written = save(records, tmp_path / "x.json")
    assert [(problem.code, problem.record_id) for problem in written.problems] == [("malformed_bundle", OTHER_ID)]
    found = {item.full_url: item.resource for item in read_bundle((tmp_path / "x.json").read_bytes())}
    assert same_resource(found["urn:uuid:1"], ALLERGY)
    assert same_resource(found["urn:uuid:2"], GLUCOSE)
    assert written.resources == 2
    assert read_resource((tmp_path / "x-files" / f"{OTHER_ID}.json").read_bytes()) == theirs


def test_the_same_resource_twice_is_no_problem(tmp_path: Path) -> None:
    record = opened(write_resource(ALLERGY), {**FHIR, "full_url": "urn:uuid:1"})
    assert save([record, record], tmp_path / "x.json").problems == []


@pytest.mark.parametrize("bound", [("MAX_ENTRIES", 1), ("MAX_BUNDLE_BYTES", 300)], ids=["entries", "bytes"])
def test_what_is_too_much_for_one_bundle_is_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: tuple[str, int]
) -> None:
    monkeypatch.setattr(f"client.fhir.bundle.{bound[0]}", bound[1])
    records = [opened(write_resource(ALLERGY), FHIR), opened(write_resource(GLUCOSE), FHIR, record_id=OTHER_ID)]
    written = save(records, tmp_path / "x.json")
    assert [(problem.code, problem.record_id) for problem in written.problems] == [("too_many_entries", OTHER_ID)]
    assert len(read_bundle((tmp_path / "x.json").read_bytes())) == 1
    assert same_resource(read_resource((tmp_path / "x-files" / f"{OTHER_ID}.json").read_bytes()), GLUCOSE)


def test_a_file_that_cannot_be_written_costs_no_other(tmp_path: Path) -> None:
    gone = opened(b"", {"media_type": "text/plain", "filename": "gone.txt"}, tmp_path / "nothing", record_id=OTHER_ID)
    written = save([gone, opened(b"text", {"media_type": "text/plain", "filename": "note.txt"})], tmp_path / "x.json")
    assert [(problem.code, problem.record_id) for problem in written.problems] == [("unreadable_file", OTHER_ID)]
    assert [path.read_bytes() for path in written.files] == [b"text"]


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
