"""A platform whose tables were filled with strangers' rows before its services started."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from bench.populate import Strangers, fill
from client.embedded.home import Home
from client.embedded.platform import EmbeddedPlatform
from client.embedded.postgres import EmbeddedPostgres
from services.proxy.identity import identity_from_seed
from shared.crypto.signing import SigningKey
from shared.db import migrate
from shared.encoding import b64url
from shared.transparency.checkpoints import Kind
from shared.wire import Role
from tests.services.signing_parties import TestParty

SERVICES: dict[str, Kind] = {
    "registry": "registry",
    "records": "records",
    "proxy-1": "proxy",
    "proxy-2": "proxy",
    "proxy-3": "proxy",
}


@dataclass(frozen=True)
class FilledPlatform:
    """Where it is reached, its proxies, the superuser's URL of each database, and how long filling took (seconds)."""

    urls: dict[str, str]
    proxies: list[TestParty]
    databases: dict[str, str]
    filling: float


@asynccontextmanager
async def filled_platform(home: Path, server: EmbeddedPostgres, size: Strangers) -> AsyncIterator[FilledPlatform]:
    """The platform, running, with databases of its own on this server. Raises what `EmbeddedPlatform` raises."""
    started = time.perf_counter()
    seeds, databases = await _fill(Home(home), server, size)
    filling = time.perf_counter() - started
    async with EmbeddedPlatform(home, base_port=None, postgres_url=server.superuser_url) as platform:
        # They sign nothing here; what is sealed for them needs the keys that follow from their seeds.
        proxies = [TestParty(Role.PROXY, seed=int.from_bytes(seed, "big")) for seed in seeds]
        yield FilledPlatform(platform.urls, proxies, databases, filling)


async def _fill(home: Home, server: EmbeddedPostgres, size: Strangers) -> tuple[list[bytes], dict[str, str]]:
    """What the platform does at its first start, up to its tables, and then the rows; returns the proxies' seeds, and
    the superuser's URL of each database."""
    home.lock()
    try:
        layout = home.layout(proxies=3, base_port=None, external_database=True)
        seeds, databases = [], {}
        for service, kind in SERVICES.items():
            name = layout.database_prefix + service.replace("-", "_")
            password = b64url(home.secret(service, "database_password"))
            await server.create_role_and_database(name, password)
            await migrate.upgrade(kind, server.url_for(name, password))
            if kind == "proxy":
                seeds.append(home.secret(service, "pcehr_seed"))
                key = identity_from_seed(seeds[-1]).log_key
            else:
                key = SigningKey.from_bytes(home.secret(service, "pcehr_log_signing_key"))
            databases[service] = urlunsplit(urlsplit(server.superuser_url)._replace(path=f"/{name}"))
            await fill(databases[service], kind, size, key)
    finally:
        home.unlock()
    return seeds, databases
