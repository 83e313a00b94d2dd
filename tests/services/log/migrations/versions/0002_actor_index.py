"""As the services do it."""

from shared.db.log.migration import drop_actor_index

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    drop_actor_index()
