"""What a profile remembers that is not secret.

The high-water marks are what makes going back visible: of every record the newest version seen, of every other party
the end of its chain of keys, of every scope the newest epoch. A service that shows less than that is refused. The
file is JSON with a version, mode 0600, replaced atomically; a missing file is an empty state, a damaged one an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError

from client.errors import KeyChainRolledBack, RecordRolledBack, ScopeKeyRolledBack, StateDamaged
from client.files import write_atomically
from shared import wire
from shared.encoding import canonical_json, from_canonical_json
from shared.errors import Malformed
from shared.identity import VerifiedParty
from shared.statements import Manifest, Verified
from shared.wire import Role, WireModel

_MAX_FILE = 256 * 1024 * 1024


class SeenRecord(WireModel):
    """The newest version of a record seen so far, and the id of its manifest."""

    version: Annotated[int, Field(ge=1)]
    manifest: wire.Hash


class SeenChain(WireModel):
    """The newest key-entry of another party seen so far."""

    seq: Annotated[int, Field(ge=0)]
    entry: wire.Hash


class _Contents(WireModel):
    """The file."""

    v: Literal[1]
    role: Role | None = None
    registry_url: str | None = None
    display_name: str | None = None
    records: dict[str, SeenRecord] = Field(default_factory=dict)
    chains: dict[wire.Did, SeenChain] = Field(default_factory=dict)
    epochs: dict[wire.ScopeId, wire.Epoch] = Field(default_factory=dict)
    proxies: list[wire.Did] = Field(default_factory=list, max_length=wire.MAX_SHARES)
    contacts: dict[str, wire.Did] = Field(default_factory=dict)


class ClientState:
    """The state of one profile. Change the members and `save`; without a path it lives in memory only."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.role: Role | None = None
        self.registry_url: str | None = None
        self.display_name: str | None = None
        self.records: dict[str, SeenRecord] = {}
        self.chains: dict[str, SeenChain] = {}
        self.epochs: dict[str, int] = {}
        self.proxies: list[str] = []
        """DIDs of the pinned proxies: shares go to these and to no others."""
        self.contacts: dict[str, str] = {}
        """DIDs by the alias that the owner gave."""
        self._changed = False

    @classmethod
    def load(cls, path: Path) -> Self:
        """The state in this file; an empty one if there is no file. Raises `StateDamaged`."""
        state = cls(path)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return state
        try:
            if len(data) > _MAX_FILE:
                raise StateDamaged
            from_canonical_json(data.removesuffix(b"\n"))
            contents = _Contents.model_validate_json(data)
        except (Malformed, ValidationError):
            raise StateDamaged(f"{path} is not a state file of this version.") from None
        state.role = contents.role
        state.registry_url = contents.registry_url
        state.display_name = contents.display_name
        state.records, state.chains, state.epochs = contents.records, contents.chains, contents.epochs
        state.proxies, state.contacts = contents.proxies, contents.contacts
        return state

    def save(self) -> None:
        """Write the file, if there is one."""
        if self.path is not None:
            contents = _Contents(
                v=1,
                role=self.role,
                registry_url=self.registry_url,
                display_name=self.display_name,
                records=self.records,
                chains=self.chains,
                epochs=self.epochs,
                proxies=self.proxies,
                contacts=self.contacts,
            )
            write_atomically(self.path, canonical_json(contents.model_dump(mode="json")) + b"\n")
        self._changed = False

    def save_if_changed(self) -> None:
        """Write the file if a high-water mark has risen since the last time."""
        if self._changed:
            self.save()

    def note_chain(self, party: VerifiedParty) -> None:
        """Remember the end of a party's chain; raises `KeyChainRolledBack` if it does not extend what was seen."""
        seen = self.chains.get(party.did)
        if seen is not None:
            entries = party.entries
            if len(entries) <= seen.seq or entries[seen.seq].id != seen.entry:
                raise KeyChainRolledBack
            if len(entries) == seen.seq + 1:
                return
        self.chains[party.did] = SeenChain(seq=party.current.payload.seq, entry=party.current.id)
        self._changed = True

    def note_record(self, manifest: Verified[Manifest]) -> None:
        """Remember the newest version of a record; raises `RecordRolledBack` for an earlier or a different one.

        A record is known by patient and id, so that one patient's records cannot stand in the way of another's.
        """
        payload = manifest.payload
        key = f"{payload.aud} {payload.record}"
        seen = self.records.get(key)
        if seen is not None:
            if payload.version < seen.version:
                raise RecordRolledBack
            if payload.version == seen.version:
                if manifest.id != seen.manifest:
                    raise RecordRolledBack("Another text for a version of the record already seen was presented.")
                return
            if payload.version == seen.version + 1 and payload.prev != seen.manifest:
                raise RecordRolledBack("The new version of the record does not follow the version already seen.")
        self.records[key] = SeenRecord(version=payload.version, manifest=manifest.id)
        self._changed = True

    def has_seen_record(self, patient: str, record_id: str) -> bool:
        """Whether any version of this patient's record has been seen."""
        return f"{patient} {record_id}" in self.records

    def note_epoch(self, scope_id: str, epoch: int) -> None:
        """Remember a scope's newest epoch; raises `ScopeKeyRolledBack` for an earlier one."""
        seen = self.epochs.get(scope_id)
        if seen is not None and epoch < seen:
            raise ScopeKeyRolledBack
        if seen != epoch:
            self.epochs[scope_id] = epoch
            self._changed = True

    def contact(self, name_or_did: str) -> str:
        """The DID behind an alias; anything that is no alias is returned as it is."""
        return self.contacts.get(name_or_did, name_or_did)
