"""Settings of the records service; each is `PCEHR_<NAME>` in the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from services.records.quotas import Limits
from shared.crypto.signing import SigningKey
from shared.encoding import from_b64url
from shared.errors import PcehrError
from shared.web.settings import ServiceSettings


class Settings(ServiceSettings):
    """What every service has (`shared.web.settings`) and where large bodies and patience with proxies are set."""

    log_signing_key: SecretStr
    """Seed of the Ed25519 key that the checkpoints of the log are signed with, and that names the log: 32 bytes in
    base64url. The registry's setting `records_log` is the name that follows from it."""
    blob_dir: Path = Path("blobs")
    """Folder for bodies too large for the database, unless `blob_url` is set."""
    blob_url: str | None = Field(default=None, max_length=500)
    """An object store instead of the folder, such as `s3://bucket/prefix`; credentials as that store's own tools
    read them from the environment."""
    max_blob_bytes: int = Field(default=256 * 2**20, ge=1, le=2**40)
    """Bytes; the largest body that may be uploaded."""
    max_versions_per_patient: int = Field(default=1_000_000, ge=1, le=10**12)
    """Versions of records about one patient, whoever wrote them."""
    max_bytes_per_patient: int = Field(default=100 * 2**30, ge=1, le=2**60)
    """Bytes of the bodies of these, encrypted."""
    max_upload_bytes_per_party: int = Field(default=10 * 2**30, ge=1, le=2**60)
    """Bytes of bodies that one party has uploaded and that are in no record yet."""
    max_open_requests_per_recipient: int = Field(default=10_000, ge=1, le=10**9)
    """Disclosure requests of one recipient that wait for an answer, of all patients together."""
    max_live_grants_per_patient: int = Field(default=1_000, ge=1, le=10**9)
    """Grants of one patient that are neither revoked nor over."""
    hedge_seconds: float = Field(default=0.25, gt=0, le=60)
    """After so long without an answer, one more proxy is asked."""
    proxy_timeout_seconds: float = Field(default=5.0, gt=0, le=120)
    """After so long a proxy counts as failed."""
    outbox_enabled: bool = True
    """Whether this replica delivers to the proxies; at least one must."""
    outbox_poll_seconds: float = Field(default=1.0, gt=0, le=60)
    """How often due deliveries are looked for when nothing says that there is one."""
    outbox_first_backoff_seconds: float = Field(default=0.5, gt=0, le=60)
    outbox_max_backoff_seconds: float = Field(default=60.0, gt=0, le=3600)

    @property
    def limits(self) -> Limits:
        return Limits(
            versions=self.max_versions_per_patient,
            bytes=self.max_bytes_per_patient,
            uploads=self.max_upload_bytes_per_party,
            requests=self.max_open_requests_per_recipient,
            grants=self.max_live_grants_per_patient,
        )

    @property
    def log_key(self) -> SigningKey:
        return SigningKey.from_bytes(from_b64url(self.log_signing_key.get_secret_value(), 32))

    @field_validator("log_signing_key")
    @classmethod
    def _is_a_seed(cls, value: SecretStr) -> SecretStr:
        try:
            from_b64url(value.get_secret_value(), 32)
        except PcehrError:
            raise ValueError("a signing key is 32 bytes in base64url without padding") from None
        return value
