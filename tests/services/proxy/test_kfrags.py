"""`POST /v1/kfrags`: what a proxy takes, and every refusal of docs/spec.md section 8 by name."""

from __future__ import annotations

import pytest

from shared import statements as st
from shared.crypto.umbral import KfragSigner, generate_kfrags
from shared.encoding import b64url, sha256
from shared.wire import SKEW_SECONDS, Action
from tests.services.proxy.world import World, refused
from tests.services.signing_parties import DAY, NOW, SignedGrant, random_hash


async def test_a_share_is_taken_and_the_receipt_says_stored(world: World) -> None:
    grant = world.grant(["allergies", "medication"])
    receipt = world.receipt(await world.post_share(grant))
    assert (receipt.act, receipt.statement, receipt.grant) == ("stored", grant.id, grant.id)
    assert (receipt.aud, receipt.iat) == (world.patient.did, NOW)
    assert await world.count("kfrags") == 2
    [event] = await world.logged()
    assert (event.n, event.event, event.outcome) == (receipt.seq, "stored", "done")


async def test_the_same_grant_gets_the_same_receipt_and_has_one_effect(world: World) -> None:
    grant = world.grant()
    first, second = await world.post_share(grant), await world.post_share(grant)
    assert first.json() == second.json()
    assert await world.count("log_events") == 1


async def test_a_lapsed_grant_is_refused(world: World) -> None:
    grant = world.grant(lifetime=DAY)
    world.clock.advance(DAY + SKEW_SECONDS)
    refused(await world.post_share(grant), 422, "statement_expired")


async def test_grant_expired(world: World) -> None:
    grant = world.grant(lifetime=DAY)
    world.clock.advance(DAY)
    refused(await world.post_share(grant), 422, "grant_expired")
    assert await world.count("grants") == 0


async def test_grant_from_the_future(world: World) -> None:
    refused(await world.post_share(world.grant(now=NOW + SKEW_SECONDS + 1)), 422, "statement_from_the_future")


async def test_not_for_this_proxy(world: World) -> None:
    grant = world.patient.grant(world.recipient, proxies=[world.second])
    refused(await world.post_share(grant, grant.shares[world.second.did]), 422, "not_for_this_proxy")


async def test_a_grant_without_read_is_not_for_any_proxy(world: World) -> None:
    grant = world.grant(actions=[Action.APPEND])
    refused(await world.post_share(grant, world.sealed(b"")), 422, "not_for_this_proxy")


async def test_grant_revoked_after_its_tombstone(world: World) -> None:
    grant = world.grant()
    assert world.receipt(await world.revoke(grant)).act == "erased"
    refused(await world.post_share(grant), 409, "grant_revoked")
    assert await world.count("kfrags") == 0


async def test_a_share_posted_again_after_its_revocation_stays_erased(world: World) -> None:
    grant = await world.stored()
    await world.revoke(grant)
    refused(await world.post_share(grant), 409, "grant_revoked")
    assert await world.count("kfrags") == 0


async def test_signed_by_a_key_the_patient_had_before(world: World) -> None:
    grant = world.grant()
    world.patient.rotate(NOW)
    refused(await world.post_share(grant), 403, "wrong_signer")


async def test_signed_with_the_next_key_at_once_after_a_rotation(world: World) -> None:
    await world.stored()
    world.patient.rotate(NOW)
    assert world.receipt(await world.post_share(world.grant())).act == "stored"


async def test_signed_by_somebody_else_in_the_patients_name(world: World) -> None:
    grant = world.grant()
    payload = _payload(world, grant)
    forged = SignedGrant(st.sign(payload, world.other_patient.identity_key()), {}, grant.shares)
    refused(await world.post_share(forged), 403, "wrong_signer")


async def test_bad_signature(world: World) -> None:
    grant = world.grant()
    other = world.grant()
    token = f"{grant.token.rpartition('.')[0]}.{other.token.rpartition('.')[2]}"
    refused(await world.post_share(SignedGrant(token, {}, grant.shares)), 422, "bad_signature")
    assert await world.count("log_events") == 0, "what nobody proved to have signed leaves no row"


