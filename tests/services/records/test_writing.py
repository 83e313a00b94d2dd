"""`POST /v1/records`: every rule, and every refusal under its own name."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from typing import Any

import asyncpg
import pytest
from uuid6 import uuid7

from shared.db.locks import lock_key
from shared.encoding import b64url, sha256
from shared.wire import Action, Role
from tests.services.records.world import World, refused
from tests.services.signing_parties import DAY, SealedRecord, TestParty, random_hash


def batch(*records: SealedRecord) -> dict[str, Any]:
    return {"records": [record.as_json() for record in records]}


async def versions(world: World, record: str) -> int:
    return (await world.sql("SELECT count(*) FROM record_versions WHERE record = $1", record))[0][0]


async def test_a_patient_writes_and_reads_back_the_exact_bytes(world: World) -> None:
    record = world.patient.record(world.patient, "allergies")
    response = await world.post("/v1/records", world.patient, batch(record))
    assert response.status_code == 201
    assert response.json() == {"items": [{"id": record.id, "kind": "pcehr-manifest+jwt", "received_at": world.clock()}]}
    page = (await world.get("/v1/me/records", world.patient, content=True)).json()
    assert page["next"] is None
    [item] = page["items"]
    assert {**record.as_json(), "authority": None} == item


async def test_the_same_batch_twice_has_one_effect_and_one_answer(world: World) -> None:
    body = batch(*(world.patient.record(world.patient, "allergies") for _ in range(3)))
    first = await world.post("/v1/records", world.patient, body)
    world.clock.advance(30)
    second = await world.post("/v1/records", world.patient, body)
    assert first.content == second.content
    assert (await world.sql("SELECT count(*) FROM record_versions"))[0][0] == 3
    assert len(await world.audit()) == 3


async def test_one_statement_twice_in_a_batch_has_one_effect(world: World) -> None:
    record = world.patient.record(world.patient, "allergies")
    response = await world.post("/v1/records", world.patient, batch(record, record))
    assert [item["id"] for item in response.json()["items"]] == [record.id, record.id]
    assert await versions(world, record.record) == 1


async def test_versions_of_one_record_may_come_in_one_batch(world: World) -> None:
    first = world.patient.record(world.patient, "allergies")
    second = world.patient.record(world.patient, "medication", after=first)
    await world.write(world.patient, first, second)
    third = world.patient.record(world.patient, "allergies", after=second)
    await world.write(world.patient, third)
    page = (await world.get(f"/v1/records/{first.record}", world.patient)).json()
    assert [item["manifest"] for item in page["items"]] == [first.manifest, second.manifest, third.manifest]


async def test_a_batch_is_all_or_nothing(world: World) -> None:
    good = world.patient.record(world.patient, "allergies")
    bad = world.patient.record(world.patient, "allergies", header=random_hash())
    refused(await world.post("/v1/records", world.patient, batch(good, bad)), 422, "record_swapped")
    assert (await world.get("/v1/me/records", world.patient)).json()["items"] == []
    # What was refused has not used up its jti: the good one may come again.
    await world.write(world.patient, good)


async def test_jti_reused(world: World) -> None:
    first = world.patient.record(world.patient, "allergies", jti=b64url(bytes(16)))
    other = world.patient.record(world.patient, "allergies", jti=b64url(bytes(16)))
    await world.write(world.patient, first)
    refused(await world.post("/v1/records", world.patient, batch(other)), 409, "jti_reused")


async def test_jti_reused_within_a_batch(world: World) -> None:
    pair = [world.patient.record(world.patient, "allergies", jti=b64url(bytes(16))) for _ in range(2)]
    refused(await world.post("/v1/records", world.patient, batch(*pair)), 409, "jti_reused")
    assert (await world.sql("SELECT count(*) FROM record_versions"))[0][0] == 0


async def test_jti_belongs_to_its_issuer(world: World) -> None:
    other = world.registry.party(Role.PATIENT)
    for patient in (world.patient, other):
        await world.write(patient, patient.record(patient, "allergies", jti=b64url(bytes(16))))


async def test_manifests_of_two_patients(world: World) -> None:
    grant = await world.may_write(Action.APPEND)
    other = world.registry.party(Role.PATIENT)
    records = [world.doctor.record(patient, "allergies", grant=grant.id) for patient in (world.patient, other)]
    refused(await world.post("/v1/records", world.doctor, batch(*records)), 422, "refused")


async def test_wrong_signer_when_the_caller_is_not_the_issuer(world: World) -> None:
    record = world.patient.record(world.patient, "allergies")
    refused(await world.post("/v1/records", world.doctor, batch(record)), 403, "wrong_signer")


async def test_wrong_signer_after_a_rotation(world: World) -> None:
    record = world.patient.record(world.patient, "allergies")
    world.patient.rotate()
    refused(await world.post("/v1/records", world.patient, batch(record)), 403, "wrong_signer")
    await world.write(world.patient, world.patient.record(world.patient, "allergies"))


async def test_bad_signature(world: World) -> None:
    record = world.patient.record(world.patient, "allergies").as_json()
    head, payload, _ = record["manifest"].split(".")
    record["manifest"] = f"{head}.{payload}.{b64url(bytes(64))}"
    refused(await world.post("/v1/records", world.patient, {"records": [record]}), 422, "bad_signature")


async def test_statement_from_the_future(world: World) -> None:
    record = world.patient.record(world.patient, "allergies", now=world.clock() + 61)
    refused(await world.post("/v1/records", world.patient, batch(record)), 422, "statement_from_the_future")


async def test_malformed_when_another_kind_of_statement_is_sent(world: World) -> None:
    record = world.patient.record(world.patient, "allergies").as_json()
    record["manifest"] = world.patient.denial(world.doctor, random_hash())
    refused(await world.post("/v1/records", world.patient, {"records": [record]}), 400, "malformed")


async def test_malformed_key_material_in_the_capsule(world: World) -> None:
    capsule = b"\x02" + bytes(97)
    record = world.patient.record(world.patient, "allergies", capsule=b64url(sha256(capsule)))
    body = record.as_json() | {"capsule": b64url(capsule)}
    refused(await world.post("/v1/records", world.patient, {"records": [body]}), 400, "malformed_key_material")


@pytest.mark.parametrize("part", ["capsule", "wrapped_key", "header", "body"])
async def test_record_swapped(world: World, part: str) -> None:
    record, other = (world.patient.record(world.patient, "allergies") for _ in range(2))
    body = record.as_json() | {part: other.as_json()[part]}
    refused(await world.post("/v1/records", world.patient, {"records": [body]}), 422, "record_swapped")
    assert await world.audit() == [("record_written", "record_swapped")]


async def test_record_swapped_when_the_size_is_not_that_of_the_body(world: World) -> None:
    record = world.patient.record(world.patient, "allergies", size=1)
    refused(await world.post("/v1/records", world.patient, batch(record)), 422, "record_swapped")


async def test_forbidden_for_a_recipient_to_have_records_of_its_own(world: World) -> None:
    record = world.doctor.record(world.doctor, "allergies")
    refused(await world.post("/v1/records", world.doctor, batch(record)), 403, "forbidden")


# Capsules


def repeating(record: SealedRecord, first: SealedRecord) -> SealedRecord:
    """The record, made with its manifest naming the capsule of `first`, uploaded with that capsule."""
    return dataclasses.replace(record, capsule=first.capsule)


async def test_record_swapped_when_the_capsule_is_that_of_another_record(world: World) -> None:
    first = await world.written()
    append = await world.may_write(Action.APPEND)
    for author, grant in ((world.patient, None), (world.doctor, append.id)):
        record = author.record(world.patient, "allergies", grant=grant, capsule=first.capsule_hash)
        response = await world.post("/v1/records", author, batch(repeating(record, first)))
        refused(response, 422, "record_swapped")
    assert await world.sql("SELECT version FROM record_versions") == [(1,)]


async def test_record_swapped_when_the_capsule_is_that_of_the_version_before(world: World) -> None:
    first = await world.written()
    second = world.patient.record(world.patient, "allergies", after=first, capsule=first.capsule_hash)
    refused(await world.post("/v1/records", world.patient, batch(repeating(second, first))), 422, "record_swapped")


async def test_record_swapped_when_a_batch_has_a_capsule_twice(world: World) -> None:
    first = world.patient.record(world.patient, "allergies")
    second = world.patient.record(world.patient, "allergies", capsule=first.capsule_hash)
    response = await world.post("/v1/records", world.patient, batch(first, repeating(second, first)))
    refused(response, 422, "record_swapped")
    await world.write(world.patient, first)
    await world.write(world.patient, first)
    assert await versions(world, first.record) == 1


async def test_of_two_records_with_one_capsule_at_once_one_wins(world: World) -> None:
    first, second = (world.patient.record(world.patient, "allergies") for _ in range(2))
    pair = [
        [repeating(world.patient.record(world.patient, "allergies", capsule=one.capsule_hash), one) for one in order]
        for order in ((first, second), (second, first))
    ]
    answers = await asyncio.gather(*(world.post("/v1/records", world.patient, batch(*records)) for records in pair))
    assert sorted(answer.status_code for answer in answers) == [201, 422]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 422} == {"record_swapped"}


async def test_a_limited_grant_is_not_widened_by_its_capsule_in_another_record(world: World) -> None:
    """The doctor may read and amend one record for long, and amend all of the scope for a while."""
    mine, other = await world.written(), await world.written()
    limited = await world.granted([("allergies", 0, [mine.capsule_hash])], actions=[Action.READ, Action.AMEND])
    wide = await world.may_write(Action.AMEND)
    planted = world.doctor.record(world.patient, "allergies", after=other, grant=wide.id, capsule=mine.capsule_hash)
    response = await world.post("/v1/records", world.doctor, batch(repeating(planted, mine)))
    refused(response, 422, "record_swapped")
    await world.revoke(wide.id)
    refused(await world.get(f"/v1/records/{other.record}", world.doctor), 404, "not_found")
    amended = world.doctor.record(world.patient, "allergies", after=other, grant=limited.id)
    refused(await world.post("/v1/records", world.doctor, batch(amended)), 403, "not_granted")


# Succession


async def test_version_conflict_when_the_id_is_taken(world: World) -> None:
    record = await world.written()
    again = world.patient.record(world.patient, "allergies", record=record.record)
    refused(await world.post("/v1/records", world.patient, batch(again)), 409, "version_conflict")


async def test_version_conflict_when_the_id_is_taken_by_another_patient(world: World) -> None:
    record = await world.written()
    other = world.registry.party(Role.PATIENT)
    again = other.record(other, "allergies", record=record.record)
    refused(await world.post("/v1/records", other, batch(again)), 409, "version_conflict")


async def test_version_conflict_when_there_is_nothing_to_follow(world: World) -> None:
    lost = world.patient.record(world.patient, "allergies")
    after = world.patient.record(world.patient, "allergies", after=lost)
    refused(await world.post("/v1/records", world.patient, batch(after)), 409, "version_conflict")


async def test_version_conflict_when_another_manifest_is_followed(world: World) -> None:
    first = await world.written()
    second = world.patient.record(world.patient, "allergies", after=first, prev=random_hash())
    refused(await world.post("/v1/records", world.patient, batch(second)), 409, "version_conflict")


async def test_version_conflict_when_a_version_is_left_out(world: World) -> None:
    first = await world.written()
    third = world.patient.record(world.patient, "allergies", after=first, version=3)
    refused(await world.post("/v1/records", world.patient, batch(third)), 409, "version_conflict")


async def test_version_conflict_when_an_older_version_is_followed(world: World) -> None:
    first = await world.written()
    await world.write(world.patient, world.patient.record(world.patient, "allergies", after=first))
    late = world.patient.record(world.patient, "allergies", after=first)
    refused(await world.post("/v1/records", world.patient, batch(late)), 409, "version_conflict")


async def test_of_two_amends_of_one_version_at_once_one_wins(world: World) -> None:
    first = await world.written()
    rivals = [world.patient.record(world.patient, "allergies", after=first) for _ in range(6)]
    answers = await asyncio.gather(*(world.post("/v1/records", world.patient, batch(rival)) for rival in rivals))
    assert sorted(answer.status_code for answer in answers) == [201] + 5 * [409]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"version_conflict"}
    assert await versions(world, first.record) == 2


async def test_of_two_new_records_of_one_id_at_once_one_wins(world: World) -> None:
    record = str(uuid7())
    rivals = [world.patient.record(world.patient, "allergies", record=record) for _ in range(4)]
    answers = await asyncio.gather(*(world.post("/v1/records", world.patient, batch(rival)) for rival in rivals))
    assert sorted(answer.status_code for answer in answers) == [201] + 3 * [409]


async def test_one_batch_posted_at_once_by_several_has_one_effect(world: World) -> None:
    body = batch(*(world.patient.record(world.patient, "allergies") for _ in range(5)))
    answers = await asyncio.gather(*(world.post("/v1/records", world.patient, body) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert (await world.sql("SELECT count(*) FROM record_versions"))[0][0] == 5


# Floors


async def test_stale_epoch_after_a_revocation_raised_the_floor(world: World) -> None:
    grant = await world.may_write(Action.APPEND)
    await world.revoke(grant.id, [("allergies", 2)])
    for epoch in (0, 1):
        record = world.patient.record(world.patient, "allergies", epoch=epoch)
        refused(await world.post("/v1/records", world.patient, batch(record)), 409, "stale_epoch")
    await world.written(epoch=2)
    await world.written(epoch=3)


async def test_floors_are_of_one_scope_and_one_patient(world: World) -> None:
    grant = await world.may_write(Action.APPEND)
    await world.revoke(grant.id, [("allergies", 2)])
    await world.written("medication")
    other = world.registry.party(Role.PATIENT)
    await world.write(other, other.record(other, "allergies"))


async def test_floors_never_fall(world: World) -> None:
    for floor in (3, 1):
        grant = await world.may_write(Action.APPEND)
        await world.revoke(grant.id, [("allergies", floor)])
    record = world.patient.record(world.patient, "allergies", epoch=2)
    refused(await world.post("/v1/records", world.patient, batch(record)), 409, "stale_epoch")


def lock_of(patient: TestParty, name: str) -> int:
    """The key of the lock that writing under a scope and raising its floor share."""
    return lock_key(f"scope {patient.did} {patient.scope_id(name)}")


async def test_writing_and_revoking_lock_scopes_in_one_order(world: World) -> None:
    """Both are held up at the same lock and then go on: a deadlock, if they lock in different orders."""
    pair = ("allergies", "medication")
    for held, named in itertools.product(pair, (pair, pair[::-1])):
        revocation = world.patient.revocation(world.doctor, random_hash(), [(name, 1) for name in named])
        records = [world.patient.record(world.patient, name, epoch=1) for name in pair]
        async with world.connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", lock_of(world.patient, held))
            revoking = asyncio.create_task(world.post("/v1/revocations", world.patient, {"statement": revocation}))
            await world.waiting_for_locks(1)
            writing = asyncio.create_task(world.post("/v1/records", world.patient, batch(*records)))
            await world.waiting_for_locks(2)
        assert [(await revoking).status_code, (await writing).status_code] == [201, 201]


async def test_a_revocation_that_waits_is_before_whoever_writes_after_it(world: World) -> None:
    """Otherwise an author who goes on writing could keep the epoch that the revocation ends open."""
    revocation = world.patient.revocation(world.doctor, random_hash(), [("allergies", 1)])
    records = [world.patient.record(world.patient, "allergies", epoch=0) for _ in range(3)]
    async with world.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock_shared($1)", lock_of(world.patient, "allergies"))
        revoking = asyncio.create_task(world.post("/v1/revocations", world.patient, {"statement": revocation}))
        await world.waiting_for_locks(1)
        writes = [asyncio.create_task(world.post("/v1/records", world.patient, batch(record))) for record in records]
        await world.waiting_for_locks(4)
    assert (await revoking).status_code == 201
    for response in await asyncio.gather(*writes):
        refused(response, 409, "stale_epoch")


async def test_database_unavailable_and_no_error_of_the_service_after_a_deadlock(world: World) -> None:
    """Postgres undoes one of the two; if it is the service's, the request can be repeated as it is."""
    first, second = sorted(("one", "other"), key=lambda name: lock_of(world.patient, name))
    revocation = world.patient.revocation(world.doctor, random_hash(), [(first, 1), (second, 1)])
    lock = "SELECT pg_advisory_xact_lock($1)"
    undone = False
    try:
        async with world.connection() as connection, connection.transaction():
            await connection.execute(lock, lock_of(world.patient, second))
            revoking = asyncio.create_task(world.post("/v1/revocations", world.patient, {"statement": revocation}))
            await world.waiting_for_locks(1)
            await connection.execute(lock, lock_of(world.patient, first))
    except asyncpg.DeadlockDetectedError:
        undone = True
    response = await revoking
    if undone:
        assert response.status_code == 201
    else:
        refused(response, 503, "database_unavailable")
    assert (await world.post("/v1/revocations", world.patient, {"statement": revocation})).status_code == 201


