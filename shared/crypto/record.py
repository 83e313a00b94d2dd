"""A record at rest: content key, envelope, header and body.

    content key   CEK, 32 random bytes, for one version of one record
    envelope      Umbral encryption of CEK || H(context) to the delegating key of a scope and epoch:
                  a capsule of 98 bytes and a wrapped key of 104
    header        small canonical JSON, padded, XChaCha20-Poly1305 under HKDF(CEK, "pcehr/v1/header"), aad H(context)
    body          padded to a Padmé length, STREAM under HKDF(CEK, "pcehr/v1/payload") with H(context)
    commitment    HKDF(CEK, "pcehr/v1/commit"), 32 bytes, which the author signs in the manifest

Umbral's own authenticated encryption binds nothing but the capsule, so H(context) inside the envelope is what keeps
an envelope from being presented as another record's. The commitment keeps an author from making one ciphertext that
opens under two keys into two different records, which Poly1305 does not prevent (Albertini et al., "How to abuse and
fix authenticated encryption without key commitment", USENIX Security 2022).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import rfc8785

from shared.crypto import aead, stream, umbral
from shared.crypto.derivation import LABEL_PREFIX, hkdf
from shared.crypto.errors import (
    CommitmentMismatch,
    ContextMismatch,
    MalformedKeyMaterial,
    PayloadCorrupt,
    PayloadTruncated,
)
from shared.crypto.padding import padme
from shared.crypto.secrecy import Secret
from shared.crypto.umbral import Capsule, PublicKey, SecretKey, VerifiedCapsuleFrag
from shared.encoding import canonical_json, from_canonical_json, sha256
from shared.errors import Malformed, TooLarge

CEK_SIZE = 32
DIGEST_SIZE = 32
COMMITMENT_SIZE = 32
WRAPPED_KEY_SIZE = CEK_SIZE + DIGEST_SIZE + umbral.CIPHERTEXT_OVERHEAD
"""104 bytes."""

HEADER_BLOCK = 256
MAX_HEADER_PLAINTEXT = 8 * 1024
"""Bytes of a header's JSON together with its padding."""

MAX_HEADER_CIPHERTEXT = MAX_HEADER_PLAINTEXT + aead.OVERHEAD

_CONTEXT_TAG = b"pcehr/v1/context\x00"
_HEADER_LABEL = LABEL_PREFIX + b"header"
_PAYLOAD_LABEL = LABEL_PREFIX + b"payload"
_COMMIT_LABEL = LABEL_PREFIX + b"commit"
_MAX_INTEGER = 2**53 - 1
_PADDING_MARK = b"\x80"


@dataclass(frozen=True, slots=True)
class RecordContext:
    """What an envelope, a header and a body belong to. Every member is bound; a change of any is another context.

    `patient` and `author` are DIDs, `record` a UUID, `scope` the opaque id of the scope in base64url, `version` and
    `epoch` count from what their statements say, up to 2**53 - 1. Raises `Malformed` for members of other types.
    """

    patient: str
    record: str
    version: int
    scope: str
    epoch: int
    author: str

    def __post_init__(self) -> None:
        for text in (self.patient, self.record, self.scope, self.author):
            if not isinstance(text, str) or not text or not _is_unicode(text):
                raise Malformed("A record's context has texts for patient, record, scope and author.")
        for number in (self.version, self.epoch):
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _MAX_INTEGER:
                raise Malformed("A record's context has whole numbers for version and epoch.")

    def digest(self) -> bytes:
        """H(context): SHA-256 of a tag and the members, with `"v":1`, as canonical JSON (RFC 8785); 32 bytes."""
        return _digest(self)


@lru_cache(256)
def _digest(context: RecordContext) -> bytes:
    """Envelope, header and body of one record each ask for it."""
    members = {
        "patient": context.patient,
        "record": context.record,
        "version": context.version,
        "scope": context.scope,
        "epoch": context.epoch,
        "author": context.author,
        "v": 1,
    }
    return sha256(_CONTEXT_TAG + canonical_json(members))


