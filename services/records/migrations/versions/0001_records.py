"""Records and their bodies, floors, requests, grants, revocations, the outbox, statements seen, and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("patient", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("actor", sa.Text),
        sa.Column("grant_id", sa.LargeBinary),
        sa.Column("statement", sa.LargeBinary),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("capsules", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("patient", "seq", name=op.f("pk_audit")),
        sa.UniqueConstraint("seq", name=op.f("uq_audit_seq")),
    )
    op.create_table(
        "blobs",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
        sa.CheckConstraint("octet_length(sha256) = 32", name=op.f("ck_blobs_sha256_octets")),
        sa.PrimaryKeyConstraint("owner", "sha256", name=op.f("pk_blobs")),
    )
    op.create_table(
        "disclosure_requests",
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("patient", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("actions", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("statement", sa.Text, nullable=False),
        sa.Column("denial", sa.Text),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.CheckConstraint("octet_length(id) = 32", name=op.f("ck_disclosure_requests_id_octets")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_disclosure_requests")),
    )
    op.create_index(op.f("ix_disclosure_requests_patient_number"), "disclosure_requests", ["patient", "number"])
    op.create_index(op.f("ix_disclosure_requests_recipient_number"), "disclosure_requests", ["recipient", "number"])
    op.create_table(
        "known_parties",
        sa.Column("did", sa.Text, nullable=False),
        sa.Column("length", sa.Integer, nullable=False),
        sa.Column("entries", sa.ARRAY(sa.Text), nullable=False),
        sa.PrimaryKeyConstraint("did", name=op.f("pk_known_parties")),
    )
    op.create_table(
        "records",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("patient", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("head", sa.LargeBinary, nullable=False),
        sa.CheckConstraint("octet_length(head) = 32", name=op.f("ck_records_head_octets")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_records")),
        sa.UniqueConstraint("patient", "id", name=op.f("uq_records_patient_id")),
    )
    op.create_index("ix_records_patient_number", "records", ["patient", "number"], unique=True)
    op.create_table(
        "revocations",
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("grant_id", sa.LargeBinary, nullable=False),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("statement", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.CheckConstraint("octet_length(grant_id) = 32", name=op.f("ck_revocations_grant_id_octets")),
        sa.CheckConstraint("octet_length(id) = 32", name=op.f("ck_revocations_id_octets")),
        sa.PrimaryKeyConstraint("issuer", "grant_id", name=op.f("pk_revocations")),
    )
    op.create_table(
        "scope_floors",
        sa.Column("patient", sa.Text, nullable=False),
        sa.Column("scope", sa.LargeBinary, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.CheckConstraint("octet_length(scope) = 16", name=op.f("ck_scope_floors_scope_octets")),
        sa.PrimaryKeyConstraint("patient", "scope", name=op.f("pk_scope_floors")),
    )
    op.create_table(
        "statements",
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("jti", sa.LargeBinary, nullable=False),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.CheckConstraint("octet_length(id) = 32", name=op.f("ck_statements_id_octets")),
        sa.CheckConstraint("octet_length(jti) = 16", name=op.f("ck_statements_jti_octets")),
        sa.PrimaryKeyConstraint("issuer", "jti", name=op.f("pk_statements")),
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("patient", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("request", sa.LargeBinary),
        sa.Column("actions", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("not_before", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("threshold", sa.SmallInteger, nullable=False),
        sa.Column("statement", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.CheckConstraint("octet_length(id) = 32", name=op.f("ck_grants_id_octets")),
        sa.ForeignKeyConstraint(["request"], ["disclosure_requests.id"], name=op.f("fk_grants_request")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
    )
    op.create_index(op.f("ix_grants_patient_number"), "grants", ["patient", "number"])
    op.create_index(op.f("ix_grants_recipient_number"), "grants", ["recipient", "number"])
    op.create_index(op.f("ix_grants_request_number"), "grants", ["request", "number"])
    op.create_table(
        "grant_proxies",
        sa.Column("grant_id", sa.LargeBinary, nullable=False),
        sa.Column("proxy", sa.Text, nullable=False),
        sa.Column("position", sa.SmallInteger, nullable=False),
        sa.Column("stored", sa.Text),
        sa.Column("erased", sa.Text),
        sa.Column("problem", sa.Text),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name=op.f("fk_grant_proxies_grant_id")),
        sa.PrimaryKeyConstraint("grant_id", "proxy", name=op.f("pk_grant_proxies")),
    )
    op.create_table(
        "grant_scopes",
        sa.Column("grant_id", sa.LargeBinary, nullable=False),
        sa.Column("entry", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("scope", sa.LargeBinary, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("limited", sa.Boolean, nullable=False),
        sa.CheckConstraint("octet_length(scope) = 16", name=op.f("ck_grant_scopes_scope_octets")),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name=op.f("fk_grant_scopes_grant_id")),
        sa.PrimaryKeyConstraint("grant_id", "entry", name=op.f("pk_grant_scopes")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("grant_id", sa.LargeBinary, nullable=False),
        sa.Column("proxy", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("lease", sa.Text),
        sa.Column("leased_until", sa.BigInteger),
        sa.CheckConstraint("(kind = 'shares') = (sealed IS NOT NULL)", name=op.f("ck_outbox_shares_are_sealed")),
        sa.CheckConstraint("kind IN ('shares', 'revocation')", name=op.f("ck_outbox_kind")),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name=op.f("fk_outbox_grant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("grant_id", "proxy", "kind", name=op.f("uq_outbox_grant_id_proxy_kind")),
    )
    op.create_index("ix_outbox_due_at", "outbox", ["due_at"])
    op.create_table(
        "record_versions",
        sa.Column("patient", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("manifest_id", sa.LargeBinary, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("grant_id", sa.LargeBinary),
        sa.Column("scope", sa.LargeBinary, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("capsule_hash", sa.LargeBinary, nullable=False),
        sa.Column("capsule", sa.LargeBinary, nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
        sa.Column("header", sa.LargeBinary, nullable=False),
        sa.Column("body_hash", sa.LargeBinary, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.CheckConstraint("body IS NULL OR octet_length(body) = size", name=op.f("ck_record_versions_body_size")),
        sa.CheckConstraint("octet_length(body_hash) = 32", name=op.f("ck_record_versions_body_hash_octets")),
        sa.CheckConstraint("octet_length(capsule) = 98", name=op.f("ck_record_versions_capsule_octets")),
        sa.CheckConstraint("octet_length(capsule_hash) = 32", name=op.f("ck_record_versions_capsule_hash_octets")),
        sa.CheckConstraint("octet_length(manifest_id) = 32", name=op.f("ck_record_versions_manifest_id_octets")),
        sa.CheckConstraint("octet_length(scope) = 16", name=op.f("ck_record_versions_scope_octets")),
        sa.CheckConstraint("octet_length(wrapped_key) = 104", name=op.f("ck_record_versions_wrapped_key_octets")),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name=op.f("fk_record_versions_grant_id")),
        sa.ForeignKeyConstraint(
            ["patient", "record"], ["records.patient", "records.id"], name=op.f("fk_record_versions_patient_record")
        ),
        sa.PrimaryKeyConstraint("patient", "record", "version", name=op.f("pk_record_versions")),
    )
    op.create_index(op.f("ix_record_versions_body_hash"), "record_versions", ["body_hash"])
    op.create_index(
        "uq_record_versions_patient_capsule_hash", "record_versions", ["patient", "capsule_hash"], unique=True
    )
    op.create_index(op.f("ix_record_versions_patient_scope_epoch"), "record_versions", ["patient", "scope", "epoch"])
    op.create_table(
        "disclosed",
        sa.Column("grant_id", sa.LargeBinary, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("patient", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name=op.f("fk_disclosed_grant_id")),
        sa.ForeignKeyConstraint(
            ["patient", "record", "version"],
            ["record_versions.patient", "record_versions.record", "record_versions.version"],
            name=op.f("fk_disclosed_patient_record_version"),
        ),
        sa.PrimaryKeyConstraint("grant_id", "record", "version", name=op.f("pk_disclosed")),
    )
    op.create_table(
        "grant_capsules",
        sa.Column("grant_id", sa.LargeBinary, nullable=False),
        sa.Column("entry", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("capsule_hash", sa.LargeBinary, nullable=False),
        sa.CheckConstraint("octet_length(capsule_hash) = 32", name=op.f("ck_grant_capsules_capsule_hash_octets")),
        sa.ForeignKeyConstraint(
            ["grant_id", "entry"],
            ["grant_scopes.grant_id", "grant_scopes.entry"],
            name=op.f("fk_grant_capsules_grant_id_entry"),
        ),
        sa.PrimaryKeyConstraint("grant_id", "entry", "capsule_hash", name=op.f("pk_grant_capsules")),
    )
