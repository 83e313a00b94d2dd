"""Checkpoints (C2SP tlog-checkpoint): the head of a log as its key signs it and as witnesses cosign it.

The name of a log holds its key (docs/spec.md section 11), so that nobody can sign for a log of that name with another.
Extension lines, which C2SP advises against, are refused: nothing here reads them, and nobody would check them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from shared.crypto.signing import SIGNATURE_SIZE, SigningKey, VerifyKey
from shared.did import key_from_multibase, multibase
from shared.errors import Malformed
from shared.transparency.errors import BadCheckpointSignature, CheckpointMalformed
from shared.transparency.lines import b64, from_decimal, hash_from_b64
from shared.transparency.merkle import EMPTY_ROOT, HASH_SIZE, MAX_SIZE
from shared.transparency.notes import (
    TIMESTAMP_SIZE,
    NoteKey,
    NoteSignature,
    SignatureType,
    SignedNote,
    cosign_text,
    parse_signature_lines,
    sign_text,
)

Kind = Literal["registry", "records", "proxy"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Checkpoint:
    """The head of a log: its origin, the number of leaves, and the root over them (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The text that is signed: three lines."""
        return f"{self.origin}\n{self.size}\n{b64(self.root)}\n"


@dataclass(frozen=True)
class UnverifiedCheckpoint(Checkpoint):
    """What a well-formed note says, which nobody has verified; good for finding the log whose key is to be used."""

    note: SignedNote


@dataclass(frozen=True)
class VerifiedCheckpoint(Checkpoint):
    """A head with a valid signature of its log; `note` is the whole note with everybody's signatures, as it came.

    Only `verify_checkpoint` makes one.
    """

    note: SignedNote

    def format(self) -> str:
        """The whole note."""
        return self.note.format()


def origin_of(kind: Kind, key: VerifyKey) -> str:
    """The name of the log of this kind of service and with this key: `pcehr/<kind>/<multibase of the key>`."""
    return f"pcehr/{kind}/{multibase(bytes(key))}"


def key_of_origin(origin: str) -> tuple[Kind, VerifyKey]:
    """The kind and the key that a log's name holds; raises `CheckpointMalformed` for any other text."""
    for kind in KINDS:
        prefix = f"pcehr/{kind}/"
        if origin.startswith(prefix):
            try:
                return kind, VerifyKey(key_from_multibase(origin.removeprefix(prefix)))
            except Malformed:
                break
    raise CheckpointMalformed("The origin is not the name of a log of this platform.")


def sign_checkpoint(key: SigningKey, kind: Kind, size: int, root: bytes) -> str:
    """The note in which the log says that its tree has `size` leaves and `root`."""
    if not 0 <= size <= MAX_SIZE or len(root) != HASH_SIZE or (size == 0 and root != EMPTY_ROOT):
        raise ValueError("no tree has this size and root")
    checkpoint = Checkpoint(origin_of(kind, key.verify_key), size, root)
    text = checkpoint.text()
    return SignedNote(text, (sign_text(text, checkpoint.origin, key),)).format()


def parse_checkpoint(text: str | bytes) -> UnverifiedCheckpoint:
    """What a note says, unverified; raises `CheckpointMalformed` for what is no checkpoint of this platform."""
    note = SignedNote.parse(text)
    return _read(note)


def verify_checkpoint(text: str | bytes, origin: str) -> VerifiedCheckpoint:
    """The head that `origin`'s key has signed.

    Raises `CheckpointMalformed`, and `BadCheckpointSignature` when that key has not signed, or has signed something
    else, or the checkpoint is another log's.
    """
    note = SignedNote.parse(text)
    _, key = key_of_origin(origin)
    if not note.verify([NoteKey(origin, key, SignatureType.ED25519)]):
        raise BadCheckpointSignature
    checkpoint = _read(note)
    if checkpoint.origin != origin:
        raise BadCheckpointSignature
    return VerifiedCheckpoint(checkpoint.origin, checkpoint.size, checkpoint.root, note)


def cosign(checkpoint: VerifiedCheckpoint, did: str, key: SigningKey, now: int) -> str:
    """The line by which witness `did` cosigns at `now`, in seconds since the epoch, with one of its identity keys.

    The caller has checked that the checkpoint extends the one that it cosigned before, and has stored it.
    """
    return cosign_text(checkpoint.note.text, did, key, now).format()


def verify_cosignatures(text: str | bytes, witnesses: Mapping[str, frozenset[VerifyKey]]) -> dict[str, int]:
    """The witnesses, by DID, that have cosigned the note with one of their keys, each with its newest time in seconds.

    That the log itself has signed is for `verify_checkpoint`. Signatures of others are ignored; raises
    `CheckpointMalformed`, and `BadCheckpointSignature` when one in a witness's name and key does not verify.
    """
    newest: dict[str, int] = {}
    for verified in SignedNote.parse(text).verify(_note_keys(witnesses)):
        stamp = verified.timestamp or 0
        newest[verified.key.name] = max(stamp, newest.get(verified.key.name, 0))
    return newest


def accept_cosignatures(
    checkpoint: VerifiedCheckpoint, answer: str | bytes, did: str, keys: frozenset[VerifyKey]
) -> tuple[str, ...]:
    """Of the lines that a witness answered, those that are its cosignatures of this checkpoint; perhaps none.

    A submitter stores nothing else of the answer: a false line would make readers refuse the whole note. Raises
    `CheckpointMalformed` for other than 1 to 64 signature lines, and `BadCheckpointSignature` for a false one.
    """
    answered = SignedNote(checkpoint.note.text, parse_signature_lines(answer))
    return tuple(verified.signature.format() for verified in answered.verify(_note_keys({did: keys})))


def with_cosignatures(text: str, lines: Iterable[str]) -> str:
    """The note with these cosignature lines added; one by a key that has cosigned already takes the place of the first.

    A line may come with or without its newline. Nothing is verified here (`accept_cosignatures` does). Raises
    `CheckpointMalformed` for a line that is no cosignature, and where the note would grow beyond its bounds.
    """
    note = SignedNote.parse(text)
    signatures = {_place(signature): signature for signature in note.signatures}
    for line in lines:
        signature = NoteSignature.parse(line.removesuffix("\n"))
        if not _is_cosignature(signature):
            raise CheckpointMalformed("The line to be added is no cosignature.")
        signatures[_place(signature)] = signature
    return SignedNote(note.text, tuple(signatures.values())).format()


def _read(note: SignedNote) -> UnverifiedCheckpoint:
    lines = note.text.split("\n")
    if len(lines) != 4:
        raise CheckpointMalformed("The text of the checkpoint does not have three lines.")
    origin, size, root = lines[0], from_decimal(lines[1]), hash_from_b64(lines[2])
    key_of_origin(origin)
    if size == 0 and root != EMPTY_ROOT:
        raise CheckpointMalformed("The root of no leaves is another one.")
    return UnverifiedCheckpoint(origin, size, root, note)


def _note_keys(witnesses: Mapping[str, frozenset[VerifyKey]]) -> list[NoteKey]:
    return [NoteKey(did, key, SignatureType.COSIGNATURE) for did, keys in witnesses.items() for key in keys]


def _is_cosignature(signature: NoteSignature) -> bool:
    return len(signature.signature) == TIMESTAMP_SIZE + SIGNATURE_SIZE


def _place(signature: NoteSignature) -> tuple[str, bytes, bool]:
    """What a signature is the only one of; a cosignature never takes the place of the log's own."""
    return signature.name, signature.key_id, _is_cosignature(signature)
