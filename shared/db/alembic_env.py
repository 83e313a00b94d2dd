"""What every service's `migrations/env.py` calls, so that the three of them are the same three lines:

from services.<name>.models import Base
from shared.db.alembic_env import run

run(Base.metadata)
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, MetaData


def run(metadata: MetaData) -> None:
    """Run the migrations on the connection that `shared.db.migrate` holds the lock on.

    All pending migrations are one transaction: either the database reaches the head or it stays as it was. Raises
    RuntimeError when called in any other way, since then nothing would keep two replicas apart.
    """
    connection = context.config.attributes.get("connection")
    if not isinstance(connection, Connection):
        raise RuntimeError("Migrations run through `python -m shared.db.migrate` only.")
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()
