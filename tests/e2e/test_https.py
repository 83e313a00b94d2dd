"""The whole flow by HTTPS between real processes, and whom nobody talks to: another authority, or no TLS at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from client.errors import InsecureAddress, ServiceUnreachable
from client.transport import Platform
from shared.schemas.records import GrantState
from tests.conftest import FreshDatabases
from tests.e2e.actors import ActorMaker, grant_in_state, granted, note
from tests.e2e.https_services import HttpsServices, https_services


@pytest.fixture(scope="module")
async def services(
    tmp_path_factory: pytest.TempPathFactory, fresh_database: FreshDatabases
) -> AsyncIterator[HttpsServices]:
    async with https_services(tmp_path_factory.mktemp("https"), fresh_database) as running:
        yield running


@pytest.fixture
async def make(services: HttpsServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ActorMaker]:
    monkeypatch.setenv("PCEHR_TLS_CA_FILE", str(services.ca_file))
    monkeypatch.setenv("PCEHR_REQUIRE_HTTPS", "true")
    maker = ActorMaker(services.url("registry"), tmp_path)
    yield maker
    await maker.close()


async def test_a_record_is_disclosed_by_https_and_a_proxy_of_another_authority_gets_no_share(
    services: HttpsServices, make: ActorMaker
) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("no known allergies")])
    grant = await granted(owner, reader, scopes=["allergies"])
    report = await grant_in_state(owner, grant.id, GrantState.ACTIVE)
    fetched = await reader.recipient.fetch(grant.id)
    assert [record.body for record in fetched.opened] == [b"no known allergies"]
    # Two proxies have their shares. The third is there, but nobody whom the others trust vouches for it.
    assert sorted(proxy.stored for proxy in report.proxies) == [False, True, True]
    async with asyncio.timeout(60):
        while await _deliveries_that_failed(services) == 0:  # noqa: ASYNC110  Postgres tells nobody.
            await asyncio.sleep(0.1)
    assert await _kfrags(services) == 0


async def test_a_client_asks_no_service_whose_certificate_is_of_another_authority(
    services: HttpsServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    for trusted in (services.folder / "other.pem", None):
        if trusted is None:
            monkeypatch.delenv("PCEHR_TLS_CA_FILE", raising=False)
        else:
            monkeypatch.setenv("PCEHR_TLS_CA_FILE", str(trusted))
        async with Platform(services.url("registry")) as platform:
            with pytest.raises(ServiceUnreachable):
                await platform.discovery()


async def test_a_service_that_speaks_https_does_not_speak_http(services: HttpsServices) -> None:
    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.TransportError):
            await http.get(services.url("registry", scheme="http") + "/healthz")


async def test_a_client_that_requires_https_asks_nobody_else_by_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCEHR_REQUIRE_HTTPS", "1")
    async with Platform("http://registry.example") as platform:
        with pytest.raises(InsecureAddress, match=r"http://registry\.example is not reached by https"):
            await platform.discovery()


async def _deliveries_that_failed(services: HttpsServices) -> int:
    connection = await asyncpg.connect(services.databases["records"])
    try:
        return int(await connection.fetchval("SELECT count(*) FROM outbox WHERE attempts > 1"))
    finally:
        await connection.close()


async def _kfrags(services: HttpsServices) -> int:
    connection = await asyncpg.connect(services.databases["proxy-3"])
    try:
        return int(await connection.fetchval("SELECT count(*) FROM kfrags"))
    finally:
        await connection.close()
