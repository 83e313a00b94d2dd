"""Parts of the platform go away and come back; nothing acknowledged is lost, and it fails closed."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from client.embedded.platform import EmbeddedPlatform
from client.errors import GrantEnded, ServiceRefused
from shared.schemas.records import GrantState
from shared.wire import Action, Purpose
from tests.e2e.actors import ActorMaker, grant_in_state, granted, in_a_month, note


async def test_one_proxy_away_disclosure_goes_on(platform: EmbeddedPlatform, make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("peanuts")])
    grant = await granted(owner, reader, scopes=["allergies"])
    await platform.kill("proxy-1")
    try:
        assert [record.body for record in (await reader.recipient.fetch(grant.id)).opened] == [b"peanuts"]
    finally:
        await platform.start("proxy-1")


async def test_two_proxies_away_disclosure_fails_closed_and_recovers(
    platform: EmbeddedPlatform, make: ActorMaker
) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("peanuts")])
    grant = await granted(owner, reader, scopes=["allergies"])
    await platform.kill("proxy-1")
    await platform.kill("proxy-2")
    try:
        with pytest.raises(ServiceRefused) as refused:
            await reader.recipient.fetch(grant.id)
        assert refused.value.code == "not_enough_proxies"
    finally:
        await platform.start("proxy-1")
        await platform.start("proxy-2")
    assert len((await reader.recipient.fetch(grant.id)).opened) == 1


async def test_a_grant_reaches_a_proxy_that_was_away(platform: EmbeddedPlatform, make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("peanuts")])
    await platform.kill("proxy-3")
    try:
        grant = await granted(owner, reader, scopes=["allergies"])
        assert grant.state is GrantState.ACTIVE
    finally:
        await platform.start("proxy-3")
    assert (await grant_in_state(owner, grant.id, GrantState.COMPLETE)).stored == 3


async def test_a_revocation_is_pending_until_enough_proxies_have_answered(
    platform: EmbeddedPlatform, make: ActorMaker
) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("peanuts")])
    grant = await granted(owner, reader, scopes=["allergies"])
    await platform.kill("proxy-1")
    await platform.kill("proxy-2")
    try:
        report = await owner.patient.revoke(grant.id, wait_seconds=2)
        assert (report.state, report.receipts) == ("pending", 1)
        with pytest.raises(GrantEnded):
            await reader.recipient.fetch(grant.id)
    finally:
        await platform.start("proxy-1")
        await platform.start("proxy-2")
    for _ in range(300):
        status = await owner.patient.revocation_status(grant.id)
        if status.receipts == 3:
            break
        await asyncio.sleep(0.2)
    assert (status.state, status.receipts) == ("sealed", 3)


async def test_a_revocation_is_sealed_although_the_records_service_is_away_later(
    platform: EmbeddedPlatform, make: ActorMaker
) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("peanuts")])
    grant = await granted(owner, reader, scopes=["allergies"])
    assert (await owner.patient.revoke(grant.id)).state == "sealed"
    await platform.kill("records")
    await platform.start("records")
    with pytest.raises(GrantEnded):
        await reader.recipient.fetch(grant.id)
    assert (await owner.patient.revocation_status(grant.id)).state == "sealed"


async def test_the_outbox_survives_a_crash_of_the_records_service(platform: EmbeddedPlatform, make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("peanuts")])
    for proxy in ("proxy-1", "proxy-2", "proxy-3"):
        await platform.kill(proxy)
    try:
        request = await reader.recipient.request(
            owner.did,
            scopes=["allergies"],
            actions=[Action.READ],
            purpose=Purpose.TREAT,
            reason="Planned treatment",
            expires=in_a_month(),
        )
        grant = await owner.patient.approve(request, wait=False)
        await platform.kill("records")
        await platform.start("records")
    finally:
        for proxy in ("proxy-1", "proxy-2", "proxy-3"):
            await platform.start(proxy)
    await grant_in_state(owner, grant.id, GrantState.COMPLETE)
    assert len((await reader.recipient.fetch(grant.id)).opened) == 1


async def test_every_service_says_503_while_postgres_is_away_and_recovers_without_a_restart(
    platform: EmbeddedPlatform, make: ActorMaker
) -> None:
    owner = await make.patient()
    [stored] = await owner.patient.add_records([note("acknowledged")])
    services = dict(platform.pids)
    database = platform._database
    assert database is not None
    await database.stop()
    try:
        async with httpx.AsyncClient(timeout=30) as http:
            for url in platform.urls.values():
                response = await http.get(f"{url}/readyz")
                assert response.status_code == 503
                assert response.headers["content-type"] == "application/problem+json"
                assert int(response.headers["retry-after"]) > 0
                assert (await http.get(f"{url}/healthz")).status_code == 204
            response = await http.get(f"{platform.urls['registry']}/v1/parties/{owner.did}")
            assert response.status_code == 503
            assert response.json()["code"] == "database_unavailable"
    finally:
        await database.start()
    assert (await owner.patient.read_record(stored.record_id)).body == b"acknowledged"
    assert platform.pids == services, "no service was restarted"
