"""The services as processes that speak HTTPS and nothing else, with certificates made for the occasion."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trustme

from client.embedded.home import free_ports
from client.embedded.process import last_lines
from shared.crypto.derivation import Seed
from shared.crypto.signing import SigningKey
from shared.did import did_from_key
from shared.encoding import b64url
from shared.tls import trust
from shared.transparency.checkpoints import origin_of
from tests.conftest import FreshDatabases
from tests.warm import WarmChild

HOST = "127.0.0.1"
READY_SECONDS = 120.0


@dataclass
class HttpsServices:
    """Registry, records service and three proxies; the last one's certificate is of another authority."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    databases: dict[str, str] = field(default_factory=dict)
    children: dict[str, WarmChild] = field(default_factory=dict)
    trusted: trustme.CA = field(default_factory=trustme.CA)
    other: trustme.CA = field(default_factory=trustme.CA)

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def url(self, name: str, scheme: str = "https") -> str:
        return f"{scheme}://{HOST}:{self.ports[name]}"

    def certificate(self, name: str, authority: trustme.CA) -> dict[str, str]:
        """uvicorn's options, by which a service speaks HTTPS."""
        issued = authority.issue_cert(HOST)
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        for blob in issued.cert_chain_pems:
            blob.write_to_path(str(certificate), append=True)
        issued.private_key_pem.write_to_path(str(key))
        return {"UVICORN_SSL_CERTFILE": str(certificate), "UVICORN_SSL_KEYFILE": str(key)}

    def start(self, name: str, kind: str, authority: trustme.CA, **settings: str) -> None:
        common = {
            "PCEHR_DATABASE_URL": self.databases[name],
            "PCEHR_REGISTRY_URL": self.url("registry"),
            "PCEHR_TOKEN_ISSUER": self.url("registry"),
            "PCEHR_TLS_CA_FILE": str(self.ca_file),
            "PCEHR_REQUIRE_HTTPS": "true",
            "PCEHR_LOG_LEVEL": "warning",
        }
        command = [sys.executable, "-P", "-m", "uvicorn", "--factory", f"services.{kind}.main:create"]
        self.children[name] = WarmChild(
            [*command, "--host", HOST, "--port", str(self.ports[name])],
            log=self.folder / f"{name}.log",
            cwd=self.folder,
            env=common | self.certificate(name, authority) | settings,
        )

    async def until_ready(self) -> None:
        """Until all answer; by a client that asks each as those would who trust its own authority."""
        for name, child in self.children.items():
            authority = self.folder / ("other.pem" if name == "proxy-3" else "ca.pem")
            async with asyncio.timeout(READY_SECONDS), httpx.AsyncClient(verify=trust(authority)) as http:
                while not await _is_ready(http, self.url(name)):
                    assert child.running, last_lines(self.folder / f"{name}.log")
                    await asyncio.sleep(0.1)

    def stop(self) -> None:
        for child in self.children.values():
            child.kill_group()


async def _is_ready(http: httpx.AsyncClient, url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await http.get(f"{url}/readyz")).is_success
    return False


@contextlib.asynccontextmanager
async def https_services(folder: Path, fresh_database: FreshDatabases) -> AsyncIterator[HttpsServices]:
    """All of them, ready; they end with the block."""
    services = HttpsServices(folder)
    services.trusted.cert_pem.write_to_path(str(services.ca_file))
    services.other.cert_pem.write_to_path(str(folder / "other.pem"))
    proxies = {f"proxy-{number}": bytes([number]) * 32 for number in (1, 2, 3)}
    names = ("registry", "records", *proxies)
    services.ports = dict(zip(names, free_ports(len(names)), strict=True))
    dids = [
        did_from_key(bytes(SigningKey(Seed.from_bytes(seed).derive("identity/0", 32)).verify_key))
        for seed in proxies.values()
    ]
    log_key = b64url(bytes([7]) * 32)
    for name in names:
        services.databases[name] = await fresh_database(name.partition("-")[0])
    try:
        services.start(
            "registry",
            "registry",
            services.trusted,
            PCEHR_TOKEN_SIGNING_KEY=b64url(bytes([5]) * 32),
            PCEHR_LOG_SIGNING_KEY=b64url(bytes([6]) * 32),
            PCEHR_RECORDS_LOG=origin_of("records", SigningKey(bytes([7]) * 32).verify_key),
            PCEHR_PUBLIC_URL=services.url("registry"),
            PCEHR_RECORDS_URL=services.url("records"),
            PCEHR_ADMITTED_PROXIES=",".join(dids),
        )
        services.start(
            "records",
            "records",
            services.trusted,
            PCEHR_LOG_SIGNING_KEY=log_key,
            PCEHR_BLOB_DIR=str(folder / "blobs"),
        )
        for name, seed in proxies.items():
            services.start(
                name,
                "proxy",
                services.other if name == "proxy-3" else services.trusted,
                PCEHR_SEED=b64url(seed),
                PCEHR_ENDPOINT=services.url(name),
                PCEHR_NAME=name,
            )
        await services.until_ready()
        yield services
    finally:
        services.stop()
