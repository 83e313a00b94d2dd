"""An author and a records service that work together: versions put over records that the author may not touch.

The services in memory store what they are sent and check next to nothing, which is what such a service would do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import stamina

from client.author import Author
from client.errors import RecordRolledBack, ServiceUnreachable, UnauthorisedAuthor
from client.keyring import Keyring
from client.patient import NewRecord, Patient, Problem
from client.recipient import Recipient
from client.records import Placement
from client.uploads import upload
from shared.wire import Action, Purpose
from tests.unit.client.world import DAY, NOW, Answer, World, claims_of, id_of


def note(text: str, scope: str = "allergies") -> NewRecord:
    return NewRecord(body=text.encode(), media_type="text/plain", scope=scope, title=text)


@pytest.fixture(autouse=True)
def _no_pauses() -> Any:
    with stamina.set_testing(True, attempts=2):
        yield


@dataclass
class Scene:
    """The doctor may amend medications and nothing else; the insurer may read everything."""

    world: World
    patient: Patient
    doctor: Recipient
    insurer: Recipient
    allergy: str
    drug: str
    amend: str
    read: str

    async def amended(self, record_id: str, text: str = "changed", grant: str | None = None) -> None:
        """The doctor's client, which for this purpose checks nothing either, puts a version on top."""
        keyring, versions = self.patient.session.keyring, self.world.records[record_id]
        placement = Placement(
            patient=keyring.did,
            scope_id=keyring.scope_id("medications"),
            epoch=0,
            delegating_key=keyring.delegating("medications", 0).public_key(),
            record_id=record_id,
            version=len(versions) + 1,
            prev=id_of(versions[-1]["manifest"]),
            grant=grant or self.amend,
        )
        await upload(self.doctor.session, [(note(text, "medications"), placement)], on_stored=lambda _: None)

    def another_machine(self) -> Patient:
        """The patient's, which remembers nothing."""
        keyring = Keyring.from_words(self.patient.session.keyring.words())
        return Patient(self.world.session(keyring), known_scopes=["allergies", "medications"])


@pytest.fixture
async def scene(world: World) -> Scene:
    patient, doctor, insurer = await world.patient(), await world.recipient(), await world.recipient("Demo Insurer")
    allergy, drug = await patient.add_records([note("penicillin"), note("ibuprofen", "medications")])
    terms: dict[str, Any] = {"purpose": Purpose.TREAT, "expires": NOW + 30 * DAY}
    amend = await patient.share(doctor.session.did, scopes=["medications"], actions=[Action.AMEND], **terms)
    both = ["allergies", "medications"]
    read = await patient.share(insurer.session.did, scopes=both, actions=[Action.READ], **terms)
    return Scene(world, patient, doctor, insurer, allergy.record_id, drug.record_id, amend.id, read.id)


def asked(world: World) -> int:
    return sum(line.endswith("/history") for line in world.log)


# --- the patient ----------------------------------------------------------------------------------------------------


async def test_an_amendment_within_its_scope_is_read_by_everybody(scene: Scene) -> None:
    await scene.amended(scene.drug)
    await scene.amended(scene.drug, "changed again")
    for patient in (scene.patient, scene.another_machine()):
        assert (await patient.read_record(scene.drug)).body == b"changed again"
        assert {opened.body for opened in await patient.export()} == {b"penicillin", b"changed again"}
        assert all(summary.problem is None for summary in await patient.records())
        assert {scope.name: scope.records for scope in await patient.scopes()} == {"allergies": 1, "medications": 1}
    report = await scene.insurer.fetch(scene.read)
    assert ({opened.body for opened in report.opened}, report.problems) == ({b"penicillin", b"changed again"}, [])


async def test_the_patient_is_shown_no_amendment_of_a_record_of_another_scope(scene: Scene) -> None:
    await scene.amended(scene.allergy)
    with pytest.raises(UnauthorisedAuthor):
        await scene.patient.read_record(scene.allergy)
    by_id = {summary.record_id: summary for summary in await scene.patient.records()}
    problem = by_id[scene.allergy].problem
    assert problem is not None
    assert (problem.code, problem.record_id) == ("unauthorised_author", scene.allergy)
    assert by_id[scene.drug].problem is None
    problems: list[Problem] = []
    assert [opened.body for opened in await scene.patient.export(problems=problems)] == [b"ibuprofen"]
    assert [(one.code, one.record_id) for one in problems] == [("unauthorised_author", scene.allergy)]
    with pytest.raises(UnauthorisedAuthor):
        await scene.patient.export()
    assert {scope.name: scope.records for scope in await scene.patient.scopes()} == {"allergies": 0, "medications": 1}


