"""A service's transparency log in its Postgres.

    from shared.db import log

    async with database.transaction() as session:
        …                                            # the effect
        await log.append_event(session, log.NewEvent(subject=…, at=…, event="disclosure"))
    publisher.kick()

`append` and `append_events` write in the caller's transaction. `Log` does the rest in transactions of its own, and
`shared.log_publisher.Publisher` drives it.
"""

from shared.db.log.chains import LoggedEvent, NewEvent, append_event, append_events, erase, events
from shared.db.log.entries import append
from shared.db.log.errors import LeafUnknown, LogDamaged, LogHalted
from shared.db.log.store import BATCH, Log, Proven, is_enough
from shared.db.log.tables import declare_log
from shared.db.log.tree import SignedCheckpoint

__all__ = [
    "BATCH",
    "LeafUnknown",
    "Log",
    "LogDamaged",
    "LogHalted",
    "LoggedEvent",
    "NewEvent",
    "Proven",
    "SignedCheckpoint",
    "append",
    "append_event",
    "append_events",
    "declare_log",
    "erase",
    "events",
    "is_enough",
]
