"""What a profile remembers that is not secret.

The high-water marks are what makes going back visible: of every record the newest version seen, of every other party
the end of its chain of keys, of every patient's scope the newest epoch. A service that shows less than that is
refused. What has been granted and ended is in `consents` (`client.consent_memory`), the state of the services' logs in
`logs` (`client.log_memory`).

Marks that have risen are in memory until they are saved. Saving merges them with what other commands of the same
profile have written meanwhile: the higher mark stays.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from client.consent_memory import ConsentMemory
from client.errors import KeyChainRolledBack, RecordRolledBack, ScopeKeyRolledBack, StateDamaged
from client.log_memory import LogMemory
from client.state_file import StateFile
from shared.identity import VerifiedParty
from shared.statements import Manifest, Verified
from shared.wire import Role

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class SeenRecord:
    """The newest version of a record seen so far, and the id of its manifest."""

    version: int
    manifest: str


@dataclass(frozen=True)
class SeenChain:
    """The newest key-entry of another party seen so far."""

    seq: int
    entry: str


class ClientState:
    """The state of one profile. `save` writes its members; without a path it lives in memory only."""

    def __init__(self, path: Path | None = None) -> None:
        self._file = StateFile(path)
        self.path = path
        self.role: Role | None = None
        self.registry_url: str | None = None
        self.display_name: str | None = None
        self.contacts: dict[str, str] = {}
        """DIDs by the alias that the owner gave."""
        self.consents = ConsentMemory(self._file)
        self.logs = LogMemory(self._file)
        self._records: dict[tuple[str, str], SeenRecord] = {}
        self._chains: dict[str, SeenChain] = {}
        self._epochs: dict[tuple[str, str], int] = {}
        self._parties: dict[str, VerifiedParty] = {}

    @classmethod
    def load(cls, path: Path) -> Self:
        """The state in this file; an empty one if there is no file. Raises `StateDamaged`."""
        state = cls(path)
        state._file.check()
        for role, *rest in state._file.rows("SELECT role, registry_url, display_name FROM profile"):
            try:
                state.role = None if role is None else Role(role)
            except ValueError:
                raise StateDamaged(f"{path} is not a state file of this version.") from None
            state.registry_url, state.display_name = rest
        state.contacts = dict(state._file.rows("SELECT alias, did FROM contacts"))
        return state

    def save(self) -> None:
        """Write role, registry, name and contacts as they are here, and the marks that have risen."""
        profile = (self.role.value if self.role else None, self.registry_url, self.display_name)
        with self._file.writing() as file:
            file.execute("INSERT OR REPLACE INTO profile VALUES (1, ?, ?, ?)", profile)
            file.executemany("INSERT OR REPLACE INTO contacts VALUES (?, ?)", self.contacts.items())
        self.save_if_changed()

    def save_if_changed(self) -> None:
        """Write the marks that have risen since the last time, where the file does not have higher ones already."""
        records, chains, epochs = dict(self._records), dict(self._chains), dict(self._epochs)
        parties = dict(self._parties)
        if not (records or chains or epochs or parties or self.consents.changed):
            return
        with self._file.writing() as file:
            file.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET version = excluded.version,"
                " manifest = excluded.manifest WHERE excluded.version > version",
                [(*key, seen.version, seen.manifest) for key, seen in records.items()],
            )
            file.executemany(
                "INSERT INTO chains VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET seq = excluded.seq,"
                " entry = excluded.entry WHERE excluded.seq > seq",
                [(did, seen.seq, seen.entry) for did, seen in chains.items()],
            )
            file.executemany(
                "INSERT INTO epochs VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET epoch = max(epoch, excluded.epoch)",
                [(*key, epoch) for key, epoch in epochs.items()],
            )
            file.executemany(
                "INSERT INTO parties VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET seq = excluded.seq,"
                " entries = excluded.entries WHERE excluded.seq > seq",
                [(did, party.current.payload.seq, " ".join(party.tokens)) for did, party in parties.items()],
            )
            self.consents.write(file)
        _drop(self._records, records)
        _drop(self._chains, chains)
        _drop(self._epochs, epochs)
        _drop(self._parties, parties)
        self.consents.written()

    # --- parties ----------------------------------------------------------------------------------------------

    def check_chain(self, party: VerifiedParty) -> None:
        """Raise `KeyChainRolledBack` if a party's chain does not extend what was seen of it."""
        seen = self._seen_chain(party.did)
        if seen is not None and (len(party.entries) <= seen.seq or party.entries[seen.seq].id != seen.entry):
            raise KeyChainRolledBack

    def note_chain(self, party: VerifiedParty) -> None:
        """Remember the end of a party's chain; raises `KeyChainRolledBack` if it does not extend what was seen."""
        self.check_chain(party)
        seen = self._seen_chain(party.did)
        if seen is not None and len(party.entries) == seen.seq + 1:
            return
        self._chains[party.did] = SeenChain(seq=party.current.payload.seq, entry=party.current.id)

    def keep_party(self, party: VerifiedParty) -> None:
        """Keep the whole chain of a party that has to do with a grant, for ending it without the registry."""
        rows = self._file.rows("SELECT seq FROM parties WHERE did = ?", party.did)
        if not any(seq >= party.current.payload.seq for (seq,) in rows):
            self._parties[party.did] = party

    def kept_party(self, did: str) -> list[str] | None:
        """The chain of a party as it was last kept; whoever uses it verifies it."""
        waiting = self._parties.get(did)
        rows = self._file.rows("SELECT entries FROM parties WHERE did = ?", did)
        found: list[str] | None = rows[0][0].split(" ") if rows else None
        return waiting.tokens if waiting is not None else found

    def known_parties(self) -> set[str]:
        """DIDs of all parties that this profile has had to do with: contacts, and everybody whose keys it has used."""
        seen = {did for (did,) in self._file.rows("SELECT did FROM chains UNION SELECT did FROM parties")}
        return seen | set(self._chains) | set(self._parties) | set(self.contacts.values()) | set(self.proxies)

    def known_scopes(self) -> set[tuple[str, str]]:
        """Patient and id of all scopes of which a key has been seen."""
        return {(patient, scope) for patient, scope in self._file.rows("SELECT patient, scope FROM epochs")} | set(
            self._epochs
        )

    @property
    def proxies(self) -> list[str]:
        """DIDs of the pinned proxies: shares go to these and to no others."""
        return [did for (did,) in self._file.rows("SELECT did FROM proxies ORDER BY place")]

    def pin(self, dids: Sequence[str], *, first: bool = False) -> list[str]:
        """Pin these proxies in the place of all others, and write that at once; the proxies that are pinned then.

        With `first`, those that another command has pinned meanwhile stay.
        """
        with self._file.writing() as file:
            if not (first and file.execute("SELECT 1 FROM proxies").fetchone()):
                file.execute("DELETE FROM proxies")
                file.executemany("INSERT INTO proxies (did) VALUES (?)", [(did,) for did in dict.fromkeys(dids)])
        return self.proxies

    def contact(self, name_or_did: str) -> str:
        """The DID behind an alias; anything that is no alias is returned as it is."""
        return self.contacts.get(name_or_did, name_or_did)

    def forget_contact(self, alias: str) -> None:
        """Take an alias away, and write that at once; one that is not there is no error."""
        with self._file.writing() as file:
            file.execute("DELETE FROM contacts WHERE alias = ?", (alias,))
        self.contacts.pop(alias, None)

    # --- records ----------------------------------------------------------------------------------------------

    def note_record(self, manifest: Verified[Manifest]) -> None:
        """Remember the newest version of a record; raises `RecordRolledBack` for an earlier or a different one.

        A record is known by patient and id, so that one patient's records cannot stand in the way of another's.
        """
        payload = manifest.payload
        seen = self._seen_record(payload.aud, payload.record)
        if seen is not None:
            if payload.version < seen.version:
                raise RecordRolledBack
            if payload.version == seen.version:
                if manifest.id != seen.manifest:
                    raise RecordRolledBack("Another text for a version of the record already seen was presented.")
                return
            if payload.version == seen.version + 1 and payload.prev != seen.manifest:
                raise RecordRolledBack("The new version of the record does not follow the version already seen.")
        self._records[payload.aud, payload.record] = SeenRecord(version=payload.version, manifest=manifest.id)

    def has_seen(self, manifest: Verified[Manifest]) -> bool:
        """Whether exactly this version is the newest one seen of its record."""
        payload = manifest.payload
        return self._seen_record(payload.aud, payload.record) == SeenRecord(payload.version, manifest.id)

    def has_seen_record(self, patient: str, record_id: str) -> bool:
        """Whether any version of this patient's record has been seen."""
        return self._seen_record(patient, record_id) is not None

    # --- epochs -----------------------------------------------------------------------------------------------

    def note_epoch(self, patient: str, scope_id: str, epoch: int) -> None:
        """Remember the newest epoch of a patient's scope; raises `ScopeKeyRolledBack` for an earlier one.

        A scope is known by patient and id: ids are claims, and one patient's must not stand in the way of another's.
        """
        seen = self.epoch(patient, scope_id)
        if seen is not None and epoch < seen:
            raise ScopeKeyRolledBack
        self.raise_epoch(patient, scope_id, epoch)

    def raise_epoch(self, patient: str, scope_id: str, epoch: int) -> None:
        """Remember that this patient has signed something of this epoch, whatever newer ones have been seen."""
        seen = self.epoch(patient, scope_id)
        if seen is None or epoch > seen:
            self._epochs[patient, scope_id] = epoch

    def epoch(self, patient: str, scope_id: str) -> int | None:
        """The newest epoch seen of a patient's scope."""
        waiting = self._epochs.get((patient, scope_id))
        found = self._file.rows("SELECT epoch FROM epochs WHERE patient = ? AND scope = ?", patient, scope_id)
        return max((*((waiting,) if waiting is not None else ()), *(epoch for (epoch,) in found)), default=None)

    def epochs_of(self, patient: str) -> dict[str, int]:
        """The newest epoch seen of each of a patient's scopes, by scope id."""
        seen: dict[str, int] = dict(self._file.rows("SELECT scope, epoch FROM epochs WHERE patient = ?", patient))
        for (whose, scope_id), epoch in self._epochs.items():
            if whose == patient:
                seen[scope_id] = max(epoch, seen.get(scope_id, 0))
        return seen

    # --- how --------------------------------------------------------------------------------------------------

    def _seen_record(self, patient: str, record_id: str) -> SeenRecord | None:
        found = self._file.rows(
            "SELECT version, manifest FROM records WHERE patient = ? AND record = ?", patient, record_id
        )
        return _higher(self._records.get((patient, record_id)), [SeenRecord(*row) for row in found], _version)

    def _seen_chain(self, did: str) -> SeenChain | None:
        found = self._file.rows("SELECT seq, entry FROM chains WHERE did = ?", did)
        return _higher(self._chains.get(did), [SeenChain(*row) for row in found], _seq)


def _higher(waiting: V | None, found: Sequence[V], mark: Callable[[V], int]) -> V | None:
    """What waits to be saved, or what the file has if another command was as far or further."""
    return max((*found, *((waiting,) if waiting is not None else ())), key=mark, default=None)


def _version(seen: SeenRecord) -> int:
    return seen.version


def _seq(seen: SeenChain) -> int:
    return seen.seq


def _drop(waiting: dict[K, V], saved: Mapping[K, V]) -> None:
    """Take out what has been saved, unless it has risen once more meanwhile."""
    for key, value in saved.items():
        if waiting.get(key) == value:
            waiting.pop(key, None)
