"""`GET /v1/audit`: everybody sees what concerns them, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from shared.encoding import b64url, from_b64url
from shared.transparency.entries import Event, commitment, parse_event
from tests.services.proxy.world import World, refused
from tests.services.signing_parties import TestParty


async def _events(world: World, party: TestParty) -> list[tuple[str, str, str]]:
    """What the log says but for its readings, newest first."""
    shown = [item["event"] for item in await world.shown_events(party)]
    events = [event for event in map(parse_event, filter(None, shown)) if event.event != "log_read"]
    return [(event.event, event.outcome, event.actor) for event in events]


async def test_a_patient_sees_what_concerns_it_and_others_see_their_own(world: World) -> None:
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
    for party in (world.recipient, world.stranger, world.other_patient):
        assert await _events(world, party) == []


async def test_what_concerns_no_patient_known_stands_in_the_actors_log(world: World) -> None:
    await world.reencrypt(world.grant(), (0, world.envelope()))
    assert await _events(world, world.recipient) == [("reencrypted", "unknown_grant", world.recipient.did)]


async def test_an_event_says_what_happened_and_the_receipt_bears_its_number(world: World) -> None:
    grant = await world.stored()
    envelopes = [world.envelope(), world.envelope()]
    receipt = world.receipt(await world.reencrypt(grant, *((0, envelope) for envelope in envelopes)))
    [_, event, _] = await world.events(world.patient)
    assert event == Event(
        subject=world.patient.did,
        n=receipt.seq,
        prev=event.prev,
        at=world.clock.now,
        event="reencrypted",
        outcome="done",
        actor=world.recipient.did,
        grant=grant.id,
        statement=receipt.statement,
        capsules=tuple(envelope.hash for envelope in envelopes),
    )


async def test_the_chain_has_no_gap_under_concurrent_requests_and_all_of_it_is_in_the_tree(world: World) -> None:
    grant = await world.stored()
    await asyncio.gather(*(world.reencrypt(grant, (0, world.envelope())) for _ in range(20)))
    shown = await world.shown_events(world.patient)
    assert [item["n"] for item in shown] == list(range(len(shown), 0, -1))
    assert len(shown) == 22
    previous = None
    for item in reversed(shown):
        event = parse_event(item["event"])
        assert event.prev == previous
        hidden = commitment(from_b64url(item["salt"], 32), item["event"].encode())
        previous = b64url(hidden)
        assert item["commitment"] == previous
    await world.proven([from_b64url(item["commitment"], 32) for item in shown])


async def test_reading_the_log_is_an_event_of_it(world: World) -> None:
    await world.events(world.patient)
    [second, first] = await world.events(world.patient)
    assert (first.event, first.n, second.event, second.n) == ("log_read", 1, "log_read", 2)


async def test_erased_texts_are_gone_and_the_log_stays_whole(world: World) -> None:
    grant = await world.stored()
    await world.reencrypt(grant, (0, world.envelope()))
    before = await world.shown_events(world.patient)
    response = await world.erase(world.patient, upto=2)
    assert response.status_code == 204, response.text
    after = await world.shown_events(world.patient)
    assert [item["commitment"] for item in after[-3:]] == [item["commitment"] for item in before]
    assert [item["event"] is None for item in after] == [False, False, False, True, True]
    assert [parse_event(item["event"]).event for item in after[:3]] == ["log_read", "log_erased", "log_read"]
    await world.proven([from_b64url(item["commitment"], 32) for item in after])
    assert (await world.rows("SELECT count(*) AS n FROM log_events WHERE salt IS NULL"))[0]["n"] == 2


async def test_an_erasure_repeated_has_one_effect(world: World) -> None:
    await world.stored()
    token = world.patient.log_erasure(world.proxy.did, 1, now=world.clock.now)
    for _ in range(2):
        assert (await world.post_erasure(world.patient, token)).status_code == 204
    assert [event for event, *_ in await _events(world, world.patient)] == ["log_erased"]


async def test_wrong_signer_of_an_erasure(world: World) -> None:
    token = world.patient.log_erasure(world.proxy.did, 1, now=world.clock.now)
    refused(await world.post_erasure(world.recipient, token), 403, "wrong_signer")


async def test_wrong_audience_of_an_erasure(world: World) -> None:
    token = world.patient.log_erasure(world.second.did, 1, now=world.clock.now)
    refused(await world.post_erasure(world.patient, token), 422, "wrong_audience")


@pytest.mark.parametrize("act", ["store", "reencrypt", "revoke", "read", "erase"])
async def test_nothing_without_its_event(world: World, act: str) -> None:
    """With the log's tables out of order nothing is stored, released, erased or shown."""
    grant = await world.stored()
    other = world.grant()
    await world.rows("CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION ''; END $$")
    await world.rows("CREATE TRIGGER broken BEFORE INSERT ON log_entries FOR EACH ROW EXECUTE FUNCTION broken()")
    response = await {
        "store": lambda: world.post_share(other),
        "reencrypt": lambda: world.reencrypt(grant, (0, world.envelope())),
        "revoke": lambda: world.revoke(grant),
        "read": lambda: world.audit(world.patient),
        "erase": lambda: world.erase(world.patient, upto=1),
    }[act]()
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert set(response.json()) == {"type", "title", "status", "detail", "code", "trace_id"}
    assert await world.count("grants") == 1
    assert await world.count("kfrags") == 1
    assert await world.count("tombstones") == 0
    assert (await world.rows("SELECT count(*) AS n FROM answers"))[0]["n"] == 1
    assert (await world.rows("SELECT count(*) AS n FROM log_events WHERE salt IS NULL"))[0]["n"] == 0


async def test_the_cause_of_a_refusal_is_for_the_operator_only(world: World) -> None:
    grant = world.grant()
    await world.post_share(grant, world.sealed(b""))
    assert (await world.rows("SELECT cause FROM log_events WHERE cause IS NOT NULL"))[0][
        "cause"
    ] == "number or hash of kfrags"
    assert all("kfrags" not in str(item) for item in await world.shown_events(world.patient))


async def test_pages_hold_each_event_once_newest_first(world: World) -> None:
    for _ in range(7):
        await world.revoke(world.grant())
    seen: list[int] = []
    cursor = None
    for _ in range(10):
        page = (await world.audit(world.patient, limit=3, **({"cursor": cursor} if cursor else {}))).json()
        seen += [item["n"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    # Seven events, and the first reading; the later ones are newer than the page before.
    assert seen == list(range(8, 0, -1))


async def test_a_page_that_is_exactly_full_has_no_next(world: World) -> None:
    for _ in range(2):
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
