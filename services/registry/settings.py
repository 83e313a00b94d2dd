"""Settings of the registry, beside the common ones: `PCEHR_<NAME>`, or a secret file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from shared import wire
from shared.crypto.signing import SigningKey
from shared.did import key_from_did
from shared.encoding import from_b64url
from shared.errors import PcehrError
from shared.transparency.checkpoints import key_of_origin
from shared.web.rates import Rate
from shared.web.settings import ServiceSettings


class Settings(ServiceSettings):
    """The registry's environment. The two signing keys are the only secrets besides the database's URL."""

    token_signing_key: SecretStr
    """Seed of the Ed25519 key that access tokens are signed with: 32 bytes in base64url."""
    log_signing_key: SecretStr
    """Seed of the Ed25519 key that the checkpoints of the log are signed with, and that names the log: 32 bytes in
    base64url. A log with another key is another log, which no client and no witness takes for this one."""
    records_log: str = Field(max_length=200)
    """The origin of the records service's log, as clients and witnesses are told it."""
    witness_faults: int = Field(default=0, ge=0, le=wire.MAX_SHARES)
    """How many witnesses may lie before a client could be shown a log that others are not; clients may assume more."""
    public_url: str = Field(default="http://127.0.0.1:8400", max_length=200, pattern=r"^https?://[^\s?#]+$")
    """Where clients reach this registry; also `iss` of access tokens unless `token_issuer` is set."""
    records_url: str = Field(default="http://127.0.0.1:8401", max_length=200, pattern=r"^https?://[^\s?#]+$")
    """Where clients reach the records service; only told to them, never asked."""
    threshold: int = Field(default=2, ge=1, le=wire.MAX_SHARES)
    """The threshold that clients use unless told otherwise."""
    sign_ups_per_hour: int = Field(default=1_000, ge=1, le=10**6)
    """Parties that may sign up from one address, at once or within an hour."""
    max_scope_keys_per_patient: int = Field(default=10_000, ge=1, le=10**9)
    """Scope-keys that one patient may publish: one for each scope and epoch."""
    admitted_proxies: Annotated[frozenset[str], NoDecode] = frozenset()
    """DIDs of the proxies that may register, with commas between them."""

    @property
    def issuer(self) -> str:
        return self.token_issuer or self.public_url

    @property
    def rates(self) -> dict[str, Any]:
        return super().rates | {"sign_ups": Rate(self.sign_ups_per_hour / 3600, self.sign_ups_per_hour)}

    @property
    def signing_key(self) -> SigningKey:
        return SigningKey.from_bytes(from_b64url(self.token_signing_key.get_secret_value(), 32))

    @property
    def log_key(self) -> SigningKey:
        return SigningKey.from_bytes(from_b64url(self.log_signing_key.get_secret_value(), 32))

    @field_validator("public_url", "records_url", "registry_url")
    @classmethod
    def _without_trailing_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @field_validator("token_signing_key", "log_signing_key")
    @classmethod
    def _is_a_seed(cls, value: SecretStr) -> SecretStr:
        try:
            from_b64url(value.get_secret_value(), 32)
        except PcehrError:
            raise ValueError("a signing key is 32 bytes in base64url without padding") from None
        return value

    @field_validator("records_log")
    @classmethod
    def _is_an_origin(cls, value: str) -> str:
        try:
            kind, _ = key_of_origin(value)
        except PcehrError:
            kind = None
        if kind != "records":
            raise ValueError("the records service's log is named by its origin, pcehr/records/z6Mk…")
        return value

    @field_validator("admitted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return frozenset(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("admitted_proxies")
    @classmethod
    def _are_dids(cls, value: frozenset[str]) -> frozenset[str]:
        try:
            for did in value:
                key_from_did(did)
        except PcehrError:
            raise ValueError("an admitted proxy is named by its did:key") from None
        return value