async def test_a_rubbish_box_is_not_laid_to_the_patient(world: World) -> None:
    grant = world.grant()
    refused(await world.post_share(grant, world.sealed(b"rubbish")), 422, "kfrag_rejected")
    [event] = await world.logged()
    assert (event.outcome, event.actor, event.subject) == ("kfrag_rejected", None, world.patient.did)


async def test_malformed(world: World) -> None:
    refused(await world.post_share(SignedGrant("x" * 200), world.sealed(b"")), 400, "malformed")


async def test_unknown_party(world: World) -> None:
    del world.registry.parties[world.patient.did]
    refused(await world.post_share(world.grant()), 404, "unknown_party")


async def test_registry_away(world: World) -> None:
    grant = world.grant()
    world.registry.away = True
    response = await world.post_share(grant)
    refused(response, 503, "registry_unavailable")
    assert response.headers["retry-after"]
    assert await world.count("log_events") == 0


async def test_a_chain_without_its_first_link(world: World) -> None:
    world.patient.rotate(NOW)
    world.registry.chains[world.patient.did] = world.patient.entries[1:]
    refused(await world.post_share(world.grant()), 400, "broken_key_chain")


async def test_a_chain_that_was_rolled_back(world: World) -> None:
    world.patient.rotate(NOW)
    await world.stored()
    world.registry.chains[world.patient.did] = world.patient.entries[:1]
    async with world.running():
        refused(await world.post_share(world.grant()), 409, "key_chain_rolled_back")


async def test_jti_reused(world: World) -> None:
    grant = await world.stored()
    payload = _payload(world, grant)
    refused(await world.post_share(world.grant(jti=payload.jti)), 409, "jti_reused")


@pytest.mark.parametrize("member", ["patient_entry", "recipient_entry"])
async def test_an_entry_that_is_in_no_chain(world: World, member: str) -> None:
    refused(await world.post_share(world.grant(**{member: random_hash()})), 422, "refused")


async def test_an_entry_of_somebody_elses_chain(world: World) -> None:
    refused(await world.post_share(world.grant(recipient_entry=world.stranger.entry_id)), 422, "refused")


async def test_a_recipient_that_is_a_patient(world: World) -> None:
    refused(await world.post_share(world.grant(recipient=world.other_patient)), 422, "refused")


async def test_a_grant_by_a_recipient(world: World) -> None:
    grant = world.stranger.grant(world.recipient, proxies=[world.proxy])
    refused(await world.post_share(grant), 422, "refused")


async def test_an_entry_younger_than_the_cache_is_found(world: World) -> None:
    await world.stored()
    world.recipient.rotate(NOW)
    assert world.receipt(await world.post_share(world.grant())).act == "stored"


async def test_a_box_sealed_to_another_proxy(world: World) -> None:
    grant = world.grant()
    refused(await world.post_share(grant, grant.shares[world.second.did]), 422, "kfrag_rejected")
    assert (await world.rows("SELECT cause FROM log_events"))[0]["cause"] == "sealed box"


async def test_too_few_kfrags(world: World) -> None:
    grant = world.grant(["allergies", "medication"])
    first = bytes(grant.kfrags[world.proxy.did][0])
    refused(await world.post_share(grant, world.sealed(first)), 422, "kfrag_rejected")


async def test_too_many_kfrags(world: World) -> None:
    grant = world.grant()
    kfrag = bytes(grant.kfrags[world.proxy.did][0])
    refused(await world.post_share(grant, world.sealed(kfrag + kfrag)), 422, "kfrag_rejected")


async def test_a_kfrag_with_another_hash_than_the_grant_says(world: World) -> None:
    grant, other = world.grant(), world.grant()
    refused(await world.post_share(grant, other.shares[world.proxy.did]), 422, "kfrag_rejected")


