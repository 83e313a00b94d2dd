"""The patient goes first in the key of `disclosed`, and the index of events by who caused them goes.

`disclosed` held the patient already; a key that begins with it lets the table lie beside the versions that it names.
No release has read by the other index, for which each event paid.
"""

from alembic import op

from shared.db.log.migration import drop_actor_index

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    # One statement, and no look at the rows: the index is there already, and its columns were never null.
    op.execute(
        "ALTER TABLE disclosed DROP CONSTRAINT pk_disclosed,"
        " ADD CONSTRAINT pk_disclosed PRIMARY KEY USING INDEX uq_disclosed_patient_grant_id_record_version"
    )
    drop_actor_index()
