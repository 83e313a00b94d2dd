"""Files on this machine and records: FHIR Bundles taken apart and put together, every other file as it is."""

from __future__ import annotations

import mimetypes
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.cli.failures import UnreadableFile
from client.cli.file_names import FileNames, safe_name
from client.fhir.bundle import MAX_BUNDLE_BYTES, BundleItem, assemble_bundle, fit_together, read_bundle
from client.fhir.errors import DocumentTooLarge, NotABundle, NotJson, ResourceTooLarge
from client.fhir.resource import MAX_DEPTH, MAX_RESOURCE_BYTES, Resource, parse_json, read_resource, write_resource
from client.fhir.scopes import Override, ScopeMap
from client.fhir.summary import describe
from client.files import write_atomically
from client.records import NewRecord
from client.reports import OpenedRecord, Problem, Settings
from shared.errors import PcehrError

FHIR_MEDIA_TYPE = "application/fhir+json"
SCOPE_OF_OTHER_FILES = "documents"

_PEEK = 4_096
"""Bytes from which one can tell what a file is."""


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
    """The FHIR resource in a record, or None where it holds something else.

    Raises what `read_resource` raises for a body that is not what the record's author says it is.
    """
    if record.media_type != FHIR_MEDIA_TYPE:
        return None
    if record.path is not None and record.path.stat().st_size > MAX_RESOURCE_BYTES:
        # Before it is read: a body in a file may be larger than memory.
        raise ResourceTooLarge
    return read_resource(body_of(record))


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


@dataclass
class Written:
    """What was written where, and what could not be written, or not where it belongs."""

    bundle: Path | None = None
    resources: int = 0
    files: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """The same as JSON, without the problems."""
        return {
            "bundle": str(self.bundle) if self.bundle else None,
            "resources": self.resources,
            "files": [str(path) for path in self.files],
        }


def save(records: Iterable[OpenedRecord], target: Path) -> Written:
    """Write resources as one FHIR Bundle to `target` and all other bodies into a folder beside it.

    A record that says it is FHIR and is not, or that does not fit into the Bundle beside the others, becomes a file of
    its own and a problem; one that cannot be written is a problem; neither keeps another one from being written.
    Nothing is written where there is nothing.
    """
    written = Written()
    items: list[tuple[OpenedRecord, BundleItem]] = []
    others: list[OpenedRecord] = []
    for record in records:
        try:
            resource = resource_of(record)
        except PcehrError as error:
            written.problems.append(_problem(record, error))
            resource = None
        if resource is None:
            others.append(record)
        else:
            items.append((record, BundleItem(resource, record.header.full_url)))
    # Where two claim the same place, the patient's own resource has it.
    items.sort(key=lambda pair: pair[0].author != pair[0].patient)
    fitting: list[BundleItem] = []
    for (record, item), reason in zip(items, fit_together([item for _, item in items]), strict=True):
        if reason is None:
            fitting.append(item)
        else:
            written.problems.append(_problem(record, reason))
            others.append(record)
    _save_files(others, target.with_name(f"{target.stem}-files"), written)
    if fitting:
        write_atomically(target, assemble_bundle(fitting) + b"\n")
        written.bundle, written.resources = target, len(fitting)
    return written


def move(record: OpenedRecord, place: Path) -> None:
    """Put a body where it belongs; only its owner may read it there."""
    if record.path is not None:
        record.path.replace(place)
    else:
        write_atomically(place, record.body)


def _save_files(records: Sequence[OpenedRecord], folder: Path, written: Written) -> None:
    if not records:
        return
    folder.mkdir(parents=True, exist_ok=True)
    names = FileNames(path.name for path in folder.iterdir())
    for record in records:
        place = folder / names.free(_name_for(record))
        try:
            move(record, place)
        except OSError as error:
            reason = UnreadableFile(f"{place}: {error.strerror}.")
            written.problems.append(_problem(record, reason))
        else:
            written.files.append(place)


def _problem(record: OpenedRecord, error: PcehrError) -> Problem:
    return Problem(code=error.code, detail=error.detail, record_id=record.record_id)


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


def _name_for(record: OpenedRecord) -> str:
    """The author's name for the file, as far as it can be one; else the record's id with the usual ending."""
    ending = ".json" if record.media_type == FHIR_MEDIA_TYPE else mimetypes.guess_extension(record.media_type) or ""
    return safe_name(record.header.filename or "") or record.record_id + ending
