"""Files on this machine and records: FHIR Bundles taken apart and put together, every other file as it is."""

from __future__ import annotations

import mimetypes
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client.cli.failures import UnreadableFile
from client.fhir.bundle import MAX_BUNDLE_BYTES, BundleItem, assemble_bundle, read_bundle
from client.fhir.errors import DocumentTooLarge, NotABundle, NotJson
from client.fhir.resource import MAX_DEPTH, Resource, parse_json, read_resource, write_resource
from client.fhir.scopes import Override, ScopeMap
from client.fhir.summary import describe
from client.files import write_atomically
from client.records import NewRecord
from client.reports import OpenedRecord, Settings

FHIR_MEDIA_TYPE = "application/fhir+json"
SCOPE_OF_OTHER_FILES = "documents"

_PEEK = 4_096
"""Bytes from which one can tell what a file is."""

_UNSAFE = re.compile(r"[^\w .()+,-]")


def scope_map(settings: Settings | None = None) -> ScopeMap:
    """The common filing rules, with a patient's own before them."""
    if settings is None:
        return ScopeMap.load()
    rules = [Override(rule.scope, rule.resource_type, rule.system, rule.code) for rule in settings.overrides]
    return ScopeMap.load().with_overrides(rules)


def records_from_file(path: Path, rules: ScopeMap, scope: str | None = None) -> list[NewRecord]:
    """The records that a file holds: one for each resource of a FHIR Bundle, else one.

    `scope` overrules the filing rules. Raises `UnreadableFile`, and the errors of `client.fhir.errors` for a file that
    should be FHIR, or at least JSON by its name, and is not as it should be: it must not be stored as something else
    unnoticed.
    """
    try:
        items = _resources_in(path) if _looks_like_json(path) else None
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror}.") from None
    if items is not None:
        return records_from_items(items, [scope] * len(items) if scope else rules.scopes_for_bundle(items))
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    # The path and not the bytes: a scan or a film need not fit into memory.
    return [
        NewRecord(
            body=path,
            media_type=media_type,
            scope=scope or SCOPE_OF_OTHER_FILES,
            title=path.name,
            filename=path.name,
        )
    ]


def records_from_items(items: Sequence[BundleItem], scopes: Sequence[str]) -> list[NewRecord]:
    """One record for each resource, with a title and a date taken from it."""
    return [
        _record_from_resource(item.resource, item.full_url, scope) for item, scope in zip(items, scopes, strict=True)
    ]


def body_of(record: OpenedRecord) -> bytes:
    """The body, from memory or from the file that it was decrypted to."""
    return record.path.read_bytes() if record.path is not None else record.body


def resource_of(record: OpenedRecord) -> Resource | None:
    """The FHIR resource in a record, or None where it holds something else."""
    return read_resource(body_of(record)) if record.media_type == FHIR_MEDIA_TYPE else None


@contextmanager
def workspace(target: Path) -> Iterator[Path]:
    """A folder beside `target`, closed to others, for bodies too large for memory; gone when the block is left."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".pcehr-", dir=target.parent))
    except OSError as error:
        raise UnreadableFile(f"{target.parent}: {error.strerror}.") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def save(records: Iterable[OpenedRecord], target: Path) -> dict[str, Any]:
    """Write resources as one FHIR Bundle to `target` and all other bodies into a folder beside it.

    Returns what was written where: `bundle`, `resources`, `files`. Nothing is written where there is nothing.
    """
    items: list[BundleItem] = []
    written: list[str] = []
    folder = target.with_name(f"{target.stem}-files")
    for record in records:
        resource = resource_of(record)
        if resource is not None:
            items.append(BundleItem(resource, record.header.full_url))
            continue
        folder.mkdir(parents=True, exist_ok=True)
        place = _place_for(record, folder)
        move(record, place)
        written.append(str(place))
    if items:
        write_atomically(target, assemble_bundle(items) + b"\n")
    return {"bundle": str(target) if items else None, "resources": len(items), "files": written}


def move(record: OpenedRecord, place: Path) -> None:
    """Put a body where it belongs; only its owner may read it there."""
    if record.path is not None:
        record.path.replace(place)
    else:
        write_atomically(place, record.body)


def _looks_like_json(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix.lower() == ".json" or file.read(_PEEK).lstrip()[:1] == b"{"


def _resources_in(path: Path) -> list[BundleItem] | None:
    """The resources of a Bundle, or the one of a file with one; None for JSON of another kind."""
    if path.stat().st_size > MAX_BUNDLE_BYTES:
        with path.open("rb") as file:
            if b'"resourceType"' in file.read(_PEEK):
                raise DocumentTooLarge
        return None
    data = path.read_bytes()
    try:
        return read_bundle(data)
    except NotABundle:
        value = parse_json(data, max_bytes=MAX_BUNDLE_BYTES, max_depth=MAX_DEPTH)
    except NotJson:
        if path.suffix.lower() == ".json":
            raise
        return None
    is_resource = isinstance(value, dict) and isinstance(value.get("resourceType"), str)
    return [BundleItem(read_resource(data))] if is_resource else None


def _record_from_resource(resource: Resource, full_url: str | None, scope: str) -> NewRecord:
    summary = describe(resource)
    return NewRecord(
        body=write_resource(resource),
        media_type=FHIR_MEDIA_TYPE,
        scope=scope,
        title=summary.title,
        date=summary.date,
        resource_type=summary.resource_type,
        full_url=full_url,
    )


def _place_for(record: OpenedRecord, folder: Path) -> Path:
    """A free name: the author's, without what could lead elsewhere."""
    said = Path(record.header.filename or "").name
    name = _UNSAFE.sub("_", said).strip(". ")[:120] if said else ""
    if not name:
        name = record.record_id + (mimetypes.guess_extension(record.media_type) or "")
    place, number = folder / name, 2
    while os.path.lexists(place):
        place = folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
        number += 1
    return place
