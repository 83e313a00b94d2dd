"""The rows of the tree: nodes, places, checkpoints and evidence. Each function is one or two statements."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.db.log.entries import sql
from shared.db.log.errors import LogDamaged

NodeKey = tuple[int, int]
"""Level (0 are the leaves) and index of a complete subtree."""


@dataclass(frozen=True)
class SignedCheckpoint:
    """A checkpoint as the log has signed it, with the signature lines of its witnesses by their DID."""

    size: int
    root: bytes
    note: str
    cosignatures: Mapping[str, str]
    published: bool


_LOCK_KEY = 0x5043_4548_5201
"""Any number, as long as it never changes and is not the one of `shared.db.migrate`; counted for each database."""

_CHECKPOINT = "SELECT size, root, note, cosignatures, published FROM log_checkpoints"
_NODES = sql(
    "SELECT n.level, n.index, n.hash FROM unnest(:levels, :indexes) AS w (level, index)"
    " JOIN log_nodes n ON n.level = w.level AND n.index = w.index"
    " UNION ALL SELECT 0, e.index, e.leaf FROM unnest(:leaves) AS w (index) JOIN log_entries e ON e.index = w.index",
    levels="smallint",
    indexes="bigint",
    leaves="bigint",
)
_PLACE = sql(
    "UPDATE log_entries SET index = w.index FROM unnest(:ids, :indexes) AS w (id, index)"
    " WHERE log_entries.id = w.id AND log_entries.index IS NULL RETURNING log_entries.id",
    ids="bigint",
    indexes="bigint",
)
_ADD_NODES = sql(
    "INSERT INTO log_nodes (level, index, hash) SELECT * FROM unnest(:levels, :indexes, :hashes)",
    levels="smallint",
    indexes="bigint",
    hashes="bytea",
)
_ADD_CHECKPOINT = sql(
    "INSERT INTO log_checkpoints (size, root, note, cosignatures, published)"
    " VALUES (:size, :root, :note, :cosignatures, :published)",
    cosignatures="text",
)
_SET_COSIGNATURES = sql(
    "UPDATE log_checkpoints SET cosignatures = :cosignatures, published = :published WHERE size = :size",
    cosignatures="text",
)
_PLACES = sql(
    "SELECT e.leaf, e.index FROM unnest(:leaves) AS w (leaf) JOIN log_entries e ON e.leaf = w.leaf",
    leaves="bytea",
)


async def try_lock(session: AsyncSession) -> bool:
    """Take the one lock of sequencing until the transaction ends; False if another transaction has it."""
    return bool(await session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK_KEY}))


async def newest(session: AsyncSession) -> SignedCheckpoint | None:
    """The newest checkpoint signed."""
    return _checkpoint((await session.execute(text(_CHECKPOINT + " ORDER BY size DESC LIMIT 1"))).one_or_none())


async def newest_published(session: AsyncSession) -> SignedCheckpoint | None:
    """The newest checkpoint published."""
    query = _CHECKPOINT + " WHERE published ORDER BY size DESC LIMIT 1"
    return _checkpoint((await session.execute(text(query))).one_or_none())


async def locked_checkpoint(session: AsyncSession, size: int) -> SignedCheckpoint | None:
    """The checkpoint of a size, which nobody else changes until the transaction ends."""
    query = text(_CHECKPOINT + " WHERE size = :size FOR UPDATE")
    return _checkpoint((await session.execute(query, {"size": size})).one_or_none())


async def places(session: AsyncSession) -> int:
    """How many rows have a place in the tree, as the highest of them says."""
    highest = await session.scalar(text("SELECT max(index) FROM log_entries"))
    return 0 if highest is None else int(highest) + 1


async def pending(session: AsyncSession, limit: int) -> list[tuple[int, bytes]]:
    """Ids and leaf hashes of committed rows without a place, oldest id first."""
    query = text("SELECT id, leaf FROM log_entries WHERE index IS NULL ORDER BY id LIMIT :limit")
    return [(int(row.id), bytes(row.leaf)) for row in await session.execute(query, {"limit": limit})]


async def give_places(session: AsyncSession, ids: Sequence[int], first: int) -> None:
    """Give rows consecutive places from `first` on. Raises `LogDamaged` unless each had none before."""
    values = {"ids": list(ids), "indexes": list(range(first, first + len(ids)))}
    if len((await session.execute(_PLACE, values)).all()) != len(ids):
        raise LogDamaged


async def add_nodes(session: AsyncSession, nodes: Sequence[tuple[int, int, bytes]]) -> None:
    """Add nodes that have become complete: level, index, hash."""
    if not nodes:
        return
    levels, indexes, hashes = zip(*nodes, strict=True)
    values = {"levels": list(levels), "indexes": list(indexes), "hashes": list(hashes)}
    await session.execute(_ADD_NODES, values)


async def nodes(session: AsyncSession, wanted: Collection[NodeKey]) -> Callable[[int, int], bytes]:
    """Fetch complete nodes in one query; what is returned raises `LogDamaged` for one that was not there."""
    values = {
        "levels": [level for level, _ in wanted if level > 0],
        "indexes": [index for level, index in wanted if level > 0],
        "leaves": [index for level, index in wanted if level == 0],
    }
    rows = await session.execute(_NODES, values) if wanted else ()
    found = {(int(level), int(index)): bytes(hashed) for level, index, hashed in rows}

    def node(level: int, index: int) -> bytes:
        try:
            return found[level, index]
        except KeyError:
            raise LogDamaged from None

    return node


async def add_checkpoint(session: AsyncSession, size: int, root: bytes, note: str, *, published: bool) -> None:
    """Add a signed checkpoint; the primary key refuses a second one of the same size."""
    values = {"size": size, "root": root, "note": note, "cosignatures": [], "published": published}
    await session.execute(_ADD_CHECKPOINT, values)
    if published:
        await _forget_below(session, size)


async def set_cosignatures(session: AsyncSession, size: int, lines: Sequence[str], *, published: bool) -> None:
    """Replace a checkpoint's cosignatures; older checkpoints are of no use to anybody once it is published."""
    await session.execute(_SET_COSIGNATURES, {"size": size, "cosignatures": list(lines), "published": published})
    if published:
        await _forget_below(session, size)


