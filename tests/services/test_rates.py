"""How often anybody may ask, in each service as it runs: who is made to wait, who is not, and where it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from shared.encoding import b64url
from shared.wire import Role
from tests.conftest import FreshDatabases
from tests.services.proxy.world import World as ProxyWorld
from tests.services.records.world import World as RecordsWorld
from tests.services.registry.running import ROUTES, RunningRegistry, running, settings_for
from tests.services.signing_parties import TestClock, TestParty

SLOW = {"party_rate": 0.1, "address_rate": 0.1}
"""One request in ten seconds, so that no test waits for a bucket to fill."""
ELSEWHERE = "203.0.113.9"


def from_address(app: FastAPI, address: str = ELSEWHERE) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=(address, 4711)), base_url="http://service.example"
    )


def held_back(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["code"]) == (429, "too_many_requests"), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert 1 <= int(response.headers["retry-after"]) <= 3600


async def beyond(http: httpx.AsyncClient) -> dict[str, float]:
    """How many requests were refused, by bound, as `/metrics` shows it."""
    lines = (await http.get("/metrics")).text.splitlines()
    name = "pcehr_requests_beyond_bounds_total{"
    found = [line.removeprefix(name).split("} ") for line in lines if line.startswith(name)]
    return {label.split('"')[1]: float(value) for label, value in found}


@pytest.fixture
async def registry_url(fresh_database: FreshDatabases) -> str:
    return await fresh_database("registry")


@pytest.fixture
async def proxy(fresh_database: FreshDatabases) -> ProxyWorld:
    return ProxyWorld(await fresh_database("proxy"))


@pytest.fixture
async def records(fresh_database: FreshDatabases, tmp_path: Path) -> RecordsWorld:
    return RecordsWorld(await fresh_database("records"), tmp_path / "blobs")


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


async def test_registry_holds_back_a_party_that_asks_for_tokens_too_often(registry_url: str, clock: TestClock) -> None:
    async with running(settings_for(registry_url, **SLOW, party_burst=2), clock) as registry:
        patient, other = await registry.registered(Role.PATIENT), await registry.registered(Role.PATIENT)
        for _ in range(2):
            assert (await registry.post_token(registry.assertion(patient))).status_code == 200
        response = await registry.post_token(registry.assertion(patient))
        held_back(response)
        assert response.json()["error"] == "temporarily_unavailable"
        assert (await registry.post_token(registry.assertion(other))).status_code == 200
        assert await beyond(registry.http) == {"party": 1, "address": 0, "sign_ups": 0, "quota": 0}
        # What is refused in haste leaves no row.
        assert [outcome for _, outcome, _ in await registry.audit(patient)] == ["accepted"] * 3


async def test_registry_holds_back_a_party_that_changes_keys_too_often(registry_url: str, clock: TestClock) -> None:
    async with running(settings_for(registry_url, **SLOW, party_burst=1), clock) as registry:
        patient = await registry.registered(Role.PATIENT)
        first = patient.rotate(clock.now)
        assert (await registry.rotate(patient, first)).status_code == 201
        # Anybody can repeat what is public, and is not counted as the party.
        assert (await registry.rotate(patient, first)).status_code == 201
        held_back(await registry.rotate(patient, patient.rotate(clock.now)))


async def test_registry_holds_back_an_address_that_signs_up_too_many(registry_url: str, clock: TestClock) -> None:
    async with running(settings_for(registry_url, sign_ups_per_hour=2), clock) as registry:
        async with from_address(registry.app) as http, from_address(registry.app, "203.0.113.10") as other:

            async def sign_up(http: httpx.AsyncClient) -> httpx.Response:
                party = TestParty(Role.PATIENT)
                return await http.post(ROUTES[party.role], json={"key_entry": party.entries[0]})

            assert [(await sign_up(http)).status_code for _ in range(2)] == [201, 201]
            held_back(await sign_up(http))
            assert (await sign_up(other)).status_code == 201
        assert (await beyond(registry.http))["sign_ups"] == 1


async def test_registry_holds_back_an_address_that_looks_up_too_much(registry_url: str, clock: TestClock) -> None:
    async with running(settings_for(registry_url, **SLOW, address_burst=11), clock) as registry:
        patient = await registry.registered(Role.PATIENT)
        async with from_address(registry.app) as http:
            assert (await http.get(f"/v1/parties/{patient.did}")).status_code == 200
            assert (await http.get(f"/v1/parties/{TestParty(Role.PATIENT).did}")).status_code == 404
            held_back(await http.get(f"/v1/parties/{patient.did}"))
            held_back(await http.get("/docs"))
            assert (await http.get("/healthz")).status_code == 204
        # The platform's own services, which are at an address without a limit unless told otherwise.
        assert (await registry.http.get(f"/v1/parties/{patient.did}")).status_code == 200


async def test_records_holds_back_a_party_and_no_other(records: RecordsWorld) -> None:
    async with records.running(**SLOW, party_burst=3) as world:
        for _ in range(3):
            assert (await world.get("/v1/me/records", world.patient)).status_code == 200
        held_back(await world.get("/v1/me/records", world.patient))
        held_back(await world.post("/v1/records", world.patient, {"records": []}))
        assert (await world.get("/v1/grants", world.doctor, box="held")).status_code == 200


async def test_records_serves_a_party_at_an_address_that_others_misuse(records: RecordsWorld) -> None:
    async with records.running(**SLOW, address_burst=10) as world, from_address(world.app) as http:
        bad = {"authorization": "Bearer eyJ.eyJ.eyJ"}
        assert (await http.get("/v1/me/records", headers=bad)).status_code == 401
        held_back(await http.get("/v1/me/records", headers=bad))
        good = world.authorization(world.patient)
        assert [(await http.get("/v1/me/records", headers=good)).status_code for _ in range(20)] == [200] * 20
        held_back(await http.get("/v1/me/records", headers=bad))


async def test_proxy_counts_relayed_requests_as_their_issuers(proxy: ProxyWorld) -> None:
    """One address brings what many have signed; who asks too often is held back, the address is not."""
    async with proxy.running(**SLOW, party_burst=3, address_burst=3), from_address(proxy.app) as http:
        proxy.http = http
        envelope = proxy.envelope()
        grant, other = await proxy.stored(), await proxy.stored(recipient=proxy.stranger)
        for _ in range(3):
            assert (await proxy.reencrypt(grant, (0, envelope))).status_code == 200
        held_back(await proxy.reencrypt(grant, (0, envelope)))
        assert (await proxy.reencrypt(other, (0, envelope), signer=proxy.stranger)).status_code == 200
        assert (await beyond(http))["party"] == 1


async def test_proxy_charges_a_refused_request_to_its_issuer(proxy: ProxyWorld) -> None:
    """What a recipient has signed in vain is not held against whoever relayed it."""
    async with proxy.running(**SLOW, party_burst=4, address_burst=3), from_address(proxy.app) as http:
        proxy.http = http
        unknown, envelope = proxy.grant(), proxy.envelope()
        answers = [await proxy.reencrypt(unknown, (0, envelope)) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [404] * 4 + [429]
        await proxy.stored()


async def test_proxy_charges_a_repeated_statement_to_its_sender(proxy: ProxyWorld) -> None:
    """Whoever has seen a grant can send it again, and must not hold back the patient by that."""
    async with proxy.running(**SLOW, party_burst=2, address_burst=3), from_address(proxy.app) as http:
        grant = await proxy.stored()
        proxy.http = http
        assert [(await proxy.post_share(grant)).status_code for _ in range(4)] == [200, 200, 200, 429]
        async with from_address(proxy.app, "203.0.113.10") as elsewhere:
            proxy.http = elsewhere
            await proxy.stored()


async def test_proxy_takes_revocations_of_a_patient_who_is_held_back(proxy: ProxyWorld) -> None:
    async with proxy.running(**SLOW, party_burst=1):
        grant = await proxy.stored()
        held_back(await proxy.post_share(proxy.grant()))
        assert proxy.receipt(await proxy.revoke(grant)).act == "erased"
        held_back(await proxy.revoke(proxy.grant()))


async def test_proxy_holds_back_an_address_that_sends_rubbish(proxy: ProxyWorld) -> None:
    async with proxy.running(**SLOW, address_burst=20), from_address(proxy.app) as http:
        forged: dict[str, Any] = proxy.request(proxy.grant(), (0, proxy.envelope()))
        forged["request"] = forged["request"][:-86] + b64url(bytes(64))
        answers = [await http.post("/v1/reencryptions", json=forged) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [422, 422, 429]
        # The records service is elsewhere, and what it brings is taken.
        await proxy.stored()


async def test_where_a_request_comes_from_is_believed_of_configured_forwarders_only(
    registry_url: str, clock: TestClock
) -> None:
    claims = {"x-forwarded-for": "198.51.100.7"}

    async def answers(registry: RunningRegistry, address: str, headers: dict[str, str]) -> list[int]:
        async with from_address(registry.app, address) as http:
            return [(await http.get("/.well-known/jwks.json", headers=headers)).status_code for _ in range(2)]

    async with running(settings_for(registry_url, **SLOW, address_burst=1), clock) as registry:
        assert await answers(registry, ELSEWHERE, {}) == [200, 429]
        assert await answers(registry, ELSEWHERE, claims) == [429, 429]
    settings = settings_for(registry_url, **SLOW, address_burst=1, forwarded_by="203.0.113.0/24")
    async with running(settings, clock) as registry:
        assert await answers(registry, ELSEWHERE, claims) == [200, 429]
        assert await answers(registry, ELSEWHERE, {"x-forwarded-for": "198.51.100.8"}) == [200, 429]
        assert await answers(registry, "192.0.2.1", claims) == [200, 429]


async def test_every_operation_says_that_one_may_have_to_wait(
    registry_url: str, clock: TestClock, proxy: ProxyWorld, records: RecordsWorld
) -> None:
    async with running(settings_for(registry_url), clock) as registry, proxy.running(), records.running():
        for app in (registry.app, proxy.app, records.app):
            for path, operations in app.openapi()["paths"].items():
                for operation in operations.values():
                    answer = operation["responses"].get("429")
                    if path in ("/healthz", "/readyz", "/metrics"):
                        assert answer is None
                    else:
                        assert "too_many_requests" in answer["description"], path
                        assert "Retry-After" in answer["headers"]