# Authors other than the patient


async def test_an_author_with_a_grant_to_append_writes(world: World) -> None:
    grant = await world.may_write(Action.APPEND)
    record = world.doctor.record(world.patient, "allergies", grant=grant.id)
    await world.write(world.doctor, record)
    [item] = (await world.get("/v1/me/records", world.patient)).json()["items"]
    assert item["manifest"] == record.manifest
    assert item["authority"] == grant.token


async def test_an_author_may_write_to_a_later_epoch_of_its_scope(world: World) -> None:
    grant = await world.may_write(Action.APPEND)
    await world.write(world.doctor, world.doctor.record(world.patient, "allergies", grant=grant.id, epoch=4))


async def test_an_author_with_a_grant_to_amend_amends(world: World) -> None:
    grant = await world.may_write(Action.AMEND)
    first = await world.written()
    second = world.doctor.record(world.patient, "allergies", after=first, grant=grant.id)
    await world.write(world.doctor, second)
    third = world.patient.record(world.patient, "allergies", after=second)
    await world.write(world.patient, third)


async def test_an_author_amends_what_it_appended_in_the_same_batch(world: World) -> None:
    grant = await world.may_write(Action.APPEND, Action.AMEND)
    first = world.doctor.record(world.patient, "allergies", grant=grant.id)
    second = world.doctor.record(world.patient, "allergies", after=first, grant=grant.id)
    await world.write(world.doctor, first, second)


