"""Bodies too large for the database: uploading and fetching them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.records.blobs import BlobStore
from services.records.quotas import UPLOADS
from services.records.repository import Store
from shared.clock import Clock
from shared.db.log import NewEvent
from shared.encoding import from_b64url
from shared.errors import Malformed, NotFound
from shared.schemas.records import BlobStored
from shared.tokens import Caller
from shared.wire import MAX_CAPSULES

EVENT = "body_read"


@dataclass(frozen=True)
class Body:
    """A body on its way out: its size in bytes, and its bytes."""

    size: int
    chunks: AsyncIterator[bytes]


class Bodies:
    def __init__(self, store: Store, blobs: BlobStore, clock: Clock, *, max_bytes: int) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._max_bytes = max_bytes
        self._on_the_way: Counter[str] = Counter()

    async def put(self, caller: Caller, sha256: str, length: int | None, chunks: AsyncIterator[bytes]) -> BlobStored:
        """Store a body durably under its hash; raises `BlobMismatch` or, without a byte, `Malformed`, and then nothing
        is left of it, or `QuotaExceeded` before any of it is read.

        Everybody has to send the bytes, also those of a body that is there already: knowing a hash is no claim to a
        body. One whose `length` in bytes is not said counts as the largest that may be sent.
        """
        async with self._room_for(caller.did, self._max_bytes if length is None else length):
            size = await self._blobs.put(sha256, _not_empty(chunks))
            async with self._store.transaction() as repository:
                if await repository.writing.add_blob(caller.did, sha256, size, self._clock()):
                    await repository.quotas.change({(caller.did, UPLOADS): size})
        return BlobStored(sha256=sha256, size=size)

    async def get(self, caller: Caller, sha256: str) -> Body:
        """A body that the caller has uploaded, or of a record that is its own, that it wrote, or that has been
        disclosed to it; raises `NotFound` otherwise.

        The patients concerned are told in their logs, of a refusal too where they have ever given the caller a grant.
        """
        now = self._clock()
        async with self._store.transaction() as repository:
            found = await repository.reading.body_for(caller.did, sha256, now)
            if found is None:
                concerned = await repository.reading.granters_of_body(caller.did, sha256)
                events = [NewEvent(one, now, EVENT, NotFound.code, actor=caller.did) for one in concerned]
            else:
                events = [
                    NewEvent(patient, now, EVENT, actor=caller.did, capsules=capsules[:MAX_CAPSULES])
                    for patient, capsules in found.capsules.items()
                    if patient != caller.did
                ]
            await repository.journal.log(events)
        if found is None:
            raise NotFound
        if found.inline is not None:
            return Body(size=found.size, chunks=_once(from_b64url(found.inline)))
        return Body(size=found.size, chunks=await self._blobs.get(sha256))

    @asynccontextmanager
    async def _room_for(self, owner: str, length: int) -> AsyncIterator[None]:
        """Room for a body of `length` bytes beside those that are stored and those on their way to this replica.

        Checked again when the body is stored. Only with replicas at it together can it be too late by then, and what
        has been stored in vain stays in the blob store.
        """
        self._on_the_way[owner] += length
        try:
            async with self._store.transaction() as repository:
                await repository.quotas.check(owner, UPLOADS, self._on_the_way[owner])
            yield
        finally:
            self._on_the_way[owner] -= length
            self._on_the_way += Counter()


async def _not_empty(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    empty = True
    async for chunk in chunks:
        empty = empty and not chunk
        yield chunk
    if empty:
        raise Malformed("The body is empty; a ciphertext never is.")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
