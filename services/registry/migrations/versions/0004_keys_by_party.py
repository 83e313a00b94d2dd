"""The unique key of key-entries by their id alone goes: nothing reads by it, and it could not be spread by party.

The id is SHA-256 of a statement that names the party and its place in the chain, which the primary key holds once.
"""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.drop_constraint(op.f("uq_key_entries_id"), "key_entries")