async def test_not_granted_without_a_grant(world: World) -> None:
    record = world.doctor.record(world.patient, "allergies", grant=random_hash())
    refused(await world.post("/v1/records", world.doctor, batch(record)), 403, "not_granted")


async def test_a_stranger_writes_nothing_into_a_patients_log(world: World) -> None:
    record = world.doctor.record(world.patient, "allergies", grant=random_hash())
    refused(await world.post("/v1/records", world.doctor, batch(record)), 403, "not_granted")
    assert await world.audit() == []
    # Whoever holds, or held, a grant of the patient's is no stranger.
    await world.revoke((await world.may_write(Action.APPEND)).id)
    refused(await world.post("/v1/records", world.doctor, batch(record)), 403, "not_granted")
    assert await world.audit() == [("granted", "done"), ("revoked", "done"), ("record_written", "not_granted")]


async def test_not_granted_with_the_grant_of_another_patient(world: World) -> None:
    grant = await world.may_write(Action.APPEND)
    other = world.registry.party(Role.PATIENT)
    record = world.doctor.record(other, "allergies", grant=grant.id)
    refused(await world.post("/v1/records", world.doctor, batch(record)), 403, "not_granted")


async def test_not_granted_with_the_grant_of_another_recipient(world: World) -> None:
    grant = await world.may_write(Action.APPEND)
    stranger = world.registry.party(Role.RECIPIENT)
    record = stranger.record(world.patient, "allergies", grant=grant.id)
    refused(await world.post("/v1/records", stranger, batch(record)), 403, "not_granted")