async def test_the_kfrag_of_another_proxy(world: World) -> None:
    grant = world.grant()
    share = world.sealed(bytes(grant.kfrags[world.second.did][0]))
    refused(await world.post_share(grant, share), 422, "kfrag_rejected")


async def test_a_kfrag_that_is_none(world: World) -> None:
    refused(await world.post_share(world.grant_with_kfrags([bytes(260)])), 422, "kfrag_rejected")


async def test_a_kfrag_signed_by_another_signer(world: World) -> None:
    signer = KfragSigner(world.other_patient.seed.umbral_key("signer/0"))
    kfrag = generate_kfrags(
        world.patient.delegating_key("allergies"), world.recipient.receiving_key().public_key(), signer, 1, 1
    )[0]
    refused(await world.post_share(world.grant_with_kfrags([bytes(kfrag)])), 422, "kfrag_rejected")


async def test_a_kfrag_for_another_recipient(world: World) -> None:
    kfrag = generate_kfrags(
        world.patient.delegating_key("allergies"),
        world.stranger.receiving_key().public_key(),
        world.patient.signer(),
        1,
        1,
    )[0]
    refused(await world.post_share(world.grant_with_kfrags([bytes(kfrag)])), 422, "kfrag_rejected")


async def test_a_kfrag_for_another_scope(world: World) -> None:
    kfrag = generate_kfrags(
        world.patient.delegating_key("medication"),
        world.recipient.receiving_key().public_key(),
        world.patient.signer(),
        1,
        1,
    )[0]
    refused(await world.post_share(world.grant_with_kfrags([bytes(kfrag)])), 422, "kfrag_rejected")


async def test_a_kfrag_with_a_wrong_signature_for_the_receiver(world: World) -> None:
    """`KeyFrag.verify` lets it pass; only the throw-away capsule shows it."""
    one, other = (bytes(world.grant().kfrags[world.proxy.did][0]) for _ in range(2))
    kfrag = one[:194] + other[194:258] + one[258:]
    refused(await world.post_share(world.grant_with_kfrags([kfrag])), 422, "kfrag_rejected")
    assert (await world.rows("SELECT cause FROM log_events"))[0]["cause"] == "kfrag"
    assert await world.count("grants") == 0


async def test_a_delegating_key_that_is_no_point(world: World) -> None:
    kfrag = bytes(world.grant().kfrags[world.proxy.did][0])
    scope = st.GrantScope(scope=world.patient.scope_id("allergies"), epoch=0, delegating_key="A" * 44)
    line = st.GrantProxy(did=world.proxy.did, kfrags=(b64url(sha256(kfrag)),))
    claims = {"scopes": (scope,), "shares": st.GrantShares(threshold=1, proxies=(line,))}
    token = world.patient.sign(_payload(world, world.grant()).model_copy(update=claims))
    refused(await world.post_share(SignedGrant(token), world.sealed(kfrag)), 400, "malformed_key_material")


async def test_a_refusal_says_the_same_whatever_was_wrong_with_the_kfrag(world: World) -> None:
    grant = world.grant()
    answers = [
        await world.post_share(grant, world.sealed(b"")),
        await world.post_share(grant, grant.shares[world.second.did]),
        await world.post_share(world.grant_with_kfrags([bytes(260)])),
    ]
    # But for the id of the request, which is another each time.
    assert len({answer.text.replace(answer.json()["trace_id"], "") for answer in answers}) == 1


async def test_a_body_that_does_not_fit_the_schema(world: World) -> None:
    response = await world.http.post("/v1/kfrags", json={"grant": "x" * 200})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


async def test_too_large(world: World) -> None:
    refused(await world.http.post("/v1/kfrags", content=b"x" * (320 * 1024 + 1)), 413, "too_large")


def _payload(world: World, grant: SignedGrant) -> st.Grant:
    key = bytes(world.patient.identity_key().verify_key)
    return st.verify_under(grant.token, st.Grant, world.patient.did, [key]).payload
