"""The engine over umbral-pre, the Umbral authors' own implementation in Rust.

The library's Python bindings put the fields of an object into MessagePack, while the wire carries them bare. Since
every field has a fixed length, so has the MessagePack, and converting is cutting and joining: no MessagePack parser
is needed, and no other spelling of a field can come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import umbral_pre

from shared.crypto.engines.protocol import Engine, Handle
from shared.crypto.errors import (
    CapsuleFragRejected,
    DecryptionFailed,
    KeyFragRejected,
    MalformedKeyMaterial,
    SharesDoNotCombine,
)
from shared.crypto.wireform import PARAMETER_U

_VerificationError: Final[type[Exception]] = getattr(umbral_pre, "VerificationError")  # noqa: B009  # Its stub omits it.
_OPEN_FAILED: Final = "Re-encryption error on open"
"""How the library's message begins when the capsule does not open, as opposed to the ciphertext."""

_BIN8: Final = b"\xc4"
_FALSE, _TRUE = b"\xc2", b"\xc3"
# A kfrag of the library is led by the suite's parameters, a structure whose one member is the constant point u.
_KFRAG_PREFIX: Final = b"\x95\x91" + _BIN8 + bytes((33,)) + PARAMETER_U
_CAPSULE_FIELDS: Final = (33, 33, 32)
_KFRAG_FIELDS: Final = (32, 32, 33)
_KFRAG_PROOF_FIELDS: Final = (33, 64, 64)
_CFRAG_FIELDS: Final = (33, 33, 32, 33)
_CFRAG_PROOF_FIELDS: Final = (33, 33, 33, 33, 32, 64)


