"""The real services in one process, on real Postgres, with one clock and a network that can lose a proxy.

All of them are the apps that run in production, put together by their own `build`; what stands in for the network
calls them directly. The outbox delivers when told to, so that what is on its way is known.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from client.author import Author
from client.keyring import Keyring
from client.patient import Patient
from client.recipient import Recipient
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from services.proxy import main as proxy
from services.proxy.identity import identity_from_seed
from services.proxy.settings import ProxySettings
from services.records import main as records
from services.records.settings import Settings as RecordsSettings
from services.registry import main as registry
from services.registry.settings import Settings as RegistrySettings
from shared import log_publisher
from shared.crypto.signing import SigningKey
from shared.encoding import b64url
from shared.transparency.checkpoints import origin_of
from tests.services.signing_parties import TestClock

REGISTRY, RECORDS = "http://registry.test", "http://records.test"
PROXIES = ("proxy-1.test", "proxy-2.test", "proxy-3.test")
SCOPES = ("allergies", "laboratory")
WORK = ("/v1/kfrags", "/v1/reencryptions", "/v1/revocations")
"""What a proxy that is down does not do. It goes on cosigning: what becomes of new keys while most witnesses are away
is another matter, which tests/unit/client is about."""
_SEEDS = {name: bytes([number]) * 32 for number, name in enumerate(("token", "registry", "records", *PROXIES), 1)}

Databases = Mapping[str, str]
"""The URL of a new database for `registry`, `records` and each host of `PROXIES`."""


class Network(httpx.AsyncBaseTransport):
    """Brings each request to the app of its host."""

    def __init__(self) -> None:
        self.apps: dict[str, httpx.ASGITransport] = {}
        self.down: set[str] = set()

    def add(self, host: str, app: FastAPI) -> None:
        self.apps[host] = httpx.ASGITransport(app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        if host in self.down and request.url.path in WORK:
            raise httpx.ConnectError("down", request=request)
        return await self.apps[host].handle_async_request(request)


@dataclass
class Actor:
    """One party with its own memory."""

    session: Session

    @property
    def did(self) -> str:
        return self.session.did

    @property
    def recipient(self) -> Recipient:
        return Recipient(self.session)

    @property
    def author(self) -> Author:
        return Author(self.session)


class Services:
    """Everything that runs. `clock` is everybody's; `dids` names the proxies by host."""

    def __init__(self, network: Network, clock: TestClock, client: Platform, outbox: Callable[[], object]) -> None:
        self.network = network
        self.clock = clock
        self.client = client
        self.dids = {host: identity_from_seed(_SEEDS[host]).did for host in PROXIES}
        self._outbox = outbox
        self.milliseconds = 0

    def session(self) -> Session:
        """A party on a machine of its own that has signed up nowhere."""
        return Session(Keyring.generate(), self.client, ClientState(), self.clock)

    def patient(self, session: Session) -> Patient:
        return Patient(session, known_scopes=SCOPES)

    async def deliver(self) -> None:
        """Let the outbox try everything that waits, once, however long it would have paused."""
        self.milliseconds += 3_600_000
        while await self._outbox.run_once():  # type: ignore[attr-defined]
            self.milliseconds += 1


@asynccontextmanager
async def running(databases: Databases) -> AsyncIterator[Services]:
    """Start everything, and stop it in the end."""
    network, clock = Network(), TestClock()
    async with AsyncExitStack() as stack:
        # Every new key waits for its proof. That takes its time where there is a network, and is not looked at here.
        quick = partial(log_publisher.Pace, poll=0.1, rest=0.05, grace=0.0)
        stack.enter_context(mock.patch.object(log_publisher, "Pace", quick))
        bodies = stack.enter_context(tempfile.TemporaryDirectory())
        known = {"registry_url": REGISTRY, "party_cache_seconds": 0, "http_timeout_seconds": 100.0}
        shares = {host: identity_from_seed(_SEEDS[host]).did for host in PROXIES}
        network.add(
            "registry.test",
            registry.build(
                RegistrySettings(
                    PCEHR_DATABASE_URL=SecretStr(databases["registry"]),
                    token_signing_key=SecretStr(b64url(_SEEDS["token"])),
                    log_signing_key=SecretStr(b64url(_SEEDS["registry"])),
                    records_log=origin_of("records", SigningKey(_SEEDS["records"]).verify_key),
                    public_url=REGISTRY,
                    records_url=RECORDS,
                    admitted_proxies=",".join(shares.values()),
                ),
                clock=clock,
                transport=network,
            ),
        )
        holder: list[Services] = []
        service = records.build(
            RecordsSettings(
                PCEHR_DATABASE_URL=SecretStr(databases["records"]),
                log_signing_key=SecretStr(b64url(_SEEDS["records"])),
                blob_dir=Path(bodies),
                outbox_enabled=False,
                # Who is down says so at once; nobody is to be given up because the machine is slow.
                proxy_timeout_seconds=100.0,
                **known,
            ),
            clock=clock,
            milliseconds=lambda: holder[0].milliseconds,
            transport=network,
        )
        network.add("records.test", service)
        for host in PROXIES:
            settings = ProxySettings(
                PCEHR_DATABASE_URL=SecretStr(databases[host]),
                seed=SecretStr(b64url(_SEEDS[host])),
                endpoint=f"http://{host}",
                name=host,
                **known,
            )
            network.add(host, proxy.build(settings, clock=clock, transport=network))
        for transport in network.apps.values():
            await stack.enter_async_context(transport.app.router.lifespan_context(transport.app))
        async with httpx.AsyncClient(transport=network) as http, asyncio.timeout(60):
            for host in PROXIES:
                while (await http.get(f"http://{host}/readyz")).is_error:  # noqa: ASYNC110  Nobody tells.
                    await asyncio.sleep(0.05)
        client = await stack.enter_async_context(Platform(REGISTRY, clock=clock, transport=network))
        holder.append(Services(network, clock, client, service.state.outbox))
        yield holder[0]
