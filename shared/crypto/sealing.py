"""Anonymous public-key encryption to one holder: libsodium's sealed boxes over X25519 (RFC 7748) and XSalsa20-Poly1305.

A share travels to its proxy in such a box, so that the service which relays it sees nothing. A sealed box does not
say who made it; that is what the signed grant is for.
"""

from __future__ import annotations

from nacl.bindings import crypto_scalarmult
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey as _SodiumPrivateKey
from nacl.public import PublicKey as _SodiumPublicKey
from nacl.public import SealedBox

from shared.crypto.errors import DecryptionFailed, MalformedKeyMaterial
from shared.crypto.secrecy import Secret
from shared.encoding import b64url

SEALING_KEY_SIZE = 32
SEAL_OVERHEAD = 48
"""How many bytes longer a sealed box is than what is in it: an ephemeral key of 32 and a tag of 16."""

_FIELD_PRIME = 2**255 - 19
_ANY_SCALAR = bytes(31) + b"\x40"
"""A multiple of the cofactor 8 with bit 254 set, so that every point of small order multiplies to zero."""


class SealingPublicKey:
    """The public half of a sealing key, 32 bytes."""

    __slots__ = ("_bytes", "_key")

    def __init__(self, data: bytes) -> None:
        if not isinstance(data, bytes) or len(data) != SEALING_KEY_SIZE:
            raise MalformedKeyMaterial
        if int.from_bytes(data, "little") >= _FIELD_PRIME or _has_small_order(data):
            raise MalformedKeyMaterial
        self._bytes = data
        self._key = _SodiumPublicKey(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> SealingPublicKey:
        """Parse 32 bytes; raises `MalformedKeyMaterial` for a non-canonical key or one of small order."""
        return cls(data)

    def __bytes__(self) -> bytes:
        return self._bytes

    @property
    def b64(self) -> str:
        """The 32 bytes in base64url without padding."""
        return b64url(self._bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SealingPublicKey) and other._bytes == self._bytes

    def __hash__(self) -> int:
        return hash((SealingPublicKey, self._bytes))

    def __repr__(self) -> str:
        return f"<SealingPublicKey {self.b64}>"


class SealingKey(Secret):
    """The private half of a sealing key, from its 32 bytes."""

    __slots__ = ("_key", "_public")

    def __init__(self, data: bytes) -> None:
        if not isinstance(data, bytes) or len(data) != SEALING_KEY_SIZE:
            raise MalformedKeyMaterial
        self._key = _SodiumPrivateKey(data)
        self._public = SealingPublicKey(bytes(self._key.public_key))

    @classmethod
    def from_bytes(cls, data: bytes) -> SealingKey:
        """A key from its 32 bytes; raises `MalformedKeyMaterial` for another length."""
        return cls(data)

    @classmethod
    def generate(cls) -> SealingKey:
        """A fresh key from the operating system's randomness."""
        return cls(bytes(_SodiumPrivateKey.generate()))

    @property
    def public_key(self) -> SealingPublicKey:
        """The public half, 32 bytes."""
        return self._public

    def open(self, ciphertext: bytes) -> bytes:
        """What was sealed to this key; raises `DecryptionFailed`."""
        if len(ciphertext) < SEAL_OVERHEAD:
            raise DecryptionFailed
        try:
            return SealedBox(self._key).decrypt(ciphertext)
        except CryptoError:
            raise DecryptionFailed from None


def seal(public: SealingPublicKey, plaintext: bytes) -> bytes:
    """Encrypt to the holder of `public`; the result is 48 bytes longer."""
    return SealedBox(public._key).encrypt(plaintext)


def _has_small_order(data: bytes) -> bool:
    """Whether a shared secret with this key would be zero (RFC 7748 section 6.1)."""
    try:
        return not any(crypto_scalarmult(_ANY_SCALAR, data))
    except CryptoError:
        return True
