"""Everything a party holds comes from one seed of 32 bytes.

Labels are prefixed `pcehr/v1/`, so that a later version of the protocol derives other keys from the same words.
Umbral's keys come from its own key factory, everything else from HKDF-SHA256 (RFC 5869); neither output tells
anything about another one or about the seed.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from shared.crypto.errors import MalformedKeyMaterial
from shared.crypto.secrecy import Secret
from shared.crypto.umbral import SecretKey

LABEL_PREFIX = b"pcehr/v1/"
SEED_SIZE = 32
_HASH_SIZE = 32
_MAX_OUTPUT = 255 * _HASH_SIZE


def hkdf(key: bytes, info: bytes, size: int) -> bytes:
    """HKDF-SHA256 with an empty salt (RFC 5869 sections 2.2 and 2.3): `size` bytes, from 1 to 8160.

    `key` must already be uniformly random or have at least 32 bytes of entropy: this is no password hash. Raises
    `ValueError` for a size out of range, which is a mistake of the calling code and never of its input.
    """
    if not 1 <= size <= _MAX_OUTPUT:
        raise ValueError("HKDF-SHA256 gives from 1 to 8160 bytes.")
    pseudorandom_key = hmac.digest(bytes(_HASH_SIZE), key, hashlib.sha256)
    output, block = bytearray(), b""
    for counter in range(1, -(-size // _HASH_SIZE) + 1):
        block = hmac.digest(pseudorandom_key, block + info + bytes((counter,)), hashlib.sha256)
        output += block
    return bytes(output[:size])


class Seed(Secret):
    """The 32 bytes that a party's words stand for. It never leaves the client."""

    __slots__ = ("_seed",)

    def __init__(self, seed: bytes) -> None:
        if not isinstance(seed, bytes) or len(seed) != SEED_SIZE:
            raise MalformedKeyMaterial
        self._seed = seed

    @classmethod
    def generate(cls) -> Seed:
        """A fresh seed from the operating system's randomness."""
        return cls(secrets.token_bytes(SEED_SIZE))

    @classmethod
    def from_bytes(cls, seed: bytes) -> Seed:
        """A seed from its 32 bytes; raises `MalformedKeyMaterial` for another length."""
        return cls(seed)

    def reveal(self) -> bytes:
        """The 32 bytes themselves. For the keystore and the recovery words only."""
        return self._seed

    def umbral_key(self, label: str) -> SecretKey:
        """The Umbral key under `pcehr/v1/<label>`, the same in every engine and at every call."""
        return SecretKey._derived(self._seed, LABEL_PREFIX + label.encode("utf-8"))

    def derive(self, label: str, size: int) -> bytes:
        """`size` bytes of HKDF-SHA256 under `pcehr/v1/<label>`, the same at every call."""
        return hkdf(self._seed, LABEL_PREFIX + label.encode("utf-8"), size)
