"""The logs that a proxy witnesses."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "witnessed_logs",
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger),
        sa.Column("root", sa.LargeBinary),
        sa.Column("note", sa.Text),
        sa.CheckConstraint("octet_length(root) = 32", name=op.f("ck_witnessed_logs_root_octets")),
        sa.PrimaryKeyConstraint("origin", name=op.f("pk_witnessed_logs")),
        sa.UniqueConstraint("kind", name=op.f("uq_witnessed_logs_kind")),
    )
