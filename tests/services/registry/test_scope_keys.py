"""Scope-keys: who publishes, in which order of epochs, and who sees them."""

import asyncio

import asyncpg
import pytest

from shared import jose, wire
from shared import statements as st
from shared.encoding import b64url
from shared.wire import Role
from tests.services.registry.running import RunningRegistry, assert_problem, running, settings_for
from tests.services.signing_parties import NOW, TestClock, TestParty, id_of


async def test_a_patient_publishes_and_reads_back(registry: RunningRegistry, patient: TestParty) -> None:
    keys = [patient.scope_key("allergies"), patient.scope_key("medication"), patient.scope_key("allergies", 1)]
    response = await registry.publish(patient, *keys)
    assert (response.status_code, response.json()) == (200, {"items": keys, "next": None})
    page = await registry.http.get(f"/v1/patients/{patient.did}/scope-keys", headers=await registry.headers(patient))
    assert sorted(page.json()["items"]) == sorted(keys)


async def test_the_same_batch_again_has_the_same_answer(registry: RunningRegistry, patient: TestParty) -> None:
    keys = [patient.scope_key("allergies"), patient.scope_key("allergies", 1)]
    first = await registry.publish(patient, *keys)
    assert (await registry.publish(patient, patient.scope_key("allergies", 2))).status_code == 200
    again = await registry.publish(patient, *keys)
    assert (again.status_code, again.json()) == (200, first.json())
    assert len(await registry.rows("SELECT 1 FROM scope_keys")) == 3
    assert len(await registry.rows("SELECT 1 FROM audit WHERE act = 'publish-scope-keys'")) == 3


async def test_the_same_statement_again_is_accepted_after_a_rotation(
    registry: RunningRegistry, patient: TestParty
) -> None:
    key = patient.scope_key("allergies")
    first = await registry.publish(patient, key)
    assert (await registry.rotate(patient, patient.rotate())).status_code == 201
    assert (await registry.publish(patient, key)).json() == first.json()


async def test_a_statement_twice_in_one_batch_has_one_effect(registry: RunningRegistry, patient: TestParty) -> None:
    key = patient.scope_key("allergies")
    response = await registry.publish(patient, key, key)
    assert response.json()["items"] == [key, key]
    assert len(await registry.rows("SELECT 1 FROM scope_keys")) == 1


async def test_the_same_key_in_another_statement_keeps_the_first(registry: RunningRegistry, patient: TestParty) -> None:
    first, second = patient.scope_key("allergies"), patient.scope_key("allergies")
    assert (await registry.publish(patient, first)).status_code == 200
    for _ in range(2):
        response = await registry.publish(patient, second)
        assert (response.status_code, response.json()["items"]) == (200, [first])


async def test_another_key_for_a_published_epoch_is_scope_key_exists(
    registry: RunningRegistry, patient: TestParty
) -> None:
    assert (await registry.publish(patient, patient.scope_key("allergies"))).status_code == 200
    other = patient.scope_key("allergies", delegating_key=patient.delegating_key("other").public_key().b64)
    assert_problem(await registry.publish(patient, other), 409, "scope_key_exists")
    assert (await registry.audit(patient))[-1] == ("publish-scope-keys", "scope_key_exists", None)


async def test_two_keys_for_one_epoch_at_once_leave_one(registry: RunningRegistry, patient: TestParty) -> None:
    headers = await registry.headers(patient)
    keys = [
        patient.scope_key("allergies", delegating_key=patient.delegating_key(name).public_key().b64)
        for name in ("one", "two")
    ]
    connection = await asyncpg.connect(registry.url)
    async with connection.transaction():
        await connection.execute("SELECT 1 FROM parties WHERE did = $1 FOR UPDATE", patient.did)
        puts = [asyncio.create_task(registry.publish(patient, key, headers=headers)) for key in keys]
        await registry.hold_until_waiting(2)
    await connection.close()
    responses = await asyncio.gather(*puts)
    assert sorted(response.status_code for response in responses) == [200, 409]
    loser = next(response for response in responses if response.status_code == 409)
    assert_problem(loser, 409, "scope_key_exists")


@pytest.mark.parametrize("epochs", [(1,), (0, 2), (5,)])
async def test_an_epoch_that_does_not_follow_is_epoch_gap(
    registry: RunningRegistry, patient: TestParty, epochs: tuple[int, ...]
) -> None:
    keys = [patient.scope_key("allergies", epoch) for epoch in epochs]
    assert_problem(await registry.publish(patient, *keys), 409, "epoch_gap")


