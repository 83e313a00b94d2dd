"""Containers are killed, cut off and stopped while somebody works with them; nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from client.errors import GrantEnded
from shared.encoding import b64url, sha256
from shared.schemas.records import GrantState
from shared.wire import RECORDS_AUDIENCE
from tests.compose.load import under_load
from tests.compose.stack import PROXIES, SERVICES, Stack
from tests.e2e.actors import Actor, ActorMaker, granted, note

pytestmark = pytest.mark.compose

AWAY = 2.0
RECEIPTS_SECONDS = 90.0


@pytest.mark.parametrize("service", ["postgres", *SERVICES])
async def test_killed_and_started_again_under_load(
    stack: Stack, make: ActorMaker, figures: list[str], service: str
) -> None:
    async with under_load(make) as load:
        await load.more()
        await stack.kill(service)
        await asyncio.sleep(AWAY)
        started = time.monotonic()
        await stack.start(service)
        back = time.monotonic() - started
        # The others go on by themselves when it is back.
        await load.more()
    state = (await load.owner.patient.grant(load.grant.id)).state
    assert state is GrantState.COMPLETE
    figures.append(
        f"{service} killed for {AWAY:.0f} s: healthy {back:.1f} s after its start; {len(load.acknowledged)} records"
        f" acknowledged, 0 of them lost, {load.refused} refused, longest wait {load.longest_wait:.1f} s;"
        f" {load.opened} openings, {load.not_opened} failed"
    )


@pytest.mark.parametrize(
    ("away", "state", "receipts"), [(("proxy-1",), "sealed", 2), (("proxy-1", "proxy-2"), "pending", 1)]
)
async def test_a_proxy_cut_off_while_the_patient_revokes(
    stack: Stack, make: ActorMaker, figures: list[str], away: tuple[str, ...], state: str, receipts: int
) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("peanuts")])
    grant = await granted(owner, reader, scopes=["allergies"])
    await _complete(owner, grant.id)
    for proxy in away:
        await stack.disconnect(proxy)
    try:
        report = await owner.patient.revoke(grant.id, wait_seconds=3)
        assert (report.state, report.receipts) == (state, receipts)
        with pytest.raises(GrantEnded):
            await reader.recipient.fetch(grant.id)
    finally:
        for proxy in away:
            await stack.reconnect(proxy)
    started = time.monotonic()
    while report.receipts < len(PROXIES) and time.monotonic() < started + RECEIPTS_SECONDS:
        await asyncio.sleep(0.2)
        report = await owner.patient.revocation_status(grant.id)
    assert (report.state, report.receipts) == ("sealed", 3)
    figures.append(
        f"{' and '.join(away)} cut off: {state} with {receipts} of 3 receipts, sealed with 3 after"
        f" {time.monotonic() - started:.1f} s of connection"
    )


async def _complete(owner: Actor, grant_id: str) -> None:
    """Every proxy has acknowledged its share; the approval itself waits for the threshold only."""
    deadline = time.monotonic() + RECEIPTS_SECONDS
    while (await owner.patient.grant(grant_id)).state is not GrantState.COMPLETE:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


async def test_an_upload_in_flight_is_finished_before_the_service_stops(
    stack: Stack, make: ActorMaker, figures: list[str]
) -> None:
    owner = await make.patient()
    session = owner.session
    url = (await session.platform.discovery()).records_url
    token = await session.platform.token(await session.credentials(), RECORDS_AUDIENCE)
    pieces = [bytes([number]) * 65_536 for number in range(15)]
    under_way = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        for number, piece in enumerate(pieces):
            yield piece
            if number == 4:
                under_way.set()
            await asyncio.sleep(0.1)

    async def upload() -> int:
        body = b"".join(pieces)
        headers = {
            "authorization": f"Bearer {token}",
            "content-type": "application/octet-stream",
            "content-length": str(len(body)),
        }
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            response = await http.put(f"{url}/v1/blobs/{b64url(sha256(body))}", content=slowly(), headers=headers)
        return response.status_code

    uploading = asyncio.create_task(upload())
    try:
        await under_way.wait()
        started = time.monotonic()
        await stack.docker("stop", "--time", "5", await stack.container("records"))
        took = time.monotonic() - started
        assert 200 <= await uploading < 300
    finally:
        await stack.start("records")
    assert took < 5
    figures.append(f"records stopped in {took:.1f} s with an upload in flight, which was finished")


@pytest.mark.parametrize("service", ["postgres", *SERVICES])
async def test_stops_gracefully_within_five_seconds(
    stack: Stack, make: ActorMaker, figures: list[str], service: str
) -> None:
    async with under_load(make) as load:
        await load.more()
        container = await stack.container(service)
        started = time.monotonic()
        await stack.docker("stop", "--time", "10", container)
        took = time.monotonic() - started
        status = await stack.docker("inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", container)
        await stack.start(service)
        await load.more()
    assert took < 5
    assert status.split()[0] in {"0", "143"}, "it ended by itself or by SIGTERM, and was not killed"
    assert status.split()[1] == "false"
    figures.append(f"{service} stopped under load in {took:.1f} s; {len(load.acknowledged)} records, none lost")


async def test_migrations_run_again_while_the_services_serve(
    stack: Stack, make: ActorMaker, figures: list[str]
) -> None:
    async with under_load(make) as load:
        await load.more()
        await asyncio.gather(*(stack.compose("run", "--rm", "--no-deps", f"migrate-{service}") for service in SERVICES))
        await load.more()
    assert load.refused == 0
    assert load.not_opened == 0
    figures.append(
        f"migrations run again under load: {len(load.acknowledged)} records, none refused,"
        f" longest wait {load.longest_wait:.1f} s"
    )


async def test_the_whole_stack_stopped_and_started_keeps_everything(stack: Stack, make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("acknowledged")])
    grant = await granted(owner, reader, scopes=["allergies"])
    await stack.compose("down", "--timeout", "5")
    await stack.compose("up", "--detach", "--wait")
    assert [record.body for record in (await reader.recipient.fetch(grant.id)).opened] == [b"acknowledged"]
    assert [record.body for record in await owner.patient.export()] == [b"acknowledged"]
