"""Counters of what is kept for each party."""

from alembic import op

from shared.db.usage_migration import create_usage_table

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    create_usage_table()
    op.execute("INSERT INTO usage SELECT patient, 'scope_keys', count(*) FROM scope_keys GROUP BY patient")
