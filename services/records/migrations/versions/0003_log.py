"""The transparency log in the place of the audit table, whose rows nobody could prove and nobody takes over."""

from alembic import op

from shared.db.log.migration import create_log_tables

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    create_log_tables(events=True)
    op.drop_table("audit")
