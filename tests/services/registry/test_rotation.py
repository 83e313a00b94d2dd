"""Later key-entries: how a chain goes on, and what does not link."""

import asyncio
from typing import Any

import asyncpg
import pytest

from shared import statements as st
from shared.encoding import b64url
from shared.identity import verify_chain
from shared.wire import Role
from tests.services.registry.running import RunningRegistry, assert_problem
from tests.services.signing_parties import DAY, NOW, TestParty, random_hash


async def test_a_rotation_extends_the_chain(registry: RunningRegistry, recipient: TestParty) -> None:
    recipient.name = "Renamed Practice"
    response = await registry.rotate(recipient, recipient.rotate())
    assert response.status_code == 201
    assert response.json()["entries"] == recipient.entries
    assert (response.json()["seq"], response.json()["name"]) == (1, "Renamed Practice")
    assert (await registry.http.get(f"/v1/parties/{recipient.did}")).json() == response.json()
    assert (await registry.audit(recipient))[-1] == ("rotate", "accepted", None)


async def test_the_same_rotation_again_has_the_same_answer(registry: RunningRegistry, patient: TestParty) -> None:
    entry = patient.rotate()
    first = await registry.rotate(patient, entry)
    assert (await registry.rotate(patient, patient.rotate())).status_code == 201
    again = await registry.rotate(patient, entry)
    assert (again.status_code, again.json()) == (201, first.json())
    assert len(await registry.audit(patient)) == 3


async def test_the_same_rotation_many_times_at_once_has_one_effect(
    registry: RunningRegistry, patient: TestParty
) -> None:
    entry = patient.rotate()
    responses = await asyncio.gather(*(registry.rotate(patient, entry) for _ in range(6)))
    assert {response.status_code for response in responses} == {201}
    assert len({response.text for response in responses}) == 1
    assert len(await registry.audit(patient)) == 2


async def test_two_rotations_at_once_leave_one_and_the_other_is_stale_key_entry(
    registry: RunningRegistry, patient: TestParty
) -> None:
    entries = [patient.next_entry(), patient.next_entry()]
    # Both are made to wait for the party's row, on connections of their own, so that they do meet.
    connection = await asyncpg.connect(registry.url)
    async with connection.transaction():
        await connection.execute("SELECT 1 FROM parties WHERE did = $1 FOR UPDATE", patient.did)
        posts = [asyncio.create_task(registry.rotate(patient, entry)) for entry in entries]
        await registry.hold_until_waiting(2)
    await connection.close()
    responses = await asyncio.gather(*posts)
    assert sorted(response.status_code for response in responses) == [201, 409]
    winner, loser = sorted(responses, key=lambda response: response.status_code)
    assert_problem(loser, 409, "stale_key_entry")
    card = (await registry.http.get(f"/v1/parties/{patient.did}")).json()
    assert card == winner.json()
    assert verify_chain(patient.did, card["entries"]).current.payload.seq == 1
    assert len(await registry.rows("SELECT 1 FROM statements WHERE issuer = $1", patient.did)) == 2


async def test_an_entry_for_a_place_that_is_taken_is_stale_key_entry(
    registry: RunningRegistry, patient: TestParty
) -> None:
    late = patient.next_entry(NOW + 1)
    assert (await registry.rotate(patient, patient.rotate())).status_code == 201
    assert_problem(await registry.rotate(patient, late), 409, "stale_key_entry")
    assert (await registry.audit(patient))[-1] == ("rotate", "stale_key_entry", None)


async def test_an_entry_of_an_unknown_party_is_unknown_party(registry: RunningRegistry) -> None:
    party = TestParty(Role.PATIENT)
    assert_problem(await registry.rotate(party, party.rotate()), 404, "unknown_party")


async def test_an_entry_at_anothers_route_is_wrong_signer(
    registry: RunningRegistry, patient: TestParty, recipient: TestParty
) -> None:
    assert_problem(await registry.rotate(recipient, patient.next_entry()), 403, "wrong_signer")


async def test_an_entry_signed_with_the_key_before_is_wrong_signer(
    registry: RunningRegistry, patient: TestParty
) -> None:
    assert (await registry.rotate(patient, patient.rotate())).status_code == 201
    key = patient.identity_key(0)
    payload = verify_chain(patient.did, [*patient.entries, patient.next_entry()]).current.payload
    assert_problem(await registry.rotate(patient, st.sign(payload, key)), 403, "wrong_signer")


async def test_an_entry_from_the_future_is_refused(registry: RunningRegistry, patient: TestParty) -> None:
    response = await registry.rotate(patient, patient.next_entry(NOW + 61))
    assert_problem(response, 422, "statement_from_the_future")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"prev": random_hash()}, id="naming-another-entry-before"),
        pytest.param({"seq": 2}, id="leaving-a-place-out"),
        pytest.param({"role": Role.RECIPIENT, "name": "Demo Practice"}, id="changing-the-role"),
        pytest.param({"iat": NOW - 2 * DAY}, id="older-than-the-entry-before"),
        pytest.param({"possession": b64url(bytes(64))}, id="without-possession-of-the-new-key"),
    ],
)
async def test_an_entry_that_does_not_link_is_a_broken_chain(
    registry: RunningRegistry, patient: TestParty, changes: dict[str, Any]
) -> None:
    assert_problem(await registry.rotate(patient, patient.next_entry(**changes)), 400, "broken_key_chain")
    assert (await registry.audit(patient))[-1] == ("rotate", "broken_key_chain", None)
    assert len((await registry.http.get(f"/v1/parties/{patient.did}")).json()["entries"]) == 1


async def test_an_identity_key_used_before_is_a_broken_chain(registry: RunningRegistry, patient: TestParty) -> None:
    claims = {"identity_key": patient.identity_key(0).verify_key.b64}
    unproven = patient.next_entry(**claims)
    payload = st.verify_under(
        unproven, st.KeyEntry, patient.did, [bytes(patient.identity_key(0).verify_key)]
    ).payload.model_copy(update={"possession": None})
    possession = b64url(patient.identity_key(0).sign(payload.possession_message()))
    entry = st.sign(payload.model_copy(update={"possession": possession}), patient.identity_key(0))
    assert_problem(await registry.rotate(patient, entry), 400, "broken_key_chain")


async def test_a_jti_of_an_earlier_statement_is_jti_reused(registry: RunningRegistry, patient: TestParty) -> None:
    jti = verify_chain(patient.did, patient.entries).current.payload.jti
    assert_problem(await registry.rotate(patient, patient.next_entry(jti=jti)), 409, "jti_reused")


async def test_a_long_chain_goes_on(registry: RunningRegistry, patient: TestParty) -> None:
    for _ in range(12):
        assert (await registry.rotate(patient, patient.rotate())).status_code == 201
    card = (await registry.http.get(f"/v1/parties/{patient.did}")).json()
    assert verify_chain(patient.did, card["entries"]).current.id == patient.entry_id


async def test_what_is_no_key_entry_is_refused_before_anything_is_looked_up(registry: RunningRegistry) -> None:
    nobody = TestParty(Role.PATIENT)
    assert_problem(await registry.rotate(nobody, ".".join(["A" * 50] * 3)), 400, "malformed")
    assert_problem(await registry.rotate(nobody, nobody.rotate()), 404, "unknown_party")
