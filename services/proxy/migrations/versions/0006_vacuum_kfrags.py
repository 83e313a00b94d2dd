"""Postgres clears up after every erased kfrag, where by its own measure a small table may wait for it for ever."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("ALTER TABLE kfrags SET (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0)")
