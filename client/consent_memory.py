"""The grants and revocations that this client has signed or seen, so that a records service cannot hide one from it.

A grant or a revocation of the owner's is remembered, and on disk, before it is sent anywhere. It grows with what
patients sign and with nothing a service does: every row has been verified.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from client.state_file import StateFile
from shared.statements import Grant, Revocation, Verified


@dataclass(frozen=True)
class RememberedGrant:
    """A grant as it was signed. `acknowledged`: the records service has said that it has it, or has shown it."""

    id: str
    patient: str
    token: str
    acknowledged: bool


@dataclass(frozen=True)
class RememberedRevocation:
    """When the patient ended a grant (seconds since the epoch, by the first revocation seen), and the newest one."""

    at: int
    token: str


class ConsentMemory:
    """What is new waits in memory until `write`, as part of the state's own transaction."""

    def __init__(self, file: StateFile) -> None:
        self._file = file
        self._grants: dict[str, RememberedGrant] = {}
        self._revocations: dict[str, RememberedRevocation] = {}

    def remember_grant(self, grant: Verified[Grant], *, acknowledged: bool) -> None:
        """Remember a grant; that the records service had it is never forgotten."""
        known = self.grant(grant.id)
        if known is None or (acknowledged and not known.acknowledged):
            self._grants[grant.id] = RememberedGrant(grant.id, grant.payload.iss, grant.token, acknowledged)

    def remember_revocation(self, revocation: Verified[Revocation]) -> None:
        """Remember that a grant has ended. The caller has checked that the grant's patient signed it."""
        grant_id, at = revocation.payload.grant, revocation.payload.iat
        known = self.revocation(grant_id)
        if known is None:
            self._revocations[grant_id] = RememberedRevocation(at, revocation.token)
        elif revocation.token != known.token:
            self._revocations[grant_id] = RememberedRevocation(min(at, known.at), revocation.token)

    def grant(self, grant_id: str) -> RememberedGrant | None:
        """One grant."""
        waiting = self._grants.get(grant_id)
        if waiting is not None:
            return waiting
        rows = self._file.rows("SELECT id, patient, token, acknowledged FROM grants WHERE id = ?", grant_id)
        return _grant(rows[0]) if rows else None

    def given_by(self, patient: str) -> list[RememberedGrant]:
        """All grants of this patient."""
        rows = self._file.rows("SELECT id, patient, token, acknowledged FROM grants WHERE patient = ?", patient)
        known = {row[0]: _grant(row) for row in rows}
        return list((known | {one.id: one for one in self._grants.values() if one.patient == patient}).values())

    def revocation(self, grant_id: str) -> RememberedRevocation | None:
        """The end of a grant, where it has one."""
        waiting = self._revocations.get(grant_id)
        if waiting is not None:
            return waiting
        rows = self._file.rows("SELECT at, token FROM revocations WHERE id = ?", grant_id)
        return RememberedRevocation(*rows[0]) if rows else None

    def ended(self) -> dict[str, int]:
        """When each grant that is known to have ended was revoked, by grant id."""
        known: dict[str, int] = dict(self._file.rows("SELECT id, at FROM revocations"))
        return known | {grant_id: one.at for grant_id, one in self._revocations.items()}

    @property
    def changed(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._grants or self._revocations)

    def write(self, file: sqlite3.Connection) -> None:
        """Add what is new to what other commands have written: nothing that one of them knows is lost."""
        file.executemany(
            "INSERT INTO grants VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET acknowledged = max(acknowledged, excluded.acknowledged)",
            [(one.id, one.patient, one.token, one.acknowledged) for one in self._grants.values()],
        )
        file.executemany(
            "INSERT INTO revocations VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET at = min(at, excluded.at), token = excluded.token",
            [(grant_id, one.at, one.token) for grant_id, one in self._revocations.items()],
        )

    def written(self) -> None:
        """What waited is on disk."""
        self._grants.clear()
        self._revocations.clear()


def _grant(row: tuple[str, str, str, int]) -> RememberedGrant:
    grant_id, patient, token, acknowledged = row
    return RememberedGrant(grant_id, patient, token, bool(acknowledged))
