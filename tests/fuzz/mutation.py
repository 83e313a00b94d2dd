"""Changes to a valid input: to its bytes, and where it is JSON or a signed statement, to what stands in it.

Bytes changed at random seldom get past a signature, a base64 or a canonical form. So JSON is taken apart, changed and
written canonically again, and of a compact JWS each part is decoded first.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from random import Random
from typing import Any

from shared.crypto.wireform import FIELD_PRIME, ORDER
from shared.encoding import b64url

LIMIT = 48 * 1024
"""Bytes: what mutation never grows an input beyond."""

_JWS = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

_PIECES = (
    b"", b"\x00", b"\xff", b"\x80", b"\x7f", b"\n", b"\n\n", b"\r\n", b" ", b".", b"..", b"-", b"_", b"=", b"==",
    b"/", b"+", b"#", b":", b",", b'"', b"{", b"}", b"[", b"]", b"{}", b"[]", b"null", b"true", b"-0", b"1e999",
    b"NaN", b"Infinity", b"1.0", b"9" * 19, b"9" * 5_000, b"18446744073709551616", b"\\ud800", b"\\u0000",
    b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc0\x80", b"\xf4\x90\x80\x80",
    "²".encode(), "١".encode(), "\u202e".encode(), "e\u0301".encode(), "\u2028".encode(), "\u0085".encode(),
    b"[" * 2_000, b'{"a":' * 2_000, bytes(32), b"\xff" * 32, bytes(33), b"\x02" + bytes(32), b"\x03" + b"\xff" * 32,
    ORDER.to_bytes(32, "big"), (ORDER - 1).to_bytes(32, "big"), (ORDER // 2 + 1).to_bytes(32, "big"),
    FIELD_PRIME.to_bytes(32, "big"),
)  # fmt: skip

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 - 1, 2**53, 2**63, 2**64, -(2**63), 1.5, -0.0, 1e300, "", " ", "0",
    "\x00", "\ud800", "\u202e", "a" * 5_000, "²", [], {}, [[]], [{}], {"": ""}, {"\ud800": 1}, [None] * 300,
)  # fmt: skip


def mutate(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Something like `data`, at most `LIMIT` bytes or as long as it; `others` are there to be spliced with."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        data = _once(data, random, others)
    return data[: max(LIMIT, len(data) // 2)]


def _once(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    if random.random() < 0.6:
        if data[:1] in (b"{", b"["):
            return _in_json(data, random, others)
        if _JWS.fullmatch(data):
            return _in_statement(data, random, others)
    return _in_bytes(data, random, others)


# --- bytes ------------------------------------------------------------------------------------------------------------


def _in_bytes(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    start = random.randint(0, len(data))
    end = min(len(data), start + random.choice((0, 1, 1, 2, 4, 8, 32, 33, 64)))
    match random.randrange(8):
        case 0 if start < len(data):
            return data[:start] + bytes([data[start] ^ 1 << random.randrange(8)]) + data[start + 1 :]
        case 1 if start < len(data):
            return data[:start] + bytes([random.randrange(256)]) + data[start + 1 :]
        case 2:
            return data[:start]
        case 3:
            return data[:start] + data[end:]
        case 4:
            return data[:start] + data[start:end] * random.choice((2, 3, 20)) + data[end:]
        case 5:
            piece = random.choice(_PIECES)
            return data[:start] + piece + data[start:]
        case 6:
            piece = random.choice(_PIECES)
            return data[:start] + piece + data[start + len(piece) :]
        case _:
            other = random.choice(others) if others else data
            return data[:start] + other[random.randint(0, len(other)) :]


# --- JSON -------------------------------------------------------------------------------------------------------------


def _in_json(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _in_bytes(data, random, others)
    places = _places(value)
    if not places:
        return _in_bytes(data, random, others)
    holder, key = random.choice(places)
    match random.randrange(7):
        case 0:
            holder[key] = random.choice(_VALUES)
        case 1:
            del holder[key]
        case 2 if isinstance(holder, dict):
            holder[random.choice(("", "x", "\ud800", "iss", "v", "__proto__", "a" * 300))] = holder.pop(key)
        case 3:
            other, place = random.choice(places)
            holder[key] = other[place]
        case 4 if isinstance(holder[key], str):
            changed = _once(holder[key].encode("utf-8", "surrogatepass"), random, others)
            holder[key] = changed.decode("utf-8", "replace")
        case 5 if isinstance(holder[key], int):
            holder[key] = holder[key] + random.choice((-1, 1, -(2**31), 2**32, 2**53, 2**64))
        case 6 if isinstance(holder[key], list):
            holder[key] = holder[key] * random.choice((2, 3, 70))
        case _:
            holder[key] = [holder[key]]
    return _written(value, random)


def _written(value: Any, random: Random) -> bytes:
    """Mostly canonical, since any other spelling is refused before anybody looks inside."""
    canonical = random.random() < 0.9
    try:
        written = json.dumps(value, separators=(",", ":"), sort_keys=canonical, ensure_ascii=not canonical)
        return written.encode("utf-8", "backslashreplace")
    except (RecursionError, ValueError):
        # What contains itself cannot be written; neither can it have come from anywhere.
        return b"{}"


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every member and every element, as its holder and the key to it."""
    found: list[tuple[Any, Any]] = []
    level = [value]
    while level and len(found) < 2_000:
        item = level.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in keys:
            found.append((item, key))
            level.append(item[key])
    return found


# --- statements -------------------------------------------------------------------------------------------------------


def _in_statement(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    parts = data.split(b".")
    at = random.randrange(3)
    try:
        inner = urlsafe_b64decode(parts[at] + b"=" * (-len(parts[at]) % 4))
    except ValueError:
        return _in_bytes(data, random, others)
    parts[at] = b64url(_once(inner, random, ())).encode()
    return b".".join(parts)
