"""What a run of the fuzzer knows, written down for the process that calls the services."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shared.wire import Role
from tests.services.signing_parties import TestParty

SEEDS = {"patient": 7_000_001, "recipient": 7_000_002, "proxy": 7_000_003, "second": 7_000_004}
"""Of the parties; known to all, and far from the seeds that other tests count up."""
ROTATING = range(7_000_100, 7_000_120)
"""Seeds of patients whose keys may change."""


@dataclass(frozen=True)
class Known:
    """What statements and requests can be about, besides the parties themselves."""

    service: str
    speaker: str
    """Whose access token the run has: a key of `SEEDS`."""
    chains: dict[str, list[str]]
    """Key-entries of the parties, by name."""
    rotating: list[list[str]]
    """Key-entries of the patients whose keys may change, in the order of their seeds."""
    now: int
    token_endpoint: str
    record: str
    body_hash: str
    capsule: str
    capsule_hash: str
    grant: str
    """The id of a grant of the patient's to the recipient over that record, to read, append and amend."""
    requests: list[str]
    """Ids of requests of the recipient's that wait for an answer."""
    leaf: str
    """A leaf of the service's log."""
    submission: str
    """What a witness would cosign."""

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), "utf-8")


class Stage:
    """The same with the parties' keys."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.patient, self.recipient, self.proxy, self.second = (
            _party(role, seed, known.chains[name])
            for (name, seed), role in zip(
                SEEDS.items(), (Role.PATIENT, Role.RECIPIENT, Role.PROXY, Role.PROXY), strict=True
            )
        )
        self.rotating = [
            _party(Role.PATIENT, seed, entries) for seed, entries in zip(ROTATING, known.rotating, strict=False)
        ]

    @classmethod
    def load(cls, path: Path) -> Stage:
        data: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return cls(Known(**data))

    def request(self) -> str:
        """The id of a request that waits, each in turn."""
        self.known.requests.append(self.known.requests.pop(0))
        return self.known.requests[-1]

    def next_to_rotate(self) -> TestParty:
        """A patient whose keys may change, each in turn."""
        self.rotating.append(self.rotating.pop(0))
        return self.rotating[-1]

    @property
    def speaker(self) -> TestParty:
        party: TestParty = getattr(self, self.known.speaker)
        return party


def _party(role: Role, seed: int, entries: list[str]) -> TestParty:
    party = TestParty(role, seed=seed)
    party.entries[:] = entries
    return party
