"""A patient's records and settings, against services that lose answers, go back in time, or swap what they hold."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import stamina

from client.errors import (
    InvalidRecord,
    NotSignedUp,
    RecordRolledBack,
    RecordSwapped,
    ScopeKeyRolledBack,
    ServiceUnreachable,
    UnknownRecord,
    UnknownScope,
    VerificationFailed,
)
from client.keyring import Keyring
from client.patient import NewRecord, Override, Patient, Problem
from shared.encoding import b64url, from_b64url
from tests.unit.client.world import Answer, World, claims_of


def note(text: str = "penicillin", scope: str = "allergies", **members: Any) -> NewRecord:
    return NewRecord(body=text.encode(), media_type="text/plain", scope=scope, title=text, **members)


@pytest.fixture(autouse=True)
def _no_pauses() -> Any:
    with stamina.set_testing(True, attempts=4):
        yield


async def test_records_come_back_as_they_were_put_in(world: World) -> None:
    patient = await world.patient()
    heard: list[tuple[int, int]] = []
    records = [note(f"note {number}") for number in range(230)]
    stored = await patient.add_records(records, lambda done, total: heard.append((done, total)))
    assert heard == [(100, 230), (200, 230), (230, 230)]
    assert len({one.record_id for one in stored}) == 230
    assert {opened.body for opened in await patient.export()} == {record.body for record in records}
    summaries = await patient.records()
    assert {summary.title for summary in summaries} == {record.title for record in records}
    assert all(summary.problem is None and summary.scope == "allergies" for summary in summaries)


async def test_the_header_is_kept(world: World) -> None:
    patient = await world.patient()
    record = note(date="2026-01-02", resource_type="AllergyIntolerance", full_url="urn:uuid:1", filename="allergy.json")
    (stored,) = await patient.add_records([record])
    header = (await patient.read_record(stored.record_id)).header
    assert (header.date, header.resource_type, header.full_url, header.filename, header.length) == (
        "2026-01-02",
        "AllergyIntolerance",
        "urn:uuid:1",
        "allergy.json",
        len(record.body if isinstance(record.body, bytes) else b""),
    )


async def test_services_see_no_name_of_a_scope_and_no_text(world: World) -> None:
    patient = await world.patient()
    await patient.add_records([note("penicillin", "my-secret-diary")])
    seen = repr(world.records) + repr(world.scope_keys) + repr(world.parties)
    for token in world.scope_keys[patient.session.did]:
        seen += repr(claims_of(token))
    for word in ("penicillin", "diary", "allergies", "text/plain", "settings"):
        assert word not in seen


async def test_a_title_that_is_too_long_is_an_invalid_record(world: World) -> None:
    patient = await world.patient()
    with pytest.raises(InvalidRecord) as refusal:
        await patient.add_records([note("x" * 301)])
    assert "title" in refusal.value.detail


async def test_a_lost_answer_stores_nothing_twice(world: World) -> None:
    patient = await world.patient()
    lost: list[str] = []

    def lose_the_first_answer(path: str, answer: Answer) -> Answer:
        if path == "POST /v1/records" and not lost:
            lost.append(path)
            raise httpx.ReadTimeout("lost")
        return answer

    world.tamper = lose_the_first_answer
    await patient.add_records([note()])
    assert lost
    assert len(world.records) == 1


async def test_an_outage_in_the_middle_keeps_what_was_acknowledged(world: World) -> None:
    patient = await world.patient()
    await patient.scopes()
    heard: list[tuple[int, int]] = []

    def fail(request: httpx.Request) -> None:
        if heard and request.url.path == "/v1/records":
            raise httpx.ConnectError("away")

    world.fail = fail
    with pytest.raises(ServiceUnreachable):
        await patient.add_records([note(str(number)) for number in range(150)], lambda *now: heard.append(now))
    assert heard == [(100, 150)]
    assert len(world.records) == 100


async def test_a_newer_epoch_made_elsewhere_is_picked_up(world: World) -> None:
    patient = await world.patient()
    await patient.add_records([note()])
    other = Patient(world.session(Keyring.from_words(patient.session.keyring.words())), known_scopes=["allergies"])
    await other._scopes.publish({"allergies": 1})
    world.floors[patient.session.keyring.scope_id("allergies")] = 1
    (stored,) = await patient.add_records([note("later")])
    assert stored.epoch == 1
    assert (await patient.add_version(stored.record_id, note("latest"))).epoch == 1


async def test_versions_follow_each_other(world: World) -> None:
    patient = await world.patient()
    (stored,) = await patient.add_records([note("first")])
    second = await patient.add_version(stored.record_id, note("second", "medications"))
    assert (second.version, second.scope) == (2, "medications")
    assert (await patient.read_record(stored.record_id)).body == b"second"
    assert (await patient.read_record(stored.record_id, 1)).body == b"first"
    with pytest.raises(UnknownRecord):
        await patient.read_record(stored.record_id, 3)
    with pytest.raises(UnknownRecord):
        await patient.read_record("0198f000-0000-7000-8000-000000000001")


async def test_a_large_body_streams_through_the_blob_store(world: World, tmp_path: Path) -> None:
    patient = await world.patient()
    source = tmp_path / "scan"
    source.write_bytes(bytes(range(256)) * 1000)
    (stored,) = await patient.add_records(
        [NewRecord(body=source, media_type="application/dicom", scope="allergies", filename="scan")]
    )
    assert len(world.blobs) == 1
    assert (await patient.read_record(stored.record_id)).body == source.read_bytes()
    opened = await patient.read_record(stored.record_id, large_to=tmp_path)
    assert opened.body == b""
    assert opened.path is not None
    assert opened.path.read_bytes() == source.read_bytes()
    digest = next(iter(world.blobs))
    world.blobs[digest] = world.blobs[digest][:-1] + b"x"
    with pytest.raises(RecordSwapped):
        await patient.read_record(stored.record_id)


# --- dishonest services ---------------------------------------------------------------------------------------------


async def test_a_record_rolled_back_is_refused(world: World) -> None:
    patient = await world.patient()
    (stored,) = await patient.add_records([note("first")])
    await patient.add_version(stored.record_id, note("second"))
    await patient.records()
    world.records[stored.record_id].pop()
    with pytest.raises(RecordRolledBack):
        await patient.read_record(stored.record_id)
    with pytest.raises(RecordRolledBack):
        await patient.export()
    (summary,) = await patient.records()
    assert summary.problem is not None
    assert summary.problem.code == "record_rolled_back"


async def test_a_record_that_vanishes_is_rolled_back(world: World) -> None:
    patient = await world.patient()
    (stored,) = await patient.add_records([note()])
    await patient.records()
    del world.records[stored.record_id]
    with pytest.raises(RecordRolledBack):
        await patient.read_record(stored.record_id)


async def test_one_bad_record_hides_no_other(world: World) -> None:
    patient = await world.patient()
    bad, good = await patient.add_records([note("bad"), note("good")])
    shown = world.records[bad.record_id][0]
    shown["body"] = b64url(from_b64url(shown["body"])[:-1] + b"x")
    shown["header"] = b64url(from_b64url(shown["header"])[:-1] + b"x")
    by_id = {summary.record_id: summary for summary in await patient.records()}
    assert by_id[good.record_id].title == "good"
    problem = by_id[bad.record_id].problem
    assert problem is not None
    assert problem.code == "record_swapped"
    problems: list[Problem] = []
    assert [opened.body for opened in await patient.export(problems=problems)] == [b"good"]
    assert [problem.code for problem in problems] == ["record_swapped"]
    with pytest.raises(RecordSwapped):
        await patient.export()


async def test_two_records_swapped_for_each_other_are_refused(world: World) -> None:
    patient = await world.patient()
    one, two = await patient.add_records([note("one"), note("two")])
    world.records[one.record_id], world.records[two.record_id] = (
        world.records[two.record_id],
        world.records[one.record_id],
    )
    with pytest.raises(UnknownRecord):
        await patient.read_record(one.record_id)


async def test_a_registry_that_hides_an_epoch_is_found_out(world: World) -> None:
    patient = await world.patient()
    await patient.add_records([note()])
    await patient._scopes.publish({"allergies": 1})
    world.scope_keys[patient.session.did].pop()
    with pytest.raises(ScopeKeyRolledBack):
        await patient.scopes()
    world.scope_keys[patient.session.did].clear()
    with pytest.raises(ScopeKeyRolledBack):
        await patient.scopes()


async def test_another_batch_acknowledged_is_refused(world: World) -> None:
    patient = await world.patient()

    def other_ids(path: str, answer: Answer) -> Answer:
        if path == "POST /v1/records":
            answer["items"][0]["id"] = "A" * 43
        return answer

    world.tamper = other_ids
    with pytest.raises(Exception, match="other records") as failure:
        await patient.add_records([note()])
    assert getattr(failure.value, "code", None) == "unexpected_answer"


# --- scopes, settings, restore --------------------------------------------------------------------------------------


async def test_scopes_of_ones_own_are_kept_in_the_settings(world: World) -> None:
    patient = await world.patient()
    info = await patient.add_scope("diary", "My diary")
    assert (info.name, info.title, info.custom, info.records) == ("diary", "My diary", True, 0)
    await patient.add_records([note(scope="diary"), note(scope="allergies"), note(scope="running")])
    assert (await patient.settings()).scopes == {"diary": "My diary", "running": "running"}
    assert [(scope.name, scope.records, scope.custom) for scope in await patient.scopes()] == [
        ("allergies", 1, False),
        ("diary", 1, True),
        ("running", 1, True),
    ]


async def test_the_settings_scope_cannot_be_filed_under(world: World) -> None:
    patient = await world.patient()
    with pytest.raises(InvalidRecord):
        await patient.add_records([note(scope="pcehr-settings")])
    with pytest.raises(InvalidRecord):
        await patient.add_scope("pcehr-settings")


async def test_overrides_are_kept_newest_first(world: World) -> None:
    patient = await world.patient()
    first, second = Override("diary", resource_type="Observation"), Override("allergies", system="x", code="1")
    await patient.set_override(first)
    await patient.set_override(second)
    await patient.set_override(first)
    assert (await patient.settings()).overrides == (second, first)
    assert (await patient.remove_override(second)).overrides == (first,)
    with pytest.raises(UnknownScope):
        await patient.set_override(Override("No Scope"))


async def test_two_programs_changing_settings_lose_nothing(world: World) -> None:
    patient = await world.patient()
    other = Patient(world.session(Keyring.from_words(patient.session.keyring.words())))
    await patient.add_scope("one")
    await asyncio.gather(patient.add_scope("two"), other.add_scope("three"), other.add_scope("four"))
    assert set((await patient.settings()).scopes) == {"one", "two", "three", "four"}


async def test_settings_written_by_somebody_else_are_refused(world: World) -> None:
    patient, other = await world.patient(), await world.patient()
    await patient.add_scope("one")
    await other.add_scope("one")
    mine, theirs = patient.session.keyring.settings_record_id, other.session.keyring.settings_record_id
    world.records[mine] = world.records[theirs]
    with pytest.raises((VerificationFailed, UnknownRecord)):
        await patient.settings()


async def test_the_words_alone_bring_everything_back(world: World) -> None:
    patient = await world.patient()
    await patient.add_records([note("a"), note("b", "diary"), note("c", "medications")])
    await patient.set_override(Override("diary", resource_type="Observation"))
    await patient._scopes.publish({"diary": 1})
    restored = Patient(world.session(Keyring.from_words(patient.session.keyring.words())))
    report = await restored.restore(known_scopes={"allergies": "Allergies", "medications": "Medications"})
    assert [(scope.name, scope.epoch, scope.records) for scope in report.scopes] == [
        ("allergies", 0, 1),
        ("diary", 1, 1),
        ("medications", 0, 1),
    ]
    assert (report.records, report.unknown_scopes) == (3, [])
    assert {opened.body for opened in await restored.export()} == {b"a", b"b", b"c"}
    assert (await restored.settings()).overrides == (Override("diary", resource_type="Observation"),)


async def test_a_scope_whose_name_nobody_knows_is_reported(world: World) -> None:
    patient = await world.patient()
    await patient.add_records([note("a")])
    restored = Patient(world.session(Keyring.from_words(patient.session.keyring.words())))
    report = await restored.restore()
    assert report.unknown_scopes == [patient.session.keyring.scope_id("allergies")]
    with pytest.raises(UnknownScope):
        await restored.export()


async def test_restoring_registers_nobody(world: World) -> None:
    with pytest.raises(NotSignedUp):
        await Patient(world.session()).restore()
    assert not any("POST /v1/patients" in line for line in world.log)
