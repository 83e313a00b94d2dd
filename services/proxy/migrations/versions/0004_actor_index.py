"""The index of events by who caused them goes: nothing reads by it, and each event paid for it."""

from shared.db.log.migration import drop_actor_index

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    drop_actor_index()
