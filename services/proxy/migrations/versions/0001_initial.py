"""The first tables of a proxy."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "known_parties",
        sa.Column("did", sa.Text, nullable=False),
        sa.Column("length", sa.Integer, nullable=False),
        sa.Column("entries", postgresql.ARRAY(sa.Text), nullable=False),
        sa.PrimaryKeyConstraint("did", name="pk_known_parties"),
    )
    op.create_table(
        "own_entries",
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("did", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_own_entries"),
    )
    op.create_table(
        "grants",
        sa.Column("patient", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("nbf", sa.BigInteger, nullable=False),
        sa.Column("exp", sa.BigInteger, nullable=False),
        sa.Column("threshold", sa.Integer, nullable=False),
        sa.Column("limits", postgresql.JSONB, nullable=False),
        sa.PrimaryKeyConstraint("patient", "id", name="pk_grants"),
        sa.UniqueConstraint("id", name="uq_grants_id"),
    )
    op.create_table(
        "kfrags",
        sa.Column("patient", sa.Text, nullable=False),
        sa.Column("grant_id", sa.Text, nullable=False),
        sa.Column("entry", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("exp", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("patient", "grant_id", "entry", name="pk_kfrags"),
        sa.ForeignKeyConstraint(
            ["patient", "grant_id"], ["grants.patient", "grants.id"], name="fk_kfrags_patient_grant_id"
        ),
        sa.CheckConstraint("octet_length(sealed) = 300", name="ck_kfrags_sealed_octets"),
    )
    op.create_index("ix_kfrags_exp", "kfrags", ["exp"])
    op.create_table(
        "tombstones",
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("grant_id", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("receipt", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("issuer", "grant_id", name="pk_tombstones"),
    )
    op.create_table(
        "statements",
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("jti", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("issuer", "jti", name="pk_statements"),
    )
    op.create_table(
        "answers",
        sa.Column("statement", sa.Text, nullable=False),
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("grant_id", sa.Text, nullable=False),
        sa.Column("receipt", sa.Text, nullable=False),
        sa.Column("cfrags", sa.LargeBinary, nullable=True),
        sa.Column("lapses_at", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("statement", name="pk_answers"),
        sa.CheckConstraint("octet_length(token_hash) = 32", name="ck_answers_token_hash_octets"),
        sa.CheckConstraint("(cfrags IS NULL) = (lapses_at IS NULL)", name="ck_answers_only_cfrags_lapse"),
    )
    op.create_index("ix_answers_grant_id", "answers", ["grant_id"])
    op.create_index("ix_answers_lapses_at", "answers", ["lapses_at"])
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("patient", sa.Text, nullable=True),
        sa.Column("actor", sa.Text, nullable=True),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("grant_id", sa.Text, nullable=True),
        sa.Column("statement", sa.Text, nullable=True),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=True),
        sa.Column("capsules", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    op.create_index("ix_audit_patient_seq", "audit", ["patient", "seq"])
    op.create_index("ix_audit_actor_seq", "audit", ["actor", "seq"])