async def test_what_was_there_before_can_still_be_read(scene: Scene) -> None:
    await scene.amended(scene.allergy)
    assert (await scene.patient.read_record(scene.allergy, 1)).body == b"penicillin"
    with pytest.raises(UnauthorisedAuthor):
        await scene.patient.read_record(scene.allergy, 2)


async def test_a_second_amendment_does_not_hide_the_first(scene: Scene) -> None:
    await scene.amended(scene.allergy)
    await scene.amended(scene.allergy)
    for patient in (scene.patient, scene.another_machine()):
        with pytest.raises(UnauthorisedAuthor):
            await patient.read_record(scene.allergy)
        by_id = {summary.record_id: summary.problem for summary in await patient.records()}
        assert by_id[scene.allergy] is not None
    assert [problem.code for problem in (await scene.insurer.fetch(scene.read)).problems] == ["unauthorised_author"]


async def test_the_patient_adds_nothing_on_top_of_it(scene: Scene) -> None:
    await scene.amended(scene.allergy)
    with pytest.raises(UnauthorisedAuthor):
        await scene.patient.add_version(scene.allergy, note("peanuts"))


async def test_reading_what_was_there_before_remembers_nothing_of_what_came_after(scene: Scene) -> None:
    await scene.amended(scene.allergy)
    await scene.patient.read_record(scene.allergy, 1)
    with pytest.raises(UnauthorisedAuthor):
        await scene.patient.read_record(scene.allergy)
    problems: list[Problem] = []
    await scene.patient.export(problems=problems)
    assert [problem.code for problem in problems] == ["unauthorised_author"]


async def test_a_history_is_asked_for_once(scene: Scene) -> None:
    await scene.amended(scene.drug)
    await scene.patient.records()
    before = asked(scene.world)
    assert before > 0
    await scene.patient.records()
    await scene.patient.export()
    assert asked(scene.world) == before
    await scene.amended(scene.drug)
    before = asked(scene.world)
    await scene.patient.records()
    assert asked(scene.world) == before + 1


async def test_records_of_one_version_need_no_history(scene: Scene) -> None:
    await scene.patient.export()
    await scene.insurer.fetch(scene.read)
    assert asked(scene.world) == 0


# --- recipients and authors -------------------------------------------------------------------------------------------


async def test_a_recipient_is_shown_no_amendment_of_a_record_of_another_scope(scene: Scene) -> None:
    await scene.amended(scene.allergy)
    report = await scene.insurer.fetch(scene.read)
    assert [opened.body for opened in report.opened] == [b"ibuprofen"]
    assert [(one.code, one.record_id) for one in report.problems] == [("unauthorised_author", scene.allergy)]


async def test_a_recipient_needs_no_history_of_what_the_patient_wrote(scene: Scene) -> None:
    await scene.patient.add_version(scene.drug, note("paracetamol", "medications"))
    before = asked(scene.world)
    report = await scene.insurer.fetch(scene.read)
    assert {opened.body for opened in report.opened} == {b"penicillin", b"paracetamol"}
    assert asked(scene.world) == before


async def test_an_author_does_not_build_on_an_amendment_that_nobody_allowed(scene: Scene) -> None:
    await scene.amended(scene.allergy)
    nurse = await scene.world.recipient("Demo Nurse")
    grant = await scene.patient.share(
        nurse.session.did,
        scopes=["medications"],
        actions=[Action.AMEND],
        purpose=Purpose.TREAT,
        expires=NOW + DAY,
    )
    with pytest.raises(UnauthorisedAuthor):
        await Author(nurse.session).amend(grant.id, scene.allergy, note("on top", "medications"))
    await Author(nurse.session).amend(grant.id, scene.drug, note("on top", "medications"))


async def test_a_grant_limited_to_a_record_amends_that_one_alone(scene: Scene) -> None:
    (other,) = await scene.patient.add_records([note("aspirin", "medications")])
    limited = await scene.patient.share(
        scene.doctor.session.did,
        scopes=["medications"],
        actions=[Action.AMEND],
        purpose=Purpose.TREAT,
        expires=NOW + DAY,
        records=[scene.drug],
    )
    for text in ("once", "twice"):
        await Author(scene.doctor.session).amend(limited.id, scene.drug, note(text, "medications"))
    await scene.amended(other.record_id, "not this one", limited.id)
    report = await scene.insurer.fetch(scene.read)
    assert {opened.body for opened in report.opened} == {b"penicillin", b"twice"}
    assert [(one.code, one.record_id) for one in report.problems] == [("unauthorised_author", other.record_id)]
    problems: list[Problem] = []
    assert {opened.body for opened in await scene.patient.export(problems=problems)} == {b"penicillin", b"twice"}
    assert [(one.code, one.record_id) for one in problems] == [("unauthorised_author", other.record_id)]