class RecordKey(Secret):
    """The content key of one version of one record. Make a new one for every version: it encrypts one body only."""

    __slots__ = ("_cek",)

    def __init__(self, cek: bytes) -> None:
        if not isinstance(cek, bytes) or len(cek) != CEK_SIZE:
            raise MalformedKeyMaterial
        self._cek = cek

    @classmethod
    def generate(cls) -> RecordKey:
        """A fresh content key from the operating system's randomness."""
        return cls(secrets.token_bytes(CEK_SIZE))

    def wrap(self, delegating_key: PublicKey, context: RecordContext) -> tuple[Capsule, bytes]:
        """The envelope for a delegating key: a capsule (98 bytes) and a wrapped key (104 bytes).

        `context` is the one that header and body are made under. To hand a record to another delegating key without
        touching its body, wrap again under that same context, which therefore keeps naming the first scope and epoch.
        """
        return umbral.encrypt(delegating_key, self._cek + context.digest())

    @classmethod
    def unwrap_original(
        cls, delegating_sk: SecretKey, capsule: Capsule, wrapped: bytes, context: RecordContext
    ) -> RecordKey:
        """Open an envelope with the delegating key.

        Raises `MalformedKeyMaterial` unless `wrapped` has 104 bytes, `DecryptionFailed`, and `ContextMismatch` if
        the envelope was made for another context.
        """
        _check_wrapped(wrapped)
        return cls.from_envelope(umbral.decrypt_original(delegating_sk, capsule, wrapped), context)

    @classmethod
    def unwrap_reencrypted(  # noqa: PLR0917  # The order is that of `umbral.decrypt_reencrypted`, context last.
        cls,
        receiving_sk: SecretKey,
        delegating_key: PublicKey,
        capsule: Capsule,
        cfrags: Sequence[VerifiedCapsuleFrag],
        wrapped: bytes,
        context: RecordContext,
    ) -> RecordKey:
        """Open an envelope with `t` re-encryptions and the receiving key.

        Raises what `unwrap_original` does, and `SharesDoNotCombine`.
        """
        _check_wrapped(wrapped)
        plaintext = umbral.decrypt_reencrypted(receiving_sk, delegating_key, capsule, cfrags, wrapped)
        return cls.from_envelope(plaintext, context)

    @classmethod
    def from_envelope(cls, plaintext: bytes, context: RecordContext) -> RecordKey:
        """The content key out of what an envelope holds, 64 bytes; raises `ContextMismatch`."""
        if not hmac.compare_digest(plaintext[CEK_SIZE:], context.digest()):
            raise ContextMismatch
        return cls(plaintext[:CEK_SIZE])

    @property
    def commitment(self) -> bytes:
        """What the author's manifest says of this key without telling it, 32 bytes."""
        return hkdf(self._cek, _COMMIT_LABEL, COMMITMENT_SIZE)

    def check_commitment(self, expected: bytes) -> None:
        """Raise `CommitmentMismatch` unless `expected` (32 bytes) is this key's commitment; in constant time."""
        if not hmac.compare_digest(self.commitment, expected):
            raise CommitmentMismatch

    def encrypt_header(self, header: Mapping[str, Any], context: RecordContext) -> bytes:
        """Encrypt a small JSON object; the result is a multiple of 256 bytes plus 40, at most 8232.

        Raises `Malformed` for what canonical JSON cannot hold here (floats, integers beyond 2**53 - 1, nesting
        beyond 16), `TooLarge` for more than 8191 bytes of JSON.
        """
        try:
            plaintext = canonical_json(dict(header))
        except (rfc8785.CanonicalizationError, RecursionError, UnicodeError):
            raise Malformed("The header is not canonical JSON.") from None
        # What the reader would refuse must not be written, floats above all.
        from_canonical_json(plaintext)
        return aead.encrypt(self._header_key(), _pad_block(plaintext), context.digest())

    def decrypt_header(self, ciphertext: bytes, context: RecordContext) -> dict[str, Any]:
        """The inverse of `encrypt_header`.

        Raises `TooLarge`, `DecryptionFailed`, `PayloadCorrupt` for bad padding, and `Malformed` for anything but a
        canonical JSON object. The last two take an author who writes badly, since the data are authentic by then.
        """
        if len(ciphertext) > MAX_HEADER_CIPHERTEXT:
            raise TooLarge
        plaintext = aead.decrypt(self._header_key(), ciphertext, context.digest())
        header = from_canonical_json(_unpad_block(plaintext))
        if not isinstance(header, dict):
            raise Malformed("A header is a JSON object.")
        return header

    def encrypt_body(self, chunks: Iterable[bytes], length: int, context: RecordContext) -> Iterator[bytes]:
        """Encrypt a body of `length` bytes, padded with zeros, in constant memory; once for each `RecordKey`.

        The ciphertext has `body_ciphertext_size(length)` bytes. Raises `Malformed` for a negative length at once;
        while iterating, `PayloadTruncated` or `PayloadCorrupt` if the chunks have fewer or more bytes than said.
        """
        padded = padme(length)
        plaintext = _followed_by_zeros(_of_exact_size(chunks, length), padded - length)
        return stream.encrypt_chunks(self._payload_key(), context.digest(), plaintext)

    def decrypt_body(self, chunks: Iterable[bytes], length: int, context: RecordContext) -> Iterator[bytes]:
        """Decrypt a body of `length` bytes, as the author's manifest says, and check its padding.

        Yields authentic parts as they come; only the end of the iterator without an exception says that the body is
        complete. Raises `Malformed` for a negative length at once; while iterating, `PayloadTruncated` for too few
        bytes and `PayloadCorrupt` for too many, for changed ones, and for padding that is not zero.
        """
        ciphertext = _of_exact_size(chunks, body_ciphertext_size(length))
        plaintext = stream.decrypt_chunks(self._payload_key(), context.digest(), ciphertext)
        return _without_padding(plaintext, length)

    def decrypt_body_chunk(self, index: int, chunk: bytes, length: int, context: RecordContext) -> bytes:
        """Decrypt the one ciphertext chunk at position `index` of a body of `length` bytes, padding removed.

        The chunk is the bytes from `index * 65 552` on, at most 65 552 of them. Raises as `decrypt_body` does.
        """
        padded = padme(length)
        last = stream.chunk_count(padded) - 1
        if not 0 <= index <= last:
            raise PayloadCorrupt
        plaintext = stream.decrypt_chunk_at(self._payload_key(), context.digest(), index, chunk, index == last)
        start = index * stream.CHUNK_SIZE
        if len(plaintext) != min(stream.CHUNK_SIZE, padded - start):
            raise PayloadCorrupt
        return _strip_zeros(plaintext, max(0, length - start))

    def _header_key(self) -> bytes:
        return hkdf(self._cek, _HEADER_LABEL, aead.KEY_SIZE)

    def _payload_key(self) -> bytes:
        return hkdf(self._cek, _PAYLOAD_LABEL, aead.KEY_SIZE)


