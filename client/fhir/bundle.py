"""A FHIR R4 Bundle (resource Bundle) taken apart into resources, and resources put together as one.

What belongs to a resource is kept exactly. What belongs to the exchange is dropped: `entry.request` and
`entry.response` of a transaction or history, `entry.search` of a search, `link`, `total` and the Bundle's own
`id`, `meta` and `signature`. They say what a server should do or has done, and nothing about the patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from client.fhir.errors import (
    EntryWithoutResource,
    MalformedBundle,
    NotABundle,
    TooManyEntries,
    UnsupportedBundleType,
)
from client.fhir.resource import (
    MAX_DEPTH,
    Resource,
    dump_json,
    parse_json,
    read_resource,
    resource_type,
    same_resource,
    write_resource,
)
from shared.errors import PcehrError

__all__ = [
    "BundleItem",
    "assemble_bundle",
    "fit_together",
    "read_bundle",
    "read_resource",
    "same_resource",
    "write_resource",
]

MAX_BUNDLE_BYTES: Final = 64 * 1024 * 1024
"""Far above one person's record, which is a few MiB; parsed, a Bundle takes several times its size in memory."""

MAX_ENTRIES: Final = 20_000
"""Each entry becomes a record with its own capsule and signature; more than this is better imported in parts that
can each be repeated."""

_AROUND_A_RESOURCE: Final = 64
"""Bytes that an entry needs besides its resource and its fullUrl, at the most."""

_LEVELS_ABOVE_RESOURCE: Final = 3  # The Bundle, its entry array, the entry.

_READABLE_TYPES: Final = frozenset({"transaction", "batch", "collection", "document", "searchset", "history"})


@dataclass(frozen=True, slots=True)
class BundleItem:
    """A resource and the URL by which others in the same Bundle refer to it.

    Source: FHIR R4, Bundle, "Resolving references in Bundles".
    """

    resource: Resource
    full_url: str | None = None


def read_bundle(data: bytes) -> list[BundleItem]:
    """Take a Bundle apart, in the order of its entries.

    Raises `NotABundle`, `UnsupportedBundleType`, `MalformedBundle`, `TooManyEntries`, `EntryWithoutResource`,
    `InvalidResourceType`, `ResourceTooLarge` and what `client.fhir.resource.parse_json` raises. One bad entry
    refuses the whole: a patient must not believe that a record was taken over when it was not.
    """
    value = parse_json(data, max_bytes=MAX_BUNDLE_BYTES, max_depth=MAX_DEPTH + _LEVELS_ABOVE_RESOURCE)
    if not isinstance(value, dict) or value.get("resourceType") != "Bundle":
        raise NotABundle
    if not isinstance(value.get("type"), str):
        raise MalformedBundle("The Bundle does not say of which type it is.")
    if value["type"] not in _READABLE_TYPES:
        raise UnsupportedBundleType
    entries = value.get("entry", [])
    if not isinstance(entries, list):
        raise MalformedBundle("The entries of the Bundle are not an array.")
    if len(entries) > MAX_ENTRIES:
        raise TooManyEntries
    return [_item(entry) for entry in entries]


def assemble_bundle(items: Iterable[BundleItem]) -> bytes:
    """Put resources together as a `collection` Bundle.

    The same items in any order give the same bytes: the Patient first, then by type, fullUrl and content. An item
    given twice appears once. Raises `MalformedBundle` when two different resources have the same fullUrl and
    version, which FHIR forbids (invariant bdl-7), and what `write_resource` raises.
    """
    written = {(item.full_url, write_resource(item.resource)): item for item in items}
    if len(written) > MAX_ENTRIES:
        raise TooManyEntries
    ordered = sorted(written.items(), key=lambda pair: _order(pair[1], pair[0][1]))
    seen: set[tuple[str, str]] = set()
    entries = []
    for _, item in ordered:
        entry: Resource = {}
        if item.full_url is not None:
            identity = (item.full_url, _version(item.resource))
            if identity in seen:
                raise MalformedBundle("Two different resources have the same fullUrl and version.")
            seen.add(identity)
            entry["fullUrl"] = item.full_url
        entry["resource"] = item.resource
        entries.append(entry)
    bundle: Resource = {"resourceType": "Bundle", "type": "collection"}
    if entries:
        # An empty array is not allowed in FHIR's JSON (R4, JSON page).
        bundle["entry"] = entries
    data = dump_json(bundle)
    if len(data) > MAX_BUNDLE_BYTES:
        raise TooManyEntries("The Bundle would be larger than can be read again. Assemble it in parts.")
    return data


def fit_together(items: Sequence[BundleItem]) -> list[PcehrError | None]:
    """For each item None if `assemble_bundle` takes it together with those before it that fit, else why it does not.

    So one resource that fits nowhere, by whomever it was written, keeps no other one from being assembled. Of two
    different ones with the same fullUrl and version the first fits.
    """
    seen: dict[tuple[str, str], bytes] = {}
    size, count = 0, 0
    reasons: list[PcehrError | None] = []
    for item in items:
        try:
            data = write_resource(item.resource)
            identity = None if item.full_url is None else (item.full_url, _version(item.resource))
            if identity is not None and seen.get(identity, data) != data:
                raise MalformedBundle("Another resource has the same fullUrl and version.")
            more = len(data) + len(dump_json(item.full_url)) + _AROUND_A_RESOURCE
            if count == MAX_ENTRIES or size + more > MAX_BUNDLE_BYTES - _AROUND_A_RESOURCE:
                raise TooManyEntries("The Bundle would be larger than can be read again.")
        except PcehrError as reason:
            reasons.append(reason)
            continue
        if identity is not None:
            seen[identity] = data
        size, count = size + more, count + 1
        reasons.append(None)
    return reasons


def _item(entry: object) -> BundleItem:
    if not isinstance(entry, dict):
        raise MalformedBundle("An entry of the Bundle is not an object.")
    resource = entry.get("resource")
    if resource is None:
        raise EntryWithoutResource
    if not isinstance(resource, dict):
        raise MalformedBundle("The resource of an entry is not an object.")
    full_url = entry.get("fullUrl")
    if full_url is not None and (not isinstance(full_url, str) or not full_url):
        raise MalformedBundle("The fullUrl of an entry is not a URL.")
    # Written once here, so that whatever is accepted can also be stored.
    write_resource(resource)
    return BundleItem(resource, full_url)


def _order(item: BundleItem, data: bytes) -> tuple[bool, str, str, bytes]:
    kind = resource_type(item.resource)
    return (kind != "Patient", kind, item.full_url or "", data)


def _version(resource: Resource) -> str:
    meta = resource.get("meta")
    version = meta.get("versionId") if isinstance(meta, dict) else None
    return version if isinstance(version, str) else ""
