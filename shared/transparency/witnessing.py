"""What a witness is handed and how it decides (C2SP tlog-witness, docs/spec.md section 12).

`judge` is pure: the caller looks up what it knows, and stores the new head where the size is still the old one before
any cosignature leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.transparency.checkpoints import VerifiedCheckpoint, parse_checkpoint, verify_checkpoint
from shared.transparency.errors import (
    BadCheckpointSignature,
    CheckpointMalformed,
    MalformedSubmission,
    NotSignedByLog,
    StaleSize,
    UnknownLog,
)
from shared.transparency.lines import from_decimal, path_from_lines, path_lines
from shared.transparency.merkle import EMPTY_ROOT, MAX_SIZE, verify_consistency
from shared.transparency.notes import MAX_NOTE_BYTES, note_characters

MAX_PROOF_LINES = 63
MAX_SUBMISSION_BYTES = len("old \n") + 19 + MAX_PROOF_LINES * 45 + 1 + MAX_NOTE_BYTES
"""The old size, the longest proof, an empty line and the longest note."""


@dataclass(frozen=True)
class Known:
    """The newest head of a log that the witness has cosigned."""

    size: int
    root: bytes


@dataclass(frozen=True)
class AddCheckpoint:
    """A submission: a checkpoint, and the proof that it extends the one of `old_size` leaves."""

    old_size: int
    path: tuple[bytes, ...]
    checkpoint_text: str

    @classmethod
    def parse(cls, body: str | bytes) -> AddCheckpoint:
        """Parse the body of a request; raises `MalformedSubmission`. Nothing in it is verified."""
        try:
            head, boundary, checkpoint = note_characters(body, MAX_SUBMISSION_BYTES).partition("\n\n")
            first, *proof = head.split("\n")
            if not boundary or not first.startswith("old "):
                raise MalformedSubmission
            parse_checkpoint(checkpoint)
            return cls(from_decimal(first.removeprefix("old ")), path_from_lines(proof, MAX_PROOF_LINES), checkpoint)
        except CheckpointMalformed as error:
            raise MalformedSubmission(error.detail) from None

    def format(self) -> str:
        """The body of the request; raises `ValueError` for a size or a proof that cannot be sent."""
        if not 0 <= self.old_size <= MAX_SIZE or len(self.path) > MAX_PROOF_LINES:
            raise ValueError("the size or the proof cannot be sent to a witness")
        return f"old {self.old_size}\n{path_lines(self.path)}\n{self.checkpoint_text}"

    @property
    def origin(self) -> str:
        """The log that the checkpoint names, by which a witness finds what it knows; raises `MalformedSubmission`."""
        try:
            return parse_checkpoint(self.checkpoint_text).origin
        except CheckpointMalformed as error:
            raise MalformedSubmission(error.detail) from None


def judge(known: Known | None, request: AddCheckpoint, origin: str | None) -> VerifiedCheckpoint:
    """The checkpoint that the witness may cosign, after it has stored it in the place of `known`.

    `origin` is the name under which the witness knows this log, None if it does not; `known` is None before the first
    cosignature. Raises, in this order, `UnknownLog` (404), `NotSignedByLog` (403), `MalformedSubmission` (400, an old
    size above the new one), `StaleSize` (409, with the size to be proven from; also for another root of the same size)
    and `ConsistencyNotProven` (422).
    """
    if origin is None or request.origin != origin:
        raise UnknownLog
    try:
        new = verify_checkpoint(request.checkpoint_text, origin)
    except BadCheckpointSignature:
        raise NotSignedByLog from None
    if request.old_size > new.size:
        raise MalformedSubmission("The old size is above that of the checkpoint.")
    old = known or Known(0, EMPTY_ROOT)
    if request.old_size != old.size or (new.size == old.size and new.root != old.root):
        raise StaleSize(old.size)
    verify_consistency(old.size, old.root, new.size, new.root, request.path)
    return new
