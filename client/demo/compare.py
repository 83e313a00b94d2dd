"""Whether what came out is what went in, resource by resource."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from client.cli.documents import resource_of
from client.fhir.bundle import BundleItem
from client.fhir.resource import Resource, same_resource
from client.reports import OpenedRecord


def equal_count(opened: Iterable[OpenedRecord], originals: Sequence[BundleItem]) -> int:
    """How many opened records say exactly what an original says; each original counts once."""
    waiting: dict[tuple[str | None, str | None], list[Resource]] = defaultdict(list)
    for item in originals:
        waiting[item.full_url, item.resource["resourceType"]].append(item.resource)
    equal = 0
    for record in opened:
        resource = resource_of(record)
        if resource is None:
            continue
        candidates = waiting[record.header.full_url, record.header.resource_type]
        found = next((at for at, original in enumerate(candidates) if same_resource(original, resource)), None)
        if found is not None:
            del candidates[found]
            equal += 1
    return equal
