"""The whole platform over loopback: registry, records service and two proxies, each behind a real HTTP server and on a
Postgres database of its own, with one clock that tests move.

The servers run in a thread with an event loop of its own, so that clients may be synchronous or asynchronous. A third
proxy is in the directory and never answers: grants that name it stay pending or active.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import httpx
import uvicorn
from fastapi import FastAPI

from services.proxy.main import build as build_proxy
from services.proxy.settings import ProxySettings
from services.records.main import build as build_records
from services.records.settings import Settings as RecordsSettings
from services.registry.main import build as build_registry
from services.registry.settings import Settings as RegistrySettings
from shared.crypto.signing import SigningKey
from shared.encoding import b64url
from shared.tokens import ASSERTION_TYPE_URN, make_client_assertion
from shared.transparency.checkpoints import origin_of
from shared.wire import Role
from tests.conftest import FreshDatabases
from tests.services.signing_parties import TestClock, TestParty

TOKEN_SEED, REGISTRY_LOG_SEED, RECORDS_LOG_SEED = (bytes([number]) * 32 for number in (1, 2, 3))
SERVICES = ("registry", "records", "proxy")
PATIENCE = 200.0
"""Seconds after which what has not happened counts as broken; a machine can be very busy."""
KEPT = 3_600
"""Seconds that chains of keys are kept by records service and proxies; a key that is new is asked for all the same."""
AWAY = ("registry_unavailable", "database_unavailable", "not_in_log_yet")


@dataclass
class Loopback:
    """A running platform. `proxy` is the proxy that is looked at, `second` another one, `absent` one that is away."""

    urls: dict[str, str]
    apps: dict[str, FastAPI]
    clock: TestClock
    proxy: TestParty
    second: TestParty
    absent: TestParty
    http: httpx.AsyncClient
    _tokens: dict[tuple[str, str, int], str] = field(default_factory=dict)

    def audience(self, service: str) -> str:
        """What an access token for this service is addressed to."""
        return self.proxy.did if service == "proxy" else f"urn:pcehr:{service}"

    def assertion(self, did: str, key: SigningKey) -> str:
        """What the token endpoint takes, in the name of `did`."""
        endpoint = f"{self.urls['registry']}/v1/oauth/token"
        return make_client_assertion(did=did, key=key, token_endpoint=endpoint, now=self.clock())

    async def token(self, party: TestParty, service: str) -> str:
        """An access token of the party for the service, from the registry."""
        place = (party.did, service, self.clock())
        if place not in self._tokens:
            form = {
                "grant_type": "client_credentials",
                "client_assertion_type": ASSERTION_TYPE_URN,
                "client_assertion": self.assertion(party.did, party.identity_key()),
                "resource": self.audience(service),
            }
            response = await self.http.post(f"{self.urls['registry']}/v1/oauth/token", data=form)
            assert response.status_code == 200, response.text
            self._tokens[place] = response.json()["access_token"]
        return self._tokens[place]

    async def signed_up(self, role: Role, **details: str) -> TestParty:
        """A new party that the registry knows."""
        party = TestParty(role, issued=self.clock(), **details)  # type: ignore[arg-type]
        route = {Role.PATIENT: "patients", Role.RECIPIENT: "recipients", Role.PROXY: "proxies"}[role]
        await self.sign_up(party, route)
        return party

    async def sign_up(self, party: TestParty, route: str) -> None:
        """Register the party by its first key-entry."""
        body = {"key_entry": party.entries[0]}
        response = await self.http.post(f"{self.urls['registry']}/v1/{route}", json=body)
        assert response.status_code == 201, response.text

    async def ask(self, method: str, service: str, path: str, by: TestParty, **details: object) -> httpx.Response:
        """A request by a party with a good token, which must succeed."""
        headers = {"Authorization": f"Bearer {await self.token(by, service)}"}
        url, deadline = self.urls[service] + path, time.monotonic() + PATIENCE
        while True:
            response = await self.http.request(method, url, headers=headers, **details)  # type: ignore[arg-type]
            if not to_be_repeated(response.status_code, response.content):
                assert response.is_success, response.text
                return response
            assert time.monotonic() < deadline, response.text
            await asyncio.sleep(0.2)


def to_be_repeated(status: int, body: bytes) -> bool:
    """Whether a service says that it could not get at something in time, and that the request is to be sent again."""
    return status == 503 and json.loads(body)["code"] in AWAY


@asynccontextmanager
async def loopback(
    databases: FreshDatabases, folder: Path, clock: TestClock, *, seeds: Mapping[str, int] = MappingProxyType({})
) -> AsyncIterator[Loopback]:
    """Start everything, and stop it afterwards; `seeds` may name those of `proxy` and `second`."""
    with ExitStack() as sockets:
        bound = [sockets.enter_context(_listening()) for _ in range(4)]
        silent = sockets.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        addresses = [f"http://127.0.0.1:{one.getsockname()[1]}" for one in (*bound, silent)]
        registry_url, records_url, first_url, second_url, silent_url = addresses
        first, second, absent = (
            TestParty(Role.PROXY, seed=seeds.get(name), endpoint=url, issued=clock())
            for name, url in (("proxy", first_url), ("second", second_url), ("absent", silent_url))
        )
        apps = [
            build_registry(
                RegistrySettings(
                    PCEHR_DATABASE_URL=await databases("registry"),
                    token_signing_key=b64url(TOKEN_SEED),
                    log_signing_key=b64url(REGISTRY_LOG_SEED),
                    records_log=origin_of("records", SigningKey(RECORDS_LOG_SEED).verify_key),
                    public_url=registry_url,
                    records_url=records_url,
                    admitted_proxies=",".join(party.did for party in (first, second, absent)),
                ),
                clock=clock,
            ),
            build_records(
                RecordsSettings(
                    PCEHR_DATABASE_URL=await databases("records"),
                    registry_url=registry_url,
                    log_signing_key=b64url(RECORDS_LOG_SEED),
                    blob_dir=folder / "blobs",
                    party_cache_seconds=KEPT,
                    proxy_timeout_seconds=100,
                    hedge_seconds=60,
                    outbox_poll_seconds=0.05,
                    outbox_first_backoff_seconds=0.1,
                    outbox_max_backoff_seconds=5.0,
                ),
                clock=clock,
            ),
            *[
                build_proxy(
                    ProxySettings(
                        PCEHR_DATABASE_URL=await databases("proxy"),
                        registry_url=registry_url,
                        seed=b64url(party.seed.reveal()),
                        endpoint=party.endpoint,
                        party_cache_seconds=KEPT,
                    ),
                    clock=clock,
                )
                for party in (first, second)
            ],
        ]
        with _serving(list(zip(apps, bound, strict=True))):
            async with httpx.AsyncClient(timeout=PATIENCE) as http:
                for url in addresses[:4]:
                    await _ready(http, url)
                named = dict(zip(SERVICES, addresses, strict=False))
                platform = Loopback(named, dict(zip(SERVICES, apps, strict=False)), clock, first, second, absent, http)
                for party in (first, second):
                    found = await http.get(f"{registry_url}/v1/parties/{party.did}")
                    party.entries[:] = found.json()["entries"]
                await platform.sign_up(absent, "proxies")
                yield platform


@contextmanager
def _listening() -> Iterator[socket.socket]:
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        yield bound


@contextmanager
def _serving(apps: list[tuple[FastAPI, socket.socket]]) -> Iterator[None]:
    """The servers at work, in one thread. The registry is first, since the proxies enrol there."""
    # Connections are kept: one that is closed while it is being used again looks like a service that is away.
    kept = {"log_config": None, "access_log": False, "timeout_keep_alive": 600, "timeout_graceful_shutdown": 5}
    servers = [(uvicorn.Server(uvicorn.Config(app, **kept)), bound) for app, bound in apps]

    async def serve() -> None:
        await asyncio.gather(*(server.serve(sockets=[bound]) for server, bound in servers))

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="loopback")
    thread.start()
    try:
        yield
    finally:
        for server, _ in servers:
            server.should_exit = True
        thread.join()


async def _ready(http: httpx.AsyncClient, url: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                if (await http.get(f"{url}/readyz")).status_code == 204:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
