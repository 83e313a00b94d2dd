"""`GET /v1/audit`: everybody sees what concerns them, and nothing else."""

from __future__ import annotations

import pytest

from shared.encoding import b64url
from tests.services.proxy.world import World, refused
from tests.services.signing_parties import TestParty


async def _events(world: World, party: TestParty) -> list[tuple[str, str, str]]:
    response = await world.audit(party)
    assert response.status_code == 200, response.text
    return [(item["event"], item["outcome"], item["actor"]) for item in response.json()["items"]]


async def test_patient_and_recipient_each_see_their_own_events(world: World) -> None:
    grant = await world.stored()
    await world.reencrypt(grant, (0, world.envelope()), (0, world.envelope()))
    await world.reencrypt(grant, (0, world.envelope()), signer=world.stranger)
    await world.revoke(grant)
    patient, recipient, stranger = world.patient.did, world.recipient.did, world.stranger.did
    assert await _events(world, world.patient) == [
        ("erased", "done", patient),
        ("reencrypted", "not_granted", stranger),
        ("reencrypted", "done", recipient),
        ("stored", "done", patient),
    ]
    assert await _events(world, world.recipient) == [("reencrypted", "done", recipient)]
    assert await _events(world, world.stranger) == [("reencrypted", "not_granted", stranger)]
    assert await _events(world, world.other_patient) == []


async def test_a_row_says_what_happened(world: World) -> None:
    grant = await world.stored()
    response = await world.reencrypt(grant, (0, world.envelope()), (0, world.envelope()))
    receipt = world.receipt(response)
    assert (await world.audit(world.recipient)).json()["items"] == [
        {
            "seq": receipt.seq,
            "at": world.clock.now,
            "event": "reencrypted",
            "actor": world.recipient.did,
            "grant": grant.id,
            "statement": receipt.statement,
            "outcome": "done",
            "capsules": 2,
        }
    ]


async def test_the_cause_of_a_refusal_is_for_the_operator_only(world: World) -> None:
    grant = world.grant()
    await world.post_share(grant, world.sealed(b""))
    assert (await world.rows("SELECT cause FROM audit"))[0]["cause"] == "number or hash of kfrags"
    assert "cause" not in (await world.audit(world.patient)).json()["items"][0]


async def test_pages_hold_each_event_once_newest_first(world: World) -> None:
    for _ in range(7):
        await world.revoke(world.grant())
    seen: list[int] = []
    cursor = None
    for _ in range(10):
        page = (await world.audit(world.patient, limit=3, **({"cursor": cursor} if cursor else {}))).json()
        seen += [item["seq"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert len(seen) == 7
    assert seen == sorted(seen, reverse=True)


async def test_a_page_that_is_exactly_full_has_no_next(world: World) -> None:
    for _ in range(3):
        await world.revoke(world.grant())
    assert (await world.audit(world.patient, limit=3)).json()["next"] is None


@pytest.mark.parametrize("limit", [0, 101, -1])
async def test_a_limit_out_of_bounds(world: World, limit: int) -> None:
    response = await world.audit(world.patient, limit=limit)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("cursor", ["x", b64url(bytes(7)), b64url(b"\xff" * 8), "%00"])
async def test_a_cursor_that_this_service_did_not_give(world: World, cursor: str) -> None:
    refused(await world.audit(world.patient, cursor=cursor), 400, "malformed")


async def test_no_token(world: World) -> None:
    response = await world.http.get("/v1/audit")
    refused(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("audience", ["urn:pcehr:records", "urn:pcehr:registry", "another proxy"])
async def test_a_token_for_another_service(world: World, audience: str) -> None:
    wanted = world.second.did if audience == "another proxy" else audience
    refused(await world.audit(world.patient, audience=wanted), 401, "unauthenticated")


async def test_a_token_that_has_lapsed(world: World) -> None:
    token = world.registry.token(world.patient, world.proxy.did)
    world.clock.advance(3_600)
    refused(await world.http.get("/v1/audit", headers={"Authorization": f"Bearer {token}"}), 401, "unauthenticated")


async def test_the_registry_away_before_its_keys_were_seen(world: World) -> None:
    world.registry.away = True
    refused(await world.audit(world.patient), 503, "registry_unavailable")


async def test_no_party_and_no_statement_stands_in_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "pcehr")
    grant = await world.stored()
    await world.reencrypt(grant, (0, world.envelope()), signer=world.stranger)
    await world.post_share(world.grant(), world.sealed(b""))
    await world.revoke(grant)
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("pcehr"))
    assert "did:key" not in ours
    assert grant.id not in ours
