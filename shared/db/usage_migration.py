"""What a migration calls to make the table of counters (`shared.db.quotas`), so that the services' need not repeat it.

It never changes once a release has it: a later change of the table is a function of its own beside this one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op


def create_usage_table() -> None:
    """Create the table that `shared.db.quotas.UsageTable` declares; call it in a migration's `upgrade`."""
    op.create_table(
        "usage",
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("party", "kind", name=op.f("pk_usage")),
    )
