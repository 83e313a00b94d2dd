"""Ed25519 signatures (RFC 8032), by libsodium.

One signature, one meaning: libsodium refuses an S at or above the group order, and `VerifyKey` refuses keys that are
not canonical, are outside the prime-order group, or of small order, under which one signature would verify for
many messages (Chalkias, Garillot and Nikolaenko, "Taming the many EdDSAs", 2020).
"""

from __future__ import annotations

from functools import lru_cache

from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey as _SodiumSigningKey
from nacl.signing import VerifyKey as _SodiumVerifyKey

from shared.crypto.errors import BadSignature, MalformedKeyMaterial
from shared.crypto.secrecy import Secret
from shared.encoding import b64url

SIGNATURE_SIZE = 64
VERIFY_KEY_SIZE = 32
SIGNING_SEED_SIZE = 32


class VerifyKey:
    """The public half of an identity key, 32 bytes."""

    __slots__ = ("_bytes", "_key")

    def __init__(self, data: bytes) -> None:
        if not isinstance(data, bytes) or len(data) != VERIFY_KEY_SIZE or not crypto_core_ed25519_is_valid_point(data):
            raise MalformedKeyMaterial
        self._bytes = data
        self._key = _SodiumVerifyKey(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> VerifyKey:
        """Parse 32 bytes; raises `MalformedKeyMaterial` for a non-canonical, small-order or mixed-order point."""
        return _parsed(data) if isinstance(data, bytes) else cls(data)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Return if `signature` (64 bytes) is this key's over `message`; raises `BadSignature`."""
        if len(signature) != SIGNATURE_SIZE:
            raise BadSignature
        try:
            self._key.verify(message, signature)
        except BadSignatureError:
            raise BadSignature from None

    def __bytes__(self) -> bytes:
        return self._bytes

    @property
    def b64(self) -> str:
        """The 32 bytes in base64url without padding."""
        return b64url(self._bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyKey) and other._bytes == self._bytes

    def __hash__(self) -> int:
        return hash((VerifyKey, self._bytes))

    def __repr__(self) -> str:
        return f"<VerifyKey {self.b64}>"


@lru_cache(4096)
def _parsed(data: bytes) -> VerifyKey:
    """A key parsed before: whether a point is of prime order costs nearly as much as a signature, and the statements of
    one party all come with the same key."""
    return VerifyKey(data)


class SigningKey(Secret):
    """The private half of an identity key, from its 32-byte seed (RFC 8032 section 5.1.5)."""

    __slots__ = ("_key", "_verify_key")

    def __init__(self, seed: bytes) -> None:
        if not isinstance(seed, bytes) or len(seed) != SIGNING_SEED_SIZE:
            raise MalformedKeyMaterial
        self._key = _SodiumSigningKey(seed)
        self._verify_key = VerifyKey(bytes(self._key.verify_key))

    @classmethod
    def from_bytes(cls, seed: bytes) -> SigningKey:
        """A key from its 32-byte seed; raises `MalformedKeyMaterial` for another length."""
        return cls(seed)

    @classmethod
    def generate(cls) -> SigningKey:
        """A fresh key from the operating system's randomness."""
        return cls(bytes(_SodiumSigningKey.generate()))

    @property
    def verify_key(self) -> VerifyKey:
        """The public half, 32 bytes."""
        return self._verify_key

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`, 64 bytes; deterministic."""
        return self._key.sign(message).signature
