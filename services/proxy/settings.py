"""Settings of a proxy, from `PCEHR_…` in the environment or from files (see `shared.web.settings`)."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from shared import wire
from shared.crypto.derivation import SEED_SIZE
from shared.encoding import from_b64url
from shared.errors import Malformed
from shared.statements import Endpoint
from shared.web.settings import ServiceSettings


class ProxySettings(ServiceSettings):
    """Beside what all services have: the seed, and how others know and reach this proxy."""

    seed: SecretStr
    """32 bytes in base64url without padding. Whoever has it is this proxy and reads its shares; there is no default."""
    endpoint: Endpoint
    """The URL others reach this proxy at; it stands in the proxy's key-entry."""
    name: wire.Label | None = None
    """What people call this proxy."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes for re-encryption; as many as there are cores to spare for it."""

    @field_validator("seed")
    @classmethod
    def _seed_has_its_size(cls, seed: SecretStr) -> SecretStr:
        try:
            from_b64url(seed.get_secret_value(), SEED_SIZE)
        except Malformed:
            raise ValueError("the seed is 32 bytes in base64url without padding (43 characters)") from None
        return seed
