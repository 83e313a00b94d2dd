"""Alembic's way in; see `shared.db.migrate`."""

from services.proxy.models import Base
from shared.db.alembic_env import run

run(Base.metadata)
