"""Conventions of tables: names of constraints, and the few column types that all services use.

A service declares its own base over its own metadata:

    class Base(DeclarativeBase):
        metadata = new_metadata()

    class Party(Base):
        __tablename__ = "parties"
        __table_args__ = (exact_octets("head", 32),)
        did: Mapped[Did] = mapped_column(primary_key=True)
        head: Mapped[Binary32]
        registered_at: Mapped[Seconds]

A relationship, should there ever be one, is declared with `lazy="raise"`: what is read is said in the repository.
"""

from __future__ import annotations

from typing import Annotated

from sqlalchemy import BigInteger, CheckConstraint, LargeBinary, MetaData, Text
from sqlalchemy.orm import mapped_column

NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}
"""Constraints have names that can be foreseen, since code asks for them (`violated_constraint`) and migrations too."""

Did = Annotated[str, mapped_column(Text)]
"""A `did:key`; its form is checked where it enters, not in the table."""

Seconds = Annotated[int, mapped_column(BigInteger)]
"""Whole seconds since the Unix epoch (UTC)."""

Octets = Annotated[bytes, mapped_column(LargeBinary)]

Binary16 = Annotated[bytes, mapped_column(LargeBinary)]
"""16 bytes; declare `exact_octets(column, 16)` beside it, which is what enforces it."""

Binary32 = Annotated[bytes, mapped_column(LargeBinary)]
"""32 bytes; declare `exact_octets(column, 32)` beside it, which is what enforces it."""


def new_metadata() -> MetaData:
    """Metadata of one service, with the convention of names; never shared between services."""
    return MetaData(naming_convention=NAMING_CONVENTION)


def exact_octets(column: str, octets: int) -> CheckConstraint:
    """For `__table_args__`: the column holds exactly so many bytes. The name becomes `ck_<table>_<column>_octets`."""
    return CheckConstraint(f"octet_length({column}) = {octets:d}", name=f"{column}_octets")
