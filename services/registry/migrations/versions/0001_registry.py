"""Parties and their chains of keys, scope-keys, statements seen, assertions used, and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "parties",
        sa.Column("did", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("organisation", sa.Text),
        sa.Column("endpoint", sa.Text),
        sa.Column("sort_name", sa.Text(collation="C"), nullable=False),
        sa.Column("search_text", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("did", name="pk_parties"),
        sa.CheckConstraint("role IN ('patient', 'recipient', 'proxy')", name=op.f("ck_parties_role")),
    )
    op.create_index("ix_parties_directory", "parties", ["role", "sort_name", "did"])
    op.create_table(
        "key_entries",
        sa.Column("did", sa.Text, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("identity_key", sa.LargeBinary, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("did", "seq", name="pk_key_entries"),
        sa.UniqueConstraint("id", name="uq_key_entries_id"),
        sa.UniqueConstraint("did", "identity_key", name="uq_key_entries_did_identity_key"),
        sa.ForeignKeyConstraint(["did"], ["parties.did"], name="fk_key_entries_did"),
        sa.CheckConstraint("octet_length(id) = 32", name=op.f("ck_key_entries_id_octets")),
        sa.CheckConstraint("octet_length(identity_key) = 32", name=op.f("ck_key_entries_identity_key_octets")),
    )
    op.create_table(
        "scope_keys",
        sa.Column("patient", sa.Text, nullable=False),
        sa.Column("scope", sa.LargeBinary, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("delegating_key", sa.LargeBinary, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("patient", "scope", "epoch", name="pk_scope_keys"),
        sa.ForeignKeyConstraint(["patient"], ["parties.did"], name="fk_scope_keys_patient"),
        sa.CheckConstraint("octet_length(scope) = 16", name=op.f("ck_scope_keys_scope_octets")),
        sa.CheckConstraint("octet_length(id) = 32", name=op.f("ck_scope_keys_id_octets")),
        sa.CheckConstraint("octet_length(delegating_key) = 33", name=op.f("ck_scope_keys_delegating_key_octets")),
    )
    op.create_table(
        "statements",
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("jti", sa.LargeBinary, nullable=False),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("issuer", "jti", name="pk_statements"),
        sa.ForeignKeyConstraint(["issuer"], ["parties.did"], name="fk_statements_issuer"),
        sa.CheckConstraint("octet_length(jti) = 16", name=op.f("ck_statements_jti_octets")),
        sa.CheckConstraint("octet_length(id) = 32", name=op.f("ck_statements_id_octets")),
    )
    op.create_table(
        "assertions",
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("jti", sa.LargeBinary, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("client", "jti", name="pk_assertions"),
        sa.ForeignKeyConstraint(["client"], ["parties.did"], name="fk_assertions_client"),
        sa.CheckConstraint("octet_length(jti) = 32", name=op.f("ck_assertions_jti_octets")),
    )
    op.create_index("ix_assertions_expires", "assertions", ["expires"])
    op.create_table(
        "audit",
        sa.Column("did", sa.Text, nullable=False),
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("act", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("cause", sa.Text),
        sa.Column("statement", sa.LargeBinary),
        sa.PrimaryKeyConstraint("did", "id", name="pk_audit"),
        sa.CheckConstraint("octet_length(statement) = 32", name=op.f("ck_audit_statement_octets")),
    )
