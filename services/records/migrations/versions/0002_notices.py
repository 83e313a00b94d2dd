"""Notices to parties, and whether they have been told of a grant's end."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "notice_heads",
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("party", name=op.f("pk_notice_heads")),
    )
    op.create_table(
        "notices",
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("other", sa.Text, nullable=False),
        sa.Column("request", sa.LargeBinary),
        sa.Column("grant_id", sa.LargeBinary),
        sa.Column("count", sa.Integer),
        sa.PrimaryKeyConstraint("party", "number", name=op.f("pk_notices")),
    )
    op.create_index(op.f("ix_notices_at"), "notices", ["at"])
    op.add_column("grants", sa.Column("end_told", sa.Boolean, server_default=sa.false(), nullable=False))
    op.create_index("ix_grants_end_not_told", "grants", ["expires_at"], postgresql_where=sa.text("NOT end_told"))
