"""The search finds a needle in every form that it claims to know, wherever a medium is cut into pieces."""

from __future__ import annotations

import base64
import json
import secrets
import zlib
from collections.abc import Callable

import pytest

from tests.canaries.needles import Needle, Search

TEXT = Needle("text", f"Zoë {secrets.token_hex(12)}".encode())
KEY = Needle("key", secrets.token_bytes(32))
HAY = [b"hay " * 100, bytes(100)]

ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "reversed": lambda value: value[::-1],
    "hex": lambda value: value.hex().encode(),
    "upper-case hex": lambda value: value.hex().upper().encode(),
    **{
        f"{name} at offset {offset}": lambda value, offset=offset, encode=encode: encode(
            b"\x7f" * offset + value + b"xyz"
        )
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode))
        for offset in range(3)
    },
    "compressed": zlib.compress,
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("needle", [TEXT, KEY], ids=lambda needle: needle.kind)
def test_a_needle_is_found_in_every_form(needle: Needle, encode: Callable[[bytes], bytes]) -> None:
    assert Search([needle]).found([HAY[0] + encode(needle.value) + HAY[1]]) == {needle}


@pytest.mark.parametrize("encode", [lambda text: text.encode("utf-16"), lambda text: json.dumps(text).encode()])
def test_a_text_is_found_in_utf_16_and_in_json(encode: Callable[[str], bytes]) -> None:
    assert Search([TEXT]).found([encode(TEXT.value.decode())]) == {TEXT}


def test_a_needle_is_found_where_a_piece_ends() -> None:
    for cut in range(len(KEY.value)):
        assert Search([KEY]).found([HAY[0] + KEY.value[:cut], KEY.value[cut:] + HAY[1]]) == {KEY}


def test_what_is_not_there_is_not_found() -> None:
    assert Search([TEXT, KEY]).found([*HAY, KEY.value[:-1], TEXT.value[1:]]) == set()


def test_a_needle_does_not_show_its_value() -> None:
    assert repr(KEY) == "<key of a party>"
