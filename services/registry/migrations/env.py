"""Alembic's entry for the registry's database."""

from services.registry.models import Base
from shared.db.alembic_env import run

run(Base.metadata)
