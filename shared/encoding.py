"""The two encodings of the wire, each with exactly one accepted form: base64url and JSON.

Binary values travel as base64url without padding (RFC 4648 section 5); objects travel as canonical JSON
(RFC 8785). Decoding refuses every other spelling of the same value, so that two byte strings are equal
exactly when what they say is equal, and a hash of the bytes identifies the value.
"""

from __future__ import annotations

import binascii
import hashlib
import json
from typing import Any, NoReturn

import rfc8785

from shared.errors import Malformed

MAX_JSON_DEPTH = 16
"""Nesting allowed in an object of the protocol; nothing defined here goes beyond six."""

_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")
"""What base64url does not have becomes what base64 does not have either."""

_MAX_INTEGER = 2**53 - 1
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)
"""RFC 8785 for what is plain and ASCII: members sorted, no blanks, and of the escapes the shortest."""


def b64url(data: bytes) -> str:
    """Return `data` as base64url without padding."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=").decode("ascii")


def from_b64url(text: str, size: int | None = None) -> bytes:
    """Decode canonical base64url without padding; `size`, when given, is the exact number of bytes.

    Raises `Malformed` for padding, other alphabets, white space, stray bits or a wrong length.
    """
    if size is not None and len(text) != (size * 4 + 2) // 3:
        raise Malformed(f"Expected {size} bytes in base64url without padding.")
    try:
        raw = text.encode("ascii").translate(_FROM_URL)
        data = binascii.a2b_base64(raw + b"=" * (-len(raw) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise Malformed("The value is not base64url without padding.") from None
    # Only the last character can have bits that no byte takes up.
    rest = len(data) % 3
    if rest and b64url(data[-rest:]) != text[-rest - 1 :]:
        raise Malformed("The value is not the canonical base64url of its bytes.")
    return data


def canonical_json(value: Any) -> bytes:
    """Serialise as RFC 8785 canonical JSON. Only str, int, bool, None, list and dict are allowed within."""
    # Pure Python writes it five times as slowly as the standard library's encoder in C, which does the same wherever
    # all is ASCII and no number is beyond what RFC 8785 allows; a test holds the two against each other.
    if _is_plain(value):
        text = _ENCODER.encode(value)
        if text.isascii():
            return text.encode("ascii")
    return rfc8785.dumps(value)


def from_canonical_json(data: bytes) -> Any:
    """Parse canonical JSON and refuse every other spelling.

    Raises `Malformed` for duplicate members, floats, integers beyond 2**53 - 1, non-canonical order or
    spacing or escapes, invalid UTF-8 and nesting deeper than `MAX_JSON_DEPTH`.
    """
    try:
        value = json.loads(
            data.decode("utf-8", "strict"),
            object_pairs_hook=_object_without_duplicates,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
        if _depth(value) > MAX_JSON_DEPTH:
            raise Malformed("The JSON is nested too deeply.")
        canonical = canonical_json(value)
    except (UnicodeDecodeError, ValueError, RecursionError, rfc8785.CanonicalizationError):
        raise Malformed("The value is not canonical JSON.") from None
    if canonical != data:
        raise Malformed("The value is JSON, but not in canonical form (RFC 8785).")
    return value


def sha256(data: bytes) -> bytes:
    """SHA-256 (FIPS 180-4), 32 bytes."""
    return hashlib.sha256(data).digest()


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate member")
    return value


def _refuse_number(_: str) -> NoReturn:
    raise ValueError("only integers are allowed")


def _is_plain(value: Any) -> bool:
    """Whether a value holds nothing but the types allowed, and no subclass of them, with numbers in range and no deeper
    than is read again; without recursion, as `_depth`."""
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        if not level:
            break
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                if any(type(key) is not str for key in item):
                    return False
                inner += item.values()
            elif kind is list:
                inner += item
            elif kind is int:
                if not -_MAX_INTEGER <= item <= _MAX_INTEGER:
                    return False
            elif kind is not str and kind is not bool and item is not None:
                return False
        level = inner
    return not level


def _depth(value: Any) -> int:
    """Nesting depth of a parsed value, found without recursion so that hostile input cannot exhaust the stack."""
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return deepest
