"""Writing a file so that it is either the old one or the new one, whole, and for its owner's eyes only."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

OWNER_ONLY = 0o600


@contextlib.contextmanager
def atomic_file(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` only when the block ends without an exception.

    It is written beside its place with mode 0600, flushed to disk, moved, and its folder flushed. With
    `replace=False` an existing file is left alone and `FileExistsError` raised, also when it appears at the same time.
    """
    # Not from the name of the file, which may be as long as the file system allows.
    temporary = path.parent / f".pcehr-{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            # A hard link, unlike a rename, fails where there is a file already.
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(path.parent)


def write_atomically(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a small file in one piece; see `atomic_file`."""
    with atomic_file(path, replace=replace) as file:
        file.write(data)


def is_exposed(path: Path) -> bool:
    """Whether anybody but the owner may read or write the file."""
    return os.name == "posix" and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
