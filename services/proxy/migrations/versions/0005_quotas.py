"""Counters of what is kept for each party."""

from alembic import op

from shared.db.usage_migration import create_usage_table

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    create_usage_table()
    op.execute("INSERT INTO usage SELECT patient, 'shares', count(DISTINCT grant_id) FROM kfrags GROUP BY patient")
