"""How much the records service keeps for one party: refused beyond, counted once, and free again when it is over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx

from services.records.service.notices import Housekeeping
from shared.encoding import b64url, sha256
from shared.wire import Action, Role
from tests.services.records.world import World, refused
from tests.services.signing_parties import DAY, TestParty

BODY = b"x" * 1000
SHA256 = b64url(sha256(BODY))


async def post_records(world: World, *count: str, author: TestParty | None = None) -> httpx.Response:
    records = [world.patient.record(world.patient, scope).as_json() for scope in count]
    return await world.post("/v1/records", author or world.patient, {"records": records})


async def usage(world: World, party: TestParty) -> dict[str, int]:
    rows = await world.sql("SELECT kind, amount FROM usage WHERE party = $1 AND amount > 0", party.did)
    return {row["kind"]: row["amount"] for row in rows}


async def keep_house(world: World) -> None:
    """What the service does by itself every few seconds."""
    house = Housekeeping(world.app.state.service.notices._store, world.clock)
    await house.tell_of_ends()
    await house.close_requests()


async def ask(world: World, recipient: TestParty, patient: TestParty | None = None, **details: Any) -> httpx.Response:
    request = recipient.disclosure_request(patient or world.patient, now=world.clock(), **details)
    return await world.post("/v1/disclosure-requests", recipient, {"statement": request})


async def test_versions_of_one_patient_are_bounded_and_a_refused_batch_leaves_nothing(idle_world: World) -> None:
    async with idle_world.running(max_versions_per_patient=3) as world:
        assert (await post_records(world, "allergies", "allergies")).status_code == 201
        before = await usage(world, world.patient)
        refused(await post_records(world, "allergies", "laboratory"), 403, "quota_exceeded")
        assert await usage(world, world.patient) == before
        assert before["versions"] == 2
        assert (await world.sql("SELECT count(*) AS n FROM records"))[0]["n"] == 2
        record = world.patient.record(world.patient, "allergies")
        await world.write(world.patient, record)
        # The same again is no more than once.
        await world.write(world.patient, record)
        assert (await usage(world, world.patient))["versions"] == 3
        other = world.registry.party(Role.PATIENT)
        await world.write(other, other.record(other, "allergies"))
        assert 'pcehr_requests_beyond_bounds_total{bound="quota"} 1.0' in (await world.http.get("/metrics")).text


async def test_bytes_of_one_patient_are_bounded(idle_world: World) -> None:
    record = idle_world.patient.record(idle_world.patient, "allergies")
    size = len(record.body)
    async with idle_world.running(max_bytes_per_patient=size + size // 2) as world:
        await world.write(world.patient, record)
        refused(await post_records(world, "allergies"), 403, "quota_exceeded")


async def test_what_an_author_writes_counts_as_the_patients(idle_world: World) -> None:
    async with idle_world.running(max_versions_per_patient=1) as world:
        grant = await world.may_write(Action.APPEND)
        await world.write(world.doctor, world.doctor.record(world.patient, "allergies", grant=grant.id))
        assert (await usage(world, world.patient))["versions"] == 1
        assert await usage(world, world.doctor) == {}


async def test_uploads_in_no_record_are_bounded_and_refused_before_they_are_read(idle_world: World) -> None:
    async with idle_world.running(max_upload_bytes_per_party=1500, max_blob_bytes=1200) as world:
        assert (await world.put(f"/v1/blobs/{SHA256}", world.patient, BODY)).status_code == 201
        assert (await usage(world, world.patient)) == {"uploads": 1000}
        read = 0

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal read
            read += 1
            yield BODY

        headers = {"content-length": "1000"}
        response = await world.http.put(
            f"/v1/blobs/{SHA256}", content=pieces(), headers=world.authorization(world.patient) | headers
        )
        refused(response, 403, "quota_exceeded")
        # A length that is not said counts as the largest there may be.
        refused(await world.put(f"/v1/blobs/{SHA256}", world.patient, pieces()), 403, "quota_exceeded")
        assert read == 0
        assert (await world.put(f"/v1/blobs/{SHA256}", world.doctor, BODY)).status_code == 201


async def test_a_body_that_a_record_names_is_no_upload_any_more(idle_world: World) -> None:
    async with idle_world.running() as world:
        record = world.patient.record(world.patient, "imaging")
        place = f"/v1/blobs/{b64url(sha256(record.body))}"
        assert (await world.put(place, world.patient, record.body)).status_code == 201
        # What is there already counts once.
        assert (await world.put(place, world.patient, record.body)).status_code == 201
        assert (await usage(world, world.patient)) == {"uploads": len(record.body)}
        body = {"records": [record.as_json(inline=False)]}
        assert (await world.post("/v1/records", world.patient, body)).status_code == 201
        assert (await usage(world, world.patient)) == {"versions": 1, "bytes": len(record.body)}


async def test_open_requests_of_a_recipient_are_bounded_until_they_are_answered(idle_world: World) -> None:
    async with idle_world.running(max_open_requests_per_recipient=2) as world:
        patients = [world.registry.party(Role.PATIENT) for _ in range(3)]
        for patient in patients[:2]:
            assert (await ask(world, world.doctor, patient)).status_code == 201
        refused(await ask(world, world.doctor, patients[2]), 403, "quota_exceeded")
        assert (await usage(world, world.doctor)) == {"requests": 2}
        found = (await world.get("/v1/disclosure-requests", patients[0], box="inbox")).json()["items"]
        denial = patients[0].denial(world.doctor, found[0]["id"], now=world.clock())
        assert (await world.post("/v1/denials", patients[0], {"statement": denial})).status_code == 201
        assert (await ask(world, world.doctor, patients[2])).status_code == 201


async def test_requests_that_have_lapsed_count_no_longer(idle_world: World) -> None:
    async with idle_world.running(max_open_requests_per_recipient=1) as world:
        assert (await ask(world, world.doctor, lifetime=DAY)).status_code == 201
        refused(await ask(world, world.doctor), 403, "quota_exceeded")
        world.clock.advance(DAY + 1)
        await keep_house(world)
        assert (await usage(world, world.doctor)) == {}
        assert (await ask(world, world.doctor)).status_code == 201


async def test_live_grants_of_a_patient_are_bounded_until_they_end(idle_world: World) -> None:
    async with idle_world.running(max_live_grants_per_patient=2) as world:
        first = await world.may_write(Action.APPEND)
        await world.may_write(Action.APPEND, lifetime=DAY)
        third = world.signed_grant(actions=(Action.APPEND,))
        refused(await world.post("/v1/grants", world.patient, third.as_json()), 403, "quota_exceeded")
        await world.revoke(first.id)
        # A second revocation of the same grant makes no more room.
        await world.revoke(first.id)
        await world.give(third)
        fourth = world.signed_grant(actions=(Action.APPEND,))
        refused(await world.post("/v1/grants", world.patient, fourth.as_json()), 403, "quota_exceeded")
        world.clock.advance(DAY + 1)
        await keep_house(world)
        assert (await usage(world, world.patient)) == {"grants": 1}


async def test_an_answered_request_counts_no_longer(idle_world: World) -> None:
    async with idle_world.running() as world:
        response = await ask(world, world.doctor, actions=(Action.APPEND,))
        assert (await usage(world, world.doctor)) == {"requests": 1}
        await world.may_write(Action.APPEND, request=response.json()["id"])
        assert (await usage(world, world.doctor)) == {}
        assert (await usage(world, world.patient)) == {"grants": 1}
