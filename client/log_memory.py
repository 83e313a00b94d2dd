"""What a profile remembers of the services' logs: which logs they are, and the newest state of each it has accepted.

Written at once, since it rises only when something has been verified against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from client.state_file import StateFile
from shared.transparency.checkpoints import VerifiedCheckpoint

REGISTRY = "registry"
RECORDS = "records"
"""The names that these two logs are kept under; that of a proxy is kept under its DID."""

_MANY = 500
"""Values in one query."""


@dataclass(frozen=True)
class KnownLog:
    """A log that has been pinned. `note` is the newest checkpoint accepted, whole; None before the first."""

    origin: str
    size: int
    note: str | None


class LogMemory:
    """Rows of the state's file; see `client.logs`, which decides what is written."""

    def __init__(self, file: StateFile) -> None:
        self._file = file

    def log(self, service: str) -> KnownLog | None:
        """The log pinned for `registry`, `records` or a proxy's DID."""
        rows = self._file.rows("SELECT origin, size, note FROM logs WHERE service = ?", service)
        return KnownLog(*rows[0]) if rows else None

    def pin(self, service: str, origin: str) -> KnownLog:
        """Pin a log, unless one is pinned for this service already; the one that is pinned then."""
        with self._file.writing() as file:
            file.execute("INSERT INTO logs VALUES (?, ?, 0, NULL) ON CONFLICT DO NOTHING", (service, origin))
        known = self.log(service)
        assert known is not None
        return known

    def accept(self, service: str, known: KnownLog, checkpoint: VerifiedCheckpoint) -> bool:
        """Remember a checkpoint that has been accepted because it extends `known`, in the place of that one.

        False if another command has accepted one in between: nobody has proven then that the two agree.
        """
        with self._file.writing() as file:
            done = file.execute(
                "UPDATE logs SET size = ?, note = ? WHERE service = ? AND origin = ? AND note IS ?",
                (checkpoint.size, checkpoint.format(), service, known.origin, known.note),
            )
            return done.rowcount == 1

    def proven(self, leaves: Sequence[bytes]) -> set[bytes]:
        """Those of these leaves that have been proven to be in the registry's log."""
        found: set[bytes] = set()
        for start in range(0, len(leaves), _MANY):
            some = leaves[start : start + _MANY]
            # Nothing but question marks comes in between.
            query = f"SELECT leaf FROM proven WHERE leaf IN ({', '.join('?' * len(some))})"  # noqa: S608
            found |= {leaf for (leaf,) in self._file.rows(query, *some)}
        return found

    def has_proven(self, leaves: Sequence[bytes]) -> None:
        """Remember that these leaves are in the registry's log, which only grows."""
        with self._file.writing() as file:
            file.executemany("INSERT INTO proven VALUES (?) ON CONFLICT DO NOTHING", [(leaf,) for leaf in leaves])

    @property
    def witnesses(self) -> list[str]:
        """DIDs of the proxies taken for witnesses where none have been pinned for shares."""
        return [did for (did,) in self._file.rows("SELECT did FROM witnesses ORDER BY did")]

    def pin_witnesses(self, dids: Sequence[str]) -> list[str]:
        """Take these proxies for witnesses, unless there are some already; those that are taken then."""
        with self._file.writing() as file:
            if not file.execute("SELECT 1 FROM witnesses").fetchone():
                file.executemany("INSERT INTO witnesses VALUES (?)", [(did,) for did in dict.fromkeys(dids)])
        return self.witnesses

    def witness_faults(self, said: int) -> int:
        """How many witnesses may lie: what was said first, so that nobody talks it down later, or so far up that no
        checkpoint is ever accepted again."""
        rows = self._file.rows("SELECT faults FROM witness_faults")
        if not rows:
            with self._file.writing() as file:
                file.execute("INSERT INTO witness_faults VALUES (1, ?) ON CONFLICT DO NOTHING", (said,))
            rows = self._file.rows("SELECT faults FROM witness_faults")
        faults: int = rows[0][0]
        return faults

    def watched(self, origin: str, labels: Iterable[bytes]) -> bytes | None:
        """How far this log has been read for all of these labels, as `shared.transparency.merkle.Frontier` writes
        itself down; None where one of them was not looked for."""
        rows = self._file.rows("SELECT frontier FROM watched WHERE origin = ?", origin)
        known = {label for (label,) in self._file.rows("SELECT label FROM watched_labels")}
        return rows[0][0] if rows and known.issuperset(labels) else None

    def has_watched(self, origin: str, frontier: bytes, labels: Iterable[bytes]) -> None:
        """Remember how far it has been read, and for which labels."""
        with self._file.writing() as file:
            file.execute("INSERT OR REPLACE INTO watched VALUES (?, ?)", (origin, frontier))
            file.execute("DELETE FROM watched_labels")
            file.executemany("INSERT INTO watched_labels VALUES (?)", [(label,) for label in set(labels)])

    def end(self, service: str, subject: str) -> tuple[int, str] | None:
        """Number and commitment of the last event seen of a subject's in a service's log."""
        rows = self._file.rows("SELECT n, commitment FROM ends WHERE service = ? AND subject = ?", service, subject)
        return (rows[0][0], rows[0][1]) if rows else None

    def has_read(self, service: str, subject: str, n: int, commitment: str) -> None:
        """Remember the last event seen; a later one, of another command, stays."""
        with self._file.writing() as file:
            file.execute(
                "INSERT INTO ends VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = excluded.n,"
                " commitment = excluded.commitment WHERE excluded.n > n",
                (service, subject, n, commitment),
            )
