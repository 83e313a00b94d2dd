"""One platform for all runs, and what the statements of a run can be about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from shared.encoding import b64url, from_b64url, sha256
from shared.transparency.merkle import leaf_hash
from shared.wire import Action, Role
from tests.conftest import FreshDatabases
from tests.http_fuzzing.parties import ROTATING, SEEDS, Known
from tests.services.loopback import PATIENCE, Loopback, loopback
from tests.services.signing_parties import SealedRecord, SignedGrant, TestClock, TestParty, id_of

ALL = (Action.READ, Action.APPEND, Action.AMEND)


class Prepared:
    """A platform where a patient has given a recipient a grant over a record."""

    def __init__(self, platform: Loopback, parties: dict[str, TestParty], rotating: list[TestParty]) -> None:
        self.platform = platform
        self.parties = parties
        self.rotating = rotating
        self.record: SealedRecord
        self.grant: SignedGrant
        self.requests: list[str] = []

    async def known(self, service: str, speaker: str) -> Known:
        """What a run against the service knows that speaks for this party."""
        platform = self.platform
        for party in [*self.parties.values(), *self.rotating]:
            url = f"{platform.urls['registry']}/v1/parties/{party.did}"
            party.entries[:] = (await platform.http.get(url)).json()["entries"]
        return Known(
            service=service,
            speaker=speaker,
            chains={name: party.entries for name, party in self.parties.items()},
            rotating=[party.entries for party in self.rotating],
            now=platform.clock(),
            token_endpoint=f"{platform.urls['registry']}/v1/oauth/token",
            record=self.record.record,
            body_hash=b64url(sha256(self.record.body)),
            capsule=b64url(self.record.capsule),
            capsule_hash=self.record.capsule_hash,
            grant=self.grant.id,
            requests=self.requests,
            leaf=await self._leaf(service),
            submission=await self._submission(),
        )

    async def prepare(self) -> None:
        platform, now = self.platform, self.platform.clock()
        patient, recipient = self.parties["patient"], self.parties["recipient"]
        for party, route in (
            (patient, "patients"),
            (recipient, "recipients"),
            *((one, "patients") for one in self.rotating),
        ):
            await platform.sign_up(party, route)
        keys = {"scope_keys": [patient.scope_key("allergies", now=now)]}
        await platform.ask("PUT", "registry", f"/v1/patients/{patient.did}/scope-keys", patient, json=keys)
        self.record = patient.record(patient, "allergies", now=now)
        await platform.ask("POST", "records", "/v1/records", patient, json={"records": [self.record.as_json()]})
        for _ in range(10):
            request = recipient.disclosure_request(patient, now=now)
            self.requests.append(id_of(request))
            await platform.ask("POST", "records", "/v1/disclosure-requests", recipient, json={"statement": request})
        proxies = [platform.proxy, platform.second]
        self.grant = patient.grant(recipient, proxies=proxies, threshold=2, actions=ALL, now=now)
        await platform.ask("POST", "records", "/v1/grants", patient, json=self.grant.as_json())
        path, deadline = f"/v1/grants/{self.grant.id}", time.monotonic() + PATIENCE
        while (await platform.ask("GET", "records", path, patient)).json()["state"] != "complete":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

    async def _leaf(self, service: str) -> str:
        if service == "registry":
            url = f"{self.platform.urls['registry']}/v1/log/entries?limit=1&start=0"
            found = (await self.platform.http.get(url)).json()["items"][0]
        else:
            path = "/v1/me/audit" if service == "records" else "/v1/audit"
            events = await self.platform.ask("GET", service, path, self.parties["patient"], params={"limit": 100})
            found = events.json()["items"][-1]["commitment"]
        return b64url(leaf_hash(from_b64url(found)))

    async def _submission(self) -> str:
        found = await self.platform.http.get(f"{self.platform.urls['proxy']}/v1/witness/checkpoints")
        note: str = found.json()["items"][0]["checkpoint"]
        return f"old {note.splitlines()[1]}\n\n{note}"


@pytest.fixture(scope="package")
async def prepared(fresh_database: FreshDatabases, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prepared]:
    async with loopback(fresh_database, tmp_path_factory.mktemp("fuzzing"), TestClock(), seeds=SEEDS) as platform:
        parties = {
            "patient": TestParty(Role.PATIENT, seed=SEEDS["patient"]),
            "recipient": TestParty(Role.RECIPIENT, seed=SEEDS["recipient"]),
            "proxy": platform.proxy,
            "second": platform.second,
        }
        rotating = [TestParty(Role.PATIENT, seed=seed) for seed in ROTATING]
        stage = Prepared(platform, parties, rotating)
        await stage.prepare()
        yield stage
