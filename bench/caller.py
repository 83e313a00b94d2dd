"""The parties that a benchmark calls the services as, and data of their own: real keys and statements, plain HTTP."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Any

import httpx

from bench.filled_platform import FilledPlatform
from shared.tokens import ASSERTION_TYPE_URN, make_client_assertion
from shared.wire import RECORDS_AUDIENCE, REGISTRY_AUDIENCE, Role
from tests.services.signing_parties import SealedRecord, SignedGrant, TestParty

OWN_RECORDS = 60
OWN_GRANTS = 10
DOCTOR = "Zwiebelfisch"
"""A name that none of the strangers has a part of."""
TOKEN_SECONDS = 120
"""How long a token is used here; it is good for five minutes."""
PATIENCE = 60.0
SIGN_UP = {Role.PATIENT: "/v1/patients", Role.RECIPIENT: "/v1/recipients"}


class Refused(Exception):
    """A service has not done what it was asked; the text is its answer."""


class Caller:
    """A patient and a doctor on one platform. Use it as a context manager; then `settle` gives them their data."""

    def __init__(self, platform: FilledPlatform) -> None:
        self.platform = platform
        self.http = httpx.AsyncClient(timeout=60, trust_env=False)
        self._tokens: dict[tuple[str, str], tuple[str, float]] = {}
        self.records: list[SealedRecord] = []
        self.amended: SealedRecord
        self.grant: SignedGrant
        self.last_grant: SignedGrant
        self.scopes = 0
        self.request_to_deny: str | None = None

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    @property
    def registry(self) -> str:
        return self.platform.urls["registry"]

    @property
    def store(self) -> str:
        return self.platform.urls["records"]

    @property
    def proxy(self) -> str:
        return self.platform.urls["proxy-1"]

    async def settle(self) -> None:
        """Sign up, store the chart, and give the grants; the doctor has opened a record under the first of them."""
        self.patient, self.doctor = (
            await self.party(Role.PATIENT),
            await self.party(Role.RECIPIENT, name="Zwiebelfisch"),
        )
        self.records = [self.sealed() for _ in range(OWN_RECORDS)]
        await self.write(self.records)
        self.amended = self.sealed(after=self.records[0])
        await self.write([self.amended])
        grants = [await self.granted() for _ in range(OWN_GRANTS)]
        self.grant = grants[0]
        asked = {"request": self.wanting(self.grant, self.records[1]), "exclude": []}
        await self.done(await self.request("POST", self.store, "/v1/disclosures", self.doctor, json=asked))

    # Statements

    def sealed(self, **details: Any) -> SealedRecord:
        return self.patient.record(self.patient, "allergies", secrets.token_bytes(1_000), now=now(), **details)

    def signed_grant(self) -> SignedGrant:
        """A grant over all proxies, any two of which are enough, not yet posted."""
        return self.patient.grant(self.doctor, ["allergies"], proxies=self.platform.proxies, threshold=2, now=now())

    def wanting(self, grant: SignedGrant, *records: SealedRecord) -> str:
        return self.doctor.reencryption_request(grant.id, [(0, one.capsule_hash) for one in records], now=now())

    # Requests

    async def request(
        self, method: str, base: str, path: str, party: TestParty | None = None, **content: Any
    ) -> httpx.Request:
        """A request, ready to be sent; with the access token of `party` where one is given."""
        headers = {} if party is None else {"authorization": f"Bearer {await self._token(party, base)}"}
        return self.http.build_request(method, base + path, headers=headers, **content)

    async def done(self, request: httpx.Request) -> httpx.Response:
        """Send it; raises `Refused` unless it was done."""
        response = await self.http.send(request)
        if not response.is_success:
            raise Refused(f"{request.method} {request.url}: {response.status_code} {response.text}")
        return response

    async def party(self, role: Role, name: str | None = "Demo Practice") -> TestParty:
        """A new party that has signed up."""
        party = TestParty(role, seed=secrets.randbits(250), name=name, issued=now())
        await self.done(await self.request("POST", self.registry, SIGN_UP[role], json={"key_entry": party.entries[0]}))
        return party

    async def write(self, records: Sequence[SealedRecord]) -> None:
        body = {"records": [record.as_json() for record in records]}
        await self.done(await self.request("POST", self.store, "/v1/records", self.patient, json=body))

    async def granted(self) -> SignedGrant:
        """A grant that every proxy holds its share of."""
        grant = self.signed_grant()
        await self.done(await self.request("POST", self.store, "/v1/grants", self.patient, json=grant.as_json()))
        await self.until_complete(grant.id)
        return grant

    async def until_complete(self, grant: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while (await self.state_of(grant)) != "complete":  # noqa: ASYNC110  The service tells by a stream only.
                await asyncio.sleep(0.02)

    async def until_erased(self, grant: str) -> None:
        """Until no proxy has its share any more."""
        path = f"/v1/grants/{grant}"
        async with asyncio.timeout(PATIENCE):
            while True:
                response = await self.done(await self.request("GET", self.store, path, self.patient))
                if all(proxy["erased"] for proxy in response.json()["proxies"]):
                    return
                await asyncio.sleep(0.02)

    async def state_of(self, grant: str) -> str:
        response = await self.done(await self.request("GET", self.store, f"/v1/grants/{grant}", self.patient))
        return str(response.json()["state"])

    def assertion(self, party: TestParty) -> dict[str, str]:
        """The form that the token endpoint takes."""
        return {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE_URN,
            "client_assertion": make_client_assertion(
                did=party.did,
                key=party.identity_key(),
                token_endpoint=f"{self.registry}/v1/oauth/token",
                now=now(),
            ),
        }

    async def _token(self, party: TestParty, base: str) -> str:
        token, until = self._tokens.get((party.did, base), ("", 0.0))
        if time.monotonic() >= until:
            resource = {self.registry: REGISTRY_AUDIENCE, self.store: RECORDS_AUDIENCE}.get(base)
            form = self.assertion(party) | {"resource": resource or self.platform.proxies[0].did}
            response = await self.done(await self.request("POST", self.registry, "/v1/oauth/token", data=form))
            token, until = response.json()["access_token"], time.monotonic() + TOKEN_SECONDS
            self._tokens[party.did, base] = token, until
        return token


def now() -> int:
    return int(time.time())
