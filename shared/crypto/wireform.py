"""The fixed-length wire form of Umbral objects, checked byte by byte before any engine sees it.

Both libraries' parsers accept more than one spelling of one object: trailing bytes, high-S signatures, scalars at or
above the group order, non-canonical flags. Whatever is accepted here has exactly one spelling, so that a hash of the
bytes identifies the object. Only the question whether an x-coordinate is on the curve is left to the engine.

Layouts, in bytes (sizes of Umbral's own encodings; points are compressed per SEC 1, section 2.3.3):

    public key  33   point
    capsule     98   E 33, V 33, s 32
    kfrag      260   id 32, key 32, precursor 33, commitment 33, signature for the proxy 64,
                     signature for the receiver 64, delegating-key-signed 1, receiving-key-signed 1
    cfrag      359   E1 33, V1 33, kfrag id 32, precursor 33, E2 33, V2 33, kfrag commitment 33,
                     kfrag proof of knowledge 33, proof 32, kfrag signature 64

Every check here is on public data, so none needs to run in constant time, except the key inside a kfrag, of which
only the range is tested.
"""

from __future__ import annotations

from typing import Final

from shared.crypto.errors import MalformedKeyMaterial

FIELD_PRIME: Final = 2**256 - 2**32 - 977
"""The prime p of secp256k1's field (SEC 2, section 2.4.1)."""

ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""The order n of secp256k1 (SEC 2, section 2.4.1)."""

PARAMETER_U: Final = bytes.fromhex("03079390d0fbe220fc34aab8ecbf49098098036820fadb98c03143e55db8ec73cd")
"""Umbral's second generator u, 33 bytes, as the current version of the suite defines it."""

PUBLIC_KEY_SIZE: Final = 33
CAPSULE_SIZE: Final = 98
KFRAG_SIZE: Final = 260
CFRAG_SIZE: Final = 359
CIPHERTEXT_OVERHEAD: Final = 40

_KFRAG_SIGNATURES: Final = (130, 194)
_KFRAG_FLAGS: Final = 258


def check_public_key(data: bytes) -> None:
    """Raise `MalformedKeyMaterial` unless `data` has the form of a 33-byte compressed point."""
    _check_size(data, PUBLIC_KEY_SIZE)
    _check_points(data, 0)


def check_capsule(data: bytes) -> None:
    """Raise `MalformedKeyMaterial` unless `data` has the form of a 98-byte capsule.

    A capsule whose points cancel out would give the point at infinity, hence a key that everybody knows; the
    capsule's own proof does not exclude it.
    """
    _check_size(data, CAPSULE_SIZE)
    _check_points(data, 0, 33)
    _check_scalar(data[66:98])
    if data[1:33] == data[34:66] and data[0] != data[33]:
        raise MalformedKeyMaterial


def check_kfrag(data: bytes) -> None:
    """Raise `MalformedKeyMaterial` unless `data` has the form of a 260-byte kfrag."""
    _check_size(data, KFRAG_SIZE)
    _check_scalar(data[32:64])
    _check_points(data, 64, 97)
    for start in _KFRAG_SIGNATURES:
        _check_signature(data[start : start + 64])
    if any(flag not in (0, 1) for flag in data[_KFRAG_FLAGS:]):
        raise MalformedKeyMaterial


def check_cfrag(data: bytes) -> None:
    """Raise `MalformedKeyMaterial` unless `data` has the form of a 359-byte cfrag."""
    _check_size(data, CFRAG_SIZE)
    _check_points(data, 0, 33, 98, 131, 164, 197, 230)
    _check_scalar(data[263:295])
    _check_signature(data[295:359])


def check_same(decoded_and_encoded: bytes, data: bytes) -> None:
    """Raise `MalformedKeyMaterial` unless encoding what was decoded gives the same bytes again."""
    if decoded_and_encoded != data:
        raise MalformedKeyMaterial


def both_keys_signed(kfrag: bytes) -> bool:
    """Whether a kfrag's signature covers the delegating and the receiving key, by its own flags."""
    return kfrag[_KFRAG_FLAGS:] == b"\x01\x01"


def kfrag_id_of(cfrag: bytes) -> bytes:
    """The 32-byte id of the share that a cfrag was made with."""
    return cfrag[66:98]


def precursor_of(cfrag: bytes) -> bytes:
    """The 33-byte precursor of a cfrag, which is equal for all shares of one set."""
    return cfrag[98:131]


def _check_size(data: object, size: int) -> None:
    if not isinstance(data, bytes) or len(data) != size:
        raise MalformedKeyMaterial


def _check_points(data: bytes, *starts: int) -> None:
    """A compressed point starts with 2 or 3; the point at infinity, uncompressed and hybrid points do not."""
    for start in starts:
        if data[start] not in (2, 3) or int.from_bytes(data[start + 1 : start + 33], "big") >= FIELD_PRIME:
            raise MalformedKeyMaterial


def _check_scalar(data: bytes) -> None:
    if not 1 <= int.from_bytes(data, "big") < ORDER:
        raise MalformedKeyMaterial


def _check_signature(data: bytes) -> None:
    """ECDSA r and s in [1, n-1] (SEC 1, section 4.1.4), and s in the lower half, since -s would verify as well."""
    _check_scalar(data[:32])
    if not 1 <= int.from_bytes(data[32:], "big") <= ORDER // 2:
        raise MalformedKeyMaterial
