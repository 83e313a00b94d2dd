"""Locks on names, served in the order in which they are asked for.

Those who only need something to stay as it is share a lock, whoever changes it takes it alone. Rows can be locked so
too (`FOR SHARE`), but those who share a row's lock overtake whoever waits to have it alone: as long as others keep
coming, a change never gets its turn. Postgres's advisory locks queue, and a name need not be in a table yet.

A lock is held until the transaction ends. What it protects is read in a later statement, which sees what was committed
while this one waited (isolation level READ COMMITTED).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sqlalchemy import BigInteger, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

_KEYS = bindparam("keys", type_=ARRAY(BigInteger))
_SHARED = text("SELECT pg_advisory_xact_lock_shared(key) FROM unnest(:keys) AS key").bindparams(_KEYS)
_ALONE = text("SELECT pg_advisory_xact_lock(key) FROM unnest(:keys) AS key").bindparams(_KEYS)


def lock_key(name: str) -> int:
    """The key that Postgres knows the lock of this name by: 64 bits of its SHA-256, signed.

    Two names with one key would only wait for each other without need.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


async def share(session: AsyncSession, names: Iterable[str]) -> None:
    """Nobody has one of these locks alone from now on, until the transaction ends."""
    await session.execute(_SHARED, {"keys": _in_order(names)})


async def take(session: AsyncSession, names: Iterable[str]) -> None:
    """Nobody else has one of these locks in any way from now on, until the transaction ends."""
    await session.execute(_ALONE, {"keys": _in_order(names)})


def _in_order(names: Iterable[str]) -> list[int]:
    """In one order for all, so that two transactions that take several never wait for each other."""
    return sorted({lock_key(name) for name in names})
