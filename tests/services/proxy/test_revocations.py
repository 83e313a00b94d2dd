"""`POST /v1/revocations`: what a proxy erases, when it must, and what a revocation cannot do."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from shared import statements as st
from shared.wire import SKEW_SECONDS
from tests.services.proxy.world import World, refused
from tests.services.signing_parties import DAY, NOW


async def test_the_share_is_erased_and_the_receipt_says_so(world: World) -> None:
    grant = await world.stored(["allergies", "medication"])
    receipt = world.receipt(await world.revoke(grant))
    assert (receipt.act, receipt.grant, receipt.aud) == ("erased", grant.id, world.patient.did)
    assert await world.count("kfrags") == 0
    event = (await world.logged())[0]
    assert (event.n, event.event, event.subject) == (receipt.seq, "erased", world.patient.did)


async def test_other_grants_keep_their_shares(world: World) -> None:
    grant, other = await world.stored(), await world.stored()
    await world.revoke(grant)
    assert (await world.reencrypt(other, (0, world.envelope()))).status_code == 200


async def test_a_receipt_is_sent_also_when_there_is_nothing_to_erase(world: World) -> None:
    assert world.receipt(await world.revoke(world.grant())).act == "erased"


async def test_a_tombstone_before_the_grant_keeps_its_share_out(world: World) -> None:
    grant = world.grant()
    await world.revoke(grant)
    refused(await world.post_share(grant), 409, "grant_revoked")


async def test_the_same_revocation_gets_the_same_receipt_and_has_one_effect(world: World) -> None:
    grant = await world.stored()
    body = {"revocation": world.patient.revocation(world.recipient, grant.id)}
    answers = await asyncio.gather(*[world.http.post("/v1/revocations", json=body) for _ in range(6)])
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert await world.count("log_events") == 2


async def test_the_same_revocation_gets_the_same_receipt_after_a_change_of_keys(world: World) -> None:
    grant = await world.stored()
    body = {"revocation": world.patient.revocation(world.recipient, grant.id)}
    first = await world.http.post("/v1/revocations", json=body)
    world.patient.rotate(NOW)
    async with world.running():
        assert (await world.http.post("/v1/revocations", json=body)).content == first.content


async def test_another_signature_over_the_same_bytes_gets_no_receipt(world: World) -> None:
    grant = await world.stored()
    token = world.patient.revocation(world.recipient, grant.id)
    assert (await world.http.post("/v1/revocations", json={"revocation": token})).status_code == 200
    forged = f"{token.rpartition('.')[0]}.{world.patient.revocation(world.recipient, grant.id).rpartition('.')[2]}"
    refused(await world.http.post("/v1/revocations", json={"revocation": forged}), 422, "bad_signature")


async def test_a_second_revocation_of_the_same_grant_gets_its_own_receipt(world: World) -> None:
    grant = await world.stored()
    first, second = world.receipt(await world.revoke(grant)), world.receipt(await world.revoke(grant))
    assert first.statement != second.statement
    assert await world.count("tombstones") == 1


async def test_a_revocation_by_a_stranger_has_no_effect_on_the_grant(world: World) -> None:
    grant = await world.stored()
    for stranger in (world.other_patient, world.recipient, world.stranger):
        assert world.receipt(await world.revoke(grant, by=stranger)).act == "erased"
    assert (await world.reencrypt(grant, (0, world.envelope()))).status_code == 200
    assert await world.count("kfrags") == 1


async def test_a_tombstone_by_a_stranger_does_not_keep_the_share_out(world: World) -> None:
    grant = world.grant()
    await world.revoke(grant, by=world.other_patient)
    assert world.receipt(await world.post_share(grant)).act == "stored"


async def test_the_patients_revocation_counts_after_a_strangers(world: World) -> None:
    grant = await world.stored()
    await world.revoke(grant, by=world.other_patient)
    await world.revoke(grant)
    refused(await world.reencrypt(grant, (0, world.envelope())), 403, "grant_revoked")
    assert await world.count("kfrags") == 0


async def test_it_works_while_the_registry_is_away(world: World) -> None:
    grant = await world.stored()
    async with world.running(party_cache_seconds=0):
        world.registry.away = True
        assert world.receipt(await world.revoke(grant)).act == "erased"
        assert await world.count("kfrags") == 0


async def test_it_works_after_a_start_without_the_registry(world: World) -> None:
    grant = await world.stored()
    world.registry.away = True
    async with world.running():
        assert world.receipt(await world.revoke(grant)).act == "erased"


@pytest.mark.parametrize("lie", ["not found", "garbage", "another party", "an error"])
async def test_a_registry_that_lies_cannot_keep_a_share_alive(world: World, lie: str) -> None:
    grant = await world.stored()
    answers = {
        "not found": httpx.Response(404, json={}),
        "garbage": httpx.Response(200, json={"entries": ["x.y.z"]}),
        "another party": httpx.Response(200, json={"entries": world.recipient.entries}),
        "an error": httpx.Response(500, content=b"<html>"),
    }
    async with world.running():
        world.registry.lie = answers[lie]
        assert world.receipt(await world.revoke(grant)).act == "erased"
    assert await world.count("kfrags") == 0


async def test_a_key_not_seen_yet_has_to_wait_for_the_registry(world: World) -> None:
    grant = await world.stored()
    world.patient.rotate(NOW)
    async with world.running():
        world.registry.away = True
        refused(await world.revoke(grant), 503, "registry_unavailable")
        world.registry.away = False
        assert world.receipt(await world.revoke(grant)).act == "erased"


async def test_an_issuer_never_seen_has_to_wait_for_the_registry(world: World) -> None:
    world.registry.away = True
    refused(await world.revoke(world.grant()), 503, "registry_unavailable")


async def test_it_never_lapses(world: World) -> None:
    grant = await world.stored()
    body = {"revocation": world.patient.revocation(world.recipient, grant.id)}
    world.clock.advance(10_000 * DAY)
    assert world.receipt(await world.http.post("/v1/revocations", json=body)).act == "erased"


async def test_a_revocation_from_the_future(world: World) -> None:
    token = world.patient.revocation(world.recipient, world.grant().id, now=NOW + SKEW_SECONDS + 1)
    refused(await world.http.post("/v1/revocations", json={"revocation": token}), 422, "statement_from_the_future")


async def test_one_that_waited_while_the_patient_changed_keys_still_counts(world: World) -> None:
    grant = await world.stored()
    token = world.patient.revocation(world.recipient, grant.id)
    world.patient.rotate(NOW)
    async with world.running():
        answer = await world.http.post("/v1/revocations", json={"revocation": token})
    assert world.receipt(answer).act == "erased"
    assert await world.count("kfrags") == 0


async def test_one_that_waited_counts_while_the_registry_is_away_too(world: World) -> None:
    world.patient.rotate(NOW)
    grant = await world.stored()
    token = world.patient.sign(_payload(world, grant.id), seq=0)
    async with world.running():
        world.registry.away = True
        answer = await world.http.post("/v1/revocations", json={"revocation": token})
    assert world.receipt(answer).act == "erased"
    assert await world.count("kfrags") == 0


async def test_signed_by_somebody_else_in_the_patients_name(world: World) -> None:
    grant = await world.stored()
    token = st.sign(_payload(world, grant.id), world.stranger.identity_key())
    refused(await world.http.post("/v1/revocations", json={"revocation": token}), 403, "wrong_signer")
    assert await world.count("kfrags") == 1


async def test_unknown_party(world: World) -> None:
    grant = world.grant()
    del world.registry.parties[world.patient.did]
    refused(await world.revoke(grant), 404, "unknown_party")


async def test_malformed(world: World) -> None:
    refused(await world.http.post("/v1/revocations", json={"revocation": "x" * 200}), 400, "malformed")


async def test_another_kind_of_statement(world: World) -> None:
    grant = world.grant()
    body = {"revocation": world.patient.denial(world.recipient, grant.id)}
    refused(await world.http.post("/v1/revocations", json=body), 400, "malformed")


async def test_jti_reused(world: World) -> None:
    jti = st.new_jti()
    for grant, status in ((world.grant(), 200), (world.grant(), 409)):
        body = {"revocation": world.patient.revocation(world.recipient, grant.id, jti=jti)}
        response = await world.http.post("/v1/revocations", json=body)
        assert response.status_code == status
    refused(response, 409, "jti_reused")


async def test_too_large(world: World) -> None:
    refused(await world.http.post("/v1/revocations", content=b"x" * (16 * 1024 + 1)), 413, "too_large")


async def test_nothing_is_erased_when_the_event_cannot_be_written(world: World) -> None:
    grant = await world.stored()
    await world.rows("ALTER TABLE log_events ADD CONSTRAINT no_more CHECK (n < 2) NOT VALID")
    refused(await world.revoke(grant), 500, "internal_error")
    assert await world.count("kfrags") == 1
    assert await world.count("tombstones") == 0


def _payload(world: World, grant: str) -> st.Revocation:
    return st.Revocation(**world.patient.common(world.recipient.did), grant=grant, epochs=())
