"""A registry under test: the real app over a real database, called as a client would call it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from services.registry.main import build
from services.registry.settings import Settings
from shared.crypto.signing import SigningKey
from shared.encoding import b64url
from shared.tokens import ASSERTION_TYPE_URN, make_client_assertion
from shared.transparency.checkpoints import origin_of
from shared.wire import Role
from tests.services.signing_parties import TestClock, TestParty

PUBLIC_URL = "https://registry.example"
TOKEN_ENDPOINT = f"{PUBLIC_URL}/v1/oauth/token"
SIGNING_SEED = bytes(range(32))
LOG_SEED = bytes(range(1, 33))
LOG_ORIGIN = origin_of("registry", SigningKey(LOG_SEED).verify_key)
RECORDS_LOG = origin_of("records", SigningKey(bytes(range(2, 34))).verify_key)
TOKEN_KEY = SigningKey(SIGNING_SEED).verify_key
ROUTES = {Role.PATIENT: "/v1/patients", Role.RECIPIENT: "/v1/recipients", Role.PROXY: "/v1/proxies"}


def settings_for(url: str, *, admitted: Collection[str] = (), **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "database_url": SecretStr(url),
        "database_pool_size": 5,
        "token_signing_key": SecretStr(b64url(SIGNING_SEED)),
        "log_signing_key": SecretStr(b64url(LOG_SEED)),
        "records_log": RECORDS_LOG,
        "public_url": PUBLIC_URL,
        "records_url": "https://records.example",
        "admitted_proxies": ",".join(admitted),
    }
    return Settings(**values | changes)


class RunningRegistry:
    """Shorthand for what tests ask of a registry. `url` is that of its database."""

    def __init__(self, app: FastAPI, http: httpx.AsyncClient, clock: TestClock, url: str) -> None:
        self.app = app
        self.http = http
        self.clock = clock
        self.url = url

    async def sign_up(self, party: TestParty) -> httpx.Response:
        return await self.http.post(ROUTES[party.role], json={"key_entry": party.entries[0]})

    async def registered(self, role: Role, **options: Any) -> TestParty:
        """A new party that has signed up."""
        party = TestParty(role, **options)
        response = await self.sign_up(party)
        assert response.status_code == 201, response.text
        return party

    async def rotate(self, party: TestParty, entry: str) -> httpx.Response:
        return await self.http.post(f"/v1/parties/{party.did}/keys", json={"key_entry": entry})

    def assertion(self, party: TestParty, *, seq: int | None = None, now: int | None = None) -> str:
        return make_client_assertion(
            did=party.did,
            key=party.identity_key(seq),
            token_endpoint=TOKEN_ENDPOINT,
            now=self.clock.now if now is None else now,
        )

    async def post_token(self, assertion: str, **changes: str | None) -> httpx.Response:
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE_URN,
            "client_assertion": assertion,
        } | changes
        return await self.http.post(
            "/v1/oauth/token", data={name: value for name, value in form.items() if value is not None}
        )

    async def headers(self, party: TestParty, resource: str | None = None) -> dict[str, str]:
        """The headers of a request by this party."""
        response = await self.post_token(self.assertion(party), resource=resource)
        assert response.status_code == 200, response.text
        return {"Authorization": f"Bearer {response.json()['access_token']}"}

    async def publish(
        self, patient: TestParty, *tokens: str, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        return await self.http.put(
            f"/v1/patients/{patient.did}/scope-keys",
            json={"scope_keys": list(tokens)},
            headers=await self.headers(patient) if headers is None else headers,
        )

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """What the database holds, seen from outside the service."""
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    async def audit(self, party: TestParty) -> list[tuple[str, str, str | None]]:
        """Act, outcome and cause of the party's audit rows, oldest first."""
        rows = await self.rows("SELECT act, outcome, cause FROM audit WHERE did = $1 ORDER BY id", party.did)
        return [tuple(row) for row in rows]  # type: ignore[misc]

    async def hold_until_waiting(self, count: int) -> None:
        """Return once so many connections wait for a lock in this database."""
        query = (
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        async with asyncio.timeout(10):
            while (await self.rows(query))[0]["n"] < count:  # noqa: ASYNC110  Postgres tells nobody when a lock is waited for.
                await asyncio.sleep(0.02)


def nobody_there(request: httpx.Request) -> httpx.Response:
    """A network without proxies."""
    raise httpx.ConnectError("nobody there", request=request)


@asynccontextmanager
async def running(
    settings: Settings, clock: TestClock, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[RunningRegistry]:
    app = build(settings, clock=clock, transport=transport or httpx.MockTransport(nobody_there))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=PUBLIC_URL) as http,
    ):
        yield RunningRegistry(app, http, clock, settings.database_url.get_secret_value())


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Assert that the response is this problem (RFC 9457), and return its members."""
    body: dict[str, Any] = response.json()
    assert (response.status_code, body.get("code")) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert body["type"] == f"urn:pcehr:problem:{code}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body
