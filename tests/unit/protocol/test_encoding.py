"""Canonical base64url and canonical JSON: one accepted spelling each."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as some

from shared.encoding import MAX_JSON_DEPTH, b64url, canonical_json, from_b64url, from_canonical_json
from shared.errors import Malformed

JSON = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53) + 1, 2**53 - 1) | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=12,
)


@given(some.binary(max_size=200))
def test_base64url_round_trip(data: bytes) -> None:
    assert from_b64url(b64url(data)) == data
    assert from_b64url(b64url(data), len(data)) == data


@given(some.text(max_size=60))
def test_base64url_accepts_one_spelling_only(text: str) -> None:
    try:
        data = from_b64url(text)
    except Malformed:
        return
    assert b64url(data) == text


@pytest.mark.parametrize(
    "text",
    ["AA==", "AB", "A", "AA\n", " AA", "A+", "A/", "AAé"],
    ids=["padding", "stray bits", "one character", "newline", "space", "plus", "slash", "not ascii"],
)
def test_base64url_refuses(text: str) -> None:
    with pytest.raises(Malformed):
        from_b64url(text)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_base64url_refuses_a_wrong_size(size: int) -> None:
    with pytest.raises(Malformed):
        from_b64url(b64url(bytes(32)), size)


@given(JSON)
def test_canonical_json_round_trip(value: Any) -> None:
    assert from_canonical_json(canonical_json(value)) == value


@given(JSON | some.floats(allow_nan=False, allow_infinity=False))
def test_canonical_json_is_rfc_8785(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


ASCII = some.text(some.characters(max_codepoint=127))


@given(some.dictionaries(ASCII, ASCII | some.integers(-(2**53) + 1, 2**53 - 1) | some.lists(ASCII, max_size=3)))
def test_canonical_json_of_ascii_is_rfc_8785(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [{"a": 2**53}, {"a": [-(2**53)]}, {1: "a"}, {"a": float("nan")}, {"a": {"b"}}],
    ids=["too large", "too small", "a member that is no text", "not a number", "another type"],
)
def test_what_canonical_json_cannot_hold_is_not_written(value: Any) -> None:
    with pytest.raises(rfc8785.CanonicalizationError):
        canonical_json(value)


@given(JSON, some.booleans(), some.booleans(), some.sampled_from([(",", ":"), (", ", ": ")]))
def test_what_is_accepted_is_what_rfc_8785_writes(
    value: Any, ascii_only: bool, ordered: bool, separators: tuple[str, str]
) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only, sort_keys=ordered, separators=separators).encode()
    if data == rfc8785.dumps(value):
        assert from_canonical_json(data) == value
    else:
        with pytest.raises(Malformed):
            from_canonical_json(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b'{"a":1}\n',
        b'{"a":"\\u0041"}',
        b'{"a":"\\/"}',
        b'{"a":9007199254740993}',
        b'{"a":-0}',
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b"{}{}",
        b"",
        b"[" * 5000 + b"]" * 5000,
        b"9" * 10_000,
    ],
    ids=[
        "duplicate member",
        "float",
        "exponent",
        "nan",
        "infinity",
        "order",
        "space",
        "newline at the end",
        "needless escape",
        "escaped slash",
        "beyond 2**53",
        "negative zero",
        "byte order mark",
        "invalid utf-8",
        "lone surrogate",
        "two values",
        "nothing",
        "deeply nested",
        "huge number",
    ],
)
def test_canonical_json_refuses(data: bytes) -> None:
    with pytest.raises(Malformed):
        from_canonical_json(data)


def test_canonical_json_refuses_nesting_beyond_the_bound() -> None:
    within = b"[" * MAX_JSON_DEPTH + b"]" * MAX_JSON_DEPTH
    assert from_canonical_json(within) is not None
    with pytest.raises(Malformed):
        from_canonical_json(b"[" + within + b"]")


def test_standard_base64_is_not_base64url() -> None:
    with pytest.raises(Malformed):
        from_b64url(base64.b64encode(b"\xff\xff\xfe").decode())
