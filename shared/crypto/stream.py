"""STREAM: authenticated encryption of a payload of any size, chunk by chunk, in constant memory and with random access.

The construction of Hoang, Reyhanitabar, Rogaway and Vizár ("Online authenticated-encryption and its nonce-reuse
misuse-resistance", CRYPTO 2015), over XChaCha20-Poly1305:

    plaintext chunk   65 536 bytes, the final one from 1 to 65 536, or 0 if the whole payload is empty
    ciphertext chunk  the plaintext chunk and a tag of 16 bytes
    nonce (24)        index of the chunk as 23 bytes big-endian || final flag (0 or 1)
    associated data   digest of the context (32) || index as 8 bytes big-endian || final flag

Since the nonce is the position, **a key encrypts one payload only**. A chunk that is moved, repeated or left out, a
payload cut at a border of chunks, and anything behind the final chunk do not authenticate.

`decrypt_chunks` yields a chunk as soon as that chunk is authentic. That the payload is complete is known only when
the iterator ends without raising: until then, what came out is a prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shared.crypto import aead
from shared.crypto.errors import DecryptionFailed, MalformedKeyMaterial, PayloadCorrupt, PayloadTruncated

CHUNK_SIZE = 65_536
"""Bytes of plaintext in every chunk but the final one."""

CIPHERTEXT_CHUNK_SIZE = CHUNK_SIZE + aead.TAG_SIZE
"""Bytes of ciphertext in every chunk but the final one."""

CONTEXT_DIGEST_SIZE = 32


def encrypt_chunks(key: bytes, context_digest: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Encrypt pieces of any sizes into ciphertext chunks of 65 552 bytes, the final one shorter or equal.

    `key` has 32 bytes and is used for this payload only; `context_digest` has 32 bytes. Raises
    `MalformedKeyMaterial` for other sizes, at once.
    """
    _check(key, context_digest)
    return _encrypted(key, context_digest, chunks)


def decrypt_chunks(key: bytes, context_digest: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Decrypt pieces of any sizes, yielding one authentic plaintext chunk at a time.

    Raises `MalformedKeyMaterial` at once for a key or digest of the wrong size; while iterating, `PayloadTruncated`
    if there is no final chunk, and `PayloadCorrupt` for a chunk that does not authenticate at its place. Data cut
    inside a chunk cannot be told from a changed chunk and is `PayloadCorrupt`, unless less than a tag is left.
    """
    _check(key, context_digest)
    return _decrypted(key, context_digest, chunks)


def decrypt_chunk_at(key: bytes, context_digest: bytes, index: int, chunk: bytes, final: bool) -> bytes:
    """Decrypt the ciphertext chunk at position `index`, counted from 0, without any other chunk.

    `final` says whether the caller, who knows the size of the payload, expects the last chunk here. Raises as
    `decrypt_chunks` does.
    """
    _check(key, context_digest)
    return _open(key, context_digest, index, chunk, final)


def ciphertext_size(plaintext_size: int) -> int:
    """Bytes of ciphertext for a payload of `plaintext_size` bytes: 16 more for each chunk, at least one."""
    return plaintext_size + aead.TAG_SIZE * chunk_count(plaintext_size)


def chunk_count(plaintext_size: int) -> int:
    """How many chunks a payload of `plaintext_size` bytes has; an empty one has one."""
    return max(1, -(-plaintext_size // CHUNK_SIZE))


def _encrypted(key: bytes, context_digest: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    for index, (chunk, final) in enumerate(_regrouped(chunks, CHUNK_SIZE)):
        nonce, associated = _position(context_digest, index, final)
        yield aead.encrypt_with_nonce(key, nonce, chunk, associated)


def _decrypted(key: bytes, context_digest: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    for index, (chunk, final) in enumerate(_regrouped(chunks, CIPHERTEXT_CHUNK_SIZE)):
        yield _open(key, context_digest, index, chunk, final)


def _open(key: bytes, context_digest: bytes, index: int, chunk: bytes, final: bool) -> bytes:
    if len(chunk) < aead.TAG_SIZE:
        raise PayloadTruncated
    if len(chunk) > CIPHERTEXT_CHUNK_SIZE or (not final and len(chunk) != CIPHERTEXT_CHUNK_SIZE):
        raise PayloadCorrupt
    if not 0 <= index < 2**64:
        raise PayloadCorrupt
    nonce, associated = _position(context_digest, index, final)
    try:
        plaintext = aead.decrypt_with_nonce(key, nonce, chunk, associated)
    except DecryptionFailed:
        if final and _is_inner_chunk(key, context_digest, index, chunk):
            raise PayloadTruncated from None
        raise PayloadCorrupt from None
    if final and index > 0 and not plaintext:
        # An author who ends a payload with an empty chunk would give it a second ciphertext of another length.
        raise PayloadCorrupt
    return plaintext


def _is_inner_chunk(key: bytes, context_digest: bytes, index: int, chunk: bytes) -> bool:
    """Whether the last chunk at hand is authentic, but not as the final one: then the rest is missing."""
    nonce, associated = _position(context_digest, index, final=False)
    try:
        aead.decrypt_with_nonce(key, nonce, chunk, associated)
    except DecryptionFailed:
        return False
    return True


def _position(context_digest: bytes, index: int, final: bool) -> tuple[bytes, bytes]:
    """The nonce (24 bytes) and the associated data (41 bytes) of the chunk at `index`."""
    flag = b"\x01" if final else b"\x00"
    return index.to_bytes(23, "big") + flag, context_digest + index.to_bytes(8, "big") + flag


def _regrouped(pieces: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Cut pieces of any sizes into chunks of `size` bytes, each with whether it is the last.

    A full chunk is held back until the next byte arrives, so the last one is never empty unless everything is.
    """
    pending = bytearray()
    for piece in pieces:
        rest = memoryview(piece)
        while len(rest) > 0:
            if len(pending) == size:
                yield bytes(pending), False
                pending.clear()
            room = size - len(pending)
            pending += rest[:room]
            rest = rest[room:]
    yield bytes(pending), True


def _check(key: bytes, context_digest: bytes) -> None:
    aead.check_key(key)
    if not isinstance(context_digest, bytes) or len(context_digest) != CONTEXT_DIGEST_SIZE:
        raise MalformedKeyMaterial
