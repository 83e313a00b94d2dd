"""Counters of what is kept for each party, and which requests and uploads are still open."""

import sqlalchemy as sa
from alembic import op

from shared.db.usage_migration import create_usage_table

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    create_usage_table()
    op.add_column("blobs", sa.Column("in_record", sa.Boolean, server_default=sa.false(), nullable=False))
    op.execute(
        "UPDATE blobs SET in_record = true WHERE EXISTS"
        " (SELECT FROM record_versions v WHERE v.author = blobs.owner AND v.body_hash = blobs.sha256)"
    )
    op.add_column("disclosure_requests", sa.Column("open", sa.Boolean, server_default=sa.true(), nullable=False))
    op.execute(
        "UPDATE disclosure_requests r SET open = false WHERE denial IS NOT NULL"
        " OR EXISTS (SELECT FROM grants WHERE grants.request = r.id)"
    )
    op.create_index(
        "ix_disclosure_requests_open", "disclosure_requests", ["recipient", "patient"], postgresql_where=sa.text("open")
    )
    op.create_index(
        "ix_disclosure_requests_open_until", "disclosure_requests", ["expires_at"], postgresql_where=sa.text("open")
    )
    for kind, party, amount, rows in (
        ("versions", "patient", "count(*)", "record_versions"),
        ("bytes", "patient", "sum(size)", "record_versions"),
        ("uploads", "owner", "sum(size)", "blobs WHERE NOT in_record"),
        ("requests", "recipient", "count(*)", "disclosure_requests WHERE open"),
        ("grants", "patient", "count(*)", "grants WHERE NOT end_told"),
    ):
        statement = f"INSERT INTO usage SELECT {party}, '{kind}', {amount} FROM {rows} GROUP BY {party}"  # noqa: S608  Only what stands above.
        op.execute(statement)
