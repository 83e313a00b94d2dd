"""The file behind a profile's state: a small SQLite database (https://sqlite.org/fileformat2.html).

A patient may have a million records, and several commands may run at once. SQLite reads and writes single rows, locks
the file while it writes, and leaves it whole when the machine stops in between; a file that is read and written as
one piece does none of that. The file is for its owner's eyes only (mode 0600) and has one layout, `LAYOUT`.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from client.errors import StateDamaged
from client.files import write_atomically

LAYOUT = 2
"""`user_version` of the file; 1 was a JSON file."""

_APPLICATION = 0x50434548
"""`application_id`, so that no other program's database is taken for a state."""

_LOCK_SECONDS = 30.0
"""How long one command waits for another that is writing; writing takes milliseconds."""

_ERRNO = {
    sqlite3.SQLITE_BUSY: errno.EAGAIN,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_READONLY: errno.EROFS,
}
"""What the operating system would call it, by the primary result code of SQLite."""

_TABLES = """
CREATE TABLE profile (
    place INTEGER PRIMARY KEY CHECK (place = 1), role TEXT, registry_url TEXT, display_name TEXT
);
CREATE TABLE records (
    patient TEXT NOT NULL, record TEXT NOT NULL, version INTEGER NOT NULL CHECK (version >= 1), manifest TEXT NOT NULL,
    PRIMARY KEY (patient, record)
) WITHOUT ROWID;
CREATE TABLE chains (
    did TEXT PRIMARY KEY, seq INTEGER NOT NULL CHECK (seq >= 0), entry TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE parties (did TEXT PRIMARY KEY, seq INTEGER NOT NULL, entries TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE epochs (
    patient TEXT NOT NULL, scope TEXT NOT NULL, epoch INTEGER NOT NULL CHECK (epoch >= 0),
    PRIMARY KEY (patient, scope)
) WITHOUT ROWID;
CREATE TABLE grants (
    id TEXT PRIMARY KEY, patient TEXT NOT NULL, token TEXT NOT NULL, acknowledged INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE revocations (id TEXT PRIMARY KEY, at INTEGER NOT NULL, token TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE proxies (place INTEGER PRIMARY KEY, did TEXT NOT NULL UNIQUE);
CREATE TABLE contacts (alias TEXT PRIMARY KEY, did TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE logs (
    service TEXT PRIMARY KEY, origin TEXT NOT NULL, size INTEGER NOT NULL CHECK (size >= 0), note TEXT
) WITHOUT ROWID;
CREATE TABLE witnesses (did TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE witness_faults (place INTEGER PRIMARY KEY CHECK (place = 1), faults INTEGER NOT NULL);
CREATE TABLE proven (leaf BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE watched (origin TEXT PRIMARY KEY, frontier BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE watched_labels (label BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE ends (
    service TEXT NOT NULL, subject TEXT NOT NULL, n INTEGER NOT NULL CHECK (n >= 1), commitment TEXT NOT NULL,
    PRIMARY KEY (service, subject)
) WITHOUT ROWID;
"""


class StateFile:
    """The database of one profile, or one in memory where there is no path. The file is made by the first write."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._finalizer: weakref.finalize[[], StateFile] | None = None
        if path is None:
            connection = _connect(":memory:")
            self._keep(connection)
            _lay_out(connection)

    def rows(self, query: str, *values: Any) -> list[Any]:
        """What a query finds; nothing while there is no file. Raises `StateDamaged`."""
        with self._whole():
            connection = self._open()
            return [] if connection is None else connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone on the file from its beginning, on disk when the block ends without an exception."""
        with self._whole():
            if self.path is not None and not self.path.exists():
                _make(self.path)
            connection = self._open()
            assert connection is not None
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # Where there was no room SQLite has undone it already (https://sqlite.org/lang_transaction.html).
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        if self.path is not None:
            # Nothing stays open between commands that write: a profile can be moved or taken away.
            self.close()

    def check(self) -> None:
        """Open the file, if there is one; raises `StateDamaged` for anything but a state of this layout."""
        with self._whole():
            self._open()

    def close(self) -> None:
        """Let go of the file; the next look opens it again."""
        if self._finalizer is not None and self.path is not None:
            self._finalizer()
            self._connection = self._finalizer = None

    def _open(self) -> sqlite3.Connection | None:
        if self._connection is None and self.path is not None and self.path.exists():
            connection = _connect(f"{self.path.resolve().as_uri()}?mode=rw")
            try:
                _check_layout(connection, self.path)
            except BaseException:
                connection.close()
                raise
            self._keep(connection)
        return self._connection

    def _keep(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._finalizer = weakref.finalize(self, connection.close)

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            # Python's own complaint, of text that is no UTF-8, is an OperationalError too, and has no code.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
                # Locked for too long, no room, no permission: the file itself is as it was.
                raise OSError(_ERRNO.get(code & 0xFF, errno.EIO), str(error), str(self.path)) from None
            raise StateDamaged(f"{self.path} is not a state file of this version.") from None


def _connect(place: str) -> sqlite3.Connection:
    # Reading happens in worker threads too; SQLite takes one call at a time.
    return sqlite3.connect(
        place, uri=place.startswith("file:"), timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
    )


def _check_layout(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (layout,) = connection.execute("PRAGMA user_version").fetchone()
    if (application, layout) != (_APPLICATION, LAYOUT):
        raise StateDamaged(f"{path} is not a state file of this version.")


def _lay_out(connection: sqlite3.Connection) -> None:
    connection.executescript(
        f"BEGIN; {_TABLES} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {LAYOUT}; COMMIT;"
    )


def _make(path: Path) -> None:
    """An empty state, whole from its first moment on; one that appears at the same time is left alone."""
    with contextlib.closing(_connect(":memory:")) as connection:
        _lay_out(connection)
        empty = connection.serialize()
    with contextlib.suppress(FileExistsError):
        write_atomically(path, empty, replace=False)
