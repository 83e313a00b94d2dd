"""A proxy at work, and the parties around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
from fastapi import FastAPI

from services.proxy.main import build
from services.proxy.settings import ProxySettings
from shared import statements as st
from shared.crypto.sealing import seal
from shared.crypto.umbral import Capsule, CapsuleFrag, decrypt_reencrypted, encrypt
from shared.db.locks import lock_key
from shared.encoding import b64url, from_b64url, sha256
from shared.transparency.checkpoints import parse_checkpoint, verify_checkpoint
from shared.transparency.entries import Event, parse_event
from shared.transparency.merkle import leaf_hash, verify_inclusion
from shared.wire import Role
from tests.services.proxy.fake_registry import URL, FakeRegistry
from tests.services.signing_parties import SignedGrant, TestClock, TestParty


@dataclass(frozen=True)
class Envelope:
    """Something encrypted to a delegating key of a patient."""

    capsule: Capsule
    ciphertext: bytes
    plaintext: bytes

    @property
    def hash(self) -> str:
        return b64url(self.capsule.hash)


class World:
    """One running proxy with its own database, its registry, and the parties of a test."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = TestClock()
        self.registry = FakeRegistry()
        self.patient = TestParty(Role.PATIENT)
        self.recipient = TestParty(Role.RECIPIENT)
        self.stranger = TestParty(Role.RECIPIENT)
        self.other_patient = TestParty(Role.PATIENT)
        self.proxy = TestParty(Role.PROXY)
        self.second = TestParty(Role.PROXY)
        self.registry.add(self.patient, self.recipient, self.stranger, self.other_patient, self.proxy, self.second)
        self.app: FastAPI
        self.http: httpx.AsyncClient

    def settings(self, **changes: Any) -> ProxySettings:
        values: dict[str, Any] = {
            "database_url": self.url,
            "registry_url": URL,
            "seed": b64url(self.proxy.seed.reveal()),
            "endpoint": "http://proxy.test",
            "name": "Demo proxy",
        }
        return ProxySettings(**values | changes)

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
        """The app, started; `changes` go to its settings."""
        self.app = build(self.settings(**changes), clock=self.clock, transport=self.registry.transport)
        async with (
            self.app.router.lifespan_context(self.app),
            httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://proxy.test") as self.http,
        ):
            yield self.http

    @asynccontextmanager
    async def sql(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.url)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def lock_held(self, grant: SignedGrant, *, shared: bool) -> AsyncIterator[asyncpg.Connection]:
        """The connection of a transaction that uses the grant (`shared`) or ends it, committed when the block ends."""
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        async with self.sql() as connection, connection.transaction():
            await connection.execute(f"SELECT {function}($1)", lock_key(f"grant {grant.id}"))
            yield connection

    async def rows(self, query: str, *args: object) -> list[Any]:
        async with self.sql() as connection:
            return list(await connection.fetch(query, *args))

    async def count(self, table: str) -> int:
        return int((await self.rows(f"SELECT count(*) AS n FROM {table}"))[0]["n"])

    # What parties make

    def grant(self, scopes: Sequence[Any] = ("allergies",), **changes: Any) -> SignedGrant:
        """A grant by the patient to the recipient, shared between both proxies; one share suffices."""
        return self.patient.grant(
            changes.pop("recipient", self.recipient), scopes, proxies=[self.proxy, self.second], **changes
        )

    def grant_with_kfrags(self, kfrags: Sequence[bytes], **changes: Any) -> SignedGrant:
        """A grant to read one scope that names, and a share that holds, these kfrags, whatever they are."""
        line = st.GrantProxy(did=self.proxy.did, kfrags=tuple(b64url(sha256(kfrag)) for kfrag in kfrags))
        grant = self.grant(shares=st.GrantShares(threshold=1, proxies=(line,)), **changes)
        return SignedGrant(grant.token, {}, {self.proxy.did: self.sealed(b"".join(kfrags))})

    def sealed(self, content: bytes) -> str:
        return b64url(seal(self.proxy.sealing_key().public_key, content))

    def envelope(self, scope: str = "allergies", plaintext: bytes = b"a key") -> Envelope:
        capsule, ciphertext = encrypt(self.patient.delegating_key(scope).public_key(), plaintext)
        return Envelope(capsule, ciphertext, plaintext)

    def opened(self, envelope: Envelope, cfrag: str, scope: str = "allergies") -> bytes:
        """What the recipient gets out of one cfrag, everything verified."""
        delegating = self.patient.delegating_key(scope).public_key()
        verified = CapsuleFrag.from_bytes(from_b64url(cfrag)).verify(
            envelope.capsule,
            self.patient.signer().verifying_key(),
            delegating,
            self.recipient.receiving_key().public_key(),
        )
        return decrypt_reencrypted(
            self.recipient.receiving_key(), delegating, envelope.capsule, [verified], envelope.ciphertext
        )

    def receipt(self, response: httpx.Response) -> st.Receipt:
        """The payload of the receipt in a good answer, verified as the proxy's."""
        assert response.status_code == 200, response.text
        token = response.json()["receipt"]
        key = self.proxy.identity_key().verify_key
        return st.verify_under(token, st.Receipt, self.proxy.did, [bytes(key)]).payload

    # What parties send

    async def post_share(self, grant: SignedGrant, sealed: str | None = None) -> httpx.Response:
        body = {"grant": grant.token, "sealed": sealed or grant.shares[self.proxy.did]}
        return await self.http.post("/v1/kfrags", json=body)

    async def stored(self, scopes: Sequence[Any] = ("allergies",), **changes: Any) -> SignedGrant:
        """A grant whose share the proxy has taken."""
        grant = self.grant(scopes, **changes)
        assert self.receipt(await self.post_share(grant)).act == "stored"
        return grant

    def request(self, grant: SignedGrant, *wanted: tuple[int, Envelope], **changes: Any) -> dict[str, Any]:
        """The body of a re-encryption request by the recipient."""
        signer: TestParty = changes.pop("signer", self.recipient)
        token = signer.reencryption_request(
            grant.id, [(entry, envelope.hash) for entry, envelope in wanted], now=self.clock.now, **changes
        )
        return {"request": token, "capsules": [envelope.capsule.b64 for _, envelope in wanted]}

    async def reencrypt(self, grant: SignedGrant, *wanted: tuple[int, Envelope], **changes: Any) -> httpx.Response:
        return await self.http.post("/v1/reencryptions", json=self.request(grant, *wanted, **changes))

    async def revoke(self, grant: SignedGrant, by: TestParty | None = None) -> httpx.Response:
        token = (by or self.patient).revocation(self.recipient, grant.id, now=self.clock.now)
        return await self.http.post("/v1/revocations", json={"revocation": token})

    async def audit(self, party: TestParty, audience: str | None = None, **params: Any) -> httpx.Response:
        token = self.registry.token(party, audience or self.proxy.did, now=self.clock.now)
        return await self.http.get("/v1/audit", params=params, headers={"Authorization": f"Bearer {token}"})

    async def logged(self) -> list[Event]:
        """Every event that the proxy has written, newest first, seen from outside."""
        return [parse_event(row["text"]) for row in await self.rows("SELECT text FROM log_events ORDER BY entry DESC")]

    async def shown_events(self, party: TestParty) -> list[dict[str, Any]]:
        """The newest hundred events of a party, as they are shown; this reading is the newest one."""
        response = await self.audit(party, limit=100)
        assert response.status_code == 200, response.text
        items: list[dict[str, Any]] = response.json()["items"]
        return items

    async def events(self, party: TestParty) -> list[Event]:
        """The same, parsed."""
        return [parse_event(item["event"]) for item in await self.shown_events(party)]

    async def post_erasure(self, party: TestParty, token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.registry.token(party, self.proxy.did, now=self.clock.now)}"}
        return await self.http.post("/v1/audit/erasures", json={"statement": token}, headers=headers)

    async def erase(self, party: TestParty, *, upto: int) -> httpx.Response:
        return await self.post_erasure(party, party.log_erasure(self.proxy.did, upto, now=self.clock.now))

    async def proven(self, commitments: Sequence[bytes]) -> None:
        """Return when the proxy has proven that its log holds all of these."""
        body = {"leaves": [b64url(leaf_hash(one)) for one in commitments], "size": 0}
        async with asyncio.timeout(10):
            while (response := await self.http.post("/v1/log/inclusion", json=body)).status_code == 503:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert response.status_code == 200, response.text
        answer = response.json()
        checkpoint = verify_checkpoint(answer["checkpoint"], parse_checkpoint(answer["checkpoint"]).origin)
        for one, item in zip(commitments, answer["items"], strict=True):
            path = [from_b64url(step, 32) for step in item["path"]]
            verify_inclusion(leaf_hash(one), item["index"], checkpoint.size, path, checkpoint.root)

    async def until_somebody_waits_for_a_lock(self, waiters: int = 1) -> None:
        """Until so many connections to this database wait for one another."""
        query = (
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        async with self.sql() as connection:
            for _ in range(2_000):
                if await connection.fetchval(query) >= waiters:
                    return
                await asyncio.sleep(0.01)
        raise TimeoutError("nobody waits for a lock")


def refused(response: httpx.Response, status: int, code: str) -> None:
    """The answer is this problem, in the form that all problems have, and nothing else."""
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert set(response.json()) == {"type", "title", "status", "detail", "code", "trace_id"}
