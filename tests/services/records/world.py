"""A running records service with a patient, a recipient and three proxies around it, and short ways to use them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from fastapi import FastAPI

from services.records.main import build
from services.records.settings import Settings
from shared.crypto.signing import SigningKey
from shared.encoding import b64url, from_b64url
from shared.transparency.checkpoints import origin_of, verify_checkpoint
from shared.transparency.entries import Event, parse_event
from shared.transparency.merkle import leaf_hash, verify_inclusion
from shared.wire import Action, Role
from tests.services.records.network import REGISTRY, FakeProxy, FakeRegistry, Network
from tests.services.signing_parties import SealedRecord, SignedGrant, TestClock, TestParty

LOG_SEED = bytes(range(2, 34))
LOG_ORIGIN = origin_of("records", SigningKey(LOG_SEED).verify_key)
PATIENCE = 60.0
"""Seconds after which something that should happen by itself counts as not happening."""


class World:
    """Every member may be changed before `running`; tests reach the service only over HTTP and its own tables."""

    def __init__(self, database_url: str, blob_dir: Path) -> None:
        self.clock = TestClock()
        self.registry = FakeRegistry(self.clock)
        self.network = Network(self.registry)
        self.proxies: list[FakeProxy] = [self.network.proxy() for _ in range(3)]
        self.patient = self.registry.party(Role.PATIENT)
        self.doctor = self.registry.party(Role.RECIPIENT)
        self.database_url = database_url
        self.blob_dir = blob_dir
        self.milliseconds = 1_000
        self.app: FastAPI
        self.http: httpx.AsyncClient

    def settings(self, **changes: Any) -> Settings:
        values: dict[str, Any] = {
            "PCEHR_DATABASE_URL": self.database_url,
            "registry_url": REGISTRY,
            "log_signing_key": b64url(LOG_SEED),
            "blob_dir": self.blob_dir,
            "party_cache_seconds": 0,
            "http_timeout_seconds": 2.0,
            "proxy_timeout_seconds": 3.0,
            "hedge_seconds": 0.1,
            "outbox_poll_seconds": 0.05,
            "outbox_first_backoff_seconds": 0.05,
            "outbox_max_backoff_seconds": 0.1,
        }
        return Settings(**values | changes)

    @asynccontextmanager
    async def running(self, *, own_time: bool = False, **changes: Any) -> AsyncIterator[World]:
        """The service; with `own_time` the outbox's time is `milliseconds` and stands still."""
        extra: dict[str, Any] = {"milliseconds": lambda: self.milliseconds} if own_time else {}
        self.app = build(self.settings(**changes), clock=self.clock, transport=self.network, **extra)
        async with (
            self.app.router.lifespan_context(self.app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url="http://records.invalid") as http,
        ):
            self.http = http
            yield self

    # HTTP

    def authorization(self, party: TestParty) -> dict[str, str]:
        return {"authorization": f"Bearer {self.registry.token(party)}"}

    async def post(self, path: str, party: TestParty, body: Any) -> httpx.Response:
        return await self.http.post(path, json=body, headers=self.authorization(party))

    async def get(self, path: str, party: TestParty, **params: Any) -> httpx.Response:
        return await self.http.get(path, params=params, headers=self.authorization(party))

    async def put(self, path: str, party: TestParty, content: Any) -> httpx.Response:
        return await self.http.put(path, content=content, headers=self.authorization(party))

    # Acts that must succeed

    async def write(self, author: TestParty, *records: SealedRecord) -> None:
        response = await self.post("/v1/records", author, {"records": [record.as_json() for record in records]})
        assert response.status_code == 201, response.text

    async def written(self, scope: str = "allergies", **details: Any) -> SealedRecord:
        """A record of the patient's own, in the service."""
        record = self.patient.record(self.patient, scope, **details)
        await self.write(self.patient, record)
        return record

    def signed_grant(self, scopes: Sequence[Any] = ("allergies",), **details: Any) -> SignedGrant:
        """A grant of the patient's to the doctor, over all proxies with threshold 2, not yet posted."""
        details = {"proxies": [proxy.party for proxy in self.proxies], "threshold": 2, "now": self.clock()} | details
        return self.patient.grant(details.pop("recipient", self.doctor), scopes, **details)

    async def give(self, grant: SignedGrant, patient: TestParty | None = None) -> SignedGrant:
        response = await self.post("/v1/grants", patient or self.patient, grant.as_json())
        assert response.status_code == 201, response.text
        return grant

    async def granted(self, scopes: Sequence[Any] = ("allergies",), **details: Any) -> SignedGrant:
        """A grant that all its proxies hold their shares of."""
        grant = await self.give(self.signed_grant(scopes, **details))
        await self.until_state(grant.id, "complete")
        return grant

    async def may_write(self, *actions: Action, scopes: Sequence[Any] = ("allergies",), **details: Any) -> SignedGrant:
        """A grant that does not allow reading, and so needs no proxy."""
        return await self.give(self.signed_grant(scopes, actions=actions, **details))

    async def revoke(self, grant: str, floors: Sequence[tuple[str, int]] = ()) -> str:
        revocation = self.patient.revocation(self.doctor, grant, floors, now=self.clock())
        response = await self.post("/v1/revocations", self.patient, {"statement": revocation})
        assert response.status_code == 201, response.text
        return revocation

    def wanting(self, grant: SignedGrant | str, *records: SealedRecord, entry: int = 0, **details: Any) -> str:
        """A re-encryption request of the doctor's."""
        details = {"now": self.clock()} | details
        grant_id = grant if isinstance(grant, str) else grant.id
        recipient = details.pop("recipient", self.doctor)
        return recipient.reencryption_request(grant_id, [(entry, record.capsule_hash) for record in records], **details)

    async def disclose(self, request: str, *, exclude: Sequence[str] = ()) -> httpx.Response:
        return await self.post("/v1/disclosures", self.doctor, {"request": request, "exclude": list(exclude)})

    # What has become of it

    async def grant_of(self, grant: str, patient: TestParty | None = None) -> dict[str, Any]:
        response = await self.get(f"/v1/grants/{grant}", patient or self.patient)
        assert response.status_code == 200, response.text
        return response.json()

    async def until_state(self, grant: str, state: str, patient: TestParty | None = None) -> dict[str, Any]:
        return await self.until(grant, lambda found: found["state"] == state, patient)

    async def until(self, grant: str, condition: Any, patient: TestParty | None = None) -> dict[str, Any]:
        """The grant as the patient sees it, once the condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition(found := await self.grant_of(grant, patient)):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.01)
        return found

    async def shown_events(self, party: TestParty | None = None) -> list[dict[str, Any]]:
        """The newest hundred events of a patient, as they are shown; this reading is the newest one."""
        response = await self.get("/v1/me/audit", party or self.patient, limit=100)
        assert response.status_code == 200, response.text
        items: list[dict[str, Any]] = response.json()["items"]
        return items

    async def events(self, party: TestParty | None = None) -> list[Event]:
        """What a patient's log says but for its readings, oldest first."""
        shown = [item["event"] for item in reversed(await self.shown_events(party))]
        return [event for event in map(parse_event, filter(None, shown)) if event.event != "log_read"]

    async def audit(self, patient: TestParty | None = None) -> list[tuple[str, str]]:
        """The same as events and outcomes."""
        return [(event.event, event.outcome) for event in await self.events(patient)]

    async def erase(self, party: TestParty, token: str) -> httpx.Response:
        return await self.post("/v1/me/audit/erasures", party, {"statement": token})

    async def without_log(self, table: str = "log_entries") -> None:
        """From now on nothing can be written into this table of the log."""
        await self.sql(
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION ''; END $$"
        )
        await self.sql(f"CREATE TRIGGER broken BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION broken()")

    async def proven(self, commitments: Sequence[bytes]) -> None:
        """Return when the service has proven that its log holds all of these."""
        body = {"leaves": [b64url(leaf_hash(one)) for one in commitments], "size": 0}
        async with asyncio.timeout(PATIENCE):
            while (response := await self.http.post("/v1/log/inclusion", json=body)).status_code == 503:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert response.status_code == 200, response.text
        answer = response.json()
        checkpoint = verify_checkpoint(answer["checkpoint"], LOG_ORIGIN)
        for one, item in zip(commitments, answer["items"], strict=True):
            path = [from_b64url(step, 32) for step in item["path"]]
            verify_inclusion(leaf_hash(one), item["index"], checkpoint.size, path, checkpoint.root)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.database_url)
        try:
            yield connection
        finally:
            await connection.close()

    async def sql(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self.connection() as connection:
            return await connection.fetch(query, *arguments)

    async def waiting_for_locks(self, count: int) -> None:
        """Wait until so many of the service's transactions wait for a lock."""
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'pcehr-records' AND wait_event_type = 'Lock'"
        )
        deadline = time.monotonic() + PATIENCE
        while (await self.sql(query))[0][0] < count:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


def refused(response: httpx.Response, status: int, code: str) -> None:
    """Check that a response is this problem."""
    assert (response.status_code, response.json().get("code")) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
