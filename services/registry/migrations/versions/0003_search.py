"""An index for finding recipients by part of a name, which meant reading all of them.

`pg_trgm` comes with Postgres ("contrib"); it is a trusted extension, which whoever owns the database may create.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    with op.get_context().autocommit_block():
        op.drop_index("ix_parties_search", "parties", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            "ix_parties_search",
            "parties",
            ["search_text"],
            postgresql_using="gin",
            postgresql_ops={"search_text": "gin_trgm_ops"},
            postgresql_where=sa.text("role = 'recipient'"),
            postgresql_concurrently=True,
        )
