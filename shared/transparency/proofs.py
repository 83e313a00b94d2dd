"""Proof files (C2SP tlog-proof): that one leaf stands in a log, readable without asking the log again."""

from __future__ import annotations

from dataclasses import dataclass

from shared.transparency.checkpoints import VerifiedCheckpoint, parse_checkpoint, verify_checkpoint
from shared.transparency.errors import CheckpointMalformed
from shared.transparency.lines import b64, from_b64, from_decimal, path_from_lines, path_lines
from shared.transparency.merkle import MAX_PATH, MAX_SIZE, verify_inclusion
from shared.transparency.notes import MAX_NOTE_BYTES, note_characters

HEADER = "c2sp.org/tlog-proof@v1"
MAX_EXTRA_BYTES = 4_096
MAX_PROOF_BYTES = MAX_NOTE_BYTES + MAX_PATH * 45 + 2 * MAX_EXTRA_BYTES


@dataclass(frozen=True)
class TlogProof:
    """A leaf's index, its path, and the checkpoint with its cosignatures; nothing of it verified.

    `extra`, at most 4096 bytes, is what the application adds; no signature covers it.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint_text: str
    extra: bytes | None = None

    @classmethod
    def parse(cls, text: str | bytes) -> TlogProof:
        """Parse a proof file; raises `CheckpointMalformed`."""
        head, boundary, checkpoint = note_characters(text, MAX_PROOF_BYTES).partition("\n\n")
        lines = head.split("\n")
        if not boundary or lines.pop(0) != HEADER:
            raise CheckpointMalformed("The text is no proof of C2SP tlog-proof, version 1.")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = from_b64(lines.pop(0).removeprefix("extra "))
            if not 0 < len(extra) <= MAX_EXTRA_BYTES:
                raise CheckpointMalformed("The extra data are empty or too long.")
        if not lines or not lines[0].startswith("index "):
            raise CheckpointMalformed("The proof names no index.")
        index = from_decimal(lines.pop(0).removeprefix("index "))
        parse_checkpoint(checkpoint)
        return cls(index, path_from_lines(lines), checkpoint, extra)

    def format(self) -> str:
        """The text of the file; raises `ValueError` for an index, a path or extra data out of their bounds."""
        extra = "" if self.extra is None else f"extra {b64(self.extra)}\n"
        if not 0 <= self.index <= MAX_SIZE or len(self.path) > MAX_PATH:
            raise ValueError("the index or the path is out of bounds")
        if self.extra is not None and not 0 < len(self.extra) <= MAX_EXTRA_BYTES:
            raise ValueError("the extra data are empty or too long")
        return f"{HEADER}\n{extra}index {self.index}\n{path_lines(self.path)}\n{self.checkpoint_text}"

    def verify(self, leaf: bytes, origin: str) -> VerifiedCheckpoint:
        """The checkpoint of log `origin` under which the leaf with hash `leaf` stands at `index`.

        Whether enough witnesses have cosigned it is for the caller to see. Raises `CheckpointMalformed`,
        `BadCheckpointSignature` and `InclusionNotProven`.
        """
        checkpoint = verify_checkpoint(self.checkpoint_text, origin)
        verify_inclusion(leaf, self.index, checkpoint.size, self.path, checkpoint.root)
        return checkpoint
