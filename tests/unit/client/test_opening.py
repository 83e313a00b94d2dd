"""A list is opened while it is still being read, and a listed record in one round trip; large uploads run ahead by one
batch. What is skipped because it was verified a moment ago is missed by nobody."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import stamina

from client import transport, uploads
from client.errors import ServiceRefused, UnexpectedAnswer
from client.patient import NewRecord, Patient
from client.recipient import Recipient
from client.reports import FetchReport, HeldGrant
from shared.crypto.record import RecordKey
from shared.encoding import b64url, from_b64url, sha256
from shared.wire import Action, Purpose
from tests.unit.client.world import DAY, NOW, Answer, World


@pytest.fixture(autouse=True)
def _no_pauses() -> Any:
    with stamina.set_testing(True, attempts=2):
        yield


def note(text: str) -> NewRecord:
    return NewRecord(body=text.encode(), media_type="text/plain", scope="allergies", title=text)


async def shared(patient: Patient, doctor: Recipient) -> HeldGrant:
    grant = await patient.share(
        doctor.session.did,
        scopes=["allergies"],
        actions=[Action.READ],
        purpose=Purpose.TREAT,
        expires=NOW + 30 * DAY,
    )
    return await doctor.grant(grant.id)


def bodies(report: FetchReport) -> list[bytes]:
    return sorted(opened.body for opened in report.opened)


def hear(world: World) -> list[str]:
    """What is asked of the services from now on."""
    heard: list[str] = []

    def noted(path: str, answer: Answer) -> Answer:
        heard.append(path)
        return answer

    world.tamper = noted
    return heard


async def test_a_listed_record_is_opened_in_one_round_trip(world: World) -> None:
    patient, doctor = await world.patient(), await world.recipient()
    await patient.add_records([note("a1"), note("a2")])
    held = await shared(patient, doctor)
    listed = await doctor.listing(held)
    await doctor.fetch(held.id)
    heard = hear(world)
    report = await doctor.open(held, [listed[1], listed[1]])
    assert bodies(report) == [b"a2"]
    assert (report.problems, report.lying_proxies) == ([], [])
    assert heard == ["POST /v1/disclosures"]


async def test_a_listed_record_is_not_opened_once_the_grant_has_ended(world: World) -> None:
    patient, doctor = await world.patient(), await world.recipient()
    await patient.add_records([note("a1")])
    held = await shared(patient, doctor)
    listed = await doctor.listing(held)
    await patient.revoke(held.id)
    with pytest.raises(ServiceRefused) as refusal:
        await doctor.open(held, listed)
    assert refusal.value.code == "grant_revoked"


async def test_a_list_of_several_pages_is_opened_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PAGE", 2)
    patient, doctor = await world.patient(), await world.recipient()
    await patient.add_records([note(f"a{number}") for number in range(5)])
    held = await shared(patient, doctor)
    heard: list[tuple[int, int]] = []
    report = await doctor.fetch(held.id, progress=lambda *now: heard.append(now))
    assert bodies(report) == [b"a0", b"a1", b"a2", b"a3", b"a4"]
    assert (len(heard), heard[-1]) == (3, (5, 5))


async def test_a_record_on_two_pages_and_twice_on_one_is_opened_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "PAGE", 1)
    patient, doctor = await world.patient(), await world.recipient()
    await patient.add_records([note("a1"), note("a2")])
    held = await shared(patient, doctor)
    first: list[Any] = []

    def repeat(path: str, answer: Answer) -> Answer:
        if path == "GET /v1/records":
            first[:] = first or answer["items"]
            answer["items"] = [*answer["items"], *first]
        return answer

    world.tamper = repeat
    assert bodies(await doctor.fetch(held.id)) == [b"a1", b"a2"]


@pytest.mark.parametrize("part", ["capsule", "wrapped_key", "header", "body"])
async def test_a_part_swapped_under_a_disclosure_is_found_out(world: World, part: str) -> None:
    patient, doctor = await world.patient(), await world.recipient()
    await patient.add_records([note("a1"), note("a2")])
    held = await shared(patient, doctor)

    def swap(path: str, answer: Answer) -> Answer:
        if path == "POST /v1/disclosures":
            data = bytearray(from_b64url(answer["records"][0]["record"][part]))
            data[-1] ^= 1
            answer["records"][0]["record"][part] = b64url(bytes(data))
        return answer

    world.tamper = swap
    report = await doctor.fetch(held.id)
    assert len(report.opened) == 1
    assert [problem.code for problem in report.problems] == ["record_swapped"]


async def test_a_manifest_that_is_none_costs_no_other_of_its_author(world: World) -> None:
    patient = await world.patient()
    bad, good = await patient.add_records([note("bad"), note("good")])

    def spoil(path: str, answer: Answer) -> Answer:
        if path == "GET /v1/me/records":
            for shown in answer["items"]:
                if shown["manifest"] == bad_token:
                    shown["manifest"] = shown["manifest"].replace(".", ".=", 1)
        return answer

    bad_token = world.records[bad.record_id][0]["manifest"]
    world.tamper = spoil
    assert [record.manifest.payload.record for record in await patient._records.manifests()] == [good.record_id]


async def test_another_manifest_under_a_disclosure_is_found_out(world: World) -> None:
    patient, doctor = await world.patient(), await world.recipient()
    await patient.add_records([note("a1"), note("a2")])
    held = await shared(patient, doctor)

    def forge(path: str, answer: Answer) -> Answer:
        if path == "POST /v1/disclosures":
            token = answer["records"][0]["record"]["manifest"]
            signed, _, signature = token.rpartition(".")
            answer["records"][0]["record"]["manifest"] = f"{signed}.{signature[::-1]}"
        return answer

    world.tamper = forge
    report = await doctor.fetch(held.id)
    assert len(report.opened) == 1
    assert len(report.problems) == 1
    assert report.problems[0].code in {"statement_forged", "bad_signature", "malformed"}


async def test_a_capsule_that_its_author_made_badly_is_a_problem_of_its_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = await world.patient()
    capsule = SimpleNamespace(hash=sha256(b"x" * 98), b64=b64url(b"x" * 98))
    with monkeypatch.context() as patched:
        patched.setattr(RecordKey, "wrap", lambda *_: (capsule, bytes(104)))
        (bad,) = await patient.add_records([note("bad")])
    await patient.add_records([note("good")])
    by_id = {summary.record_id: summary for summary in await patient.records()}
    problem = by_id.pop(bad.record_id).problem
    assert problem is not None
    assert problem.code == "malformed_key_material"
    assert [summary.title for summary in by_id.values()] == ["good"]


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[NewRecord]:
    """Three records whose ciphertexts go through files, each a batch of its own; the files go to a folder here."""
    monkeypatch.setattr(uploads, "MAX_BATCH", 1)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    records = []
    for number in range(3):
        source = tmp_path / f"scan-{number}"
        source.write_bytes(bytes([number]) * 100_000)
        records.append(NewRecord(body=source, media_type="application/dicom", scope="allergies"))
    return records


async def test_batches_are_stored_in_order_and_their_files_go(
    world: World, tmp_path: Path, large: list[NewRecord]
) -> None:
    patient = await world.patient()
    heard: list[tuple[int, int]] = []
    stored = await patient.add_records(large, lambda *now: heard.append(now))
    assert heard == [(1, 3), (2, 3), (3, 3)]
    for number, one in enumerate(stored):
        assert (await patient.read_record(one.record_id)).body == bytes([number]) * 100_000
    assert list((tmp_path / "temporary").iterdir()) == []


async def test_what_was_sealed_ahead_goes_when_an_upload_ends(
    world: World, tmp_path: Path, large: list[NewRecord]
) -> None:
    patient = await world.patient()

    def other_ids(path: str, answer: Answer) -> Answer:
        if path == "POST /v1/records":
            answer["items"][0]["id"] = "A" * 43
        return answer

    world.tamper = other_ids
    with pytest.raises(UnexpectedAnswer):
        await patient.add_records(large)
    assert len(world.blobs) == 1
    assert list((tmp_path / "temporary").iterdir()) == []