async def has_evidence(session: AsyncSession) -> bool:
    """Whether a checkpoint is known that this log has signed and does not extend."""
    return bool(await session.scalar(text("SELECT EXISTS (SELECT FROM log_evidence)")))


async def add_evidence(session: AsyncSession, size: int, note: str) -> None:
    """Keep such a checkpoint; the first of a size stays."""
    statement = "INSERT INTO log_evidence (size, note) VALUES (:size, :note) ON CONFLICT DO NOTHING"
    await session.execute(text(statement), {"size": size, "note": note})


async def places_of(session: AsyncSession, leaves: Sequence[bytes]) -> dict[bytes, int | None]:
    """The places of leaves by their hash; None for a row that has none yet, no member for a leaf in no row."""
    rows = await session.execute(_PLACES, {"leaves": list(leaves)})
    # By position: `index` of a row is the method of every tuple.
    return {bytes(leaf): place for leaf, place in rows}


async def data(session: AsyncSession, start: int, end: int) -> list[bytes]:
    """The data of the leaves from place `start` to before `end`."""
    query = text('SELECT data FROM log_entries WHERE "index" >= :start AND "index" < :end ORDER BY "index"')
    return [bytes(row.data) for row in await session.execute(query, {"start": start, "end": end})]


async def _forget_below(session: AsyncSession, size: int) -> None:
    # Every root and every proof can be had from the nodes; the newest row, which is what counts, is never among these.
    await session.execute(text("DELETE FROM log_checkpoints WHERE size < :size"), {"size": size})


def _checkpoint(row: Row[tuple[object, ...]] | None) -> SignedCheckpoint | None:
    if row is None:
        return None
    # A signature line of a note is "— <name> <base64>"; the name of a cosigner is its DID.
    lines = {line.split(" ")[1]: line for line in row.cosignatures}
    return SignedCheckpoint(int(row.size), bytes(row.root), row.note, lines, bool(row.published))
