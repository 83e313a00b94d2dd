"""Tags."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table("tags", sa.Column("name", sa.Text, nullable=False), sa.PrimaryKeyConstraint("name", name="pk_tags"))
