"""Alembic's entry for the records service."""

from services.records.models import Base
from shared.db.alembic_env import run

run(Base.metadata)
