"""Tables of the records service. Nothing in them is secret: all content is ciphertext, scopes are opaque ids.

Identifiers and hashes are base64url on the wire and bytes in the tables; `Base64Url` is the one place where the two
meet. Columns named `number` count the rows of their table and are what lists are paged by.
"""

from __future__ import annotations

from typing import Annotated, Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from shared.db.base import Did, Seconds, exact_octets, new_metadata
from shared.db.known_parties import KnownParty
from shared.db.log import declare_log
from shared.db.quotas import UsageTable
from shared.encoding import b64url, from_b64url


class Base64Url(TypeDecorator[str]):
    """Bytes in the table, canonical base64url in Python."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> bytes | None:
        return None if value is None else from_b64url(value)

    def process_result_value(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else b64url(bytes(value))


Hash = Annotated[str, mapped_column(Base64Url)]
"""SHA-256; declare `exact_octets(column, 32)` beside it."""

Wire = Annotated[str, mapped_column(Base64Url)]
"""Any other bytes that travel as base64url; where their number is fixed, `exact_octets` beside it says so."""

Number = Annotated[int, mapped_column(BigInteger, Identity(always=True))]


class Base(DeclarativeBase):
    metadata = new_metadata()


declare_log(Base.metadata, events=True)


class Party(KnownParty, Base):
    """Chains of keys seen so far."""


class Usage(UsageTable, Base):
    """How much is kept for each party (`services.records.quotas`)."""


class Statement(Base):
    """Every `jti` that had an effect; the row is what a repeated statement is answered from."""

    __tablename__ = "statements"
    __table_args__ = (exact_octets("jti", 16), exact_octets("id", 32))

    issuer: Mapped[Did] = mapped_column(primary_key=True)
    jti: Mapped[Wire] = mapped_column(primary_key=True)
    id: Mapped[Hash]
    kind: Mapped[str] = mapped_column(Text)
    received_at: Mapped[Seconds]


class Record(Base):
    """The head of one record: which version is the newest. Its row is the lock that versions are written under.

    Ids are unique across patients, so that nobody can hang versions of their own beside another patient's record.
    """

    __tablename__ = "records"
    __table_args__ = (
        exact_octets("head", 32),
        UniqueConstraint("patient", "id"),
        Index("ix_records_patient_number", "patient", "number", unique=True),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    patient: Mapped[Did]
    number: Mapped[Number]
    version: Mapped[int] = mapped_column(Integer)
    head: Mapped[Hash]


class RecordVersion(Base):
    """One version of one record as its author signed and sealed it. `body` is absent where the blob store has it."""

    __tablename__ = "record_versions"
    __table_args__ = (
        ForeignKeyConstraint(["patient", "record"], ["records.patient", "records.id"]),
        exact_octets("manifest_id", 32),
        exact_octets("scope", 16),
        exact_octets("capsule_hash", 32),
        exact_octets("capsule", 98),
        exact_octets("wrapped_key", 104),
        exact_octets("body_hash", 32),
        CheckConstraint("body IS NULL OR octet_length(body) = size", name="body_size"),
        # A content key is of one version; a capsule met again would carry a grant for the one over to the other.
        Index("uq_record_versions_patient_capsule_hash", "patient", "capsule_hash", unique=True),
        Index(None, "patient", "scope", "epoch"),
        Index(None, "body_hash"),
    )

    patient: Mapped[Did] = mapped_column(primary_key=True)
    record: Mapped[str] = mapped_column(Text, primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    number: Mapped[Number]
    manifest_id: Mapped[Hash]
    manifest: Mapped[str] = mapped_column(Text)
    author: Mapped[Did]
    grant_id: Mapped[Hash | None] = mapped_column(ForeignKey("grants.id"))
    scope: Mapped[Wire]
    epoch: Mapped[int] = mapped_column(Integer)
    capsule_hash: Mapped[Hash]
    capsule: Mapped[Wire]
    wrapped_key: Mapped[Wire]
    header: Mapped[Wire]
    body_hash: Mapped[Hash]
    size: Mapped[int] = mapped_column(BigInteger)
    body: Mapped[Wire | None]
    received_at: Mapped[Seconds]


class Blob(Base):
    """Who has put which body into the blob store. The same body may have been put there by several."""

    __tablename__ = "blobs"
    __table_args__ = (exact_octets("sha256", 32),)

    owner: Mapped[Did] = mapped_column(primary_key=True)
    sha256: Mapped[Hash] = mapped_column(primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    stored_at: Mapped[Seconds]
    in_record: Mapped[bool] = mapped_column(server_default=false())
    """Whether a record of the owner's has it as its body, so that it counts as the patient's."""


class ScopeFloor(Base):
    """The least epoch that new records of a scope may carry; without a row it is 0."""

    __tablename__ = "scope_floors"
    __table_args__ = (exact_octets("scope", 16),)

    patient: Mapped[Did] = mapped_column(primary_key=True)
    scope: Mapped[Wire] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer)


class RequestRow(Base):
    """A disclosure request, and the denial of it if there is one."""

    __tablename__ = "disclosure_requests"
    __table_args__ = (
        exact_octets("id", 32),
        Index(None, "patient", "number"),
        Index(None, "recipient", "number"),
        Index("ix_disclosure_requests_open", "recipient", "patient", postgresql_where=text("open")),
        Index("ix_disclosure_requests_open_until", "expires_at", postgresql_where=text("open")),
    )

    id: Mapped[Hash] = mapped_column(primary_key=True)
    number: Mapped[Number]
    patient: Mapped[Did]
    recipient: Mapped[Did]
    actions: Mapped[list[str]] = mapped_column(ARRAY(TEXT))
    purpose: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[Seconds]
    statement: Mapped[str] = mapped_column(Text)
    denial: Mapped[str | None] = mapped_column(Text)
    received_at: Mapped[Seconds]
    open: Mapped[bool] = mapped_column(server_default=true())
    """Whether it is counted as waiting for an answer: until there is one, or some seconds after it has lapsed."""


class GrantRow(Base):
    """A grant. Whether it has been revoked is said by `revocations` alone, which may hold a grant not known yet."""

    __tablename__ = "grants"
    __table_args__ = (
        exact_octets("id", 32),
        Index(None, "patient", "number"),
        Index(None, "recipient", "number"),
        Index(None, "request", "number"),
        Index("ix_grants_end_not_told", "expires_at", postgresql_where=text("NOT end_told")),
    )

    id: Mapped[Hash] = mapped_column(primary_key=True)
    number: Mapped[Number]
    patient: Mapped[Did]
    recipient: Mapped[Did]
    request: Mapped[Hash | None] = mapped_column(ForeignKey("disclosure_requests.id"))
    actions: Mapped[list[str]] = mapped_column(ARRAY(TEXT))
    not_before: Mapped[Seconds]
    expires_at: Mapped[Seconds]
    threshold: Mapped[int] = mapped_column(SmallInteger)
    """How many proxies must have stored their share before the grant is active; 0 where it does not allow reading."""
    statement: Mapped[str] = mapped_column(Text)
    received_at: Mapped[Seconds]
    end_told: Mapped[bool] = mapped_column(server_default=false())
    """Whether nobody needs to be told any more that the grant has lapsed."""


class GrantScopeRow(Base):
    """One scope entry of a grant; `limited` says that only the capsules in `grant_capsules` are covered."""

    __tablename__ = "grant_scopes"
    __table_args__ = (exact_octets("scope", 16),)

    grant_id: Mapped[Hash] = mapped_column(ForeignKey("grants.id"), primary_key=True)
    entry: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    scope: Mapped[Wire]
    epoch: Mapped[int] = mapped_column(Integer)
    limited: Mapped[bool]


class GrantCapsule(Base):
    """A capsule that a limited scope entry lists."""

    __tablename__ = "grant_capsules"
    __table_args__ = (
        ForeignKeyConstraint(["grant_id", "entry"], ["grant_scopes.grant_id", "grant_scopes.entry"]),
        exact_octets("capsule_hash", 32),
    )

    grant_id: Mapped[Hash] = mapped_column(primary_key=True)
    entry: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    capsule_hash: Mapped[Hash] = mapped_column(primary_key=True)


class GrantProxyRow(Base):
    """How far one proxy is with a grant: its receipts, and what the last failed delivery ended with."""

    __tablename__ = "grant_proxies"

    grant_id: Mapped[Hash] = mapped_column(ForeignKey("grants.id"), primary_key=True)
    proxy: Mapped[Did] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger)
    stored: Mapped[str | None] = mapped_column(Text)
    erased: Mapped[str | None] = mapped_column(Text)
    problem: Mapped[str | None] = mapped_column(Text)


class RevocationRow(Base):
    """A tombstone. It has an effect on the grant only if its issuer gave the grant, whichever of the two came first."""

    __tablename__ = "revocations"
    __table_args__ = (exact_octets("grant_id", 32), exact_octets("id", 32))

    issuer: Mapped[Did] = mapped_column(primary_key=True)
    grant_id: Mapped[Hash] = mapped_column(primary_key=True)
    id: Mapped[Hash]
    statement: Mapped[str] = mapped_column(Text)
    received_at: Mapped[Seconds]


class Disclosed(Base):
    """Which record versions have been disclosed under which grant."""

    __tablename__ = "disclosed"
    __table_args__ = (
        ForeignKeyConstraint(
            ["patient", "record", "version"],
            ["record_versions.patient", "record_versions.record", "record_versions.version"],
        ),
        # For the release before, which does not name the patient; the next one drops it.
        Index(None, "grant_id"),
    )

    patient: Mapped[Did] = mapped_column(primary_key=True)
    grant_id: Mapped[Hash] = mapped_column(ForeignKey("grants.id"), primary_key=True)
    record: Mapped[str] = mapped_column(Text, primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)


class Delivery(Base):
    """One message that a proxy must still get. The row goes when the message is delivered, and the share with it.

    Times are milliseconds since the epoch, since the first back-off is shorter than a second. `lease` names the
    worker that is delivering until `leased_until`; whoever finds its lease gone has nothing more to say.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        UniqueConstraint("grant_id", "proxy", "kind"),
        CheckConstraint("(kind = 'shares') = (sealed IS NOT NULL)", name="shares_are_sealed"),
        CheckConstraint("kind IN ('shares', 'revocation')", name="kind"),
        Index("ix_outbox_due_at", "due_at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    grant_id: Mapped[Hash] = mapped_column(ForeignKey("grants.id"))
    proxy: Mapped[Did]
    kind: Mapped[str] = mapped_column(Text)
    sealed: Mapped[Wire | None]
    attempts: Mapped[int] = mapped_column(Integer)
    due_at: Mapped[int] = mapped_column(BigInteger)
    lease: Mapped[str | None] = mapped_column(Text)
    leased_until: Mapped[int | None] = mapped_column(BigInteger)


class NoticeHead(Base):
    """How many notices a party has had; the row that they take turns on."""

    __tablename__ = "notice_heads"

    party: Mapped[Did] = mapped_column(primary_key=True)
    last: Mapped[int] = mapped_column(BigInteger)


class NoticeRow(Base):
    """Something that a party is told. A hint where to look, which proves nothing; it goes after some weeks."""

    __tablename__ = "notices"
    __table_args__ = (Index(None, "at"),)

    party: Mapped[Did] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[Seconds]
    kind: Mapped[str] = mapped_column(Text)
    other: Mapped[Did]
    request: Mapped[Hash | None]
    grant_id: Mapped[Hash | None]
    count: Mapped[int | None] = mapped_column(Integer)
