"""What was before a version: everything for the patient, and for others as little as they need to judge it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from shared.wire import Action, Role
from tests.services.records.world import World, refused
from tests.services.signing_parties import SealedRecord, SignedGrant, TestParty


async def before(world: World, party: TestParty, record: SealedRecord, **params: Any) -> list[str]:
    """The manifests that a party is shown of the versions before this one."""
    response = await world.get(f"/v1/records/{record.record}/history", party, version=record.version, **params)
    assert response.status_code == 200, response.text
    return [item["manifest"] for item in response.json()["items"]]


def manifests(*records: SealedRecord) -> list[str]:
    return [record.manifest for record in records]


async def amending(world: World, scopes: Sequence[Any] = ("allergies",)) -> tuple[TestParty, SignedGrant]:
    """Somebody else than the doctor, who may amend."""
    author = world.registry.party(Role.RECIPIENT)
    return author, await world.may_write(Action.AMEND, scopes=scopes, recipient=author)


async def over(
    world: World, first: SealedRecord, author: TestParty, grant: SignedGrant | None = None, scope: str = "allergies"
) -> SealedRecord:
    """The version after `first`, in the service."""
    record = author.record(world.patient, scope, after=first, grant=None if grant is None else grant.id)
    await world.write(author, record)
    return record


async def test_the_patient_is_shown_all_that_was_before(world: World) -> None:
    author, grant = await amending(world)
    first = await world.written("medication")
    second = await over(world, first, world.patient)
    third = await over(world, second, author, grant)
    assert await before(world, world.patient, third) == manifests(first, second)
    assert await before(world, world.patient, second) == manifests(first)
    assert await before(world, world.patient, first) == []


async def test_grants_of_other_authors_come_along(world: World) -> None:
    author, grant = await amending(world)
    second = await over(world, await world.written(), author, grant)
    third = await over(world, second, author, grant)
    response = await world.get(f"/v1/records/{third.record}/history", world.patient, version=3)
    assert [item["authority"] for item in response.json()["items"]] == [None, grant.token]


async def test_a_recipient_is_shown_what_was_since_the_patients_own_newest_version(world: World) -> None:
    """Where the record was before, and who wrote it there, is nothing to somebody who may not see that scope."""
    author, grant = await amending(world)
    first = await world.written("medication")
    second = await over(world, first, world.patient)
    third = await over(world, second, author, grant)
    fourth = await over(world, third, author, grant)
    await world.granted()
    assert await before(world, world.doctor, fourth) == manifests(second, third)
    assert await before(world, world.doctor, third) == manifests(second)
    assert await before(world, world.doctor, second) == []


async def test_a_recipient_is_shown_all_where_the_patient_wrote_nothing(world: World) -> None:
    author = world.registry.party(Role.RECIPIENT)
    grant = await world.may_write(Action.APPEND, Action.AMEND, recipient=author)
    first = author.record(world.patient, "allergies", grant=grant.id)
    await world.write(author, first)
    second = await over(world, first, author, grant)
    await world.granted()
    assert await before(world, world.doctor, second) == manifests(first)


async def test_a_recipient_is_shown_the_version_that_a_limited_grant_lists(world: World) -> None:
    first = await world.written()
    second = await over(world, first, world.patient)
    third = await over(world, second, world.patient)
    author, grant = await amending(world, [("allergies", 0, [second.capsule_hash])])
    fourth = await over(world, third, author, grant)
    await world.granted()
    assert await before(world, world.doctor, fourth) == manifests(second, third)
    # What has the listed capsule is the second version; nothing takes the first to be shown.
    author, grant = await amending(world, [("allergies", 0, [first.capsule_hash])])
    fifth = await over(world, fourth, author, grant)
    assert await before(world, world.doctor, fifth) == manifests(first, second, third, fourth)


async def test_a_capsule_that_is_listed_under_another_scope_takes_nothing_to_be_shown(world: World) -> None:
    first = await world.written("medication")
    second = await over(world, first, world.patient)
    limits = [("medication", 0, [first.capsule_hash]), ("allergies", 0, [second.capsule_hash])]
    author, grant = await amending(world, limits)
    third = await over(world, second, author, grant)
    await world.granted()
    assert await before(world, world.doctor, third) == manifests(second)


async def test_a_history_comes_in_pages(world: World) -> None:
    versions = [await world.written()]
    for _ in range(4):
        versions.append(await over(world, versions[-1], world.patient))
    url, found = f"/v1/records/{versions[0].record}/history", []
    page = (await world.get(url, world.patient, version=5, limit=3)).json()
    found += page["items"]
    page = (await world.get(url, world.patient, version=5, limit=3, cursor=page["next"])).json()
    found += page["items"]
    assert page["next"] is None
    assert [item["manifest"] for item in found] == manifests(*versions[:4])


async def test_not_found_for_a_version_that_the_caller_may_not_see(world: World) -> None:
    first = await world.written()
    second = await over(world, first, world.patient, scope="medication")
    await world.granted()
    url = f"/v1/records/{first.record}/history"
    assert await before(world, world.doctor, first) == []
    refused(await world.get(url, world.doctor, version=second.version), 404, "not_found")
    for party in (world.registry.party(Role.PATIENT), world.registry.party(Role.RECIPIENT), world.proxies[0].party):
        refused(await world.get(url, party, version=1), 404, "not_found")


async def test_not_found_for_what_does_not_exist(world: World) -> None:
    first = await world.written()
    unknown = world.patient.record(world.patient, "allergies")
    refused(await world.get(f"/v1/records/{unknown.record}/history", world.patient, version=1), 404, "not_found")
    refused(await world.get(f"/v1/records/{first.record}/history", world.patient, version=2), 404, "not_found")


async def test_not_found_after_a_revocation(world: World) -> None:
    first = await world.written()
    grant = await world.granted()
    assert await before(world, world.doctor, first) == []
    await world.revoke(grant.id)
    refused(await world.get(f"/v1/records/{first.record}/history", world.doctor, version=1), 404, "not_found")


@pytest.mark.parametrize("version", [0, -1, 1_000_001, "two", None])
async def test_invalid_request_for_a_version_that_is_none(world: World, version: Any) -> None:
    first = await world.written()
    params = {} if version is None else {"version": version}
    refused(await world.get(f"/v1/records/{first.record}/history", world.patient, **params), 422, "invalid_request")


async def test_malformed_for_a_cursor_that_was_not_given_out(world: World) -> None:
    first = await world.written()
    url = f"/v1/records/{first.record}/history"
    refused(await world.get(url, world.patient, version=1, cursor="_" * 11), 400, "malformed")