async def test_not_granted_in_another_scope(world: World) -> None:
    grant = await world.may_write(Action.APPEND)
    record = world.doctor.record(world.patient, "mental-health", grant=grant.id)
    refused(await world.post("/v1/records", world.doctor, batch(record)), 403, "not_granted")


@pytest.mark.parametrize("actions", [(Action.AMEND,), (Action.READ,), (Action.AMEND, Action.READ)])
async def test_not_granted_to_append(world: World, actions: tuple[Action, ...]) -> None:
    grant = await world.give(world.signed_grant(actions=actions))
    record = world.doctor.record(world.patient, "allergies", grant=grant.id)
    refused(await world.post("/v1/records", world.doctor, batch(record)), 403, "not_granted")


@pytest.mark.parametrize("actions", [(Action.APPEND,), (Action.READ,), (Action.APPEND, Action.READ)])
async def test_not_granted_to_amend(world: World, actions: tuple[Action, ...]) -> None:
    grant = await world.give(world.signed_grant(actions=actions))
    first = await world.written()
    second = world.doctor.record(world.patient, "allergies", after=first, grant=grant.id)
    refused(await world.post("/v1/records", world.doctor, batch(second)), 403, "not_granted")


async def test_not_granted_to_amend_a_record_of_another_scope_into_ones_own(world: World) -> None:
    grant = await world.may_write(Action.AMEND)
    first = await world.written("mental-health")
    second = world.doctor.record(world.patient, "allergies", after=first, grant=grant.id)
    refused(await world.post("/v1/records", world.doctor, batch(second)), 403, "not_granted")


