"""One FHIR resource as JSON: read strictly, written exactly, compared exactly.

FHIR R4 says of `decimal` that its precision is part of its value: 1.50 is not 1.5 (section 2.24.0.1, Primitive
Types, and the JSON page). Binary floats lose that, so numbers with a fraction or an exponent are `Decimal` here,
and a float is refused.

One number may be spelt in several ways in JSON (`1e5`, `1E+05`); these have the same digits and the same
exponent, hence the same precision, and are written in one way (`1E+5`). Everything else comes back unchanged,
the order of members included.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NoReturn

import simplejson

from client.fhir.errors import (
    ByteOrderMark,
    DocumentTooLarge,
    DuplicateMember,
    InvalidResourceType,
    MalformedResource,
    NotANumber,
    NotJson,
    NotUtf8,
    ResourceTooLarge,
    TooDeep,
)

Resource = dict[str, Any]
"""A parsed resource: str, int, Decimal, bool, None, list and dict, nothing else."""

MAX_RESOURCE_BYTES: Final = 16 * 1024 * 1024
"""One record. Documents carry scans as base64 in an attachment, a few megabytes at a time; a resource is parsed in
memory, which a larger file beside it, as a record of its own media type, need not be."""

MAX_DEPTH: Final = 64
"""Nesting of one resource. The elements of R4 need far less; the bound keeps later recursive readers within
their stack."""

_RESOURCE_TYPE: Final = re.compile(r"[A-Za-z]{1,64}")
_LONE_SURROGATE_POSSIBLE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def read_resource(data: bytes) -> Resource:
    """Read one resource from its JSON.

    Raises a subclass of `Malformed` or `TooLarge` from `client.fhir.errors` for anything but one JSON object with
    a valid `resourceType`, within the bounds of this module.
    """
    if len(data) > MAX_RESOURCE_BYTES:
        raise ResourceTooLarge
    value = parse_json(data, max_bytes=MAX_RESOURCE_BYTES, max_depth=MAX_DEPTH)
    if not isinstance(value, dict):
        raise InvalidResourceType("The JSON is not an object, so it is no resource.")
    resource_type(value)
    return value


def write_resource(resource: Resource) -> bytes:
    """Write a resource as compact UTF-8 JSON with every decimal as precise as it is.

    Raises `MalformedResource` for floats and other types JSON in FHIR does not have, `InvalidResourceType`,
    `TooDeep` and `ResourceTooLarge`: what is written here can always be read again.
    """
    resource_type(resource)
    if measure_depth(resource) > MAX_DEPTH:
        raise TooDeep
    data = dump_json(resource)
    if len(data) > MAX_RESOURCE_BYTES:
        raise ResourceTooLarge
    return data


def same_resource(a: Resource, b: Resource) -> bool:
    """Whether two resources say exactly the same, 1.50 and 1.5 being different; order of members says nothing.

    Arrays in FHIR are ordered, so their order does count (FHIR R4, JSON page).
    """
    measure_depth(a)
    measure_depth(b)
    return dump_json(a, sort_keys=True) == dump_json(b, sort_keys=True)


def resource_type(resource: Resource) -> str:
    """The `resourceType`, or `InvalidResourceType` when it is not one to sixty-four ASCII letters."""
    name = resource.get("resourceType")
    if not isinstance(name, str) or not _RESOURCE_TYPE.fullmatch(name):
        raise InvalidResourceType
    return name


def parse_json(data: bytes, *, max_bytes: int, max_depth: int) -> Any:
    """Parse JSON (RFC 8259) strictly, keeping decimals as they are written.

    Raises `DocumentTooLarge`, `ByteOrderMark`, `NotUtf8`, `NotJson`, `DuplicateMember`, `NotANumber`, `TooDeep`.
    """
    if len(data) > max_bytes:
        raise DocumentTooLarge
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ByteOrderMark
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise NotUtf8 from None
    try:
        value = simplejson.loads(
            text,
            parse_float=Decimal,
            parse_int=_integer,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object_without_duplicates,
            allow_nan=True,  # The hook above sees the constants then, and refuses them under their own name.
        )
    except RecursionError:
        raise TooDeep from None
    except (ValueError, InvalidOperation):
        raise NotJson from None
    if measure_depth(value) > max_depth:
        raise TooDeep
    if _LONE_SURROGATE_POSSIBLE.search(text):
        # Half a surrogate pair can be escaped in JSON but never encoded in UTF-8: it could not be written again.
        try:
            dump_json(value)
        except MalformedResource:
            raise NotUtf8("A string holds half of a surrogate pair.") from None
    return value


def dump_json(value: Any, *, sort_keys: bool = False, indent: str | None = None) -> bytes:
    """Write JSON as UTF-8, compact unless `indent` is given. Call `measure_depth` first on what was not parsed here."""
    text = simplejson.dumps(
        value,
        use_decimal=True,
        ensure_ascii=False,
        allow_nan=False,
        sort_keys=sort_keys,
        indent=indent,
        separators=(",", ": ") if indent else (",", ":"),
    )
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedResource("A string holds half of a surrogate pair.") from None


def measure_depth(value: Any) -> int:
    """Nesting of a value, found without recursion; `MalformedResource` when it holds what JSON in FHIR has not."""
    depth, level = 0, [value]
    while level:
        below: list[Any] = []
        nested = False
        for item in level:
            if isinstance(item, dict):
                nested = True
                if not all(isinstance(name, str) for name in item):
                    raise MalformedResource("A member's name is not a string.")
                below.extend(item.values())
            elif isinstance(item, list):
                nested = True
                below.extend(item)
            elif isinstance(item, Decimal):
                if not item.is_finite():
                    raise NotANumber
            elif item is not None and not isinstance(item, str | int):
                raise MalformedResource("Only text, integers, decimals, booleans, lists and objects may be written.")
        depth += nested
        if depth > 10 * MAX_DEPTH:
            # Also the way out of a structure that contains itself.
            raise TooDeep
        level = below
    return depth


def _integer(text: str) -> int | Decimal:
    # An int has no negative zero, and FHIR's decimal may be written "-0".
    return Decimal(text) if text == "-0" else int(text)


def _refuse_constant(_: str) -> NoReturn:
    raise NotANumber


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise DuplicateMember
    return value
