"""Who sees which records; everybody else is told that there is nothing."""

from __future__ import annotations

from typing import Any

import pytest

from shared.encoding import b64url
from shared.wire import Action, Role
from tests.services.records.world import World, refused
from tests.services.signing_parties import DAY, SealedRecord, TestParty, random_hash


async def seen(world: World, party: TestParty, record: SealedRecord) -> list[str]:
    """The manifests of the versions of a record that a party sees."""
    response = await world.get(f"/v1/records/{record.record}", party)
    if response.status_code == 404:
        refused(response, 404, "not_found")
        return []
    assert response.status_code == 200, response.text
    return [item["manifest"] for item in response.json()["items"]]


async def covered(world: World, grant: str) -> list[str]:
    """The manifests that a grant of the doctor's lists."""
    response = await world.get("/v1/records", world.doctor, grant=grant)
    assert response.status_code == 200, response.text
    assert all(item["body"] is None for item in response.json()["items"])
    return [item["manifest"] for item in response.json()["items"]]


async def test_the_patient_sees_the_newest_versions_with_bodies_only_if_wanted(world: World) -> None:
    first, other = await world.written(), await world.written("medication")
    second = world.patient.record(world.patient, "allergies", after=first)
    await world.write(world.patient, second)
    items = (await world.get("/v1/me/records", world.patient)).json()["items"]
    assert [item["manifest"] for item in items] == [second.manifest, other.manifest]
    assert [item["body"] for item in items] == [None, None]
    items = (await world.get("/v1/me/records", world.patient, content=True)).json()["items"]
    assert all(item["body"] for item in items)


async def test_the_patients_records_come_in_pages(world: World) -> None:
    records = [world.patient.record(world.patient, "allergies") for _ in range(5)]
    await world.write(world.patient, *records)
    found: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while True:
        page = (await world.get("/v1/me/records", world.patient, **params)).json()
        found += [item["manifest"] for item in page["items"]]
        if page["next"] is None:
            break
        params["cursor"] = page["next"]
    assert sorted(found) == sorted(record.manifest for record in records)
    assert len(found) == 5


async def test_forbidden_for_a_recipient_to_have_records(world: World) -> None:
    refused(await world.get("/v1/me/records", world.doctor), 403, "forbidden")


async def test_not_found_for_everybody_without_a_grant(world: World) -> None:
    record = await world.written()
    for party in (world.doctor, world.registry.party(Role.PATIENT), world.proxies[0].party):
        assert await seen(world, party, record) == []
        refused(await world.get("/v1/records", party, grant=random_hash()), 404, "not_found")
    unknown = world.patient.record(world.patient, "allergies")
    assert await seen(world, world.patient, unknown) == []


@pytest.mark.parametrize("actions", [(Action.READ,), (Action.AMEND,), (Action.AMEND, Action.READ)])
async def test_a_grant_to_read_or_amend_shows_its_scope_and_no_other(world: World, actions: tuple[Action, ...]) -> None:
    inside, outside, later = await world.written(), await world.written("medication"), await world.written(epoch=1)
    grant = await world.granted(actions=actions)
    assert await covered(world, grant.id) == [inside.manifest]
    assert await seen(world, world.doctor, inside) == [inside.manifest]
    assert await seen(world, world.doctor, outside) == []
    assert await seen(world, world.doctor, later) == []


async def test_bodies_come_with_a_record_to_its_patient_and_to_the_author_of_the_version_only(world: World) -> None:
    """Whoever holds a grant gets bodies by disclosure, which is written down; what a grant shows lets nobody pass the
    service by on the way to the proxies."""
    first = await world.written()
    grant = await world.granted(actions=(Action.AMEND, Action.READ))
    second = world.doctor.record(world.patient, "allergies", after=first, grant=grant.id)
    await world.write(world.doctor, second)

    async def bodies(party: TestParty) -> list[str | None]:
        return [item["body"] for item in (await world.get(f"/v1/records/{first.record}", party)).json()["items"]]

    assert await bodies(world.patient) == [b64url(first.body), b64url(second.body)]
    assert await bodies(world.doctor) == [None, b64url(second.body)]
    [item] = (await world.disclose(world.wanting(grant, first))).json()["records"]
    assert item["record"]["body"] == b64url(first.body)


async def test_a_grant_to_append_shows_nothing_but_what_its_holder_wrote(world: World) -> None:
    grant = await world.may_write(Action.APPEND)
    existing = await world.written()
    own = world.doctor.record(world.patient, "allergies", grant=grant.id)
    await world.write(world.doctor, own)
    refused(await world.get("/v1/records", world.doctor, grant=grant.id), 404, "not_found")
    assert await seen(world, world.doctor, existing) == []
    assert await seen(world, world.doctor, own) == [own.manifest]
    # Only its own version, and only while a grant of it on the scope holds.
    after = world.patient.record(world.patient, "allergies", after=own)
    await world.write(world.patient, after)
    assert await seen(world, world.doctor, own) == [own.manifest]
    assert await seen(world, world.patient, own) == [own.manifest, after.manifest]
    await world.revoke(grant.id)
    assert await seen(world, world.doctor, own) == []


async def test_a_grant_lists_the_newest_version_that_it_covers(world: World) -> None:
    first = await world.written()
    second = world.patient.record(world.patient, "allergies", after=first)
    third = world.patient.record(world.patient, "allergies", after=second, epoch=1)
    await world.write(world.patient, second, third)
    grant = await world.granted()
    assert await covered(world, grant.id) == [second.manifest]
    assert await seen(world, world.doctor, first) == [first.manifest, second.manifest]


