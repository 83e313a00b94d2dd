"""Settings of a proxy, from `PCEHR_…` in the environment or from files (see `shared.web.settings`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from shared import wire
from shared.crypto.derivation import SEED_SIZE
from shared.encoding import from_b64url
from shared.errors import Malformed, PcehrError
from shared.statements import Endpoint
from shared.transparency.checkpoints import key_of_origin
from shared.web.settings import ServiceSettings


class ProxySettings(ServiceSettings):
    """Beside what all services have: the seed, and how others know and reach this proxy."""

    seed: SecretStr
    """32 bytes in base64url without padding. Whoever has it is this proxy and reads its shares; there is no default."""
    endpoint: Endpoint
    """The URL others reach this proxy at; it stands in the proxy's key-entry."""
    name: wire.Label | None = None
    """What people call this proxy."""
    witnessed_logs: Annotated[frozenset[str], NoDecode] = frozenset()
    """Origins of the logs to witness, with commas between them; unless set, those that the registry named first."""
    max_shares_per_patient: int = Field(default=2_000, ge=1, le=10**9)
    """Grants of one patient of which this proxy holds a share that is neither erased nor long over."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes for re-encryption; as many as there are cores to spare for it."""

    @field_validator("witnessed_logs", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return frozenset(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("witnessed_logs")
    @classmethod
    def _are_origins(cls, value: frozenset[str]) -> frozenset[str]:
        try:
            kinds = [key_of_origin(origin)[0] for origin in value]
        except PcehrError:
            raise ValueError("a log is named by its origin, pcehr/<kind>/z6Mk…") from None
        if len(set(kinds)) != len(kinds):
            raise ValueError("there is one log of each kind")
        return value

    @field_validator("seed")
    @classmethod
    def _seed_has_its_size(cls, seed: SecretStr) -> SecretStr:
        try:
            from_b64url(seed.get_secret_value(), SEED_SIZE)
        except Malformed:
            raise ValueError("the seed is 32 bytes in base64url without padding (43 characters)") from None
        return seed
