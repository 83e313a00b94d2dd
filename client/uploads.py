"""Sealing records and sending them in batches; what patients and authors have in common."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from client.errors import UnexpectedAnswer
from client.records import NewRecord, Placement, SealedRecord, seal_record
from client.reports import StoredRecord
from client.session import Session
from shared.crypto.record import body_ciphertext_size
from shared.crypto.signing import SigningKey
from shared.errors import PcehrError
from shared.schemas.records import MAX_BATCH, MAX_INLINE_BODY

Progress = Callable[[int, int], None]
Batch = Sequence[tuple[NewRecord, Placement]]

MAX_BATCH_BYTES = 3 * 1024 * 1024
"""Bytes of ciphertext inside one batch, so that its JSON stays well below what the records service accepts."""


async def upload(
    session: Session,
    planned: Sequence[tuple[NewRecord, Placement]],
    *,
    on_stored: Callable[[list[StoredRecord]], None],
) -> None:
    """Seal and store records batch by batch, in order; `on_stored` hears of each batch that was acknowledged. While one
    is on its way the next one is sealed.

    Within a batch the same sealed records are sent again when no answer comes, which has no second effect. A refusal
    ends the upload; batches reported before stay stored.
    """
    who = await session.credentials()
    key = session.keyring.identity(await session.seq())

    def seal(batch: Batch) -> tuple[TemporaryDirectory[str], list[SealedRecord]]:
        folder = TemporaryDirectory(prefix="pcehr-")
        try:
            return folder, _seal_all(batch, session.did, key, session.clock(), Path(folder.name))
        except BaseException:
            folder.cleanup()
            raise

    async with contextlib.aclosing(_ahead(seal, _batches(planned))) as batches:
        async for sealed in batches:
            for record in sealed:
                if record.blob is not None:
                    await session.platform.put_blob(who, record.manifest.body, record.blob)
            accepted = await session.platform.add_records(who, [record.upload for record in sealed])
            if [answer.id for answer in accepted] != [record.manifest_id for record in sealed]:
                raise UnexpectedAnswer("The records service acknowledged other records than the ones sent.")
            on_stored([_stored(record) for record in sealed])


async def _ahead(
    seal: Callable[[Batch], tuple[TemporaryDirectory[str], list[SealedRecord]]], batches: Sequence[Batch]
) -> AsyncGenerator[list[SealedRecord], None]:
    """Each batch sealed, with a folder for its large ciphertexts until it has been dealt with; the next one is sealed
    meanwhile, and no more than that one, so that memory and disk hold two."""
    coming: asyncio.Task[tuple[TemporaryDirectory[str], list[SealedRecord]]] | None = None
    try:
        for batch, following in zip(batches, [*batches[1:], None], strict=True):
            folder, sealed = await (coming or asyncio.to_thread(seal, batch))
            coming = None if following is None else asyncio.create_task(asyncio.to_thread(seal, following))
            with folder:
                yield sealed
    finally:
        if coming is not None:
            with contextlib.suppress(PcehrError):
                (await coming)[0].cleanup()


def _seal_all(batch: Batch, author: str, key: SigningKey, now: int, folder: Path) -> list[SealedRecord]:
    return [
        seal_record(record, placement, author=author, key=key, now=now, folder=folder) for record, placement in batch
    ]


def _batches(planned: Sequence[tuple[NewRecord, Placement]]) -> list[list[tuple[NewRecord, Placement]]]:
    batches: list[list[tuple[NewRecord, Placement]]] = []
    size = 0
    for record, placement in planned:
        ciphertext = body_ciphertext_size(record.length)
        inline = ciphertext if ciphertext <= MAX_INLINE_BODY else 0
        if not batches or len(batches[-1]) == MAX_BATCH or size + inline > MAX_BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append((record, placement))
        size += inline
    return batches


def _stored(record: SealedRecord) -> StoredRecord:
    return StoredRecord(
        record_id=record.manifest.record,
        version=record.manifest.version,
        scope=record.scope,
        epoch=record.manifest.epoch,
        manifest_id=record.manifest_id,
    )
