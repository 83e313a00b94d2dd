"""An image of the next release: this one with two more migrations of the records service."""

from __future__ import annotations

from pathlib import Path

from shared.db.schema import newest_revision

_VERSIONS = "/opt/pcehr/lib/python3.11/site-packages/services/records/migrations/versions"

# They add and take nothing away, and the services go on writing while the index is built.
_COLUMN = '''"""Test only: a column with a default."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade() -> None:
    op.add_column("record_versions", sa.Column("kind", sa.Text, nullable=False, server_default="plain"))
'''

_INDEX = '''"""Test only: an index on it."""

from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_kind", "record_versions", postgresql_concurrently=True, if_exists=True)
        op.create_index("ix_kind", "record_versions", ["kind"], postgresql_concurrently=True)
'''


def write_next_release(context: Path, image: str) -> None:
    """What the next release's image is built from, beginning with this one's."""
    newest = int(newest_revision("records"))
    for number, (name, text) in enumerate([("kind", _COLUMN), ("kind_index", _INDEX)], start=newest + 1):
        migration = text.format(revision=f"{number:04}", before=f"{number - 1:04}")
        (context / f"{number:04}_{name}.py").write_text(migration, "utf-8")
    (context / "Dockerfile").write_text(f"FROM {image}\nCOPY --chmod=0644 *.py {_VERSIONS}/\n", "utf-8")
