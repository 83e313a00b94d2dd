"""Refusals around the transparency logs; the codes are those of the specification, sections 11 and 12."""

from __future__ import annotations

from shared.errors import Conflict, Forbidden, Malformed, NotFound, Refused, Unavailable


class CheckpointMalformed(Malformed):
    """A note, a checkpoint, a cosignature line or a proof file that is not in its one form (status 400)."""

    title = "The checkpoint is not in the one form this version accepts."


class BadCheckpointSignature(Refused):
    """A checkpoint without a valid signature of the log it names, or with a false one of a key that is known."""

    code = "bad_checkpoint_signature"
    title = "The checkpoint is not signed by the log it claims to be of."


class InclusionNotProven(Refused):
    """A leaf whose path does not lead to the root."""

    code = "not_in_log"
    title = "It is not proven that this stands in the log."


class ConsistencyNotProven(Refused):
    """A later tree that is not shown to extend the earlier one."""

    code = "log_forked"
    title = "It is not proven that the log only grew; it may show different histories to different parties."


class LogRolledBack(Refused):
    """A checkpoint smaller than one that was accepted before."""

    code = "log_rolled_back"
    title = "The log is smaller than it was shown before."


class LogReplaced(Refused):
    """Another origin than the one pinned for this service."""

    code = "log_replaced"
    title = "The service shows another log than the one known for it."


class NotEnoughCosignatures(Refused):
    """Too few of the known witnesses have cosigned the checkpoint."""

    code = "not_enough_cosignatures"
    title = "Too few witnesses vouch for this state of the log."


class CheckpointStale(Refused):
    """The quorum of cosignatures is too old, or lies in the future."""

    code = "checkpoint_stale"
    title = "The witnesses' cosignatures are not of today; the log may be withholding its newest state."


class NotInLogYet(Unavailable):
    """A row that waits for its place in the tree, or a tree that is not published yet (status 503)."""

    code = "not_in_log_yet"
    title = "This is not under the published checkpoint yet. Try again."


class NoSuchTree(Refused):
    """A position or size that no tree has, or two sizes in the wrong order."""

    code = "invalid_request"
    title = "There is no such tree or position."


class UnknownLog(NotFound):
    """A witness is asked about a log that it was never told of."""

    code = "unknown_log"
    title = "This witness does not know this log."


class NotSignedByLog(Forbidden):
    """A witness is handed a checkpoint without a valid signature of its log."""

    code = "not_signed_by_log"
    title = "The checkpoint is not signed by the log's key."


class MalformedSubmission(Malformed):
    """A witness is handed bytes that are no submission, or an old size above the new one."""

    title = "The submission is not in the form of C2SP tlog-witness."


class StaleSize(Conflict):
    """The old size is not the one last cosigned, or the same size has another root; `size` is the one last cosigned."""

    code = "stale_size"
    title = "The newest checkpoint cosigned has another size or root."

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
