"""Appending leaves, in the caller's transaction: if that is undone, so are they. No lock is taken.

The rows have no place in the tree yet; the sequencer (`shared.db.log.store`) gives them one after the commit.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BigInteger, Integer, LargeBinary, SmallInteger, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import TextClause

from shared.transparency.merkle import leaf_hash

_TYPES = {"bytea": LargeBinary, "text": Text, "bigint": BigInteger, "smallint": SmallInteger, "int": Integer}


def sql(statement: str, **arrays: str) -> TextClause:
    """A statement whose parameters named here are arrays of the Postgres type given."""
    clause = text(statement)
    return clause.bindparams(*(bindparam(name, type_=ARRAY(_TYPES[type_])) for name, type_ in arrays.items()))


_APPEND = sql(
    "INSERT INTO log_entries (data, leaf) SELECT * FROM unnest(:datas, :leaves) RETURNING id, leaf",
    datas="bytea",
    leaves="bytea",
)


async def append(session: AsyncSession, datas: Sequence[bytes]) -> list[int]:
    """Append the data of leaves, 32 to 64 bytes each; returns the ids of their rows, in order.

    Raises IntegrityError (`uq_log_entries_leaf`) for data that is in the log already, and ValueError for another
    length.
    """
    if not all(32 <= len(data) <= 64 for data in datas):
        raise ValueError("the data of a leaf has 32 to 64 bytes")
    if not datas:
        return []
    leaves = [leaf_hash(data) for data in datas]
    rows = await session.execute(_APPEND, {"datas": list(datas), "leaves": leaves})
    ids = {bytes(row.leaf): int(row.id) for row in rows}
    return [ids[leaf] for leaf in leaves]
