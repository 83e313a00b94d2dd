"""`POST /v1/reencryptions`: what a proxy releases, and every refusal of docs/spec.md section 8 by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from shared import statements as st
from shared.crypto.errors import CapsuleFragRejected
from shared.encoding import b64url, from_b64url, sha256
from shared.wire import REENCRYPTION_LIFETIME, SKEW_SECONDS
from tests.services.proxy.world import World, refused
from tests.services.signing_parties import DAY, NOW, SignedGrant, random_hash


async def test_the_recipient_opens_what_was_reencrypted(world: World) -> None:
    grant = await world.stored()
    envelope = world.envelope(plaintext=b"the key of a record")
    response = await world.reencrypt(grant, (0, envelope))
    receipt = world.receipt(response)
    assert world.opened(envelope, response.json()["cfrags"][0]) == b"the key of a record"
    assert (receipt.act, receipt.grant, receipt.aud) == ("reencrypted", grant.id, world.recipient.did)
    assert receipt.cfrags == tuple(b64url(sha256(from_b64url(cfrag))) for cfrag in response.json()["cfrags"])
    event = (await world.logged())[0]
    assert (event.n, event.event, event.capsules) == (receipt.seq, "reencrypted", (envelope.hash,))


async def test_cfrags_come_in_the_order_of_the_request_across_scopes(world: World) -> None:
    grant = await world.stored(["allergies", "medication"])
    names = ["medication", "allergies", "medication", "allergies"]
    envelopes = [world.envelope(name, f"{place}".encode()) for place, name in enumerate(names)]
    wanted = [(["allergies", "medication"].index(name), env) for name, env in zip(names, envelopes, strict=True)]
    cfrags = (await world.reencrypt(grant, *wanted)).json()["cfrags"]
    opened = [world.opened(env, cfrag, name) for env, cfrag, name in zip(envelopes, cfrags, names, strict=True)]
    assert opened == [b"0", b"1", b"2", b"3"]


async def test_more_capsules_than_fit_one_batch(world: World) -> None:
    grant = await world.stored()
    envelopes = [world.envelope(plaintext=f"{number}".encode()) for number in range(101)]
    response = await world.reencrypt(grant, *[(0, envelope) for envelope in envelopes])
    cfrags = response.json()["cfrags"]
    assert len(cfrags) == len(world.receipt(response).cfrags or ()) == 101
    assert world.opened(envelopes[100], cfrags[100]) == b"100"


async def test_the_same_request_gets_the_same_answer_and_has_one_effect(world: World) -> None:
    grant = await world.stored()
    body = world.request(grant, (0, world.envelope()))
    first = await world.http.post("/v1/reencryptions", json=body)
    second = await world.http.post("/v1/reencryptions", json=body)
    assert first.status_code == 200
    assert first.content == second.content
    assert await world.count("log_events") == 2


async def test_the_same_request_at_the_same_time_gets_one_answer(world: World) -> None:
    grant = await world.stored()
    body = world.request(grant, (0, world.envelope()))
    answers = await asyncio.gather(*[world.http.post("/v1/reencryptions", json=body) for _ in range(8)])
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert await world.count("log_events") == 2


async def test_the_answer_survives_a_restart(world: World) -> None:
    grant = await world.stored()
    body = world.request(grant, (0, world.envelope()))
    first = await world.http.post("/v1/reencryptions", json=body)
    async with world.running():
        assert (await world.http.post("/v1/reencryptions", json=body)).content == first.content


async def test_jti_reused(world: World) -> None:
    grant = await world.stored()
    jti = st.new_jti()
    assert (await world.reencrypt(grant, (0, world.envelope()), jti=jti)).status_code == 200
    refused(await world.reencrypt(grant, (0, world.envelope()), jti=jti), 409, "jti_reused")


async def test_jti_reused_at_the_same_time(world: World) -> None:
    grant = await world.stored()
    jti = st.new_jti()
    answers = await asyncio.gather(*[world.reencrypt(grant, (0, world.envelope()), jti=jti) for _ in range(6)])
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]


async def test_a_lapsed_request(world: World) -> None:
    grant = await world.stored()
    body = world.request(grant, (0, world.envelope()))
    world.clock.advance(REENCRYPTION_LIFETIME + SKEW_SECONDS)
    refused(await world.http.post("/v1/reencryptions", json=body), 422, "statement_expired")


async def test_a_request_that_lives_too_long(world: World) -> None:
    grant = await world.stored()
    payload = st.ReencryptionRequest.model_construct(
        **world.recipient.common("urn:pcehr:proxies"),
        exp=NOW + REENCRYPTION_LIFETIME + 1,
        grant=grant.id,
        capsules=(st.WantedCapsule(entry=0, capsule=random_hash()),),
    )
    body = {"request": world.recipient.sign(payload), "capsules": [world.envelope().capsule.b64]}
    refused(await world.http.post("/v1/reencryptions", json=body), 400, "malformed")


async def test_wrong_audience(world: World) -> None:
    grant = await world.stored()
    envelope = world.envelope()
    payload = st.ReencryptionRequest.model_construct(
        **world.recipient.common("urn:pcehr:records"),
        exp=NOW + 60,
        grant=grant.id,
        capsules=(st.WantedCapsule(entry=0, capsule=envelope.hash),),
    )
    body = {"request": world.recipient.sign(payload), "capsules": [envelope.capsule.b64]}
    refused(await world.http.post("/v1/reencryptions", json=body), 422, "wrong_audience")


async def test_a_request_from_the_future(world: World) -> None:
    grant = await world.stored()
    world.clock.advance(SKEW_SECONDS + 1)
    body = world.request(grant, (0, world.envelope()))
    world.clock.advance(-SKEW_SECONDS - 1)
    refused(await world.http.post("/v1/reencryptions", json=body), 422, "statement_from_the_future")


async def test_signed_by_a_key_the_recipient_had_before(world: World) -> None:
    grant = await world.stored()
    body = world.request(grant, (0, world.envelope()))
    world.recipient.rotate(NOW)
    async with world.running():
        refused(await world.http.post("/v1/reencryptions", json=body), 403, "wrong_signer")


async def test_a_recipient_goes_on_after_a_change_of_keys(world: World) -> None:
    """The share stays one for the receiving key that the grant names; the request is signed with the new key."""
    grant = await world.stored()
    world.recipient.rotate(NOW)
    assert (await world.reencrypt(grant, (0, world.envelope()))).status_code == 200


async def test_unknown_grant(world: World) -> None:
    refused(await world.reencrypt(world.grant(), (0, world.envelope())), 404, "unknown_grant")


async def test_not_granted_to_the_issuer(world: World) -> None:
    grant = await world.stored()
    refused(await world.reencrypt(grant, (0, world.envelope()), signer=world.stranger), 403, "not_granted")
    event = (await world.logged())[0]
    assert (event.actor, event.subject, event.outcome) == (world.stranger.did, world.patient.did, "not_granted")


async def test_not_even_the_patient_may_ask(world: World) -> None:
    grant = await world.stored()
    refused(await world.reencrypt(grant, (0, world.envelope()), signer=world.patient), 403, "not_granted")


async def test_grant_not_yet_valid(world: World) -> None:
    grant = await world.stored(nbf=NOW + DAY)
    refused(await world.reencrypt(grant, (0, world.envelope())), 403, "grant_not_yet_valid")
    world.clock.advance(DAY)
    assert (await world.reencrypt(grant, (0, world.envelope()))).status_code == 200


async def test_grant_expired(world: World) -> None:
    grant = await world.stored(lifetime=DAY)
    world.clock.advance(DAY - 1)
    assert (await world.reencrypt(grant, (0, world.envelope()))).status_code == 200
    world.clock.advance(1)
    refused(await world.reencrypt(grant, (0, world.envelope())), 403, "grant_expired")


async def test_grant_revoked(world: World) -> None:
    grant = await world.stored()
    await world.revoke(grant)
    refused(await world.reencrypt(grant, (0, world.envelope())), 403, "grant_revoked")


async def test_an_answer_is_not_given_again_after_the_revocation(world: World) -> None:
    grant = await world.stored()
    body = world.request(grant, (0, world.envelope()))
    assert (await world.http.post("/v1/reencryptions", json=body)).status_code == 200
    await world.revoke(grant)
    refused(await world.http.post("/v1/reencryptions", json=body), 403, "grant_revoked")
    assert (await world.rows("SELECT count(*) AS n FROM answers WHERE cfrags IS NOT NULL"))[0]["n"] == 0


async def test_an_entry_that_the_grant_does_not_have(world: World) -> None:
    grant = await world.stored()
    refused(await world.reencrypt(grant, (1, world.envelope())), 403, "capsule_not_granted")


async def test_a_capsule_that_is_not_on_the_entrys_list(world: World) -> None:
    listed, unlisted = world.envelope(), world.envelope()
    grant = await world.stored([("allergies", 0, [listed.hash])])
    assert (await world.reencrypt(grant, (0, listed))).status_code == 200
    refused(await world.reencrypt(grant, (0, unlisted)), 403, "capsule_not_granted")
    refused(await world.reencrypt(grant, (0, listed), (0, unlisted)), 403, "capsule_not_granted")


async def test_a_capsule_that_is_on_the_list_of_another_entry(world: World) -> None:
    listed = world.envelope()
    grant = await world.stored(["medication", ("allergies", 0, [listed.hash]), ("surgery", 0, [random_hash()])])
    refused(await world.reencrypt(grant, (2, listed)), 403, "capsule_not_granted")


async def test_a_capsule_of_another_scope_comes_out_as_nothing(world: World) -> None:
    grant = await world.stored()
    foreign = world.envelope("medication")
    cfrag = (await world.reencrypt(grant, (0, foreign))).json()["cfrags"][0]
    with pytest.raises(CapsuleFragRejected):
        world.opened(foreign, cfrag, "medication")


@pytest.mark.parametrize("change", ["another", "swapped", "fewer", "more"])
async def test_capsule_mismatch(world: World, change: str) -> None:
    grant = await world.stored()
    one, two, other = (world.envelope() for _ in range(3))
    body = world.request(grant, (0, one), (0, two))
    body["capsules"] = {
        "another": [one.capsule.b64, other.capsule.b64],
        "swapped": [two.capsule.b64, one.capsule.b64],
        "fewer": [one.capsule.b64],
        "more": [one.capsule.b64, two.capsule.b64, other.capsule.b64],
    }[change]
    refused(await world.http.post("/v1/reencryptions", json=body), 422, "capsule_mismatch")


async def test_a_capsule_that_is_none(world: World) -> None:
    grant = await world.stored()
    junk = bytes(98)
    token = world.recipient.reencryption_request(grant.id, [(0, b64url(sha256(junk)))])
    body = {"request": token, "capsules": [b64url(junk)]}
    refused(await world.http.post("/v1/reencryptions", json=body), 400, "malformed_key_material")
    assert (await world.logged())[0].outcome == "malformed_key_material"


async def test_a_capsule_that_stands_twice_in_a_request(world: World) -> None:
    grant = await world.stored()
    envelope = world.envelope()
    wanted = st.WantedCapsule(entry=0, capsule=envelope.hash)
    payload = st.ReencryptionRequest.model_construct(
        **world.recipient.common("urn:pcehr:proxies"), exp=NOW + 60, grant=grant.id, capsules=(wanted, wanted)
    )
    body = {"request": world.recipient.sign(payload), "capsules": [envelope.capsule.b64] * 2}
    refused(await world.http.post("/v1/reencryptions", json=body), 400, "malformed")


async def test_more_capsules_than_the_interface_takes(world: World) -> None:
    grant = await world.stored()
    body = world.request(grant, (0, world.envelope()))
    body["capsules"] = body["capsules"] * 201
    response = await world.http.post("/v1/reencryptions", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


async def test_the_registry_away_fails_closed(world: World) -> None:
    grant = await world.stored()
    async with world.running(party_cache_seconds=0):
        world.registry.away = True
        refused(await world.reencrypt(grant, (0, world.envelope())), 503, "registry_unavailable")
    assert await world.count("answers") == 1


async def test_a_grant_that_expires_while_its_request_waits(world: World) -> None:
    grant = await world.stored(lifetime=DAY)
    world.clock.advance(DAY - 1)
    response = await _meanwhile(world, grant, lambda: world.clock.advance(1))
    refused(response, 403, "grant_expired")
    assert await world.count("statements") == 1


async def test_a_request_that_lapses_while_it_waits(world: World) -> None:
    grant = await world.stored()
    lapse = REENCRYPTION_LIFETIME + SKEW_SECONDS
    refused(await _meanwhile(world, grant, lambda: world.clock.advance(lapse)), 422, "statement_expired")


async def test_a_revocation_that_commits_while_a_request_waits(world: World) -> None:
    grant = await world.stored()
    insert = "INSERT INTO tombstones (issuer, grant_id, token, receipt) VALUES ($1, $2, 'token', 'receipt')"
    response = await _meanwhile(world, grant, lambda: None, insert, world.patient.did, grant.id)
    refused(response, 403, "grant_revoked")
    assert await world.count("answers") == 1


async def test_nothing_is_released_when_the_event_cannot_be_written(world: World) -> None:
    grant = await world.stored()
    body = world.request(grant, (0, world.envelope()))
    await world.rows("ALTER TABLE log_events ADD CONSTRAINT no_more CHECK (n < 2) NOT VALID")
    response = await world.http.post("/v1/reencryptions", json=body)
    refused(response, 500, "internal_error")
    assert await world.count("answers") == await world.count("statements") == 1
    await world.rows("ALTER TABLE log_events DROP CONSTRAINT no_more")
    assert (await world.http.post("/v1/reencryptions", json=body)).status_code == 200


async def test_nothing_is_released_when_the_answer_cannot_be_written(world: World) -> None:
    grant = await world.stored()
    await world.rows("ALTER TABLE answers ADD CONSTRAINT no_more CHECK (cfrags IS NULL) NOT VALID")
    refused(await world.reencrypt(grant, (0, world.envelope())), 500, "internal_error")
    assert await world.count("log_events") == await world.count("statements") == 1


async def test_answers_are_deleted_once_their_request_has_lapsed(world: World) -> None:
    grant = await world.stored()
    body = world.request(grant, (0, world.envelope()))
    assert (await world.http.post("/v1/reencryptions", json=body)).status_code == 200
    world.clock.advance(REENCRYPTION_LIFETIME + SKEW_SECONDS - 1)
    await world.app.state.service.prune()
    assert await world.count("answers") == 2
    world.clock.advance(1)
    await world.app.state.service.prune()
    assert await world.count("answers") == 1
    refused(await world.http.post("/v1/reencryptions", json=body), 422, "statement_expired")


async def _meanwhile(world: World, grant: SignedGrant, change: Callable[[], None], *statement: str) -> httpx.Response:
    """Post a request, let something happen when its arithmetic is done and its answer not yet released."""
    async with world.lock_held(grant, shared=False) as connection:
        posted = asyncio.create_task(world.reencrypt(grant, (0, world.envelope())))
        await world.until_somebody_waits_for_a_lock()
        change()
        if statement:
            await connection.execute(*statement)
    return await posted
