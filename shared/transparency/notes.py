"""Signed notes (C2SP signed-note): a text, an empty line, and signature lines, of which a reader knows some keys.

Two signature types of the specification are used: Ed25519 over the text (type 1), by which a log signs, and the
timestamped Ed25519 cosignature (type 4, C2SP tlog-cosignature), by which a witness does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from shared.crypto.errors import BadSignature
from shared.crypto.signing import SIGNATURE_SIZE, SigningKey, VerifyKey
from shared.encoding import sha256
from shared.transparency.errors import BadCheckpointSignature, CheckpointMalformed
from shared.transparency.lines import b64, from_b64

MAX_NOTE_BYTES = 65_536
MAX_SIGNATURES = 64
KEY_ID_SIZE = 4
TIMESTAMP_SIZE = 8
MAX_TIMESTAMP = 2**63 - 1

_DASH = "\u2014 "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class SignatureType(IntEnum):
    """The byte that stands for the algorithm in a key id."""

    ED25519 = 1
    COSIGNATURE = 4


@dataclass(frozen=True)
class NoteSignature:
    """One signature line: the name of a key, its id (4 bytes), and what it signed with; not verified by itself."""

    name: str
    key_id: bytes
    signature: bytes

    @classmethod
    def parse(cls, line: str) -> NoteSignature:
        """Parse one line without its newline; raises `CheckpointMalformed`."""
        if not line.startswith(_DASH):
            raise CheckpointMalformed("A signature line does not begin with an em dash and a space.")
        name, space, encoded = line.removeprefix(_DASH).partition(" ")
        if not space or not is_key_name(name):
            raise CheckpointMalformed("A signature line does not hold the name of a key.")
        data = from_b64(encoded)
        if len(data) <= KEY_ID_SIZE:
            raise CheckpointMalformed("A signature line holds no signature.")
        return cls(name, data[:KEY_ID_SIZE], data[KEY_ID_SIZE:])

    def format(self) -> str:
        """The line, with its newline."""
        return f"{_DASH}{self.name} {b64(self.key_id + self.signature)}\n"


@dataclass(frozen=True)
class NoteKey:
    """A key that a reader knows: its name, the public half, and the type of signature it is known to make."""

    name: str
    key: VerifyKey
    type: SignatureType

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || 0x0A || type || public key), the first 4 bytes."""
        return _key_id(self.name, self.type, self.key)

    def verify(self, text: str, signature: bytes) -> int | None:
        """Return if `signature` is this key's over the text of a note: for a cosignature its time, otherwise None.

        Raises `BadSignature`.
        """
        message, stamp = text.encode("utf-8"), None
        if self.type is SignatureType.COSIGNATURE:
            stamp = int.from_bytes(signature[:TIMESTAMP_SIZE], "big")
            signature = signature[TIMESTAMP_SIZE:]
            if stamp > MAX_TIMESTAMP:
                raise BadSignature
            message = cosigned_message(stamp, text)
        if len(signature) != SIGNATURE_SIZE:
            raise BadSignature
        self.key.verify(signature, message)
        return stamp


@dataclass(frozen=True)
class VerifiedSignature:
    """A signature that verified under `key`; `timestamp`, in seconds since the epoch, is that of a cosignature."""

    key: NoteKey
    signature: NoteSignature
    timestamp: int | None


