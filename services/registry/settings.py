"""Settings of the registry, beside the common ones: `PCEHR_<NAME>`, or a secret file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from shared import wire
from shared.crypto.signing import SigningKey
from shared.did import key_from_did
from shared.encoding import from_b64url
from shared.errors import PcehrError
from shared.web.settings import ServiceSettings


class Settings(ServiceSettings):
    """The registry's environment. The signing key is the only secret besides the database's URL."""

    token_signing_key: SecretStr
    """Seed of the Ed25519 key that access tokens are signed with: 32 bytes in base64url."""
    public_url: str = Field(default="http://127.0.0.1:8400", max_length=200, pattern=r"^https?://[^\s?#]+$")
    """Where clients reach this registry; also `iss` of access tokens unless `token_issuer` is set."""
    records_url: str = Field(default="http://127.0.0.1:8401", max_length=200, pattern=r"^https?://[^\s?#]+$")
    """Where clients reach the records service; only told to them, never asked."""
    threshold: int = Field(default=2, ge=1, le=wire.MAX_SHARES)
    """The threshold that clients use unless told otherwise."""
    admitted_proxies: Annotated[frozenset[str], NoDecode] = frozenset()
    """DIDs of the proxies that may register, with commas between them."""

    @property
    def issuer(self) -> str:
        return self.token_issuer or self.public_url

    @property
    def signing_key(self) -> SigningKey:
        return SigningKey.from_bytes(from_b64url(self.token_signing_key.get_secret_value(), 32))

    @field_validator("public_url", "records_url", "registry_url")
    @classmethod
    def _without_trailing_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @field_validator("token_signing_key")
    @classmethod
    def _is_a_seed(cls, value: SecretStr) -> SecretStr:
        try:
            from_b64url(value.get_secret_value(), 32)
        except PcehrError:
            raise ValueError("the token signing key is not 32 bytes in base64url without padding") from None
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