# --- services that show less, or something else -----------------------------------------------------------------------


@pytest.mark.parametrize("part", [slice(0, 0), slice(1, None), slice(0, 1)], ids=["nothing", "no first", "no last"])
async def test_a_history_with_parts_missing_is_refused(scene: Scene, part: slice) -> None:
    await scene.amended(scene.drug)
    await scene.amended(scene.drug)

    def shorten(path: str, answer: Answer) -> Answer:
        return {"items": answer["items"][part]} if path.endswith("/history") else answer

    scene.world.tamper = shorten
    problems: list[Problem] = []
    await scene.patient.export(problems=problems)
    assert [(one.code, one.record_id) for one in problems] == [("record_rolled_back", scene.drug)]
    assert [one.code for one in (await scene.insurer.fetch(scene.read)).problems] == ["record_rolled_back"]


async def test_a_history_that_is_not_shown_is_refused(scene: Scene) -> None:
    await scene.amended(scene.drug)
    versions = scene.world._records

    def hiding(request: httpx.Request, parts: list[str], *rest: Any) -> Any:
        return versions(request, ["v1", "nothing"] if parts[-1] == "history" else parts, *rest)

    scene.world._records = hiding  # type: ignore[assignment, method-assign]
    problems: list[Problem] = []
    assert [opened.body for opened in await scene.patient.export(problems=problems)] == [b"penicillin"]
    assert [one.code for one in problems] == ["record_rolled_back"]
    with pytest.raises(RecordRolledBack):
        await Author(scene.doctor.session).amend(scene.amend, scene.drug, note("x", "medications"))


async def test_the_history_of_another_record_is_refused(scene: Scene) -> None:
    await scene.amended(scene.drug)

    def swap(path: str, answer: Answer) -> Answer:
        if path.endswith("/history"):
            answer["items"] = [{"manifest": scene.world.records[scene.allergy][0]["manifest"], "authority": None}]
        return answer

    scene.world.tamper = swap
    assert [one.code for one in (await scene.insurer.fetch(scene.read)).problems] == ["wrong_answer"]


async def test_an_outage_is_an_outage(scene: Scene) -> None:
    await scene.amended(scene.drug)

    def fail(request: httpx.Request) -> None:
        if request.url.path.endswith("/history"):
            raise httpx.ConnectError("away")

    scene.world.fail = fail
    with pytest.raises(ServiceUnreachable):
        await scene.patient.records()


async def test_an_author_whom_the_registry_does_not_know_hides_no_other_record(scene: Scene) -> None:
    await scene.amended(scene.drug)
    author = claims_of(scene.world.records[scene.drug][1]["manifest"])["iss"]
    del scene.world.parties[author]
    patient = scene.another_machine()
    problems: list[Problem] = []
    assert [opened.body for opened in await patient.export(problems=problems)] == [b"penicillin"]
    assert [(one.code, one.record_id) for one in problems] == [("unauthorised_author", scene.drug)]


# --- one record that cannot be had costs no other ---------------------------------------------------------------------


@pytest.mark.parametrize(("change", "code"), [(b"", "not_found"), (b"more", "answer_too_large")])
async def test_a_body_that_is_not_there_keeps_no_other_record_from_being_exported(
    scene: Scene, change: bytes, code: str
) -> None:
    scan = NewRecord(body=bytes(100_000), media_type="application/dicom", scope="allergies")
    (large,) = await scene.patient.add_records([scan])
    (digest,) = scene.world.blobs
    if change:
        scene.world.blobs[digest] += change
    else:
        del scene.world.blobs[digest]
    problems: list[Problem] = []
    opened = await scene.patient.export(problems=problems)
    assert {record.body for record in opened} == {b"penicillin", b"ibuprofen"}
    assert [(one.code, one.record_id) for one in problems] == [(code, large.record_id)]


async def test_a_grant_that_ends_in_between_keeps_no_other_from_being_fetched(scene: Scene) -> None:
    terms: dict[str, Any] = {"actions": [Action.READ], "purpose": Purpose.TREAT, "expires": NOW + DAY}
    other = await scene.patient.share(scene.insurer.session.did, scopes=["medications"], **terms)
    answer = scene.world._covered

    def ended(grant_id: str) -> list[Answer]:
        return answer("nothing" if grant_id == other.id else grant_id)

    scene.world._covered = ended  # type: ignore[method-assign]
    report = await scene.insurer.fetch()
    assert [(one.code, one.grant_id) for one in report.problems] == [("not_found", other.id)]
    assert {record.body for record in report.opened} == {b"penicillin", b"ibuprofen"}