async def test_a_grant_lists_its_records_in_pages(world: World) -> None:
    records = [world.patient.record(world.patient, "allergies") for _ in range(3)]
    await world.write(world.patient, *records, await _elsewhere(world))
    grant = await world.granted()
    first = (await world.get("/v1/records", world.doctor, grant=grant.id, limit=2)).json()
    rest = (await world.get("/v1/records", world.doctor, grant=grant.id, limit=2, cursor=first["next"])).json()
    assert rest["next"] is None
    found = [item["manifest"] for item in first["items"] + rest["items"]]
    assert sorted(found) == sorted(record.manifest for record in records)


async def _elsewhere(world: World) -> SealedRecord:
    return world.patient.record(world.patient, "medication")


async def test_a_limited_grant_to_read_lists_what_its_holder_can_open(world: World) -> None:
    first, other = await world.written(), await world.written()
    second = world.patient.record(world.patient, "allergies", after=first)
    await world.write(world.patient, second)
    grant = await world.granted([("allergies", 0, [first.capsule_hash])])
    assert await covered(world, grant.id) == [first.manifest]
    # The record is covered, hence all its versions in that scope and epoch can be seen, though not all opened.
    assert await seen(world, world.doctor, first) == [first.manifest, second.manifest]
    assert await seen(world, world.doctor, other) == []


async def test_a_limited_grant_to_amend_lists_the_version_to_follow(world: World) -> None:
    first, _ = await world.written(), await world.written()
    second = world.patient.record(world.patient, "allergies", after=first)
    await world.write(world.patient, second)
    grant = await world.may_write(Action.AMEND, scopes=[("allergies", 0, [first.capsule_hash])])
    assert await covered(world, grant.id) == [second.manifest]


async def test_a_limit_counts_for_its_own_entry_only(world: World) -> None:
    allergy, medication = await world.written(), await world.written("medication")
    grant = await world.granted(["medication", ("allergies", 0, [random_hash()])])
    assert await covered(world, grant.id) == [medication.manifest]
    assert await seen(world, world.doctor, allergy) == []


async def test_nothing_is_seen_before_a_grant_begins_or_after_it_ends(world: World) -> None:
    record = await world.written()
    grant = await world.granted(nbf=world.clock() + 10, lifetime=DAY)
    assert await seen(world, world.doctor, record) == []
    refused(await world.get("/v1/records", world.doctor, grant=grant.id), 404, "not_found")
    world.clock.advance(10)
    assert await seen(world, world.doctor, record) == [record.manifest]
    assert await covered(world, grant.id) == [record.manifest]
    world.clock.advance(DAY - 10)
    assert await seen(world, world.doctor, record) == []
    refused(await world.get("/v1/records", world.doctor, grant=grant.id), 404, "not_found")


async def test_nothing_is_seen_after_a_revocation(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    assert await covered(world, grant.id) == [record.manifest]
    await world.revoke(grant.id)
    assert await seen(world, world.doctor, record) == []
    refused(await world.get("/v1/records", world.doctor, grant=grant.id), 404, "not_found")


async def test_nothing_is_seen_while_a_grant_to_read_is_pending(world: World) -> None:
    record = await world.written()
    for proxy in world.proxies[:2]:
        proxy.down = True
    grant = await world.give(world.signed_grant())
    await world.until(grant.id, lambda found: found["proxies"][2]["stored"] is not None)
    assert await seen(world, world.doctor, record) == []
    refused(await world.get("/v1/records", world.doctor, grant=grant.id), 404, "not_found")


async def test_not_found_for_the_grant_of_another_recipient(world: World) -> None:
    await world.written()
    grant = await world.granted()
    for party in (world.registry.party(Role.RECIPIENT), world.patient):
        refused(await world.get("/v1/records", party, grant=grant.id), 404, "not_found")


async def test_versions_come_in_pages(world: World) -> None:
    versions = [world.patient.record(world.patient, "allergies")]
    for _ in range(4):
        versions.append(world.patient.record(world.patient, "allergies", after=versions[-1]))
    await world.write(world.patient, *versions)
    found: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while True:
        page = (await world.get(f"/v1/records/{versions[0].record}", world.patient, **params)).json()
        found += [item["manifest"] for item in page["items"]]
        if page["next"] is None:
            break
        params["cursor"] = page["next"]
    assert found == [version.manifest for version in versions]


# Access tokens


async def test_unauthenticated_without_a_token_or_with_a_wrong_one(world: World) -> None:
    stranger = world.registry.token(world.patient, audience="urn:pcehr:registry")
    for headers in ({}, {"authorization": "Bearer x.y.z"}, {"authorization": f"Bearer {stranger}"}):
        response = await world.http.get("/v1/me/records", headers=headers)
        refused(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"] == "Bearer"


async def test_unauthenticated_with_a_token_of_yesterday(world: World) -> None:
    headers = world.authorization(world.patient)
    world.clock.advance(DAY)
    refused(await world.http.get("/v1/me/records", headers=headers), 401, "unauthenticated")


async def test_every_operation_needs_a_token(world: World) -> None:
    document = world.app.openapi()
    for path, operations in document["paths"].items():
        for method in operations:
            # The log's heads and proofs are for everybody.
            if path.startswith("/v1/") and not path.startswith("/v1/log/"):
                filled = path.replace("{record}", "0198f000-0000-7000-8000-000000000001")
                filled = filled.replace("{grant}", random_hash()).replace("{sha256}", random_hash())
                response = await world.http.request(method, filled)
                # A body that is missing may be noticed first, but nothing is done without a token.
                assert response.status_code in (401, 422), path
