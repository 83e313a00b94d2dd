"""The checks on bytes hold by themselves, whatever an engine behind them would have noticed."""

from __future__ import annotations

import pytest

from shared.crypto import wireform
from shared.crypto.errors import MalformedKeyMaterial
from shared.crypto.wireform import FIELD_PRIME, ORDER


def be(number: int) -> bytes:
    return number.to_bytes(32, "big")


POINT = b"\x02" + be(1)
SIGNATURE = be(1) + be(ORDER // 2)
KFRAG = bytes(32) + be(1) + POINT * 2 + SIGNATURE * 2 + b"\x01\x01"
CFRAG = POINT * 2 + bytes(32) + POINT * 5 + be(ORDER - 1) + SIGNATURE
CAPSULE = POINT * 2 + be(1)


def test_the_outermost_values_are_accepted():
    wireform.check_public_key(b"\x03" + be(FIELD_PRIME - 1))
    wireform.check_capsule(CAPSULE)
    wireform.check_kfrag(KFRAG)
    wireform.check_cfrag(CFRAG)


@pytest.mark.parametrize("prefix", [0, 1, 4, 5, 6, 7, 255])
def test_no_point_starts_otherwise(prefix):
    with pytest.raises(MalformedKeyMaterial):
        wireform.check_public_key(bytes([prefix]) + be(1))


@pytest.mark.parametrize("x", [FIELD_PRIME, FIELD_PRIME + 1, 2**256 - 1])
def test_no_coordinate_reaches_the_prime(x):
    with pytest.raises(MalformedKeyMaterial):
        wireform.check_public_key(b"\x02" + be(x))


@pytest.mark.parametrize(
    ("check", "good", "at", "bad"),
    [
        (wireform.check_kfrag, KFRAG, 258, b"\x02"),
        (wireform.check_kfrag, KFRAG, 259, b"\x80"),
        (wireform.check_kfrag, KFRAG, 32, be(0)),
        (wireform.check_kfrag, KFRAG, 32, be(ORDER)),
        (wireform.check_kfrag, KFRAG, 162, be(ORDER // 2 + 1)),
        (wireform.check_kfrag, KFRAG, 226, be(ORDER // 2 + 1)),
        (wireform.check_cfrag, CFRAG, 263, be(ORDER)),
        (wireform.check_cfrag, CFRAG, 327, be(ORDER // 2 + 1)),
        (wireform.check_cfrag, CFRAG, 230, b"\x04"),
        (wireform.check_capsule, CAPSULE, 66, be(0)),
        (wireform.check_capsule, CAPSULE, 33, b"\x03"),
    ],
)
def test_one_value_beyond_is_refused(check, good, at, bad):
    with pytest.raises(MalformedKeyMaterial):
        check(good[:at] + bad + good[at + len(bad) :])