async def test_not_granted_to_amend_what_does_not_exist_is_no_different(world: World) -> None:
    grant = await world.may_write(Action.AMEND)
    lost = world.patient.record(world.patient, "allergies")
    second = world.doctor.record(world.patient, "allergies", after=lost, grant=grant.id)
    refused(await world.post("/v1/records", world.doctor, batch(second)), 403, "not_granted")


async def test_not_granted_to_amend_a_record_that_a_limited_grant_does_not_list(world: World) -> None:
    mine, other = await world.written(), await world.written()
    grant = await world.may_write(Action.AMEND, scopes=[("allergies", 0, [mine.capsule_hash])])
    amended = world.doctor.record(world.patient, "allergies", after=other, grant=grant.id)
    refused(await world.post("/v1/records", world.doctor, batch(amended)), 403, "not_granted")
    second = world.doctor.record(world.patient, "allergies", after=mine, grant=grant.id)
    await world.write(world.doctor, second)
    # The grant lists the capsule of the first version; the record stays the same one.
    await world.write(world.doctor, world.doctor.record(world.patient, "allergies", after=second, grant=grant.id))


async def test_version_conflict_for_an_author_who_lost_a_race(world: World) -> None:
    grant = await world.may_write(Action.AMEND)
    first = await world.written()
    late = world.doctor.record(world.patient, "allergies", after=first, grant=grant.id)
    await world.write(world.patient, world.patient.record(world.patient, "mental-health", after=first))
    refused(await world.post("/v1/records", world.doctor, batch(late)), 409, "version_conflict")