async def test_a_batch_with_one_refusal_changes_nothing(registry: RunningRegistry, patient: TestParty) -> None:
    response = await registry.publish(patient, patient.scope_key("medication"), patient.scope_key("allergies", 1))
    assert_problem(response, 409, "epoch_gap")
    assert await registry.rows("SELECT 1 FROM scope_keys") == []
    assert await registry.rows("SELECT 1 FROM statements WHERE kind = 'pcehr-scope-key+jwt'") == []


async def test_publishing_for_another_patient_is_forbidden(registry: RunningRegistry, patient: TestParty) -> None:
    other = await registry.registered(Role.PATIENT)
    response = await registry.publish(patient, patient.scope_key("allergies"), headers=await registry.headers(other))
    assert_problem(response, 403, "forbidden")
    assert (await registry.audit(other))[-1] == ("publish-scope-keys", "forbidden", None)


async def test_publishing_as_a_recipient_is_forbidden(registry: RunningRegistry, recipient: TestParty) -> None:
    assert_problem(await registry.publish(recipient, recipient.scope_key("allergies")), 403, "forbidden")


async def test_a_scope_key_of_another_patient_is_wrong_signer(registry: RunningRegistry, patient: TestParty) -> None:
    other = await registry.registered(Role.PATIENT)
    response = await registry.publish(patient, other.scope_key("allergies"))
    assert_problem(response, 403, "wrong_signer")


async def test_a_scope_key_signed_with_the_key_before_is_wrong_signer(
    registry: RunningRegistry, patient: TestParty
) -> None:
    late = patient.scope_key("allergies")
    assert (await registry.rotate(patient, patient.rotate())).status_code == 201
    assert_problem(await registry.publish(patient, late), 403, "wrong_signer")


async def test_a_scope_key_from_the_future_is_refused(registry: RunningRegistry, patient: TestParty) -> None:
    response = await registry.publish(patient, patient.scope_key("allergies", now=NOW + 61))
    assert_problem(response, 422, "statement_from_the_future")


async def test_a_bad_signature_is_refused(registry: RunningRegistry, patient: TestParty) -> None:
    head, payload, _ = patient.scope_key("allergies").split(".")
    response = await registry.publish(patient, f"{head}.{payload}.{b64url(bytes(64))}")
    assert_problem(response, 422, "bad_signature")


async def test_a_key_that_is_no_point_is_malformed_key_material(registry: RunningRegistry, patient: TestParty) -> None:
    key = patient.scope_key("allergies", delegating_key=b64url(b"\x02" + b"\xff" * 32))
    assert_problem(await registry.publish(patient, key), 400, "malformed_key_material")


async def test_another_kind_of_statement_is_malformed(registry: RunningRegistry, patient: TestParty) -> None:
    assert_problem(await registry.publish(patient, patient.entries[0]), 400, "malformed")


async def test_a_scope_key_for_somebody_else_is_wrong_audience(registry: RunningRegistry, patient: TestParty) -> None:
    payload = st.verify_under(
        patient.scope_key("allergies"), st.ScopeKey, patient.did, [bytes(patient.identity_key().verify_key)]
    ).payload
    token = jose.sign(
        st.claims_of(payload) | {"aud": wire.RECORDS_AUDIENCE},
        key=patient.identity_key(),
        kid=patient.kid(),
        typ=st.ScopeKey.typ,
    )
    assert_problem(await registry.publish(patient, token), 422, "wrong_audience")


async def test_a_jti_with_other_bytes_is_jti_reused(registry: RunningRegistry, patient: TestParty) -> None:
    jti = st.new_jti()
    assert (await registry.publish(patient, patient.scope_key("allergies", jti=jti))).status_code == 200
    response = await registry.publish(patient, patient.scope_key("medication", jti=jti))
    assert_problem(response, 409, "jti_reused")


async def test_a_jti_of_two_statements_in_one_batch_is_jti_reused(
    registry: RunningRegistry, patient: TestParty
) -> None:
    jti = st.new_jti()
    keys = [patient.scope_key(scope, jti=jti) for scope in ("allergies", "medication")]
    assert_problem(await registry.publish(patient, *keys), 409, "jti_reused")


async def test_publishing_without_a_token_is_unauthenticated(registry: RunningRegistry, patient: TestParty) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}):
        response = await registry.publish(patient, patient.scope_key("allergies"), headers=headers)
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"] == "Bearer"


async def test_a_token_for_another_service_is_unauthenticated(registry: RunningRegistry, patient: TestParty) -> None:
    headers = await registry.headers(patient, resource=wire.RECORDS_AUDIENCE)
    response = await registry.publish(patient, patient.scope_key("allergies"), headers=headers)
    assert_problem(response, 401, "unauthenticated")


