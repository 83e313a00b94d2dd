"""Large bodies: durable before they are acknowledged, hashed while they stream, and seen only by whom they concern."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from obstore.store import MemoryStore

from services.records.blobs import ABANDONED_AFTER, BlobStoreUnavailable, FolderBlobs, ObjectBlobs, open_store
from services.records.errors import BlobMismatch
from shared.encoding import b64url, sha256
from shared.errors import NotFound
from shared.wire import Action, Role
from tests.services.records.world import PATIENCE, World, refused
from tests.services.signing_parties import SealedRecord

BODY = os.urandom(3_000_000)
HASH = b64url(sha256(BODY))


async def chunks(data: bytes = BODY, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def broken() -> AsyncIterator[bytes]:
    yield BODY[:1000]
    raise ConnectionAbortedError


async def whole(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in stream])


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture(params=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return FolderBlobs(tmp_path / "blobs") if request.param == "folder" else ObjectBlobs(MemoryStore())


async def test_what_is_put_comes_back(blobs: Any) -> None:
    assert await blobs.put(HASH, chunks()) == len(BODY)
    assert await whole(await blobs.get(HASH)) == BODY
    # Putting it again is no mistake.
    assert await blobs.put(HASH, chunks()) == len(BODY)


async def test_an_empty_body(blobs: Any) -> None:
    empty = b64url(sha256(b""))
    assert await blobs.put(empty, chunks(b"")) == 0
    assert await whole(await blobs.get(empty)) == b""


async def test_blob_mismatch_leaves_nothing(blobs: Any, tmp_path: Path) -> None:
    with pytest.raises(BlobMismatch):
        await blobs.put(HASH, chunks(BODY + b"x"))
    with pytest.raises(NotFound):
        await blobs.get(HASH)
    assert files(tmp_path) == []
    if isinstance(blobs, ObjectBlobs):
        assert [item for batch in blobs._store.list() for item in batch] == []


async def test_an_upload_that_breaks_off_leaves_nothing(blobs: Any, tmp_path: Path) -> None:
    with pytest.raises((ConnectionAbortedError, BlobStoreUnavailable)):
        await blobs.put(HASH, broken())
    assert files(tmp_path) == []
    if isinstance(blobs, ObjectBlobs):
        assert [item for batch in blobs._store.list() for item in batch] == []


async def test_a_mismatch_does_not_harm_what_is_there(blobs: Any) -> None:
    await blobs.put(HASH, chunks())
    with pytest.raises(BlobMismatch):
        await blobs.put(HASH, chunks(b"something else"))
    assert await whole(await blobs.get(HASH)) == BODY


async def test_the_same_body_put_at_once(blobs: Any) -> None:
    assert await asyncio.gather(*(blobs.put(HASH, chunks()) for _ in range(4))) == [len(BODY)] * 4
    assert await whole(await blobs.get(HASH)) == BODY


async def test_the_folder_is_synced_before_the_body_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes before they get their name, and every folder that holds the name after."""
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(descriptor: int) -> None:
        order.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def noting_replace(path: Path, target: Path) -> Path:
        order.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    await FolderBlobs(tmp_path / "blobs").put(HASH, chunks())
    temporary, renamed, *folders = order
    assert temporary.startswith("sync ")
    assert renamed == "rename"
    assert folders == [f"sync {HASH[:2]}", "sync blobs"]


async def test_unavailable_when_the_folder_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(BlobStoreUnavailable):
        await FolderBlobs(tmp_path / "file").put(HASH, chunks())


async def test_unavailable_to_the_caller_too(idle_world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    async with idle_world.running(blob_dir=tmp_path / "file") as world:
        refused(await world.put(f"/v1/blobs/{HASH}", world.patient, BODY), 503, "unavailable")


def test_the_setting_chooses_the_store(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path, None), FolderBlobs)
    assert isinstance(open_store(tmp_path, "memory:///"), ObjectBlobs)
    assert isinstance(open_store(tmp_path, "s3://bucket/prefix"), ObjectBlobs)
    with pytest.raises(ValueError, match="kind") as caught:
        open_store(tmp_path, "nothing-known://secret@bucket")
    assert "secret" not in str(caught.value)


# Over HTTP


async def put(world: World, party: Any, body: bytes = BODY, name: str = HASH) -> httpx.Response:
    return await world.put(f"/v1/blobs/{name}", party, body)


async def imaging(world: World, author: Any, **details: Any) -> SealedRecord:
    """A record with a large body, uploaded and written."""
    record = author.record(world.patient, "imaging", os.urandom(200_000), **details)
    assert (await put(world, author, record.body, b64url(sha256(record.body)))).status_code == 201
    response = await world.post("/v1/records", author, {"records": [record.as_json(inline=False)]})
    assert response.status_code == 201, response.text
    return record


async def fetch(world: World, party: Any, record: SealedRecord) -> httpx.Response:
    return await world.get(f"/v1/blobs/{b64url(sha256(record.body))}", party)


