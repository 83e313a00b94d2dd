"""Tables of the registry. Every key but an index begins with a party's DID, so that data can be spread by party; only
the log, which has one order of everything, cannot be spread."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, Integer, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.db.base import Binary16, Binary32, Did, Octets, Seconds, exact_octets, new_metadata
from shared.db.log import declare_log
from shared.db.quotas import UsageTable


class Base(DeclarativeBase):
    metadata = new_metadata()


# Every key-entry and scope-key that was accepted; the log has one order of all parties, and no key of a party.
declare_log(Base.metadata, events=False)


class PartyRow(Base):
    """One party, with what its newest key-entry says of it; the row that writes of a party take turns on."""

    __tablename__ = "parties"
    __table_args__ = (
        CheckConstraint("role IN ('patient', 'recipient', 'proxy')", name="role"),
        Index("ix_parties_directory", "role", "sort_name", "did"),
        Index(
            "ix_parties_search",
            "search_text",
            postgresql_using="gin",
            postgresql_ops={"search_text": "gin_trgm_ops"},
            postgresql_where=text("role = 'recipient'"),
        ),
    )

    did: Mapped[Did] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(Text)
    seq: Mapped[int] = mapped_column(Integer)
    name: Mapped[str | None] = mapped_column(Text)
    organisation: Mapped[str | None] = mapped_column(Text)
    endpoint: Mapped[str | None] = mapped_column(Text)
    # Folded in Python, since what Postgres takes for upper and lower case depends on how its cluster was made.
    sort_name: Mapped[str] = mapped_column(Text(collation="C"))
    search_text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[Seconds]


class KeyEntryRow(Base):
    """One link of a chain of keys, as it was signed."""

    __tablename__ = "key_entries"
    __table_args__ = (
        UniqueConstraint("did", "identity_key"),
        exact_octets("id", 32),
        exact_octets("identity_key", 32),
    )

    did: Mapped[Did] = mapped_column(ForeignKey("parties.did"), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    id: Mapped[Binary32]
    identity_key: Mapped[Binary32]
    token: Mapped[str] = mapped_column(Text)
    received_at: Mapped[Seconds]


class ScopeKeyRow(Base):
    """The delegating key of one scope in one epoch, as its patient signed it."""

    __tablename__ = "scope_keys"
    __table_args__ = (exact_octets("scope", 16), exact_octets("id", 32), exact_octets("delegating_key", 33))

    patient: Mapped[Did] = mapped_column(ForeignKey("parties.did"), primary_key=True)
    scope: Mapped[Binary16] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    id: Mapped[Binary32]
    delegating_key: Mapped[Octets]
    token: Mapped[str] = mapped_column(Text)


class Usage(UsageTable, Base):
    """How much is kept for each party; the kind is `scope_keys`."""


class StatementRow(Base):
    """Which statement a `jti` of an issuer stands for, so that a replay is known and a reuse is refused."""

    __tablename__ = "statements"
    __table_args__ = (exact_octets("jti", 16), exact_octets("id", 32))

    issuer: Mapped[Did] = mapped_column(ForeignKey("parties.did"), primary_key=True)
    jti: Mapped[Binary16] = mapped_column(primary_key=True)
    id: Mapped[Binary32]
    kind: Mapped[str] = mapped_column(Text)
    received_at: Mapped[Seconds]


class AssertionRow(Base):
    """A client assertion that was used. `jti` is the SHA-256 of the client's text, which may hold anything."""

    __tablename__ = "assertions"
    __table_args__ = (exact_octets("jti", 32), Index("ix_assertions_expires", "expires"))

    client: Mapped[Did] = mapped_column(ForeignKey("parties.did"), primary_key=True)
    jti: Mapped[Binary32] = mapped_column(primary_key=True)
    expires: Mapped[Seconds]


class AuditRow(Base):
    """One thing that a party did or was refused. `did` is no foreign key: who is refused may not be registered."""

    __tablename__ = "audit"
    __table_args__ = (exact_octets("statement", 32),)

    did: Mapped[Did] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[Seconds]
    act: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(Text)
    """`accepted`, or the code of the refusal."""
    cause: Mapped[str | None] = mapped_column(Text)
    """What the answer does not say."""
    statement: Mapped[Binary32 | None]