@dataclass(frozen=True)
class SignedNote:
    """A well-formed note of which nothing is verified: `text`, with its last newline, may not be believed yet."""

    text: str
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def parse(cls, note: str | bytes) -> SignedNote:
        """Parse a note of at most 64 KiB with 1 to 64 signatures; raises `CheckpointMalformed`."""
        whole = note_characters(note, MAX_NOTE_BYTES)
        # The text may itself hold empty lines; the last one is the boundary.
        text, boundary, signatures = whole.rpartition("\n\n")
        if not boundary:
            raise CheckpointMalformed("The note has no empty line before its signatures.")
        return cls(text + "\n", parse_signature_lines(signatures))

    def format(self) -> str:
        """The note; raises `CheckpointMalformed` if it would not be one, so that what is written can be read."""
        note = f"{self.text}\n{''.join(signature.format() for signature in self.signatures)}"
        if SignedNote.parse(note) != self:
            raise CheckpointMalformed
        return note

    def verify(self, keys: Iterable[NoteKey]) -> list[VerifiedSignature]:
        """The signatures of these keys, in the order of the note; perhaps none.

        Signatures of other keys are ignored. One that a known key's name and id stand on and that does not verify
        raises `BadCheckpointSignature`, since then somebody has changed the note.
        """
        # An id has 32 bits, so that a party can make two keys of its own collide; either may then have signed.
        known: dict[tuple[str, bytes], list[NoteKey]] = {}
        for key in keys:
            known.setdefault((key.name, key.key_id), []).append(key)
        return [
            self._verify_one(signature, candidates)
            for signature in self.signatures
            if (candidates := known.get((signature.name, signature.key_id)))
        ]

    def _verify_one(self, signature: NoteSignature, candidates: list[NoteKey]) -> VerifiedSignature:
        for key in candidates:
            try:
                return VerifiedSignature(key, signature, key.verify(self.text, signature.signature))
            except BadSignature:
                continue
        raise BadCheckpointSignature


def sign_text(text: str, name: str, key: SigningKey) -> NoteSignature:
    """The signature of type 1 over the text of a note."""
    key_id = _key_id(name, SignatureType.ED25519, key.verify_key)
    return NoteSignature(name, key_id, key.sign(text.encode("utf-8")))


def cosign_text(text: str, name: str, key: SigningKey, now: int) -> NoteSignature:
    """The cosignature of type 4 over the text of a note, at `now` in seconds since the epoch."""
    if not 0 <= now <= MAX_TIMESTAMP:
        raise ValueError("the time of a cosignature is below 2**63 seconds")
    key_id = _key_id(name, SignatureType.COSIGNATURE, key.verify_key)
    signature = now.to_bytes(TIMESTAMP_SIZE, "big") + key.sign(cosigned_message(now, text))
    return NoteSignature(name, key_id, signature)


def cosigned_message(timestamp: int, text: str) -> bytes:
    """What a cosignature signs; the first line keeps it apart from everything else that the key signs."""
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()


def parse_signature_lines(text: str | bytes) -> tuple[NoteSignature, ...]:
    """Parse 1 to 64 signature lines, as they end a note and as a witness answers; raises `CheckpointMalformed`."""
    lines = note_characters(text, MAX_NOTE_BYTES).split("\n")
    if lines.pop() or not 1 <= len(lines) <= MAX_SIGNATURES:
        raise CheckpointMalformed(f"There are not 1 to {MAX_SIGNATURES} whole signature lines.")
    return tuple(NoteSignature.parse(line) for line in lines)


def note_characters(text: str | bytes, limit: int) -> str:
    """The characters of at most `limit` bytes of UTF-8 without control characters other than newline.

    Raises `CheckpointMalformed`.
    """
    if len(text) > limit:
        raise CheckpointMalformed(f"The text is longer than {limit} bytes.")
    try:
        data = text.encode("utf-8") if isinstance(text, str) else text
        characters = data.decode("utf-8")
    except UnicodeError:
        raise CheckpointMalformed("The text is not UTF-8.") from None
    if len(data) > limit:
        raise CheckpointMalformed(f"The text is longer than {limit} bytes.")
    if _CONTROL.search(characters):
        raise CheckpointMalformed("The text holds control characters.")
    return characters


def is_key_name(name: str) -> bool:
    """Whether a key may have this name: not empty, and without white space and plus signs."""
    return bool(name) and "+" not in name and not any(character.isspace() for character in name)


def _key_id(name: str, type_: SignatureType, key: VerifyKey) -> bytes:
    return sha256(name.encode("utf-8") + b"\n" + bytes([type_]) + bytes(key))[:KEY_ID_SIZE]
