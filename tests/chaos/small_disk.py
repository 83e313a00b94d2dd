"""A file system of a few megabytes that can be filled to its last byte, or be made read-only. Needs root on Linux."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A tmpfs of `megabytes` mounted at `place`, which is made."""

    def __init__(self, place: Path, megabytes: int) -> None:
        self.place = place
        self._ballast = place / "ballast"
        place.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0711", "tmpfs", str(place))

    def unmount(self) -> None:
        # Whoever still has a file open there, such as a server that is on its way out, does not hold it up.
        _run("umount", "--lazy", str(self.place))

    @contextmanager
    def full(self, *, but: int = 0) -> Iterator[None]:
        """No room is left within the block, but so many bytes."""
        with self._ballast.open("wb") as file:
            found = os.statvfs(self.place)
            os.posix_fallocate(file.fileno(), 0, max(1, found.f_bavail * found.f_frsize - but))
        try:
            yield
        finally:
            self._ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing can be written within the block, not even by root. No file may be open for writing."""
        _run("mount", "-o", "remount,ro", str(self.place))
        try:
            yield
        finally:
            _run("mount", "-o", "remount,rw", str(self.place))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(
            f"`{' '.join(command)}` was refused: {done.stderr.strip()}. These tests need a disk of their own that they"
            " can fill up: run them as root, in a container with CAP_SYS_ADMIN."
        )
