"""The patient's log: an event for everything, before anything; a chain without a gap, in a tree with proofs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import DBAPIError

from shared.crypto.signing import SigningKey
from shared.encoding import b64url, from_b64url, sha256
from shared.transparency.checkpoints import verify_checkpoint, verify_cosignatures
from shared.transparency.entries import Event, commitment, parse_event
from shared.wire import RECORDS_AUDIENCE, Action, Role
from tests.services.records.world import LOG_ORIGIN, World, refused
from tests.services.signing_parties import DAY, SealedRecord, SignedGrant, TestParty, id_of, random_hash


def path_of(record: SealedRecord) -> str:
    return f"/v1/blobs/{b64url(sha256(record.body))}"


async def uploaded(world: World, author: TestParty, **details: Any) -> SealedRecord:
    """A record of the patient's with a body in the blob store."""
    record = author.record(world.patient, "allergies", os.urandom(100_000), **details)
    assert (await world.put(path_of(record), author, record.body)).status_code == 201
    body = {"records": [record.as_json(inline=False)]}
    assert (await world.post("/v1/records", author, body)).status_code == 201
    return record


async def read_by_the_doctor(world: World) -> tuple[SealedRecord, SignedGrant]:
    """A record with a body in the blob store, granted to the doctor and disclosed once."""
    record = await uploaded(world, world.patient)
    grant = await world.granted()
    assert (await world.disclose(world.wanting(grant, record))).status_code == 200
    return record, grant


async def last(world: World) -> Event:
    return (await world.events())[-1]


# What has an event


async def test_a_listing_by_the_holder_of_a_grant(world: World) -> None:
    records = [await world.written() for _ in range(3)]
    grant = await world.granted()
    for limit in (2, 3):
        assert (await world.get("/v1/records", world.doctor, grant=grant.id, limit=limit)).status_code == 200
        event = await last(world)
        assert (event.event, event.outcome, event.actor, event.grant) == ("listed", "done", world.doctor.did, grant.id)
        assert event.capsules == tuple(record.capsule_hash for record in records[:limit])


async def test_a_listing_of_nothing(world: World) -> None:
    grant = await world.granted()
    assert (await world.get("/v1/records", world.doctor, grant=grant.id)).json()["items"] == []
    event = await last(world)
    assert (event.event, event.capsules) == ("listed", None)


@pytest.mark.parametrize("path", ["/v1/records/{record}", "/v1/records/{record}/history?version=2"])
async def test_a_look_at_a_record(world: World, path: str) -> None:
    first = await world.written()
    second = world.patient.record(world.patient, "allergies", after=first)
    await world.write(world.patient, second)
    await world.granted()
    response = await world.http.get(path.format(record=first.record), headers=world.authorization(world.doctor))
    assert response.status_code == 200, response.text
    shown = (second,) if "history" in path else (first, second)
    event = await last(world)
    assert (event.event, event.outcome, event.actor) == ("record_read", "done", world.doctor.did)
    assert event.capsules == tuple(record.capsule_hash for record in shown)


async def test_a_body_fetched_by_whom_it_was_disclosed_to(world: World) -> None:
    record, _ = await read_by_the_doctor(world)
    response = await world.get(path_of(record), world.doctor)
    assert response.content == record.body
    event = await last(world)
    assert (event.event, event.outcome, event.actor) == ("body_read", "done", world.doctor.did)
    assert event.capsules == (record.capsule_hash,)


async def test_a_body_fetched_by_its_author_after_the_end_of_the_grant(world: World) -> None:
    grant = await world.may_write(Action.APPEND)
    record = await uploaded(world, world.doctor, grant=grant.id)
    await world.revoke(grant.id)
    assert (await world.get(path_of(record), world.doctor)).status_code == 200
    event = await last(world)
    assert (event.event, event.capsules) == ("body_read", (record.capsule_hash,))


