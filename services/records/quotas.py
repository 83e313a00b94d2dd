"""What the records service keeps for one party at the most."""

from __future__ import annotations

from dataclasses import dataclass

from shared.db.quotas import Bound

VERSIONS = "versions"
BYTES = "bytes"
UPLOADS = "uploads"
REQUESTS = "requests"
GRANTS = "grants"


@dataclass(frozen=True)
class Limits:
    """Of each kind for one party; a patient's own are what everybody has written about it."""

    versions: int
    bytes: int
    uploads: int
    requests: int
    grants: int

    @property
    def bounds(self) -> dict[str, Bound]:
        return {
            VERSIONS: Bound(self.versions, "versions of one patient's records"),
            BYTES: Bound(self.bytes, "bytes of one patient's records"),
            UPLOADS: Bound(self.uploads, "bytes that one party has uploaded and put into no record yet"),
            REQUESTS: Bound(self.requests, "requests of one recipient that wait for an answer"),
            GRANTS: Bound(self.grants, "grants of one patient that have not ended; revoke some that are not needed"),
        }
