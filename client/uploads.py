"""Sealing records and sending them in batches; what patients and authors have in common."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from client.errors import UnexpectedAnswer
from client.records import NewRecord, Placement, SealedRecord, seal_record
from client.reports import StoredRecord
from client.session import Session
from shared.crypto.record import body_ciphertext_size
from shared.crypto.signing import SigningKey
from shared.schemas.records import MAX_BATCH, MAX_INLINE_BODY

Progress = Callable[[int, int], None]

MAX_BATCH_BYTES = 3 * 1024 * 1024
"""Bytes of ciphertext inside one batch, so that its JSON stays well below what the records service accepts."""


async def upload(
    session: Session,
    planned: Sequence[tuple[NewRecord, Placement]],
    *,
    on_stored: Callable[[list[StoredRecord]], None],
) -> None:
    """Seal and store records batch by batch, in order; `on_stored` hears of each batch that was acknowledged.

    Within a batch the same sealed records are sent again when no answer comes, which has no second effect. A refusal
    ends the upload; batches reported before stay stored.
    """
    who = await session.credentials()
    key = session.keyring.identity(await session.seq())
    for batch in _batches(planned):
        with tempfile.TemporaryDirectory(prefix="pcehr-") as folder:
            sealed = await asyncio.to_thread(_seal_all, batch, session.did, key, session.clock(), Path(folder))
            for record in sealed:
                if record.blob is not None:
                    await session.platform.put_blob(who, record.manifest.body, record.blob)
            accepted = await session.platform.add_records(who, [record.upload for record in sealed])
        if [answer.id for answer in accepted] != [record.manifest_id for record in sealed]:
            raise UnexpectedAnswer("The records service acknowledged other records than the ones sent.")
        on_stored([_stored(record) for record in sealed])


def _seal_all(
    batch: Sequence[tuple[NewRecord, Placement]], author: str, key: SigningKey, now: int, folder: Path
) -> list[SealedRecord]:
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
