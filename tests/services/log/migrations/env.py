"""Migrations of no service: a database with nothing but a log."""

from shared.db.alembic_env import run
from shared.db.base import new_metadata
from shared.db.log import declare_log

metadata = new_metadata()
declare_log(metadata, events=True)

run(metadata)
