"""Requests, denials, grants and revocations: every rule, and every refusal under its own name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.encoding import b64url
from shared.transparency.entries import parse_event
from shared.wire import Action, Purpose, Role
from tests.services.records.world import World, refused
from tests.services.signing_parties import DAY, TestParty, id_of, random_hash


async def file(world: World, request: str, recipient: TestParty | None = None) -> Any:
    return await world.post("/v1/disclosure-requests", recipient or world.doctor, {"statement": request})


async def filed(world: World, **details: Any) -> str:
    request = world.doctor.disclosure_request(world.patient, **details)
    assert (await file(world, request)).status_code == 201
    return request


async def deny(world: World, request: str, **details: Any) -> Any:
    denial = world.patient.denial(world.doctor, request, now=world.clock(), **details)
    return await world.post("/v1/denials", world.patient, {"statement": denial})


async def inbox(world: World) -> list[dict[str, Any]]:
    return (await world.get("/v1/disclosure-requests", world.patient, box="inbox")).json()["items"]


# Requests


async def test_a_request_reaches_the_patient_and_stays_with_its_sender(world: World) -> None:
    request = world.doctor.disclosure_request(world.patient)
    response = await file(world, request)
    assert response.status_code == 201
    expected = {"id": id_of(request), "kind": "pcehr-disclosure-request+jwt", "received_at": world.clock()}
    assert response.json() == expected
    item = {
        "id": id_of(request),
        "statement": request,
        "state": "pending",
        "received_at": world.clock(),
        "denial": None,
        "grants": [],
    }
    assert await inbox(world) == [item]
    assert (await world.get("/v1/disclosure-requests", world.doctor, box="sent")).json()["items"] == [item]
    assert (await world.get("/v1/disclosure-requests", world.doctor, box="inbox")).json()["items"] == []
    assert await world.audit() == [("requested", "done")]


async def test_the_same_request_twice_has_one_effect_and_one_answer(world: World) -> None:
    request = world.doctor.disclosure_request(world.patient)
    first = await file(world, request)
    # What has changed since does not change the answer.
    world.patient.rotate()
    world.clock.advance(10)
    assert (await file(world, request)).content == first.content
    assert len(await inbox(world)) == 1


async def test_jti_reused(world: World) -> None:
    await filed(world, jti=b64url(bytes(16)))
    other = world.doctor.disclosure_request(world.patient, ["medication"], jti=b64url(bytes(16)))
    refused(await file(world, other), 409, "jti_reused")


async def test_wrong_signer_when_a_request_is_posted_by_somebody_else(world: World) -> None:
    request = world.doctor.disclosure_request(world.patient)
    refused(await file(world, request, world.registry.party(Role.RECIPIENT)), 403, "wrong_signer")


async def test_forbidden_for_a_patient_to_ask(world: World) -> None:
    request = world.patient.disclosure_request(world.patient)
    refused(await file(world, request, world.patient), 403, "forbidden")


async def test_refused_when_a_request_lasts_longer_than_ninety_days(world: World) -> None:
    await filed(world, lifetime=90 * DAY)
    refused(await file(world, world.doctor.disclosure_request(world.patient, lifetime=90 * DAY + 1)), 422, "refused")


async def test_refused_when_the_one_asked_is_no_patient(world: World) -> None:
    other = world.registry.party(Role.RECIPIENT)
    refused(await file(world, world.doctor.disclosure_request(other)), 422, "refused")


async def test_unknown_party_when_the_one_asked_has_not_signed_up(world: World) -> None:
    refused(await file(world, world.doctor.disclosure_request(TestParty(Role.PATIENT))), 404, "unknown_party")


async def test_nothing_is_kept_of_a_request_to_whom_the_registry_does_not_know(world: World) -> None:
    refused(await file(world, world.doctor.disclosure_request(TestParty(Role.PATIENT))), 404, "unknown_party")
    assert await world.sql("SELECT * FROM log_entries") == []
    assert await world.sql("SELECT * FROM disclosure_requests") == []
    assert await world.sql("SELECT * FROM statements") == []


async def test_a_strangers_refused_request_is_not_written_into_the_patients_log(world: World) -> None:
    refused(await file(world, world.doctor.disclosure_request(world.patient, lifetime=91 * DAY)), 422, "refused")
    assert await world.audit() == []
    await world.may_write(Action.APPEND)
    refused(await file(world, world.doctor.disclosure_request(world.patient, lifetime=91 * DAY)), 422, "refused")
    assert await world.audit() == [("granted", "done"), ("requested", "refused")]


async def test_too_many_open_requests(world: World) -> None:
    requests = [world.doctor.disclosure_request(world.patient, lifetime=DAY) for _ in range(24)]
    answers = await asyncio.gather(*(file(world, request) for request in requests))
    assert sorted(answer.status_code for answer in answers) == 20 * [201] + 4 * [403]
    one_more = world.doctor.disclosure_request(world.patient)
    refused(await file(world, one_more), 403, "quota_exceeded")
    # They are counted for the two together.
    other = world.registry.party(Role.RECIPIENT)
    assert (await file(world, other.disclosure_request(world.patient), other)).status_code == 201
    elsewhere = world.doctor.disclosure_request(world.registry.party(Role.PATIENT))
    assert (await file(world, elsewhere)).status_code == 201
    # What was filed before is answered as before; and an answer, as well as the end of a request, makes room.
    filed_before = next(request for request, answer in zip(requests, answers, strict=True) if answer.status_code == 201)
    assert (await file(world, filed_before)).status_code == 201
    await deny(world, id_of(filed_before))
    assert (await file(world, one_more)).status_code == 201
    world.clock.advance(DAY)
    await filed(world, now=world.clock())


async def test_statement_expired_request(world: World) -> None:
    request = world.doctor.disclosure_request(world.patient, lifetime=10)
    world.clock.advance(10 + 60)
    refused(await file(world, request), 422, "statement_expired")


@pytest.mark.parametrize("member", ["patient_entry", "recipient_entry"])
async def test_stale_key_entry_in_a_request(world: World, member: str) -> None:
    refused(
        await file(world, world.doctor.disclosure_request(world.patient, **{member: random_hash()})),
        409,
        "stale_key_entry",
    )


async def test_stale_key_entry_after_the_patient_changed_keys(world: World) -> None:
    request = world.doctor.disclosure_request(world.patient)
    world.patient.rotate()
    refused(await file(world, request), 409, "stale_key_entry")
    await filed(world)


async def test_a_request_expires(world: World) -> None:
    await filed(world, lifetime=DAY)
    world.clock.advance(DAY)
    assert (await inbox(world))[0]["state"] == "expired"


# Denials


async def test_a_denial_answers_the_request(world: World) -> None:
    request = await filed(world)
    denial = world.patient.denial(world.doctor, id_of(request))
    first = await world.post("/v1/denials", world.patient, {"statement": denial})
    assert first.status_code == 201
    assert (await world.post("/v1/denials", world.patient, {"statement": denial})).content == first.content
    [item] = (await world.get("/v1/disclosure-requests", world.doctor, box="sent")).json()["items"]
    assert (item["state"], item["denial"]) == ("denied", denial)


async def test_already_answered_by_a_denial(world: World) -> None:
    request = id_of(await filed(world))
    await deny(world, request)
    refused(await deny(world, request), 409, "already_answered")


async def test_already_answered_by_a_grant(world: World) -> None:
    request = id_of(await filed(world))
    await world.give(world.signed_grant(request=request))
    refused(await deny(world, request), 409, "already_answered")


async def test_not_found_when_a_request_to_somebody_else_is_denied(world: World) -> None:
    other = world.registry.party(Role.PATIENT)
    request = world.doctor.disclosure_request(other)
    await file(world, request)
    refused(await deny(world, id_of(request)), 404, "not_found")
    refused(await deny(world, random_hash()), 404, "not_found")


async def test_wrong_audience_of_a_denial(world: World) -> None:
    request = id_of(await filed(world))
    refused(await deny(world, request, aud=world.registry.party(Role.RECIPIENT).did), 422, "wrong_audience")


async def test_forbidden_for_a_recipient_to_deny(world: World) -> None:
    request = id_of(await filed(world))
    denial = world.doctor.denial(world.doctor, request)
    refused(await world.post("/v1/denials", world.doctor, {"statement": denial}), 403, "forbidden")


async def test_of_a_denial_and_a_grant_at_once_one_wins(world: World) -> None:
    for _ in range(4):
        request = id_of(await filed(world))
        grant = world.signed_grant(request=request, actions=[Action.READ])
        answers = await asyncio.gather(deny(world, request), world.post("/v1/grants", world.patient, grant.as_json()))
        assert sorted(answer.status_code for answer in answers) == [201, 409]
        assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"already_answered"}


# Grants


async def test_a_grant_is_passed_on_and_becomes_complete(world: World) -> None:
    request = await filed(world)
    grant = await world.granted(request=id_of(request))
    found = await world.grant_of(grant.id)
    assert found["grant"] == grant.token
    assert (found["revocation"], found["disclosed"]) == (None, 0)
    assert [proxy["did"] for proxy in found["proxies"]] == [proxy.did for proxy in world.proxies]
    assert all(proxy["stored"] and proxy["problem"] is None for proxy in found["proxies"])
    assert (await world.get(f"/v1/grants/{grant.id}", world.doctor)).json() == found
    assert (await inbox(world))[0]["state"] == "approved"
    assert (await inbox(world))[0]["grants"] == [grant.id]
    for box, party in (("given", world.patient), ("held", world.doctor)):
        assert (await world.get("/v1/grants", party, box=box)).json()["items"] == [found]
    assert (await world.get("/v1/grants", world.doctor, box="given")).json()["items"] == []


async def test_sealed_shares_are_gone_once_delivered(world: World) -> None:
    await world.granted()
    assert await world.sql("SELECT * FROM outbox") == []


async def test_a_grant_without_read_is_complete_at_once(world: World) -> None:
    grant = await world.may_write(Action.APPEND)
    assert (await world.grant_of(grant.id))["state"] == "complete"


async def test_a_grant_is_active_when_enough_proxies_hold_their_shares(world: World) -> None:
    world.proxies[0].down = world.proxies[1].down = True
    grant = await world.give(world.signed_grant())
    found = await world.until(grant.id, lambda found: found["proxies"][2]["stored"] is not None)
    assert found["state"] == "pending"
    world.proxies[0].down = False
    await world.until_state(grant.id, "active")
    world.proxies[1].down = False
    await world.until_state(grant.id, "complete")
    world.clock.advance(30 * DAY)
    assert (await world.grant_of(grant.id))["state"] == "expired"


async def test_the_same_grant_twice_has_one_effect_and_one_answer(world: World) -> None:
    grant = world.signed_grant()
    first = await world.post("/v1/grants", world.patient, grant.as_json())
    await world.until_state(grant.id, "complete")
    await world.revoke(grant.id)
    assert (await world.post("/v1/grants", world.patient, grant.as_json())).content == first.content
    assert (await world.grant_of(grant.id))["state"] == "revoked"
    assert [proxy.calls["/v1/kfrags"] for proxy in world.proxies] == [1, 1, 1]


async def test_the_same_grant_twice_at_once_has_one_effect(world: World) -> None:
    grant = world.signed_grant()
    answers = await asyncio.gather(*(world.post("/v1/grants", world.patient, grant.as_json()) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    await world.until_state(grant.id, "complete")
    assert [proxy.calls["/v1/kfrags"] for proxy in world.proxies] == [1, 1, 1]
    assert [entry for entry in await world.audit() if entry[0] == "granted"] == [("granted", "done")]


async def test_wrong_signer_when_a_grant_is_posted_by_its_recipient(world: World) -> None:
    refused(await world.post("/v1/grants", world.doctor, world.signed_grant().as_json()), 403, "wrong_signer")


async def test_forbidden_for_a_recipient_to_grant(world: World) -> None:
    grant = world.doctor.grant(world.doctor, actions=[Action.APPEND])
    refused(await world.post("/v1/grants", world.doctor, grant.as_json()), 403, "forbidden")


@pytest.mark.parametrize("member", ["patient_entry", "recipient_entry"])
async def test_stale_key_entry_in_a_grant(world: World, member: str) -> None:
    grant = world.signed_grant(**{member: random_hash()})
    refused(await world.post("/v1/grants", world.patient, grant.as_json()), 409, "stale_key_entry")


async def test_stale_key_entry_after_the_recipient_changed_keys(world: World) -> None:
    grant = world.signed_grant()
    world.doctor.rotate()
    refused(await world.post("/v1/grants", world.patient, grant.as_json()), 409, "stale_key_entry")


async def test_a_grant_may_name_an_entry_younger_than_the_cache(idle_world: World) -> None:
    async with idle_world.running(party_cache_seconds=3600) as world:
        await world.give(world.signed_grant())
        world.doctor.rotate()
        await world.give(world.signed_grant())


async def test_refused_when_the_recipient_is_none(world: World) -> None:
    grant = world.signed_grant(recipient=world.registry.party(Role.PATIENT))
    refused(await world.post("/v1/grants", world.patient, grant.as_json()), 422, "refused")


async def test_refused_when_a_proxy_is_none(world: World) -> None:
    grant = world.signed_grant()
    stranger = world.registry.party(Role.RECIPIENT)
    shares = grant.kfrags.copy()
    shares[stranger.did] = shares.pop(world.proxies[0].did)
    from shared.statements import GrantProxy, GrantShares

    proxies = tuple(GrantProxy(did=did, kfrags=tuple(b64url(k.hash) for k in own)) for did, own in shares.items())
    grant = world.signed_grant(shares=GrantShares(threshold=2, proxies=proxies))
    body = {"grant": grant.token, "shares": [{"proxy": did, "sealed": "AAAA"} for did in shares]}
    refused(await world.post("/v1/grants", world.patient, body), 422, "refused")


async def test_shares_mismatch(world: World) -> None:
    grant = world.signed_grant()
    body = grant.as_json()
    other = {"proxy": world.registry.party(Role.PROXY).did, "sealed": "AAAA"}
    for shares in (
        [],
        body["shares"][:2],
        [*body["shares"], other],
        [*body["shares"][:2], other],
        [*body["shares"], body["shares"][0]],
        [*body["shares"][:2], body["shares"][0]],
    ):
        response = await world.post("/v1/grants", world.patient, body | {"shares": shares})
        refused(response, 422, "shares_mismatch")
    await world.give(grant)


async def test_shares_mismatch_for_a_grant_without_read(world: World) -> None:
    grant = world.signed_grant(actions=[Action.APPEND])
    body = grant.as_json() | {"shares": [{"proxy": world.proxies[0].did, "sealed": "AAAA"}]}
    refused(await world.post("/v1/grants", world.patient, body), 422, "shares_mismatch")


async def test_a_grant_may_be_narrower_than_the_request(world: World) -> None:
    request = id_of(await filed(world, actions=[Action.READ, Action.APPEND]))
    await world.granted(request=request)


async def test_wider_than_requested_in_actions(world: World) -> None:
    request = id_of(await filed(world))
    grant = world.signed_grant(request=request, actions=[Action.READ, Action.AMEND])
    refused(await world.post("/v1/grants", world.patient, grant.as_json()), 422, "wider_than_requested")


async def test_wider_than_requested_in_purpose(world: World) -> None:
    request = id_of(await filed(world))
    grant = world.signed_grant(request=request, purpose=Purpose.HRESCH)
    refused(await world.post("/v1/grants", world.patient, grant.as_json()), 422, "wider_than_requested")


async def test_not_found_when_a_grant_answers_what_nobody_asked(world: World) -> None:
    other = world.registry.party(Role.RECIPIENT)
    elsewhere = other.disclosure_request(world.patient)
    await file(world, elsewhere, other)
    for request in (random_hash(), id_of(elsewhere)):
        grant = world.signed_grant(request=request)
        refused(await world.post("/v1/grants", world.patient, grant.as_json()), 404, "not_found")


async def test_already_answered_when_the_request_was_denied(world: World) -> None:
    request = id_of(await filed(world))
    await deny(world, request)
    grant = world.signed_grant(request=request)
    refused(await world.post("/v1/grants", world.patient, grant.as_json()), 409, "already_answered")


async def test_statement_expired_when_the_request_has_lapsed(world: World) -> None:
    request = id_of(await filed(world, lifetime=DAY))
    world.clock.advance(DAY + 60)
    grant = world.signed_grant(request=request)
    refused(await world.post("/v1/grants", world.patient, grant.as_json()), 422, "statement_expired")


async def test_statement_expired_grant(world: World) -> None:
    grant = world.signed_grant(lifetime=DAY)
    world.clock.advance(DAY + 60)
    refused(await world.post("/v1/grants", world.patient, grant.as_json()), 422, "statement_expired")


async def test_not_found_for_a_grant_of_others(world: World) -> None:
    grant = await world.granted()
    for party in (world.registry.party(Role.PATIENT), world.registry.party(Role.RECIPIENT), world.proxies[0].party):
        refused(await world.get(f"/v1/grants/{grant.id}", party), 404, "not_found")


# Revocations


async def test_a_revocation_takes_effect_at_once_and_reaches_the_proxies(world: World) -> None:
    grant = await world.granted()
    revocation = world.patient.revocation(world.doctor, grant.id, [("allergies", 1)])
    first = await world.post("/v1/revocations", world.patient, {"statement": revocation})
    assert first.status_code == 201
    found = await world.grant_of(grant.id)
    assert (found["state"], found["revocation"]) == ("revoked", revocation)
    found = await world.until(grant.id, lambda found: all(proxy["erased"] for proxy in found["proxies"]))
    assert all(grant.id not in proxy.kfrags for proxy in world.proxies)
    assert (await world.post("/v1/revocations", world.patient, {"statement": revocation})).content == first.content
    assert [proxy.calls["/v1/revocations"] for proxy in world.proxies] == [1, 1, 1]
    assert [entry for entry in await world.audit() if entry[0] == "erased"] == 3 * [("erased", "done")]


async def test_grant_revoked_when_the_revocation_came_first(world: World) -> None:
    grant = world.signed_grant()
    await world.revoke(grant.id)
    refused(await world.post("/v1/grants", world.patient, grant.as_json()), 409, "grant_revoked")
    refused(await world.get(f"/v1/grants/{grant.id}", world.patient), 404, "not_found")


async def test_a_tombstone_by_somebody_else_has_no_effect(world: World) -> None:
    grant = world.signed_grant()
    other = world.registry.party(Role.PATIENT)
    revocation = other.revocation(world.doctor, grant.id)
    assert (await world.post("/v1/revocations", other, {"statement": revocation})).status_code == 201
    await world.give(grant)
    await world.until_state(grant.id, "complete")


async def test_not_found_when_somebody_else_revokes_a_known_grant(world: World) -> None:
    grant = await world.granted()
    record = await world.written()
    other = world.registry.party(Role.PATIENT)
    revocation = other.revocation(world.doctor, grant.id, [("allergies", 9)])
    refused(await world.post("/v1/revocations", other, {"statement": revocation}), 404, "not_found")
    assert (await world.grant_of(grant.id))["state"] == "complete"
    assert (await world.sql("SELECT count(*) FROM revocations"))[0][0] == 0
    assert (await world.disclose(world.wanting(grant, record))).status_code == 200


async def test_forbidden_for_a_recipient_to_revoke(world: World) -> None:
    grant = await world.granted()
    revocation = world.doctor.revocation(world.doctor, grant.id)
    refused(await world.post("/v1/revocations", world.doctor, {"statement": revocation}), 403, "forbidden")


async def test_wrong_audience_of_a_revocation(world: World) -> None:
    grant = await world.granted()
    revocation = world.patient.revocation(world.registry.party(Role.RECIPIENT), grant.id)
    refused(await world.post("/v1/revocations", world.patient, {"statement": revocation}), 422, "wrong_audience")


async def test_a_grant_and_its_revocation_at_once_end_revoked(world: World) -> None:
    for _ in range(4):
        grant = world.signed_grant()
        posted, _ = await asyncio.gather(
            world.post("/v1/grants", world.patient, grant.as_json()), world.revoke(grant.id)
        )
        if posted.status_code == 201:
            found = await world.until(grant.id, lambda found: all(proxy["erased"] for proxy in found["proxies"]))
            assert found["state"] == "revoked"
        else:
            refused(posted, 409, "grant_revoked")
        assert await world.sql("SELECT * FROM outbox WHERE kind = 'shares'") == []


async def test_revoking_drops_shares_not_yet_delivered(world: World) -> None:
    for proxy in world.proxies:
        proxy.down = True
    grant = await world.give(world.signed_grant())
    await world.revoke(grant.id)
    assert [row["kind"] for row in await world.sql("SELECT kind FROM outbox")] == 3 * ["revocation"]


async def test_a_second_revocation_takes_the_place_of_the_first(world: World) -> None:
    """As after a change of keys: proxies no longer take a revocation signed with the key before."""
    for proxy in world.proxies:
        proxy.status, proxy.code = 403, "wrong_signer"
    grant = await world.give(world.signed_grant())
    await world.revoke(grant.id)
    await world.until(grant.id, lambda found: {proxy["problem"] for proxy in found["proxies"]} == {"wrong_signer"})
    world.patient.rotate()
    for proxy in world.proxies:
        proxy.status = None
    second = await world.revoke(grant.id, [("allergies", 1)])
    found = await world.until(grant.id, lambda found: all(proxy["erased"] for proxy in found["proxies"]))
    assert found["revocation"] == second
    assert {proxy["problem"] for proxy in found["proxies"]} == {None}


async def test_a_revocation_does_not_need_the_registry(world: World) -> None:
    grant = await world.granted()
    world.registry.away = True
    await world.revoke(grant.id)
    found = await world.until(grant.id, lambda found: all(proxy["erased"] for proxy in found["proxies"]))
    assert found["state"] == "revoked"


async def test_a_chain_without_its_first_link(world: World) -> None:
    world.patient.rotate()
    grant = world.signed_grant()
    del world.patient.entries[0]
    refused(await world.post("/v1/grants", world.patient, grant.as_json()), 400, "broken_key_chain")


async def test_registry_unavailable_for_everything_else(world: World) -> None:
    grant = await world.granted()
    record = await world.written()
    world.registry.away = True
    another = world.patient.record(world.patient, "allergies")
    for response in (
        await world.post("/v1/grants", world.patient, world.signed_grant().as_json()),
        await world.post("/v1/records", world.patient, {"records": [another.as_json()]}),
        await world.disclose(world.wanting(grant, record)),
    ):
        refused(response, 503, "registry_unavailable")
        assert int(response.headers["retry-after"]) > 0


# The log


async def test_the_log_shows_what_was_done_and_what_was_refused(world: World) -> None:
    request = id_of(await filed(world))
    await deny(world, request)
    await deny(world, request)
    assert await world.audit() == [
        ("requested", "done"),
        ("denied", "done"),
        ("denied", "already_answered"),
    ]
    refused(await world.get("/v1/me/audit", world.doctor), 403, "forbidden")
    assert await world.audit(world.registry.party(Role.PATIENT)) == []


async def in_pages(world: World, path: str, **params: Any) -> list[Any]:
    """All items of a list that the patient reads two at a time."""
    items: list[Any] = []
    while True:
        page = (await world.get(path, world.patient, limit=2, **params)).json()
        assert len(page["items"]) <= 2
        items += page["items"]
        if page["next"] is None:
            return items
        params["cursor"] = page["next"]


async def test_lists_go_on_with_next_newest_first(world: World) -> None:
    requests = [id_of(await filed(world)) for _ in range(5)]
    grants = [(await world.may_write(Action.APPEND)).id for _ in range(4)]
    shown = await in_pages(world, "/v1/disclosure-requests", box="inbox")
    assert [item["id"] for item in shown] == requests[::-1]
    assert [item["id"] for item in await in_pages(world, "/v1/grants", box="given")] == grants[::-1]
    log = [parse_event(item["event"]) for item in await in_pages(world, "/v1/me/audit")]
    # Each page is a reading, newer than the pages after it; the first page shows the first.
    assert [event.statement for event in log] == [None, *grants[::-1], *requests[::-1]]


async def test_malformed_cursor(world: World) -> None:
    for cursor in ("AAAA", "__________8"):
        response = await world.get("/v1/grants", world.patient, box="given", cursor=cursor)
        refused(response, 400, "malformed")
