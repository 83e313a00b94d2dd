"""What the next migration makes the key of `disclosed` from, built while the services go on writing.

The second index is for the release before this one, which finds what was disclosed by the grant alone; the release
after this one drops it.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

KEY = "uq_disclosed_patient_grant_id_record_version"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name in (KEY, op.f("ix_disclosed_grant_id")):
            op.drop_index(name, "disclosed", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            KEY,
            "disclosed",
            ["patient", "grant_id", "record", "version"],
            unique=True,
            postgresql_concurrently=True,
        )
        op.create_index(op.f("ix_disclosed_grant_id"), "disclosed", ["grant_id"], postgresql_concurrently=True)
