"""The flow from outside the containers, and as the demo profile tells it from within."""

from __future__ import annotations

import pytest

from client.errors import GrantEnded, ServiceRefused
from client.records import NewRecord
from tests.compose.stack import Stack
from tests.e2e.actors import ActorMaker, granted, note

pytestmark = pytest.mark.compose


async def the_flow(make: ActorMaker) -> None:
    """Stored, disclosed, revoked and sealed, with a body that goes through the blob store."""
    owner, reader = await make.patient(), await make.recipient()
    scan = bytes(range(256)) * 4096 * 3
    await owner.patient.add_records(
        [note(f"allergy {number}") for number in range(5)]
        + [NewRecord(body=scan, media_type="application/dicom", scope="allergies", filename="scan.dcm")]
        + [note("a secret", "mental-health")]
    )
    grant = await granted(owner, reader, scopes=["allergies"])
    held = await reader.recipient.grant(grant.id)
    listed = await reader.recipient.listing(held)
    report = await reader.recipient.fetch(grant.id)
    assert sorted(record.body for record in report.opened) == sorted(
        [scan, *(f"allergy {number}".encode() for number in range(5))]
    )
    assert report.problems == []

    revocation = await owner.patient.revoke(grant.id)
    assert revocation.state == "sealed"
    with pytest.raises(GrantEnded):
        await reader.recipient.fetch(grant.id)
    for proxy in held.proxies:
        with pytest.raises(ServiceRefused) as refused:
            await reader.recipient.ask_proxy_directly(proxy.did, held, listed)
        assert refused.value.code == "grant_revoked"


async def test_the_flow_from_outside(make: ActorMaker) -> None:
    await the_flow(make)


async def test_the_demo_profile_tells_the_story(stack: Stack) -> None:
    told = await stack.compose("run", "--rm", "--no-deps", "demo")
    assert told.endswith("All of it held.")


async def test_two_replicas_behind_one_address(
    stack_with_doors: Stack, make_at_doors: ActorMaker, figures: list[str]
) -> None:
    for _ in range(3):
        await the_flow(make_at_doors)
    for service in ("registry", "records"):
        replicas = await stack_with_doors.containers(service)
        assert len(replicas) == 2
        answered = [await _requests_answered(stack_with_doors, replica) for replica in replicas]
        assert all(answered), "both replicas take part"
        figures.append(f"two replicas of {service} answered {answered[0]} and {answered[1]} requests")


async def _requests_answered(stack: Stack, container: str) -> int:
    script = (
        "import os, urllib.request as r; print(sum(float(line.rsplit(' ', 1)[1]) for line in"
        " r.urlopen(f'http://127.0.0.1:{os.environ[\"UVICORN_PORT\"]}/metrics').read().decode().splitlines()"
        " if '_count{' in line and '/v1/' in line))"
    )
    return int(float(await stack.docker("exec", container, "python", "-c", script)))