def body_ciphertext_size(length: int) -> int:
    """Bytes of ciphertext for a body of `length` bytes; raises `Malformed` for a negative length."""
    return stream.ciphertext_size(padme(length))


def _check_wrapped(wrapped: bytes) -> None:
    if not isinstance(wrapped, bytes) or len(wrapped) != WRAPPED_KEY_SIZE:
        raise MalformedKeyMaterial


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can carry the text; Python's strings may hold lone surrogates, which nothing can."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _pad_block(plaintext: bytes) -> bytes:
    """ISO/IEC 7816-4: one byte 0x80, then zeros up to a multiple of 256 bytes."""
    marked = plaintext + _PADDING_MARK
    padded = marked + bytes(-len(marked) % HEADER_BLOCK)
    if len(padded) > MAX_HEADER_PLAINTEXT:
        raise TooLarge("A record's header has at most 8191 bytes of JSON.")
    return padded


def _unpad_block(padded: bytes) -> bytes:
    """The inverse of `_pad_block`, for its own output only: fewer than one block of padding is accepted."""
    plaintext, mark, zeros = padded.rpartition(_PADDING_MARK)
    if not mark or len(padded) % HEADER_BLOCK or len(zeros) >= HEADER_BLOCK or any(zeros):
        raise PayloadCorrupt
    return plaintext


def _of_exact_size(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Pass pieces on, and raise as soon as they turn out to have more or fewer than `size` bytes together."""
    left = size
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise PayloadCorrupt
        yield piece
    if left > 0:
        raise PayloadTruncated


def _followed_by_zeros(pieces: Iterable[bytes], count: int) -> Iterator[bytes]:
    yield from pieces
    while count > 0:
        step = min(count, stream.CHUNK_SIZE)
        yield bytes(step)
        count -= step


def _without_padding(pieces: Iterable[bytes], length: int) -> Iterator[bytes]:
    left = length
    for piece in pieces:
        data = _strip_zeros(piece, left)
        left -= len(data)
        if data:
            yield data


def _strip_zeros(piece: bytes, keep: int) -> bytes:
    """The first `keep` bytes of `piece`; raises `PayloadCorrupt` unless all others are zero."""
    if piece.count(0, keep) != max(0, len(piece) - keep):
        raise PayloadCorrupt
    return piece[:keep]