class RustEngine:
    """Umbral by umbral-pre 0.11. The library keeps the interpreter's lock while it works."""

    name = "umbral-pre"

    def random_secret_key(self) -> Handle:
        return umbral_pre.SecretKey.random()

    def derive_secret_key(self, seed: bytes, label: bytes) -> Handle:
        return umbral_pre.SecretKeyFactory.from_secure_randomness(seed).make_key(label)

    def decode_secret_key(self, data: bytes) -> Handle:
        try:
            return umbral_pre.SecretKey.from_be_bytes(data)
        except ValueError:
            raise MalformedKeyMaterial from None

    def encode_secret_key(self, key: Handle) -> bytes:
        return bytes(key.to_be_bytes())

    def public_key_of(self, key: Handle) -> Handle:
        return key.public_key()

    def decode_public_key(self, data: bytes) -> Handle:
        try:
            return umbral_pre.PublicKey.from_compressed_bytes(data)
        except ValueError:
            raise MalformedKeyMaterial from None

    def encode_public_key(self, key: Handle) -> bytes:
        return bytes(key.to_compressed_bytes())

    def decode_capsule(self, data: bytes) -> Handle:
        try:
            return umbral_pre.Capsule.from_bytes(_array(3) + _wrap(data, _CAPSULE_FIELDS))
        except ValueError:
            raise MalformedKeyMaterial from None

    def encode_capsule(self, capsule: Handle) -> bytes:
        return bytes(capsule.to_bytes_simple())

    def decode_kfrag(self, data: bytes) -> Handle:
        packed = b"".join(
            (
                _KFRAG_PREFIX,
                _wrap(data[:97], _KFRAG_FIELDS),
                _array(5),
                _wrap(data[97:258], _KFRAG_PROOF_FIELDS),
                *(_TRUE if flag else _FALSE for flag in data[258:260]),
            )
        )
        try:
            return umbral_pre.KeyFrag.from_bytes(packed)
        except ValueError:
            raise MalformedKeyMaterial from None

    def encode_kfrag(self, kfrag: Handle) -> bytes:
        packed = bytes(kfrag)
        fields, at = _unwrap(packed, len(_KFRAG_PREFIX), _KFRAG_FIELDS)
        proof, at = _unwrap(packed, at + 1, _KFRAG_PROOF_FIELDS)
        flags = bytes(packed[place] == _TRUE[0] for place in (at, at + 1))
        return fields + proof + flags

    def encode_verified_kfrag(self, kfrag: Handle) -> bytes:
        return self.encode_kfrag(kfrag)

    def decode_cfrag(self, data: bytes) -> Handle:
        packed = b"".join(
            (_array(5), _wrap(data[:131], _CFRAG_FIELDS), _array(6), _wrap(data[131:], _CFRAG_PROOF_FIELDS))
        )
        try:
            return umbral_pre.CapsuleFrag.from_bytes(packed)
        except ValueError:
            raise MalformedKeyMaterial from None

    def encode_cfrag(self, cfrag: Handle) -> bytes:
        return bytes(cfrag.to_bytes_simple())

    def encode_verified_cfrag(self, cfrag: Handle) -> bytes:
        return bytes(cfrag.to_bytes_simple())

    def verify_kfrag(self, kfrag: Handle, verifying: Handle, delegating: Handle, receiving: Handle) -> Handle:
        try:
            return kfrag.verify(verifying, delegating, receiving)
        except (_VerificationError, ValueError):
            raise KeyFragRejected from None

    def trust_kfrag(self, kfrag: Handle) -> Handle:
        return kfrag.skip_verification()

    def verify_cfrag(
        self, cfrag: Handle, capsule: Handle, verifying: Handle, delegating: Handle, receiving: Handle
    ) -> Handle:
        try:
            return cfrag.verify(capsule, verifying, delegating, receiving)
        except (_VerificationError, ValueError):
            raise CapsuleFragRejected from None

    def trust_cfrag(self, cfrag: Handle) -> Handle:
        return cfrag.skip_verification()

    def encrypt(self, delegating: Handle, plaintext: bytes) -> tuple[Handle, bytes]:
        capsule, ciphertext = umbral_pre.encrypt(delegating, plaintext)
        return capsule, bytes(ciphertext)

    def decrypt_original(self, secret: Handle, capsule: Handle, ciphertext: bytes) -> bytes:
        try:
            return bytes(umbral_pre.decrypt_original(secret, capsule, ciphertext))
        except ValueError:
            raise DecryptionFailed from None

    def generate_kfrags(
        self, secret: Handle, receiving: Handle, signing: Handle, threshold: int, shares: int
    ) -> list[Handle]:
        signer = umbral_pre.Signer(signing)
        return list(umbral_pre.generate_kfrags(secret, receiving, signer, threshold, shares, True, True))

    def reencrypt(self, capsule: Handle, kfrag: Handle) -> Handle:
        return umbral_pre.reencrypt(capsule, kfrag)

    def decrypt_reencrypted(
        self, secret: Handle, delegating: Handle, capsule: Handle, cfrags: Sequence[Handle], ciphertext: bytes
    ) -> bytes:
        try:
            plaintext = umbral_pre.decrypt_reencrypted(secret, delegating, capsule, list(cfrags), ciphertext)
        except ValueError as error:
            if str(error).startswith(_OPEN_FAILED):
                raise SharesDoNotCombine from None
            raise DecryptionFailed from None
        if plaintext is None:
            raise DecryptionFailed
        return bytes(plaintext)


def create() -> Engine:
    """The engine; called once by `load_engine`."""
    return RustEngine()


def _array(length: int) -> bytes:
    """MessagePack's header of an array of fewer than 16 items."""
    return bytes((0x90 | length,))


def _wrap(data: bytes, sizes: Sequence[int]) -> bytes:
    """Put consecutive fields of the given sizes (each below 256 bytes) into MessagePack's `bin 8`."""
    packed, at = bytearray(), 0
    for size in sizes:
        packed += _BIN8 + bytes((size,)) + data[at : at + size]
        at += size
    return bytes(packed)


def _unwrap(packed: bytes, at: int, sizes: Sequence[int]) -> tuple[bytes, int]:
    """The inverse of `_wrap` from offset `at`; also returns the offset behind the last field."""
    fields = bytearray()
    for size in sizes:
        fields += packed[at + 2 : at + 2 + size]
        at += 2 + size
    return bytes(fields), at
