"""Tables of a proxy. Keys begin with the patient where there is one, so that data can be split up by patient."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Integer,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.db.base import Binary32, Did, Octets, Seconds, exact_octets, new_metadata
from shared.db.known_parties import KnownParty
from shared.db.log import declare_log
from shared.db.quotas import UsageTable

SEALED_KFRAG_SIZE = 300
"""Bytes of a kfrag at rest: nonce 24, kfrag 260, tag 16."""


class Base(DeclarativeBase):
    metadata = new_metadata()


declare_log(Base.metadata, events=True)


class Party(KnownParty, Base):
    """Chains of keys seen."""

    __tablename__ = "known_parties"


class Usage(UsageTable, Base):
    """How much is kept for each party; the kind is `shares`."""


class OwnEntry(Base):
    """This proxy's own chain of keys, kept so that every start posts the very same statement."""

    __tablename__ = "own_entries"

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    did: Mapped[Did]
    token: Mapped[str] = mapped_column(Text)


class Grant(Base):
    """A grant this proxy has taken a share of; it stays when the share is erased."""

    __tablename__ = "grants"
    __table_args__ = (UniqueConstraint("id"),)

    patient: Mapped[Did] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    recipient: Mapped[Did]
    token: Mapped[str] = mapped_column(Text)
    nbf: Mapped[Seconds]
    exp: Mapped[Seconds]
    threshold: Mapped[int] = mapped_column(Integer)
    limits: Mapped[list[list[str] | None]] = mapped_column(JSONB)
    """For each scope entry the hashes of the capsules it is limited to, or null for all."""


class Kfrag(Base):
    """One share of a re-encryption key, encrypted under the proxy's storage key."""

    __tablename__ = "kfrags"
    __table_args__ = (
        ForeignKeyConstraint(["patient", "grant_id"], ["grants.patient", "grants.id"]),
        exact_octets("sealed", SEALED_KFRAG_SIZE),
        Index("ix_kfrags_exp", "exp"),
    )

    patient: Mapped[Did] = mapped_column(primary_key=True)
    grant_id: Mapped[str] = mapped_column(Text, primary_key=True)
    entry: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    sealed: Mapped[Octets]
    exp: Mapped[Seconds]
    """When the grant ends; it stands here too, so that what has ended is found without a look at every grant."""


class Tombstone(Base):
    """A revocation by `issuer`. It ends the grant of that id if, and only if, `issuer` is who gave the grant."""

    __tablename__ = "tombstones"

    issuer: Mapped[Did] = mapped_column(primary_key=True)
    grant_id: Mapped[str] = mapped_column(Text, primary_key=True)
    token: Mapped[str] = mapped_column(Text)
    receipt: Mapped[str] = mapped_column(Text)


class Statement(Base):
    """Every statement that had an effect, so that a `jti` serves once."""

    __tablename__ = "statements"

    issuer: Mapped[Did] = mapped_column(primary_key=True)
    jti: Mapped[str] = mapped_column(Text, primary_key=True)
    id: Mapped[str] = mapped_column(Text)


class Answer(Base):
    """What was answered to a statement, so that the same statement gets the same answer."""

    __tablename__ = "answers"
    __table_args__ = (
        exact_octets("token_hash", 32),
        CheckConstraint("(cfrags IS NULL) = (lapses_at IS NULL)", name="only_cfrags_lapse"),
        Index("ix_answers_grant_id", "grant_id"),
        Index("ix_answers_lapses_at", "lapses_at"),
    )

    statement: Mapped[str] = mapped_column(Text, primary_key=True)
    token_hash: Mapped[Binary32]
    grant_id: Mapped[str] = mapped_column(Text)
    receipt: Mapped[str] = mapped_column(Text)
    cfrags: Mapped[Octets | None]
    """Cfrags of 359 bytes one after the other; for a re-encryption only."""
    lapses_at: Mapped[Seconds | None]
    """From then on the statement itself is refused, so that its answer can go."""


class WitnessedLog(Base):
    """A log that this proxy witnesses, and the newest checkpoint of it that it has cosigned; one of each kind, for
    life."""

    __tablename__ = "witnessed_logs"
    __table_args__ = (UniqueConstraint("kind"), exact_octets("root", 32))

    origin: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    size: Mapped[int | None] = mapped_column(BigInteger)
    root: Mapped[Binary32 | None]
    note: Mapped[str | None] = mapped_column(Text)
