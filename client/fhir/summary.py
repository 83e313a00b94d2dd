"""A short title and a clinical date for a resource, for encrypted headers and tables.

Both come from what the resource says about itself. The title may be as sensitive as the record: it belongs inside
the encrypted header and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from client.fhir.resource import Resource

MAX_TITLE: Final = 120
"""Characters; a line in a table."""

_TITLE_FIELDS: Final = (
    "code",
    "vaccineCode",
    "medicationCodeableConcept",
    "medicationReference",
    "description",
    "title",
    "type",
    "serviceType",
    "name",
    "deviceName",
    "productOrService",
    "reasonCode",
    "category",
    "relationship",
)
"""Elements that name what a resource is about, the most particular first. All are in FHIR R4."""

_DATE_FIELDS: Final = (
    "effectiveDateTime",
    "effectivePeriod",
    "effectiveInstant",
    "onsetDateTime",
    "onsetPeriod",
    "performedDateTime",
    "performedPeriod",
    "occurrenceDateTime",
    "occurrencePeriod",
    "billablePeriod",
    "servicedDate",
    "servicedPeriod",
    "period",
    "started",
    "start",
    "startDate",
    "statusDate",
    "authoredOn",
    "whenHandedOver",
    "whenPrepared",
    "collectedDateTime",
    "authored",
    "sent",
    "created",
    "date",
    "dateTime",
    "recordedDate",
    "issued",
    "assertedDate",
)
"""When it happened first, when it was written down last: a header's date is the clinical one."""

# FHIR R4 section 2.24.0.1: a date may be a year, a year and month, or a day; a time may follow a day.
_DATE: Final = re.compile(r"(\d{4}(?:-\d{2}(?:-\d{2})?)?)(?:T.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ResourceSummary:
    """`date` is an ISO 8601 date as precise as the resource is: `2020`, `2020-05` or `2020-05-17`."""

    title: str
    date: str | None
    resource_type: str


def describe(resource: Resource) -> ResourceSummary:
    """Summarise any resource; one that names nothing is called by its type. Never raises for odd content."""
    kind = resource.get("resourceType")
    resource_type = kind if isinstance(kind, str) else "Resource"
    candidates = [*(resource.get(field) for field in _TITLE_FIELDS), *_billed(resource.get("item"))]
    titles = (_clean(text) for value in candidates for text in _texts(value))
    title = next((text for text in titles if text), "") or _spaced(resource_type)
    dates = (_date(resource.get(field)) for field in _DATE_FIELDS)
    return ResourceSummary(title, next((found for found in dates if found), None), resource_type)


def _texts(value: Any) -> Iterator[str]:
    """What may name a thing in a string, CodeableConcept, Coding, Reference, HumanName, or a list of these."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        yield from _texts(value.get("text"))
        coding = value.get("coding")
        if isinstance(coding, list):
            for item in coding:
                yield from _texts(item)
        yield from _texts(value.get("display"))
        name = value.get("name")
        yield from _texts(name if isinstance(name, str) else None)
        given = value.get("given")
        family = value.get("family")
        parts = [*(given if isinstance(given, list) else []), family]
        yield " ".join(part for part in parts if isinstance(part, str))


def _billed(items: Any) -> Iterator[Any]:
    """What the lines of a Claim, ExplanationOfBenefit or Invoice are for."""
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict):
            yield item.get("productOrService")


def _clean(text: str) -> str:
    """One line of printable characters.

    Titles are shown in terminals. Control characters could drive one, and direction marks could make a title
    read as another.
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= MAX_TITLE else line[: MAX_TITLE - 1].rstrip() + "…"


def _spaced(name: str) -> str:
    return _clean(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)) or "Resource"


def _date(value: Any) -> str | None:
    if isinstance(value, dict):
        return _date(value.get("start")) or _date(value.get("end"))
    match = _DATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    found = match[1]
    first_day = found + "-01-01"[len(found) - len("YYYY") :]
    try:
        date.fromisoformat(first_day)
    except ValueError:
        return None
    return found
