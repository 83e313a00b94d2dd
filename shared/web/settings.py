"""Settings that every service has, read from the environment (12-factor) and from files for secrets.

Each is `PCEHR_<NAME>` in the environment, or a file of that name (in lower case: `pcehr_database_url`) in the
folder `PCEHR_SECRETS_DIR`. A secret has no default.
"""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Self

import httpx
from pydantic import AliasChoices, Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from shared.tls import is_private
from shared.web.logs import LogFormat, LogLevel
from shared.web.rates import ADDRESS, PARTY, Network, Rate

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class SettingsUnreadable(ValueError):
    """The place where settings should be is not there."""


class LogSettings(BaseSettings):
    """How to log; read before everything else, so that what is wrong with the rest can be said."""

    model_config = SettingsConfigDict(env_prefix="PCEHR_", extra="ignore", hide_input_in_errors=True)

    log_format: LogFormat | None = None
    """`json` or `text`; unless set, text on a terminal and JSON everywhere else."""
    log_level: LogLevel = "info"
    """`debug`, `info`, `warning` or `error`."""


class ServiceSettings(LogSettings):
    """Common to registry, records and proxy."""

    database_url: SecretStr = Field(validation_alias=AliasChoices("PCEHR_DATABASE_URL", "DATABASE_URL"))
    """Postgres URL of this service's own database and role."""
    database_pool_size: int = Field(default=10, ge=1, le=200)
    registry_url: str = Field(default="http://127.0.0.1:8400", max_length=200)
    """Where the registry is reached from this service."""
    token_issuer: str | None = None
    """`iss` of access tokens; the registry's address unless set."""
    party_cache_seconds: int = Field(default=30, ge=0, le=3600)
    """How long a verified chain of keys is used before the registry is asked again; a rotation takes effect within."""
    http_timeout_seconds: float = Field(default=10.0, gt=0, le=120)
    tls_ca_file: FilePath | None = None
    """Certificates, in PEM, of those who issue the certificates of the other services; unless set, public ones."""
    require_https: bool = False
    """Whether other services are asked by https alone, but for those on this machine."""
    party_rate: float = Field(default=PARTY.per_second, gt=0, le=1e6)
    """Requests a second that one party may make in the long run, to each replica."""
    party_burst: int = Field(default=PARTY.burst, ge=1, le=10**6)
    """Requests that one party may make at once."""
    address_rate: float = Field(default=ADDRESS.per_second, gt=0, le=1e6)
    """Requests a second from one address that no party answers for; those that are refused count ten times."""
    address_burst: int = Field(default=ADDRESS.burst, ge=1, le=10**6)
    unlimited_addresses: Annotated[tuple[Network, ...], NoDecode] = Field(default=LOOPBACK)
    """Addresses and networks, with commas between them, that no rate by address concerns: the platform's own services.
    Unless set, this machine's own."""
    forwarded_by: Annotated[tuple[Network, ...], NoDecode] = ()
    """Addresses and networks of the reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."""

    @property
    def issuer(self) -> str:
        return self.token_issuer or self.registry_url

    @property
    def rates(self) -> dict[str, Any]:
        """What `shared.web.rates.RequestRates` is made with."""
        return {
            "party": Rate(self.party_rate, self.party_burst),
            "address": Rate(self.address_rate, self.address_burst),
            "unlimited": self.unlimited_addresses,
        }

    @property
    def peers(self) -> dict[str, Any]:
        """What `shared.web.tracing.service_client` is made with."""
        return {"ca_file": self.tls_ca_file, "require_https": self.require_https}

    @model_validator(mode="after")
    def _registry_by_https(self) -> Self:
        if self.require_https and not is_private(httpx.URL(self.registry_url)):
            raise ValueError("PCEHR_REQUIRE_HTTPS is set, and PCEHR_REGISTRY_URL begins with http://")
        return self

    @field_validator("unlimited_addresses", "forwarded_by", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        except ValueError:
            raise ValueError("networks are written as 10.0.0.0/8 or fd00::/8, addresses as they are") from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Constructor arguments, then the environment, then secret files where a folder for them is named."""
        sources: list[Any] = [init_settings, env_settings]
        folder = os.environ.get("PCEHR_SECRETS_DIR")
        if folder is not None:
            if not Path(folder).is_dir():
                raise SettingsUnreadable("PCEHR_SECRETS_DIR names a folder that does not exist.")
            sources.append(SecretsSettingsSource(settings_cls, secrets_dir=folder))
        return tuple(sources)
