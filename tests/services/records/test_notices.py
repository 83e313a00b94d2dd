"""The stream of notices: who is told what, nothing twice and nothing left out, across connections and replicas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from services.records.service import notices as notice_service
from shared.wire import Action
from tests.services.records.world import World, refused
from tests.services.signing_parties import TestParty

PATIENCE = 60.0


@dataclass(frozen=True)
class Heard:
    """One server-sent event."""

    number: int
    kind: str
    data: dict[str, Any]


class Ear:
    """One open stream, read as the HTML standard says (section 9.2.6)."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> Heard:
        fields: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE):
            async for line in self._lines:
                if not line and "data" not in fields:
                    fields = {}
                elif not line:
                    return Heard(int(fields["id"]), fields["event"], json.loads(fields["data"]))
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
        raise AssertionError("the stream has ended")

    async def ended(self) -> bool:
        async with asyncio.timeout(PATIENCE):
            return [line async for line in self._lines if line and not line.startswith((":", "id: "))] == []


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """The app, which is running, behind a real socket: what is streamed can be read before the stream has ended."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="warning"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  uvicorn has no event for it.
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        app.state.service.notices.stop()
        server.should_exit = True
        await task


@asynccontextmanager
async def listening(world: World, url: str, party: TestParty, after: int | None = None) -> AsyncIterator[Ear]:
    headers = world.authorization(party) | ({} if after is None else {"last-event-id": str(after)})
    async with (
        httpx.AsyncClient(timeout=PATIENCE) as http,
        http.stream("GET", f"{url}/v1/me/events", headers=headers) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Ear(response)


@pytest.fixture
async def url(world: World) -> AsyncIterator[str]:
    async with serving(world.app) as address:
        yield address


async def request_of(world: World) -> str:
    request = world.doctor.disclosure_request(world.patient, now=world.clock())
    response = await world.post("/v1/disclosure-requests", world.doctor, {"statement": request})
    assert response.status_code == 201, response.text
    return response.json()["id"]


async def test_a_patient_is_told_of_a_request_as_it_comes(world: World, url: str) -> None:
    async with listening(world, url, world.patient) as ear:
        request = await request_of(world)
        heard = await ear.next()
    assert (heard.number, heard.kind) == (1, "requested")
    assert heard.data == {"at": world.clock(), "other": world.doctor.did, "request": request}


async def test_both_sides_of_a_grant_are_told_what_concerns_them(world: World, url: str) -> None:
    record = await world.written()
    async with listening(world, url, world.patient) as patient, listening(world, url, world.doctor) as doctor:
        grant = await world.granted()
        assert [(await doctor.next()).kind for _ in range(2)] == ["granted", "active"]
        assert (await world.disclose(world.wanting(grant, record))).status_code == 200
        disclosed = await patient.next()
        assert (disclosed.kind, disclosed.data["count"]) == ("disclosed", 1)
        assert disclosed.data["grant"] == grant.id
        await world.revoke(grant.id)
        revoked = await doctor.next()
    assert (revoked.kind, revoked.data["grant"], revoked.data["other"]) == ("revoked", grant.id, world.patient.did)


async def test_a_grant_becomes_active_once_whichever_receipts_come_together(world: World, url: str) -> None:
    async with listening(world, url, world.doctor) as doctor:
        grants = [await world.granted() for _ in range(5)]
        kinds = [(heard.kind, heard.data["grant"]) for heard in [await doctor.next() for _ in range(10)]]
    assert sorted(kinds) == sorted((kind, grant.id) for grant in grants for kind in ("granted", "active"))


async def test_a_patient_is_told_of_what_others_write_and_not_of_what_it_writes_itself(world: World, url: str) -> None:
    grant = await world.may_write(Action.APPEND)
    async with listening(world, url, world.patient) as ear:
        await world.written()
        await world.write(world.doctor, world.doctor.record(world.patient, "allergies", grant=grant.id))
        heard = await ear.next()
    assert (heard.kind, heard.data["other"], heard.data["count"]) == ("written", world.doctor.did, 1)


async def test_a_recipient_is_told_of_a_denial(world: World, url: str) -> None:
    request = await request_of(world)
    async with listening(world, url, world.doctor) as ear:
        denial = world.patient.denial(world.doctor, request, now=world.clock())
        assert (await world.post("/v1/denials", world.patient, {"statement": denial})).status_code == 201
        heard = await ear.next()
    assert (heard.kind, heard.data["request"]) == ("denied", request)


async def test_both_sides_are_told_once_of_a_grant_that_has_lapsed(world: World, url: str) -> None:
    grant = await world.granted()
    world.clock.now += 10**7
    keeping = notice_service.Housekeeping(world.app.state.service.notices._store, world.clock)
    assert await keeping.tell_of_ends() == 1
    assert await keeping.tell_of_ends() == 0
    async with (
        listening(world, url, world.patient, after=0) as patient,
        listening(world, url, world.doctor, 2) as doctor,
    ):
        for heard in (await patient.next(), await doctor.next()):
            assert (heard.kind, heard.data["grant"]) == ("expired", grant.id)


async def test_nobody_is_told_of_the_end_of_a_grant_that_was_revoked(world: World) -> None:
    grant = await world.granted()
    await world.revoke(grant.id)
    world.clock.now += 10**7
    keeping = notice_service.Housekeeping(world.app.state.service.notices._store, world.clock)
    assert await keeping.tell_of_ends() == 0


async def test_a_statement_that_is_repeated_is_told_of_once(world: World, url: str) -> None:
    request = world.doctor.disclosure_request(world.patient, now=world.clock())
    for _ in range(2):
        await world.post("/v1/disclosure-requests", world.doctor, {"statement": request})
    await request_of(world)
    async with listening(world, url, world.patient, after=0) as ear:
        first, second = await ear.next(), await ear.next()
    assert first.data["request"] != second.data["request"]
    assert (first.number, second.number) == (1, 2)


async def test_a_stream_goes_on_after_the_event_named(world: World, url: str) -> None:
    requests = [await request_of(world) for _ in range(5)]
    async with listening(world, url, world.patient, after=2) as ear:
        heard = [await ear.next() for _ in range(3)]
    assert [(one.number, one.data["request"]) for one in heard] == list(enumerate(requests, 1))[2:]


async def test_without_a_last_event_a_stream_begins_with_what_happens_next(world: World, url: str) -> None:
    await request_of(world)
    async with listening(world, url, world.patient) as ear:
        second = await request_of(world)
        assert (await ear.next()).data["request"] == second


async def test_a_number_not_given_yet_counts_as_the_newest(world: World, url: str) -> None:
    await request_of(world)
    async with listening(world, url, world.patient, after=10**6) as ear:
        await request_of(world)
        assert (await ear.next()).number == 2


async def test_nobody_hears_of_others(world: World, url: str) -> None:
    other = world.registry.party(world.patient.role)
    async with listening(world, url, other, after=0) as ear:
        await request_of(world)
        await world.post(
            "/v1/disclosure-requests",
            world.doctor,
            {"statement": world.doctor.disclosure_request(other, now=world.clock())},
        )
        heard = await ear.next()
    assert (heard.number, heard.kind) == (1, "requested")


async def test_without_a_token_there_is_no_stream(world: World) -> None:
    refused(await world.http.get("/v1/me/events"), 401, "unauthenticated")


async def test_too_many_streams_of_one_party_are_refused(
    world: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice_service, "STREAMS_OF_A_PARTY", 1)
    async with listening(world, url, world.patient):
        refused(await world.get("/v1/me/events", world.patient), 429, "too_many_streams")
        async with listening(world, url, world.doctor):
            pass


async def test_a_stream_ends_when_a_token_would(world: World, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice_service, "STREAM_SECONDS", 0.2)
    async with listening(world, url, world.patient) as ear:
        assert await ear.ended()


async def test_a_service_that_stops_does_not_wait_for_its_streams(world: World, url: str) -> None:
    async with listening(world, url, world.patient) as ear:
        world.app.state.service.notices.stop()
        assert await ear.ended()


async def test_what_one_replica_does_is_told_by_another(world: World, url: str) -> None:
    here = world.app
    async with listening(world, url, world.patient) as ear, world.running():
        assert world.app is not here
        request = await request_of(world)
        assert (await ear.next()).data["request"] == request


async def test_what_was_announced_while_the_listener_was_cut_off_is_told(world: World, url: str) -> None:
    async with listening(world, url, world.patient) as ear:
        await world.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pcehr-records-listener'"
            " AND datname = current_database()"
        )
        request = await request_of(world)
        assert (await ear.next()).data["request"] == request


async def test_under_concurrent_writers_no_number_is_missed(world: World, url: str) -> None:
    async with listening(world, url, world.patient) as ear:
        await asyncio.gather(*(request_of(world) for _ in range(15)))
        heard = [await ear.next() for _ in range(15)]
    assert [one.number for one in heard] == list(range(1, 16))
    assert len({one.data["request"] for one in heard}) == 15


async def test_notices_are_forgotten_after_some_weeks_and_numbers_go_on(world: World, url: str) -> None:
    await request_of(world)
    store = world.app.state.service.notices._store
    async with store.transaction() as repository:
        await repository.notices.forget_before(world.clock() + 1)
    await request_of(world)
    async with listening(world, url, world.patient, after=0) as ear:
        assert (await ear.next()).number == 2


async def test_no_effect_without_its_notice(world: World) -> None:
    """What cannot be told of is not done: the notice is a row of the same transaction."""
    await world.sql("ALTER TABLE notices ADD CONSTRAINT broken CHECK (kind <> 'requested')")
    request = world.doctor.disclosure_request(world.patient, now=world.clock())
    response = await world.post("/v1/disclosure-requests", world.doctor, {"statement": request})
    assert response.status_code == 500
    assert (await world.get("/v1/disclosure-requests", world.patient, box="inbox")).json()["items"] == []