async def test_what_the_patient_looks_at_itself_is_no_event(world: World) -> None:
    record, _ = await read_by_the_doctor(world)
    before = await world.events()
    for path in (
        "/v1/me/records",
        f"/v1/records/{record.record}",
        f"/v1/records/{record.record}/history?version=1",
        path_of(record),
    ):
        response = await world.http.get(path, headers=world.authorization(world.patient))
        assert response.status_code == 200, response.text
    assert await world.events() == before


async def test_a_disclosure_with_its_capsules_in_the_order_of_the_request(world: World) -> None:
    records = [await world.written() for _ in range(3)][::-1]
    grant = await world.granted()
    request = world.wanting(grant, *records)
    assert (await world.disclose(request)).status_code == 200
    event = await last(world)
    assert event == Event(
        subject=world.patient.did,
        n=event.n,
        prev=event.prev,
        at=world.clock(),
        event="disclosed",
        outcome="done",
        actor=world.doctor.did,
        grant=grant.id,
        statement=id_of(request),
        capsules=tuple(record.capsule_hash for record in records),
    )


async def test_a_whole_consent_from_the_request_to_the_erased_share(world: World) -> None:
    record = await world.written()
    request = world.doctor.disclosure_request(world.patient)
    assert (await world.post("/v1/disclosure-requests", world.doctor, {"statement": request})).status_code == 201
    grant = await world.granted()
    assert (await world.disclose(world.wanting(grant, record))).status_code == 200
    await world.revoke(grant.id)
    await world.until(grant.id, lambda found: all(proxy["erased"] for proxy in found["proxies"]))
    done = [
        "record_written",
        "requested",
        "granted",
        "stored",
        "stored",
        "stored",
        "disclosed",
        "revoked",
        "erased",
        "erased",
        "erased",
    ]
    assert await world.audit() == [(event, "done") for event in done]
    proxies = {event.actor for event in await world.events() if event.event == "stored"}
    assert proxies == {proxy.did for proxy in world.proxies}


# Refusals


@pytest.mark.parametrize("act", ["listing", "look", "history", "body"])
async def test_a_refused_look_has_its_event_if_there_was_ever_a_grant(world: World, act: str) -> None:
    record, grant = await read_by_the_doctor(world)
    await world.revoke(grant.id)
    await world.until(grant.id, lambda found: all(proxy["erased"] for proxy in found["proxies"]))
    path, event = {
        "listing": (f"/v1/records?grant={grant.id}", "listed"),
        "look": (f"/v1/records/{record.record}", "record_read"),
        "history": (f"/v1/records/{record.record}/history?version=1", "record_read"),
        "body": (path_of(record), "body_read"),
    }[act]
    before = await world.events()
    for party in (world.doctor, world.registry.party(Role.RECIPIENT), world.registry.party(Role.PATIENT)):
        refused(await world.http.get(path, headers=world.authorization(party)), 404, "not_found")
    [*earlier, now] = await world.events()
    assert earlier == before
    assert (now.event, now.outcome, now.actor, now.capsules) == (event, "not_found", world.doctor.did, None)


async def test_what_is_nobodys_leaves_no_event(world: World) -> None:
    await world.may_write(Action.APPEND)
    nowhere = "0198f000-0000-7000-8000-000000000001"
    for path in (
        f"/v1/records?grant={random_hash()}",
        f"/v1/records/{nowhere}",
        f"/v1/records/{nowhere}/history?version=1",
        f"/v1/blobs/{random_hash()}",
    ):
        refused(await world.http.get(path, headers=world.authorization(world.doctor)), 404, "not_found")
    assert await world.audit() == [("granted", "done")]


async def test_what_is_away_is_no_refusal(world: World) -> None:
    grant = await world.granted()
    before = await world.audit()
    world.registry.away = True
    refused(
        await world.disclose(world.wanting(grant, world.patient.record(world.patient, "allergies"))),
        503,
        "registry_unavailable",
    )
    world.registry.away = False
    assert await world.audit() == before


# Nothing without its event


