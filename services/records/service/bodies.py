"""Bodies too large for the database: uploading and fetching them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.records.blobs import BlobStore
from services.records.repository import Store
from shared.clock import Clock
from shared.db.log import NewEvent
from shared.encoding import from_b64url
from shared.errors import NotFound
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
    def __init__(self, store: Store, blobs: BlobStore, clock: Clock) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock

    async def put(self, caller: Caller, sha256: str, chunks: AsyncIterator[bytes]) -> BlobStored:
        """Store a body durably under its hash; raises `BlobMismatch`, and then nothing is left of it.

        Everybody has to send the bytes, also those of a body that is there already: knowing a hash is no claim to a
        body.
        """
        size = await self._blobs.put(sha256, chunks)
        async with self._store.transaction() as repository:
            await repository.writing.add_blob(caller.did, sha256, size, self._clock())
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


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
