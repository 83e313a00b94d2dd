"""What a log refuses, and the two states in which it signs nothing more."""

from __future__ import annotations

from shared.errors import NotFound, Unavailable


class LeafUnknown(NotFound):
    title = "The log has no such leaf."


class LogHalted(Unavailable):
    """A witness has shown a checkpoint with this log's signature that this tree does not extend.

    So the database is an old copy, or somebody else signs with the key. Any further signature could be the second of
    two that contradict each other, hence there is none before an operator has brought back the right database, or
    given the log a new key (which clients notice: `log_replaced`).
    """

    code = "log_halted"
    title = "The log has been found to contradict what it signed before; nothing is published any more."


class LogDamaged(Unavailable):
    """The tables contradict each other: a row was changed, added or deleted by something else than the sequencer."""

    code = "log_damaged"
    title = "The log's tables do not fit its last checkpoint; nothing is published any more."