async def refused_for_want_of_the_log(act: Awaitable[httpx.Response]) -> None:
    response = await act
    assert set(response.json()) == {"type", "title", "status", "detail", "code", "trace_id"}
    refused(response, 500, "internal_error")


@pytest.mark.parametrize("table", ["log_events", "log_entries"])
@pytest.mark.parametrize("act", ["list", "look", "history", "body", "disclose", "read", "refuse"])
async def test_nothing_is_shown_without_its_event(world: World, act: str, table: str) -> None:
    record, grant = await read_by_the_doctor(world)
    gone = await world.granted(lifetime=DAY // 2) if act == "refuse" else None
    if gone is not None:
        world.clock.advance(DAY)
    await world.without_log(table)
    before = await world.sql("SELECT count(*) FROM log_events")
    acts: dict[str, Callable[[], Awaitable[httpx.Response]]] = {
        "list": lambda: world.get("/v1/records", world.doctor, grant=grant.id),
        "look": lambda: world.get(f"/v1/records/{record.record}", world.doctor),
        "history": lambda: world.get(f"/v1/records/{record.record}/history", world.doctor, version=1),
        "body": lambda: world.get(path_of(record), world.doctor),
        "disclose": lambda: world.disclose(world.wanting(grant, record)),
        "read": lambda: world.get("/v1/me/audit", world.patient),
        "refuse": lambda: world.get("/v1/records", world.doctor, grant=gone.id if gone else ""),
    }
    await refused_for_want_of_the_log(acts[act]())
    assert await world.sql("SELECT count(*) FROM log_events") == before


CHANGING = ("records", "record_versions", "disclosure_requests", "grants", "revocations", "outbox", "statements")


@pytest.mark.parametrize("table", ["log_events", "log_entries"])
@pytest.mark.parametrize("act", ["write", "request", "deny", "grant", "revoke", "erase"])
async def test_nothing_is_changed_without_its_event(world: World, act: str, table: str) -> None:
    grant = await world.may_write(Action.APPEND)
    asked = world.doctor.disclosure_request(world.patient)
    assert (await world.post("/v1/disclosure-requests", world.doctor, {"statement": asked})).status_code == 201
    await world.without_log(table)
    counted = "SELECT " + ", ".join(f"(SELECT count(*) FROM {name})" for name in CHANGING)
    before = await world.sql(counted)
    patient, doctor = world.patient, world.doctor
    path, party, body = {
        "write": ("/v1/records", doctor, _batch(doctor.record(patient, "allergies", grant=grant.id))),
        "request": ("/v1/disclosure-requests", doctor, {"statement": doctor.disclosure_request(patient)}),
        "deny": ("/v1/denials", patient, {"statement": patient.denial(doctor, id_of(asked))}),
        "grant": ("/v1/grants", patient, world.signed_grant().as_json()),
        "revoke": ("/v1/revocations", patient, {"statement": patient.revocation(doctor, grant.id)}),
        "erase": ("/v1/me/audit/erasures", patient, {"statement": patient.log_erasure(RECORDS_AUDIENCE, 1)}),
    }[act]
    await refused_for_want_of_the_log(world.post(path, party, body))
    assert await world.sql(counted) == before
    assert await world.sql("SELECT n FROM log_events WHERE salt IS NULL") == []


async def test_no_receipt_counts_without_its_event(idle_world: World) -> None:
    async with idle_world.running(own_time=True, outbox_enabled=False) as world:
        grant = await world.give(world.signed_grant())
        await world.without_log()
        with pytest.raises(DBAPIError):
            await world.app.state.outbox.run_once()
        found = await world.grant_of(grant.id)
        assert found["state"] == "pending"
        assert [proxy["stored"] for proxy in found["proxies"]] == [None, None, None]


def _batch(*records: SealedRecord) -> dict[str, Any]:
    return {"records": [record.as_json() for record in records]}


# The chain and the tree


async def chained(world: World) -> list[dict[str, Any]]:
    """All events shown, oldest first; each has been checked to follow the one before."""
    shown = (await world.shown_events())[::-1]
    assert [item["n"] for item in shown] == list(range(1, len(shown) + 1))
    previous = None
    for item in shown:
        if item["event"] is not None:
            event = parse_event(item["event"])
            assert (event.n, event.subject) == (item["n"], world.patient.did)
            assert event.prev == previous
            assert commitment(from_b64url(item["salt"], 32), item["event"].encode()) == from_b64url(item["commitment"])
        previous = item["commitment"]
    return shown


async def test_the_chain_has_no_gap_under_concurrent_acts_and_all_of_it_is_in_the_tree(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    others = [world.registry.party(Role.RECIPIENT) for _ in range(20)]
    answers = await asyncio.gather(
        *(world.disclose(world.wanting(grant, record)) for _ in range(20)),
        *(
            world.post("/v1/disclosure-requests", other, {"statement": other.disclosure_request(world.patient)})
            for other in others
        ),
        *(world.get("/v1/records", world.doctor, grant=grant.id) for _ in range(20)),
    )
    assert {answer.status_code for answer in answers} == {200, 201}
    shown = await chained(world)
    # A record, a grant, three shares, what was done at once, and this reading.
    assert len(shown) == 1 + 1 + 3 + 60 + 1
    await world.proven([from_b64url(item["commitment"], 32) for item in shown])


async def test_a_rolled_back_act_leaves_no_gap(world: World) -> None:
    record = await world.written()
    for _ in range(3):
        response = await world.post("/v1/records", world.patient, _batch(_next(world, record, version=5)))
        refused(response, 409, "version_conflict")
    assert [event.outcome for event in await world.events()] == ["done", *3 * ["version_conflict"]]
    await chained(world)


def _next(world: World, record: SealedRecord, **details: Any) -> SealedRecord:
    return world.patient.record(world.patient, "allergies", after=record, **details)


async def test_reading_the_log_is_an_event_of_it(world: World) -> None:
    for count in (1, 2):
        shown = await chained(world)
        assert [parse_event(item["event"]).event for item in shown] == count * ["log_read"]
    event = parse_event(shown[-1]["event"])
    assert event.actor == world.patient.did


async def test_the_published_tree_is_cosigned_by_the_proxies_of_the_directory(idle_world: World) -> None:
    idle_world.registry.listed = [proxy.party for proxy in idle_world.proxies]
    async with idle_world.running() as world:
        await world.written()
        await world.proven([from_b64url(item["commitment"], 32) for item in await chained(world)])
        note = (await world.http.get("/v1/log/checkpoint")).text
        keys = {proxy.did: frozenset({proxy.party.identity_key().verify_key}) for proxy in world.proxies}
        assert len(verify_cosignatures(note, keys)) >= 2
        assert verify_checkpoint(note, LOG_ORIGIN).size >= 2


async def test_a_proxy_whose_chain_does_not_verify_keeps_no_other_from_cosigning(idle_world: World) -> None:
    broken = idle_world.registry.party(Role.PROXY, endpoint="http://nowhere.invalid")
    idle_world.registry.listed = [broken, *(proxy.party for proxy in idle_world.proxies)]
    broken.entries[0] = TestParty(Role.PROXY, endpoint="http://nowhere.invalid").entries[0]
    async with idle_world.running() as world:
        await world.written()
        await world.proven([from_b64url(item["commitment"], 32) for item in await chained(world)])


async def test_nothing_in_the_tree_names_anybody(world: World) -> None:
    record, grant = await read_by_the_doctor(world)
    await world.get(f"/v1/records/{record.record}", world.doctor)
    await world.proven([from_b64url(item["commitment"], 32) for item in await chained(world)])
    needles = [
        needle.encode()
        for needle in (world.patient.did, world.doctor.did, "did:key", grant.id, record.capsule_hash, "disclosed")
    ]
    needles += [from_b64url(grant.id), from_b64url(record.capsule_hash)]
    for table in ("log_entries", "log_nodes", "log_checkpoints"):
        rows = await world.sql(f"SELECT * FROM {table}")
        assert rows
        held = b"".join(_octets(value) for row in rows for value in row.values())
        assert not [needle for needle in needles if needle in held]


def _octets(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


# Erasure


async def test_erased_texts_are_gone_and_the_log_stays_whole(world: World) -> None:
    await read_by_the_doctor(world)
    before = await chained(world)
    await world.proven([from_b64url(item["commitment"], 32) for item in before])
    token = world.patient.log_erasure(RECORDS_AUDIENCE, 3)
    response = await world.erase(world.patient, token)
    assert (response.status_code, response.content) == (204, b"")
    after = await chained(world)
    assert [item["commitment"] for item in after[: len(before)]] == [item["commitment"] for item in before]
    assert [item["n"] for item in after if item["event"] is None] == [1, 2, 3]
    assert all(item["salt"] is None for item in after[:3])
    erasure = parse_event(after[-2]["event"])
    assert (erasure.event, erasure.statement) == ("log_erased", id_of(token))
    await world.proven([from_b64url(item["commitment"], 32) for item in after])
    [kept] = await world.sql("SELECT count(*) FROM log_events WHERE n <= 3 AND (text || actor || cause) IS NOT NULL")
    assert kept[0] == 0


async def test_an_erasure_repeated_has_one_effect(world: World) -> None:
    await world.written()
    token = world.patient.log_erasure(RECORDS_AUDIENCE, 1)
    for _ in range(2):
        assert (await world.erase(world.patient, token)).status_code == 204
    assert await world.audit() == [("log_erased", "done")]


async def test_an_erasure_reaches_nobody_elses_events(world: World) -> None:
    await world.written()
    other = world.registry.party(Role.PATIENT)
    assert (await world.erase(other, other.log_erasure(RECORDS_AUDIENCE, 1_000))).status_code == 204
    assert await world.audit() == [("record_written", "done")]


async def test_wrong_audience_of_an_erasure_meant_for_a_proxy(world: World) -> None:
    await world.written()
    for audience in (world.proxies[0].did,):
        refused(await world.erase(world.patient, world.patient.log_erasure(audience, 1)), 422, "wrong_audience")
    assert await world.audit() == [("record_written", "done"), ("log_erased", "wrong_audience")]


async def test_wrong_signer_of_an_erasure(world: World) -> None:
    await world.written()
    refused(await world.erase(world.doctor, world.patient.log_erasure(RECORDS_AUDIENCE, 1)), 403, "wrong_signer")
    assert await world.audit() == [("record_written", "done")]


async def test_forbidden_to_erase_what_only_a_patient_has(world: World) -> None:
    refused(await world.erase(world.doctor, world.doctor.log_erasure(RECORDS_AUDIENCE, 1)), 403, "forbidden")


async def test_statement_expired_or_tampered_erases_nothing(world: World) -> None:
    await world.written()
    token = world.patient.log_erasure(RECORDS_AUDIENCE, 1)
    forged = token.rpartition(".")[0] + "." + b64url(bytes(64))
    refused(await world.erase(world.patient, forged), 422, "bad_signature")
    future = world.patient.log_erasure(RECORDS_AUDIENCE, 1, now=world.clock() + 3_600)
    refused(await world.erase(world.patient, future), 422, "statement_from_the_future")
    assert await world.audit() == [("record_written", "done")]


def test_the_settings_name_the_log_and_show_no_key(idle_world: World) -> None:
    settings = idle_world.settings()
    assert SigningKey.from_bytes(from_b64url(settings.log_signing_key.get_secret_value(), 32)) is not None
    assert settings.log_signing_key.get_secret_value() not in repr(settings)
    for wrong in ("", "AAAA", b64url(bytes(33)), b64url(bytes(32)) + "="):
        with pytest.raises(ValueError, match="32 bytes in base64url"):
            idle_world.settings(log_signing_key=wrong)
