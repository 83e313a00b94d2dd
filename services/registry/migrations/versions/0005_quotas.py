"""Counters of what is kept for each party."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("party", "kind", name=op.f("pk_usage")),
    )
    op.execute("INSERT INTO usage SELECT patient, 'scope_keys', count(*) FROM scope_keys GROUP BY patient")