async def test_whoever_uploaded_a_body_gets_it_back(world: World) -> None:
    response = await put(world, world.doctor)
    assert response.status_code == 201
    assert response.json() == {"sha256": HASH, "size": len(BODY)}
    fetched = await world.get(f"/v1/blobs/{HASH}", world.doctor)
    assert fetched.content == BODY
    assert fetched.headers["content-type"] == "application/octet-stream"
    assert fetched.headers["content-length"] == str(len(BODY))
    refused(await world.get(f"/v1/blobs/{HASH}", world.patient), 404, "not_found")


async def test_blob_mismatch(world: World) -> None:
    refused(await put(world, world.doctor, BODY[:-1]), 422, "blob_mismatch")
    refused(await world.get(f"/v1/blobs/{HASH}", world.doctor), 404, "not_found")
    assert files(world.blob_dir) == []


async def test_too_large(idle_world: World) -> None:
    async with idle_world.running(max_blob_bytes=1_000_000) as world:
        refused(await put(world, world.doctor), 413, "too_large")

        async def without_length() -> AsyncIterator[bytes]:
            async for chunk in chunks():
                yield chunk

        refused(await world.put(f"/v1/blobs/{HASH}", world.doctor, without_length()), 413, "too_large")
        assert files(world.blob_dir) == []


async def test_malformed_for_what_is_no_hash(world: World) -> None:
    refused(await put(world, world.doctor, name="..%2f..%2fetc%2fpasswd"), 404, "no_such_route")
    refused(await put(world, world.doctor, name="x" * 43), 400, "malformed")
    refused(await put(world, world.doctor, name="x" * 44), 422, "invalid_request")


async def test_a_body_is_seen_by_whom_its_record_was_disclosed_to(world: World) -> None:
    record, another = await imaging(world, world.patient), await imaging(world, world.patient)
    assert (await fetch(world, world.patient, record)).content == record.body
    refused(await fetch(world, world.doctor, record), 404, "not_found")
    grant = await world.granted(["imaging"])
    # The grant alone is not enough: what nobody has written down as disclosed nobody gets.
    refused(await fetch(world, world.doctor, record), 404, "not_found")
    assert (await world.disclose(world.wanting(grant, record))).status_code == 200
    assert (await fetch(world, world.doctor, record)).content == record.body
    refused(await fetch(world, world.doctor, another), 404, "not_found")
    await world.revoke(grant.id)
    refused(await fetch(world, world.doctor, record), 404, "not_found")
    refused(await fetch(world, world.registry.party(Role.RECIPIENT), record), 404, "not_found")


async def test_a_disclosure_under_another_grant_that_has_ended_shows_no_body(world: World) -> None:
    record = await imaging(world, world.patient)
    first, second = await world.granted(["imaging"]), await world.granted(["imaging"])
    assert (await world.disclose(world.wanting(first, record))).status_code == 200
    await world.revoke(first.id)
    refused(await fetch(world, world.doctor, record), 404, "not_found")
    assert (await world.disclose(world.wanting(second, record))).status_code == 200
    assert (await fetch(world, world.doctor, record)).content == record.body


async def test_the_author_fetches_the_body_that_it_wrote(world: World) -> None:
    grant = await world.may_write(Action.APPEND)
    record = world.doctor.record(world.patient, "allergies", grant=grant.id)
    await world.write(world.doctor, record)
    assert (await fetch(world, world.doctor, record)).content == record.body
    await world.revoke(grant.id)
    refused(await fetch(world, world.doctor, record), 404, "not_found")


@pytest.mark.parametrize("kind", ["folder", "bucket"])
async def test_abandoned_uploads_are_removed_when_the_service_starts(
    idle_world: World, tmp_path: Path, kind: str
) -> None:
    root = tmp_path / "bucket" if kind == "bucket" else idle_world.blob_dir
    incoming = root / "incoming"
    incoming.mkdir(parents=True)
    for name, age in (("abandoned", ABANDONED_AFTER + 60), ("going-on", 60)):
        (incoming / name).write_bytes(b"part of a body")
        os.utime(incoming / name, (time.time() - age,) * 2)
    async with idle_world.running(blob_url=root.as_uri() if kind == "bucket" else None):
        deadline = time.monotonic() + PATIENCE
        while (incoming / "abandoned").exists():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert files(root) == ["going-on"]


async def test_a_body_in_the_database_is_served_alike(world: World) -> None:
    record = await world.written()
    assert (await fetch(world, world.patient, record)).content == record.body
    refused(await fetch(world, world.doctor, record), 404, "not_found")


async def test_the_patient_sees_the_body_that_an_author_uploaded(world: World) -> None:
    grant = await world.may_write(Action.APPEND, scopes=["imaging"])
    record = await imaging(world, world.doctor, grant=grant.id)
    assert (await fetch(world, world.patient, record)).content == record.body


async def test_bodies_in_an_object_store(idle_world: World, tmp_path: Path) -> None:
    folder = tmp_path / "bucket"
    folder.mkdir()
    async with idle_world.running(blob_url=folder.as_uri()) as world:
        record = await imaging(world, world.patient)
        assert (await fetch(world, world.patient, record)).content == record.body
        refused(await put(world, world.doctor, b"other"), 422, "blob_mismatch")
    assert files(folder) == [b64url(sha256(record.body))]
