"""Migrations of no service: two tables, so that migrating itself can be tested."""

from sqlalchemy import Column, Table, Text

from shared.db.alembic_env import run
from shared.db.base import new_metadata

metadata = new_metadata()
Table("notes", metadata, Column("id", Text, primary_key=True), Column("body", Text, nullable=False))
Table("tags", metadata, Column("name", Text, primary_key=True))

run(metadata)
