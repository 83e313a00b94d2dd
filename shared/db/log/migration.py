"""What a migration calls to make the tables of a log, so that the services' migrations need not repeat it.

It never changes once a release has it: a later change of the tables is a function of its own beside this one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op


def create_log_tables(*, events: bool) -> None:
    """Create the tables that `shared.db.log.tables.declare_log` declares; call it in a migration's `upgrade`."""
    op.create_table(
        "log_entries",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("index", sa.BigInteger),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("leaf", sa.LargeBinary, nullable=False),
        sa.CheckConstraint("octet_length(leaf) = 32", name=op.f("ck_log_entries_leaf_octets")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_entries")),
    )
    op.create_index(op.f("uq_log_entries_index"), "log_entries", ["index"], unique=True)
    op.create_index(op.f("uq_log_entries_leaf"), "log_entries", ["leaf"], unique=True)
    op.create_index(op.f("ix_log_entries_pending"), "log_entries", ["id"], postgresql_where=sa.text("index IS NULL"))
    op.create_table(
        "log_nodes",
        sa.Column("level", sa.SmallInteger, nullable=False),
        sa.Column("index", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("ck_log_nodes_hash_octets")),
        sa.PrimaryKeyConstraint("level", "index", name=op.f("pk_log_nodes")),
    )
    op.create_table(
        "log_checkpoints",
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("cosignatures", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("published", sa.Boolean, nullable=False),
        sa.CheckConstraint("octet_length(root) = 32", name=op.f("ck_log_checkpoints_root_octets")),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_log_checkpoints")),
    )
    op.create_table(
        "log_evidence",
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_log_evidence")),
    )
    if events:
        _create_event_tables()


def _create_event_tables() -> None:
    op.create_table(
        "log_heads",
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("commitment", sa.LargeBinary),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_log_heads")),
    )
    op.create_table(
        "log_events",
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text),
        sa.Column("salt", sa.LargeBinary),
        sa.Column("text", sa.Text),
        sa.Column("cause", sa.Text),
        sa.PrimaryKeyConstraint("subject", "n", name=op.f("pk_log_events")),
    )
    op.create_index(op.f("ix_log_events_actor_entry"), "log_events", ["actor", "entry"])


def drop_actor_index() -> None:
    """Drop the index of events by who caused them, which `create_log_tables` made and nothing reads by any more."""
    op.drop_index(op.f("ix_log_events_actor_entry"), "log_events")
