"""Hiding the exact size of a body: Padmé (Nikitin et al., "Reducing metadata leakage from encrypted files and
communication with PURBs", PETS 2019, section 4).

Padmé lets a length keep only its leading bits, as many as its own logarithm has, so that a size tells O(log log L)
bits and the padding adds at most 12 %. For tiny lengths it pads nothing, which would tell "yes" from "no"; so here
everything up to 256 bytes, and also the empty body, becomes 256 bytes long.
"""

from __future__ import annotations

from shared.errors import Malformed

SMALLEST = 256
"""The length in bytes that every body of at most this length is padded to."""


def padme(length: int) -> int:
    """The padded length in bytes of a body of `length` bytes; raises `Malformed` for a negative length.

    At most 12 % more than `length` from 256 bytes on, and 256 below. Padding twice changes nothing.
    """
    if isinstance(length, bool) or not isinstance(length, int) or length < 0:
        raise Malformed("A length is a whole number of bytes and not negative.")
    if length <= SMALLEST:
        return SMALLEST
    exponent = length.bit_length() - 1
    # The mantissa keeps as many bits as it takes to write the exponent; the bits below are rounded up.
    dropped = (1 << (exponent - exponent.bit_length())) - 1
    return (length + dropped) & ~dropped
