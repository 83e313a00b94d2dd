"""A platform is brought to its next release while it serves: first the tables, then the services, one by one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.compose.load import Load, under_load
from tests.compose.next_release import write_next_release
from tests.compose.stack import SERVICES, START_SECONDS, CommandFailed, Stack
from tests.e2e.actors import ActorMaker

pytestmark = pytest.mark.compose


@dataclass
class Upgrade:
    """What was seen on the way; readiness is the status of `/readyz` and the problem's detail."""

    image: str
    load: Load
    newer_before_its_tables: tuple[int, str]
    newer_health_before_its_tables: str
    newer_after: tuple[int, str]
    older_on_newer_tables: list[tuple[int, str]]


@pytest.fixture(scope="module")
async def upgraded(
    stack_with_doors: Stack, tmp_path_factory: pytest.TempPathFactory, figures: list[str]
) -> AsyncIterator[Upgrade]:
    stack = stack_with_doors
    context = tmp_path_factory.mktemp("next")
    write_next_release(context, stack.image)
    image = await stack.build(context)
    make = ActorMaker(stack.registry_url, tmp_path_factory.mktemp("parties"))
    try:
        async with under_load(make) as load:
            await load.more()
            replicas = await stack.containers("records")
            newer = await _beside(stack, image)
            before = await _readiness(stack, newer)
            health_before = await stack.health(newer)
            await stack.compose("run", "--rm", "--no-deps", "migrate-records", image=image)
            older = [await _readiness(stack, container) for container in replicas]
            await stack.healthy(newer)
            after = await _readiness(stack, newer)
            await stack.docker("rm", "--force", newer)

            started = time.monotonic()
            await stack.upgrade(image)
            took = time.monotonic() - started
            await load.more()
        figures.append(
            f"upgraded in place in {took:.1f} s: {len(load.acknowledged)} records acknowledged, 0 of them lost,"
            f" {load.refused} refused, longest wait {load.longest_wait:.1f} s;"
            f" {load.opened} openings, {load.not_opened} failed"
        )
        yield Upgrade(image, load, before, health_before, after, older)
    finally:
        await make.close()


async def _beside(stack: Stack, image: str) -> str:
    """A container of the records service of another release, which no door leads to."""
    container = (await stack.compose("run", "--detach", "--no-deps", "records", image=image)).splitlines()[-1]
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            await _readiness(stack, container)
        except CommandFailed:
            await asyncio.sleep(0.2)
        else:
            return container
    raise CommandFailed(await stack.docker("logs", container))


async def _readiness(stack: Stack, container: str) -> tuple[int, str]:
    script = (
        "import http.client, json, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['UVICORN_PORT']));"
        " c.request('GET', '/readyz'); r = c.getresponse(); b = r.read();"
        " print(json.dumps([r.status, json.loads(b)['detail'] if b else '']))"
    )
    status, detail = json.loads(await stack.docker("exec", container, "python", "-c", script))
    return int(status), str(detail)


def test_nothing_acknowledged_is_lost_and_nothing_refused(upgraded: Upgrade) -> None:
    # That nothing was lost has been looked at when the load ended.
    assert upgraded.load.acknowledged
    assert upgraded.load.opened
    assert (upgraded.load.refused, upgraded.load.not_opened) == (0, 0)


async def test_every_service_is_of_the_next_release(upgraded: Upgrade, stack_with_doors: Stack) -> None:
    for service in SERVICES:
        containers = await stack_with_doors.containers(service)
        assert len(containers) == (2 if service in {"registry", "records"} else 1)
        for container in containers:
            assert (
                await stack_with_doors.docker("inspect", "--format", "{{.Config.Image}}", container) == upgraded.image
            )
            assert await stack_with_doors.health(container) == "healthy"


def test_a_service_newer_than_its_tables_is_not_ready_until_they_are(upgraded: Upgrade) -> None:
    status, detail = upgraded.newer_before_its_tables
    assert status == 503
    assert "older release" in detail
    assert upgraded.newer_health_before_its_tables != "healthy"
    assert upgraded.newer_after == (204, "")


def test_the_old_services_are_ready_on_the_newer_tables(upgraded: Upgrade) -> None:
    assert upgraded.older_on_newer_tables == [(204, "")] * 2


async def test_an_old_service_started_on_newer_tables_becomes_ready(upgraded: Upgrade, stack_with_doors: Stack) -> None:
    older = await _beside(stack_with_doors, stack_with_doors.image)
    try:
        await stack_with_doors.healthy(older)
    finally:
        await stack_with_doors.docker("rm", "--force", older)


async def test_a_platform_without_doors_is_not_replaced_under_its_users(stack: Stack) -> None:
    before = [await stack.container(service) for service in SERVICES]
    with pytest.raises(CommandFailed, match="registry has no door"):
        await stack.upgrade(stack.image)
    assert [await stack.container(service) for service in SERVICES] == before


async def test_an_old_migration_refuses_newer_tables(upgraded: Upgrade, stack_with_doors: Stack) -> None:
    with pytest.raises(CommandFailed, match="newer release"):
        await stack_with_doors.compose("run", "--rm", "--no-deps", "migrate-records")
    await stack_with_doors.compose("run", "--rm", "--no-deps", "migrate-records", image=upgraded.image)