async def test_not_granted_before_the_grant_begins_and_after_it_ends(world: World) -> None:
    grant = await world.may_write(Action.APPEND, nbf=world.clock() + 100, lifetime=DAY)
    early = world.doctor.record(world.patient, "allergies", grant=grant.id)
    refused(await world.post("/v1/records", world.doctor, batch(early)), 403, "not_granted")
    world.clock.advance(100)
    await world.write(world.doctor, early)
    world.clock.advance(DAY - 100)
    late = world.doctor.record(world.patient, "allergies", grant=grant.id)
    refused(await world.post("/v1/records", world.doctor, batch(late)), 403, "not_granted")


async def test_not_granted_after_the_revocation(world: World) -> None:
    grant = await world.may_write(Action.APPEND)
    await world.revoke(grant.id)
    record = world.doctor.record(world.patient, "allergies", grant=grant.id)
    refused(await world.post("/v1/records", world.doctor, batch(record)), 403, "not_granted")


async def test_writing_against_revoking_on_real_connections(world: World) -> None:
    """Whatever is acknowledged as written was committed before the revocation was, and none below its floor after."""
    grant = await world.may_write(Action.APPEND)
    records = [world.doctor.record(world.patient, "allergies", grant=grant.id) for _ in range(8)]
    writes = [asyncio.create_task(world.post("/v1/records", world.doctor, batch(record))) for record in records]
    await asyncio.sleep(0.02)
    await world.revoke(grant.id, [("allergies", 1)])
    answers = await asyncio.gather(*writes)
    assert {answer.status_code for answer in answers} <= {201, 403}
    log = [entry for entry in await world.audit() if entry[0] in ("record_written", "revoked")]
    assert ("record_written", "done") not in log[log.index(("revoked", "done")) :]


