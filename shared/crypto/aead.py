"""Authenticated encryption with a key of 32 bytes: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), by libsodium.

The nonce has 24 bytes and is drawn at random for every message, which is safe for as many messages as anybody can
send under one key.
"""

from __future__ import annotations

import secrets

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from shared.crypto.errors import DecryptionFailed, MalformedKeyMaterial

KEY_SIZE = 32
NONCE_SIZE = 24
TAG_SIZE = 16
OVERHEAD = NONCE_SIZE + TAG_SIZE
"""How many bytes longer the result of `encrypt` is than the plaintext."""


def encrypt(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Encrypt and authenticate: nonce (24 bytes) || ciphertext || tag (16 bytes).

    `aad` is authenticated and not contained. Raises `MalformedKeyMaterial` unless the key has 32 bytes.
    """
    nonce = secrets.token_bytes(NONCE_SIZE)
    return nonce + encrypt_with_nonce(key, nonce, plaintext, aad)


def decrypt(key: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """The inverse of `encrypt`; raises `DecryptionFailed`."""
    if len(ciphertext) < OVERHEAD:
        raise DecryptionFailed
    return decrypt_with_nonce(key, ciphertext[:NONCE_SIZE], ciphertext[NONCE_SIZE:], aad)


def encrypt_with_nonce(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Ciphertext || tag under a nonce of 24 bytes that the caller guarantees to use once under this key."""
    check_key(key)
    return crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, aad, nonce, key)


def decrypt_with_nonce(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """The inverse of `encrypt_with_nonce`; raises `DecryptionFailed`."""
    check_key(key)
    if len(ciphertext) < TAG_SIZE:
        raise DecryptionFailed
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, aad, nonce, key)
    except CryptoError:
        raise DecryptionFailed from None


def check_key(key: bytes) -> None:
    """Raise `MalformedKeyMaterial` unless `key` is 32 bytes."""
    if not isinstance(key, bytes) or len(key) != KEY_SIZE:
        raise MalformedKeyMaterial
