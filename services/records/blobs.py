"""Where bodies too large for the database live, each under the SHA-256 of its bytes.

Whoever implements `BlobStore` acknowledges a body only when it would survive a power cut, hashes it while it streams,
and leaves nothing behind of a body that does not have its hash or does not come to its end.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from services.records.errors import BlobMismatch
from shared.encoding import b64url
from shared.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from obstore import BytesStream  # The package names this type in its stubs only.

READ_BYTES = 1024 * 1024
PART_BYTES = 5 * 1024 * 1024
"""The least size of a part of a multipart upload that S3 takes; also what is held in memory for each upload."""
_INCOMING = "incoming"
ABANDONED_AFTER = 86_400
"""Seconds since the last byte of an upload after which nobody is sending it any more."""


class BlobStoreUnavailable(Unavailable):
    """The code is that of any part that is away; which one is no client's business."""

    title = "Large bodies cannot be stored or fetched at the moment. Nothing was acknowledged; try again."


class BlobStore(Protocol):
    async def put(self, sha256: str, chunks: AsyncIterator[bytes]) -> int:
        """Store a body durably and return its size in bytes.

        Raises `BlobMismatch`, `BlobStoreUnavailable`, or what `chunks` raises.
        """

    async def get(self, sha256: str) -> AsyncIterator[bytes]:
        """The bytes of a body; raises `NotFound` before the first one, or `BlobStoreUnavailable`."""

    async def sweep(self, before: float) -> None:
        """Remove uploads that never came to their end and were last written to before this time (seconds since the
        epoch); raises `BlobStoreUnavailable`."""


def open_store(folder: Path, url: str | None) -> BlobStore:
    """The folder, or the object store at `url` where there is one. Raises ValueError for a URL of no known kind."""
    if url is None:
        return FolderBlobs(folder)
    try:
        return ObjectBlobs(from_url(url))
    except BaseError:
        # The URL may hold a password and is therefore not shown.
        raise ValueError("the object store's URL is not of a kind that is known") from None


class FolderBlobs:
    """A local folder. obstore's own local store never calls fsync, which a health record is worth waiting for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, sha256: str, chunks: AsyncIterator[bytes]) -> int:
        place = self._place(sha256)
        temporary = self._folder / _INCOMING / secrets.token_hex(16)
        try:
            file = await asyncio.to_thread(_create, temporary)
            try:
                size, digest = 0, hashlib.sha256()
                async for chunk in chunks:
                    size += len(chunk)
                    await asyncio.to_thread(_write, file, chunk, digest)
                if b64url(digest.digest()) != sha256:
                    raise BlobMismatch
                await asyncio.to_thread(_finish, file, temporary, place)
            finally:
                await asyncio.to_thread(_discard, file, temporary)
        except OSError:
            raise BlobStoreUnavailable from None
        return size

    async def get(self, sha256: str) -> AsyncIterator[bytes]:
        try:
            file = await asyncio.to_thread(self._place(sha256).open, "rb")
        except FileNotFoundError:
            raise NotFound from None
        except OSError:
            raise BlobStoreUnavailable from None
        return _read(file)

    async def sweep(self, before: float) -> None:
        try:
            await asyncio.to_thread(_remove_older, self._folder / _INCOMING, before)
        except OSError:
            raise BlobStoreUnavailable from None

    def _place(self, sha256: str) -> Path:
        # Two characters, 4096 folders: no folder gets too large to list.
        return self._folder / sha256[:2] / sha256


class ObjectBlobs:
    """An object store, such as S3, which acknowledges only what is durable. Uploads go to a name of their own and are
    moved under their hash when it turns out to be theirs."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def put(self, sha256: str, chunks: AsyncIterator[bytes]) -> int:
        temporary = f"{_INCOMING}/{secrets.token_hex(16)}"
        size, digest = 0, hashlib.sha256()

        try:
            writer = obstore.open_writer_async(self._store, temporary, buffer_size=PART_BYTES)
            # Leaving the block completes an upload even after an error, so what arrived is deleted below.
            try:
                async with writer:
                    async for chunk in chunks:
                        size += len(chunk)
                        digest.update(chunk)
                        await writer.write(chunk)
                if b64url(digest.digest()) != sha256:
                    raise BlobMismatch
                await obstore.rename_async(self._store, temporary, self._place(sha256))
            except BaseException:
                await self._discard(temporary)
                raise
        except (BaseError, OSError):
            raise BlobStoreUnavailable from None
        return size

    async def get(self, sha256: str) -> AsyncIterator[bytes]:
        try:
            found = await obstore.get_async(self._store, self._place(sha256))
        except FileNotFoundError:
            raise NotFound from None
        except BaseError:
            raise BlobStoreUnavailable from None
        return _bytes_of(found.stream(READ_BYTES))

    async def sweep(self, before: float) -> None:
        try:
            async for found in obstore.list(self._store, _INCOMING):
                for upload in found:
                    if upload["last_modified"].timestamp() < before:
                        await self._discard(upload["path"])
        except (BaseError, OSError):
            raise BlobStoreUnavailable from None

    async def _discard(self, temporary: str) -> None:
        try:
            await obstore.delete_async(self._store, temporary)
        except FileNotFoundError:
            return

    @staticmethod
    def _place(sha256: str) -> str:
        return f"{sha256[:2]}/{sha256}"


def _create(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb")


def _write(file: IO[bytes], chunk: bytes, digest: hashlib._Hash) -> None:
    digest.update(chunk)
    file.write(chunk)


def _finish(file: IO[bytes], temporary: Path, place: Path) -> None:
    """Make the file and its name durable: first the bytes, then the name, then the folders that hold the name."""
    file.flush()
    os.fsync(file.fileno())
    place.parent.mkdir(exist_ok=True)
    temporary.replace(place)
    for folder in (place.parent, place.parent.parent):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove_older(folder: Path, before: float) -> None:
    for path in folder.glob("*"):
        try:
            if path.stat().st_mtime < before:
                path.unlink()
        except FileNotFoundError:
            # Its upload has come to an end, or another replica has just removed it.
            continue


def _discard(file: IO[bytes], temporary: Path) -> None:
    file.close()
    temporary.unlink(missing_ok=True)


async def _read(file: IO[bytes]) -> AsyncIterator[bytes]:
    try:
        while chunk := await asyncio.to_thread(file.read, READ_BYTES):
            yield chunk
    finally:
        file.close()


async def _bytes_of(stream: BytesStream) -> AsyncIterator[bytes]:
    async for chunk in stream:
        yield bytes(chunk)
