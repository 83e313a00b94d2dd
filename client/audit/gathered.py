"""What was gathered for one audit: plain values, all of them verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from client.audit.chain import RECORDS, CheckedLog
from client.audit.story import Material, OwnGrant
from client.reports import Problem
from shared.identity import VerifiedParty
from shared.statements import Denial, DisclosureRequest, Verified


@dataclass(frozen=True)
class OwnRequest:
    """A disclosure request to the patient, and the denial where it was refused."""

    statement: Verified[DisclosureRequest]
    denial: Verified[Denial] | None = None


@dataclass(frozen=True)
class Gathered:
    """Everything that an audit, or an evidence file, is made of.

    A service whose log could not be had is in `away`; one whose log does not hold is in `broken`, and so is a client's
    refusal of its checkpoint. Neither is in `logs`. The keys of all three are `RECORDS` or a proxy's DID.
    """

    patient: VerifiedParty
    began: int
    now: int
    """When gathering began and ended, in seconds since the epoch."""
    logs: Mapping[str, CheckedLog]
    away: Mapping[str, Problem]
    broken: Mapping[str, Problem]
    grants: Mapping[str, OwnGrant]
    parties: Mapping[str, VerifiedParty]
    """Everybody who signed, or is named by, something in here, as far as the registry shows them."""
    witnesses: tuple[str, ...] = ()
    witness_faults: int = 0
    requests: tuple[OwnRequest, ...] = ()
    problems: tuple[Problem, ...] = ()
    """Statements that were shown and do not verify."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """What records are called, by the hash of a capsule, where the patient could open their headers."""
    scopes: Mapping[str, str] = field(default_factory=dict)
    """Names of scopes by their ids."""

    @property
    def material(self) -> Material:
        """What is compared (`client.audit.story`)."""
        return Material(
            patient=self.patient.did,
            began=self.began,
            now=self.now,
            records=self.logs.get(RECORDS),
            proxies={service: log for service, log in self.logs.items() if service != RECORDS},
            grants=self.grants,
        )

    def name_of(self, did: str) -> str | None:
        """What a party calls itself, by its own key-entry."""
        party = self.parties.get(did)
        return None if party is None else party.name
