"""Tables of a transparency log, the same in every service. Rows are narrow, since there is one for every event.

A service declares them over its own metadata, in its `models.py`, and makes them in a migration:

    declare_log(Base.metadata, events=True)          # models.py
    create_log_tables(events=True)                   # shared.db.log.migration, in a migration's upgrade()

All SQL that knows these tables is in this package.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Identity, Index, LargeBinary, MetaData, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, TEXT

from shared.db.base import exact_octets


def declare_log(metadata: MetaData, *, events: bool) -> None:
    """Add the tables of a log to a service's metadata; with `events` also those of its subjects' chains."""
    _declare_tree(metadata)
    if events:
        _declare_events(metadata)


def _declare_tree(metadata: MetaData) -> None:
    # One row for each leaf. `index` is its place in the tree (from 0), and null until the sequencer has given it one.
    entries = Table(
        "log_entries",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("index", BigInteger),
        Column("data", LargeBinary, nullable=False),
        Column("leaf", LargeBinary, nullable=False),
        exact_octets("leaf", 32),
        Index("uq_log_entries_index", "index", unique=True),
        # Also refuses that the same data stand in the tree twice: a statement is logged when it is accepted, once.
        Index("uq_log_entries_leaf", "leaf", unique=True),
    )
    Index("ix_log_entries_pending", entries.c.id, postgresql_where=entries.c.index.is_(None))
    # The roots of complete subtrees of 2**level leaves, from level 1 on; those of level 0 are the leaves themselves.
    Table(
        "log_nodes",
        metadata,
        Column("level", SmallInteger, primary_key=True, autoincrement=False),
        Column("index", BigInteger, primary_key=True, autoincrement=False),
        Column("hash", LargeBinary, nullable=False),
        exact_octets("hash", 32),
    )
    # The newest published checkpoint and those younger than it. `note` has the log's own signature only.
    Table(
        "log_checkpoints",
        metadata,
        Column("size", BigInteger, primary_key=True, autoincrement=False),
        Column("root", LargeBinary, nullable=False),
        Column("note", Text, nullable=False),
        Column("cosignatures", ARRAY(TEXT), nullable=False),
        Column("published", Boolean, nullable=False),
        exact_octets("root", 32),
    )
    # Checkpoints with this log's signature that this tree does not extend. While there is one, nothing is signed.
    Table(
        "log_evidence",
        metadata,
        Column("size", BigInteger, primary_key=True, autoincrement=False),
        Column("note", Text, nullable=False),
    )


def _declare_events(metadata: MetaData) -> None:
    # The end of each subject's chain; its row is the lock under which the chain grows.
    Table(
        "log_heads",
        metadata,
        Column("subject", Text, primary_key=True),
        Column("n", BigInteger, nullable=False),
        Column("commitment", LargeBinary),
    )
    # What the commitments of the tree stand for. No foreign key to `log_entries`: both rows come from one function,
    # and checking would cost a lock on every entry.
    Table(
        "log_events",
        metadata,
        Column("subject", Text, primary_key=True),
        Column("n", BigInteger, primary_key=True, autoincrement=False),
        Column("entry", BigInteger, nullable=False),
        Column("actor", Text),
        Column("salt", LargeBinary),
        Column("text", Text),
        Column("cause", Text),
    )