# Large bodies


def uploaded(author: TestParty, patient: TestParty, **details: Any) -> SealedRecord:
    return author.record(patient, "imaging", bytes(200_000), **details)


async def test_a_large_body_is_uploaded_before_its_record(world: World) -> None:
    record = uploaded(world.patient, world.patient)
    body = {"records": [record.as_json(inline=False)]}
    refused(await world.post("/v1/records", world.patient, body), 422, "blob_missing")
    place = f"/v1/blobs/{_hash(record.body)}"
    assert (await world.put(place, world.patient, record.body)).status_code == 201
    assert (await world.post("/v1/records", world.patient, body)).status_code == 201
    [item] = (await world.get("/v1/me/records", world.patient, content=True)).json()["items"]
    assert item["body"] is None
    assert (await world.get(place, world.patient)).content == record.body


async def test_blob_missing_when_somebody_else_uploaded_it(world: World) -> None:
    grant = await world.may_write(Action.APPEND, scopes=["imaging"])
    record = uploaded(world.doctor, world.patient, grant=grant.id)
    await world.put(f"/v1/blobs/{_hash(record.body)}", world.patient, record.body)
    body = {"records": [record.as_json(inline=False)]}
    refused(await world.post("/v1/records", world.doctor, body), 422, "blob_missing")


async def test_record_swapped_when_an_uploaded_body_has_another_size(world: World) -> None:
    record = uploaded(world.patient, world.patient, size=5)
    await world.put(f"/v1/blobs/{_hash(record.body)}", world.patient, record.body)
    body = {"records": [record.as_json(inline=False)]}
    refused(await world.post("/v1/records", world.patient, body), 422, "record_swapped")


async def test_malformed_for_an_upload_of_nothing(world: World) -> None:
    refused(await world.put(f"/v1/blobs/{_hash(b'')}", world.patient, b""), 400, "malformed")
    assert await world.sql("SELECT 1 FROM blobs") == []


async def test_invalid_request_for_a_batch_too_long_or_empty(world: World) -> None:
    record = world.patient.record(world.patient, "allergies").as_json()
    refused(await world.post("/v1/records", world.patient, {"records": []}), 422, "invalid_request")
    refused(await world.post("/v1/records", world.patient, {"records": [record] * 101}), 422, "invalid_request")


def _hash(data: bytes) -> str:
    return b64url(sha256(data))
