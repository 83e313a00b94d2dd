"""The three services' settings and apps, as their composition roots make them."""

from __future__ import annotations

import pytest
from fastapi import FastAPI

from services.proxy import main as proxy
from services.proxy.settings import ProxySettings
from services.records import main as records
from services.records.settings import Settings as RecordsSettings
from services.registry import main as registry
from services.registry.settings import Settings as RegistrySettings
from shared.crypto.signing import SigningKey
from shared.did import did_from_key
from shared.encoding import b64url
from shared.transparency.checkpoints import origin_of
from shared.web.settings import ServiceSettings

SETTINGS: dict[str, type[ServiceSettings]] = {
    "registry": RegistrySettings,
    "records": RecordsSettings,
    "proxy": ProxySettings,
}
ADMITTED = [did_from_key(bytes([number]) * 32) for number in range(3)]
VALUES = {
    "pcehr_database_url": "postgresql://app:password@db-rw.pcehr:5432/app",
    "pcehr_token_signing_key": b64url(bytes(range(32))),
    "pcehr_log_signing_key": b64url(bytes(range(1, 33))),
    "pcehr_seed": b64url(bytes(range(32))),
    "pcehr_admitted_proxies": ",".join(ADMITTED),
    "pcehr_records_log": origin_of("records", SigningKey.from_bytes(bytes(range(1, 33))).verify_key),
}
"""What the secret files hold, each under its file's name."""


def app_of(service: str, patch: pytest.MonkeyPatch) -> FastAPI:
    """The app of a service; it is not started, so its database need not be there. Not by `create`, which would change
    how this whole process logs."""
    patch.delenv("PCEHR_SECRETS_DIR", raising=False)
    for name, text in VALUES.items():
        patch.setenv(name.upper(), text)
    patch.setenv("PCEHR_ENDPOINT", "https://proxy.example.org")
    if service == "registry":
        return registry.build(RegistrySettings())
    return records.build(RecordsSettings()) if service == "records" else proxy.build(ProxySettings())
