"""The four defects of the prototype that this platform grew out of, each with a test that keeps it from coming back."""

from __future__ import annotations

from typing import Any

from shared.wire import Action, Role
from tests.services.records.world import World, refused
from tests.services.signing_parties import random_hash


async def test_any_logged_in_user_could_list_every_kfrag(world: World) -> None:
    """No route gives out a kfrag or a sealed share: not to the patient, not to the recipient, not to anybody."""
    for proxy in world.proxies:
        proxy.down = True
    record = await world.written()
    grant = await world.give(world.signed_grant())
    assert (await world.sql("SELECT count(*) FROM outbox WHERE sealed IS NOT NULL"))[0][0] == 3
    secrets = [kfrag.b64 for kfrags in grant.kfrags.values() for kfrag in kfrags] + list(grant.shares.values())
    paths = world.app.openapi()["paths"]
    # The stream of notices has no end; what is in it stands in a table that holds ids and numbers only.
    readable = [path for path, operations in paths.items() if "get" in operations and path != "/v1/me/events"]
    assert not [path for path in paths if "kfrag" in path or "share" in path]
    stranger = world.registry.party(Role.RECIPIENT)
    seen = 0
    for party in (world.patient, world.doctor, stranger):
        for template in readable:
            path = template.replace("{record}", record.record).replace("{grant}", grant.id)
            path = path.replace("{sha256}", random_hash())
            for params in _parameters(path, grant.id):
                answer = await world.get(path, party, **params)
                seen += answer.status_code == 200
                assert not [secret for secret in secrets if secret in answer.text], path
    assert seen > 10


def _parameters(path: str, grant: str) -> list[dict[str, Any]]:
    return {
        "/v1/records": [{"grant": grant}],
        "/v1/disclosure-requests": [{"box": "inbox"}, {"box": "sent"}],
        "/v1/grants": [{"box": "given"}, {"box": "held"}],
    }.get(path, [{}])


async def test_a_grant_on_one_record_let_its_holder_edit_all(world: World) -> None:
    """A grant limited to one record's capsule covers that record and no other."""
    mine, other = await world.written(), await world.written()
    grant = await world.may_write(Action.AMEND, scopes=[("allergies", 0, [mine.capsule_hash])])
    amended = world.doctor.record(world.patient, "allergies", after=other, grant=grant.id)
    refused(await world.post("/v1/records", world.doctor, {"records": [amended.as_json()]}), 403, "not_granted")
    await world.write(world.doctor, world.doctor.record(world.patient, "allergies", after=mine, grant=grant.id))


async def test_any_user_could_edit_any_patient(world: World) -> None:
    """Nobody writes to a patient without a grant of that patient's, and nothing is kept of the attempt."""
    first = await world.written()
    other = world.registry.party(Role.PATIENT)
    for author in (world.doctor, other):
        for after in (None, first):
            record = author.record(world.patient, "allergies", after=after, grant=random_hash())
            refused(await world.post("/v1/records", author, {"records": [record.as_json()]}), 403, "not_granted")
    [item] = (await world.get("/v1/me/records", world.patient)).json()["items"]
    assert item["manifest"] == first.manifest
    assert await world.audit() == [("record_written", "done")]


async def test_a_delegation_needed_no_ownership(world: World) -> None:
    """Whoever gives a grant gives it over records of its own: a grant by another patient opens nothing of this one's,
    even if it names this one's scope and capsules."""
    record = await world.written()
    accomplice = world.registry.party(Role.PATIENT)
    forged = accomplice.grant(
        world.doctor,
        [("allergies", 0, [record.capsule_hash])],
        proxies=[proxy.party for proxy in world.proxies],
        threshold=2,
        actions=[Action.READ, Action.AMEND],
    )
    payload = world.patient.grant(world.doctor, proxies=[proxy.party for proxy in world.proxies], threshold=2)
    # In the other patient's name it is no statement of that patient's at all.
    refused(await world.post("/v1/grants", accomplice, payload.as_json()), 403, "wrong_signer")
    await world.give(forged, accomplice)
    await world.until_state(forged.id, "complete", accomplice)
    refused(await world.get(f"/v1/records/{record.record}", world.doctor), 404, "not_found")
    assert (await world.get("/v1/records", world.doctor, grant=forged.id)).json()["items"] == []
    refused(await world.disclose(world.wanting(forged, record)), 404, "not_found")
    amended = world.doctor.record(world.patient, "allergies", after=record, grant=forged.id)
    refused(await world.post("/v1/records", world.doctor, {"records": [amended.as_json()]}), 403, "not_granted")