async def test_a_lapsed_token_is_unauthenticated(registry: RunningRegistry, patient: TestParty) -> None:
    headers = await registry.headers(patient)
    registry.clock.advance(300 + wire.SKEW_SECONDS)
    assert_problem(
        await registry.publish(patient, patient.scope_key("allergies"), headers=headers), 401, "unauthenticated"
    )


@pytest.mark.parametrize("count", [0, 201])
async def test_a_batch_out_of_bounds_is_an_invalid_request(
    registry: RunningRegistry, patient: TestParty, count: int
) -> None:
    assert_problem(await registry.publish(patient, *["a" * 100] * count), 422, "invalid_request")


async def test_the_largest_batch_is_accepted_and_read_in_pages(registry: RunningRegistry, patient: TestParty) -> None:
    keys = [patient.scope_key(f"scope-{number % 8}", number // 8) for number in range(200)]
    assert (await registry.publish(patient, *keys)).json()["items"] == keys
    headers = await registry.headers(patient)
    for limit in (7, 64, 200):
        params, found = {"limit": str(limit)}, []
        while True:
            page = (
                await registry.http.get(f"/v1/patients/{patient.did}/scope-keys", params=params, headers=headers)
            ).json()
            found += page["items"]
            assert len(page["items"]) <= limit
            if page["next"] is None:
                break
            params["cursor"] = page["next"]
        assert len(found) == 200
        assert set(found) == set(keys)


async def test_whoever_knows_the_scope_id_reads_its_keys_and_no_others(
    registry: RunningRegistry, patient: TestParty, recipient: TestParty
) -> None:
    wanted = [patient.scope_key("allergies"), patient.scope_key("allergies", 1)]
    assert (await registry.publish(patient, patient.scope_key("medication"), *wanted)).status_code == 200
    response = await registry.http.get(
        f"/v1/patients/{patient.did}/scope-keys",
        params={"scope": patient.scope_id("allergies")},
        headers=await registry.headers(recipient),
    )
    assert [id_of(item) for item in response.json()["items"]] == [id_of(item) for item in wanted]


async def test_reading_all_scope_keys_of_another_is_forbidden(
    registry: RunningRegistry, patient: TestParty, recipient: TestParty
) -> None:
    response = await registry.http.get(
        f"/v1/patients/{patient.did}/scope-keys", headers=await registry.headers(recipient)
    )
    assert_problem(response, 403, "forbidden")


async def test_reading_without_a_token_is_unauthenticated(registry: RunningRegistry, patient: TestParty) -> None:
    response = await registry.http.get(
        f"/v1/patients/{patient.did}/scope-keys", params={"scope": patient.scope_id("allergies")}
    )
    assert_problem(response, 401, "unauthenticated")


async def test_scope_keys_of_nobody_and_of_no_patient_are_unknown_party(
    registry: RunningRegistry, patient: TestParty, recipient: TestParty
) -> None:
    headers = await registry.headers(patient)
    for did in (TestParty(Role.PATIENT).did, recipient.did):
        response = await registry.http.get(
            f"/v1/patients/{did}/scope-keys", params={"scope": patient.scope_id("allergies")}, headers=headers
        )
        assert_problem(response, 404, "unknown_party")


async def test_a_scope_id_or_cursor_that_is_none_is_malformed(registry: RunningRegistry, patient: TestParty) -> None:
    headers = await registry.headers(patient)
    for params in ({"scope": "!" * 22}, {"cursor": "abc"}):
        response = await registry.http.get(f"/v1/patients/{patient.did}/scope-keys", params=params, headers=headers)
        assert_problem(response, 400, "malformed")


async def test_a_cursor_beyond_every_epoch_shows_nothing(registry: RunningRegistry, patient: TestParty) -> None:
    response = await registry.http.get(
        f"/v1/patients/{patient.did}/scope-keys",
        params={"cursor": b64url(b"\xff" * 20)},
        headers=await registry.headers(patient),
    )
    assert response.json() == {"items": [], "next": None}


async def test_scope_keys_of_one_patient_are_bounded(database_url: str, clock: TestClock) -> None:
    async with running(settings_for(database_url, max_scope_keys_per_patient=2), clock) as registry:
        patient, other = await registry.registered(Role.PATIENT), await registry.registered(Role.PATIENT)
        first = patient.scope_key("allergies")
        for _ in range(3):
            assert (await registry.publish(patient, first)).status_code == 200
        batch = [patient.scope_key("laboratory"), patient.scope_key("medications")]
        assert_problem(await registry.publish(patient, *batch), 403, "quota_exceeded")
        assert len(await registry.rows("SELECT 1 FROM scope_keys")) == 1
        assert (await registry.publish(patient, batch[0])).status_code == 200
        assert (await registry.publish(other, other.scope_key("allergies"))).status_code == 200
