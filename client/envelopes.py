"""Opening envelopes with re-encryptions: each is checked, and `t` of those that hold are combined.

The module imports nothing but the cryptography, because `client.envelope_worker` is started for the length of one
fetch. Envelopes travel to a worker and back in frames of fixed sizes, preceded once by the keys of their grant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO

from shared.crypto.errors import CapsuleFragRejected, DecryptionFailed, MalformedKeyMaterial, SharesDoNotCombine
from shared.crypto.umbral import (
    CAPSULE_SIZE,
    CFRAG_SIZE,
    CIPHERTEXT_OVERHEAD,
    PUBLIC_KEY_SIZE,
    SECRET_KEY_SIZE,
    Capsule,
    CapsuleFrag,
    PublicKey,
    SecretKey,
    VerifiedCapsuleFrag,
    decrypt_reencrypted,
)

CONTENT_SIZE = 64
"""Bytes in an envelope: a content key and the hash of its context (docs/spec.md section 5)."""

WRAPPED_SIZE = CONTENT_SIZE + CIPHERTEXT_OVERHEAD
MAX_CFRAGS = 255
MAX_ENVELOPES = 65_535

Fault = type[MalformedKeyMaterial | SharesDoNotCombine | DecryptionFailed]
_FAULTS: tuple[Fault, ...] = (MalformedKeyMaterial, SharesDoNotCombine, DecryptionFailed)
_OPEN, _CLOSED = 0, 1
_HEAD = 1 + CAPSULE_SIZE + PUBLIC_KEY_SIZE + WRAPPED_SIZE
_KEYS = 1 + PUBLIC_KEY_SIZE + SECRET_KEY_SIZE


@dataclass(frozen=True)
class OpeningKeys:
    """What re-encryptions under one grant are checked and opened with; `threshold` of them open an envelope."""

    threshold: int
    verifying_key: bytes
    receiving_key: SecretKey

    def frame(self) -> bytes:
        """As it is sent to a worker; it holds the secret key."""
        return bytes([self.threshold]) + self.verifying_key + self.receiving_key.reveal()

    @classmethod
    def read(cls, stream: BinaryIO) -> OpeningKeys | None:
        """The keys at the beginning of a job, or None at the end of the stream, also in the middle of a frame."""
        data = stream.read(_KEYS)
        if len(data) < _KEYS:
            return None
        key = data[1 : 1 + PUBLIC_KEY_SIZE]
        return cls(data[0], key, SecretKey.from_revealed(data[1 + PUBLIC_KEY_SIZE :]))


@dataclass(frozen=True)
class Envelope:
    """An envelope, the delegating key it was made for, and its re-encryptions, at most 255."""

    capsule: bytes
    delegating_key: bytes
    wrapped_key: bytes
    cfrags: tuple[bytes, ...]

    @property
    def fits(self) -> bool:
        """Whether a frame can carry it; what a service sends may have any length."""
        sizes = (len(self.capsule), len(self.delegating_key), len(self.wrapped_key))
        return (
            sizes == (CAPSULE_SIZE, PUBLIC_KEY_SIZE, WRAPPED_SIZE)
            and len(self.cfrags) <= MAX_CFRAGS
            and all(len(cfrag) == CFRAG_SIZE for cfrag in self.cfrags)
        )

    def frame(self) -> bytes:
        """As it is sent to a worker: the number of re-encryptions (1 byte), then the members in order."""
        return b"".join((bytes([len(self.cfrags)]), self.capsule, self.delegating_key, self.wrapped_key, *self.cfrags))

    @classmethod
    def read(cls, stream: BinaryIO) -> Envelope | None:
        """The next envelope of a stream, or None at its end, also in the middle of a frame."""
        head = stream.read(_HEAD)
        if len(head) < _HEAD:
            return None
        body = stream.read(head[0] * CFRAG_SIZE)
        if len(body) < head[0] * CFRAG_SIZE:
            return None
        key = 1 + CAPSULE_SIZE
        wrapped = key + PUBLIC_KEY_SIZE
        cfrags = tuple(body[start : start + CFRAG_SIZE] for start in range(0, len(body), CFRAG_SIZE))
        return cls(head[1:key], head[key:wrapped], head[wrapped:], cfrags)


@dataclass(frozen=True)
class Unwrapped:
    """What became of an envelope: which re-encryptions hold, in order, and its content, 64 bytes.

    `content` is None where fewer than the threshold hold, and where `fault` says why those that do open nothing.
    """

    holds: tuple[bool, ...]
    content: bytes | None = field(default=None, repr=False)
    fault: Fault | None = None

    def frame(self) -> bytes:
        """As a worker answers; the reader knows how many re-encryptions there were."""
        status = _OPEN if self.content is not None else _CLOSED
        if self.fault is not None:
            status = 2 + _FAULTS.index(self.fault)
        return bytes(self.holds) + bytes([status]) + (self.content or bytes(CONTENT_SIZE))

    @classmethod
    def parse(cls, frame: bytes) -> Unwrapped:
        """The inverse of `frame`, from all of its bytes."""
        holds, status = frame[: -CONTENT_SIZE - 1], frame[-CONTENT_SIZE - 1]
        return cls(
            holds=tuple(byte == 1 for byte in holds),
            content=frame[-CONTENT_SIZE:] if status == _OPEN else None,
            fault=_FAULTS[status - 2] if status > _CLOSED else None,
        )

    @staticmethod
    def size(cfrags: int) -> int:
        """Bytes of the frame for an envelope with so many re-encryptions."""
        return cfrags + 1 + CONTENT_SIZE


def open_envelope(keys: OpeningKeys, envelope: Envelope) -> Unwrapped:
    """Check every re-encryption, and open the envelope with the first `threshold` that hold.

    Raises `MalformedKeyMaterial` for a public key that is none; a re-encryption that is none does not hold. A capsule
    that is none is the fault of whoever made it, and nothing is held against the re-encryptions then.
    """
    verifying_key, delegating_key = _public_key(keys.verifying_key), _public_key(envelope.delegating_key)
    receiving_key = keys.receiving_key.public_key()
    try:
        capsule = Capsule.from_bytes(envelope.capsule)
    except MalformedKeyMaterial:
        return Unwrapped((True,) * len(envelope.cfrags), fault=MalformedKeyMaterial)

    def checked(unverified: bytes) -> VerifiedCapsuleFrag | None:
        try:
            return CapsuleFrag.from_bytes(unverified).verify(capsule, verifying_key, delegating_key, receiving_key)
        except (CapsuleFragRejected, MalformedKeyMaterial):
            return None

    verified = [checked(unverified) for unverified in envelope.cfrags]
    holds = tuple(cfrag is not None for cfrag in verified)
    good = [cfrag for cfrag in verified if cfrag is not None][: keys.threshold]
    if len(good) < keys.threshold:
        return Unwrapped(holds)
    if len(envelope.wrapped_key) != WRAPPED_SIZE:
        return Unwrapped(holds, fault=MalformedKeyMaterial)
    try:
        content = decrypt_reencrypted(keys.receiving_key, delegating_key, capsule, good, envelope.wrapped_key)
    except (SharesDoNotCombine, DecryptionFailed) as fault:
        return Unwrapped(holds, fault=type(fault))
    return Unwrapped(holds, content)


def open_envelopes(keys: OpeningKeys, envelopes: list[Envelope]) -> list[Unwrapped]:
    """`open_envelope` for each."""
    return [open_envelope(keys, envelope) for envelope in envelopes]


@lru_cache(256)
def _public_key(data: bytes) -> PublicKey:
    """A grant has few keys and many records."""
    return PublicKey.from_bytes(data)
