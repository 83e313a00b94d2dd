"""The tables of a log with events."""

from shared.db.log.migration import create_log_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_log_tables(events=True)
