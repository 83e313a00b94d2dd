"""The log as its service and its readers see it: sequencing, signing, publishing and proofs.

Sequencing is one transaction under one lock: it gives the committed rows that have no place yet consecutive places,
adds the nodes that this completes, and signs the new root. So a tree and its signature are there together or not at
all, and two replicas never sign two trees. What is kept in memory between two runs is a cache that has to have the
root that the database says was signed last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from shared.crypto.signing import SigningKey
from shared.db.engine import Database
from shared.db.log import tree
from shared.db.log.errors import LeafUnknown, LogDamaged, LogHalted
from shared.db.log.tree import SignedCheckpoint
from shared.schemas.log import MAX_ENTRIES, MAX_LEAVES
from shared.transparency.checkpoints import Kind, origin_of, sign_checkpoint, verify_checkpoint, with_cosignatures
from shared.transparency.errors import NoSuchTree, NotInLogYet
from shared.transparency.merkle import (
    EMPTY_ROOT,
    Frontier,
    needed_for_consistency,
    needed_for_inclusion,
    needed_for_root,
    prove_consistency,
    prove_inclusion,
    root_of,
)

BATCH = 5_000
"""Leaves that one run gives a place; more would keep the loop busy with hashing for too long."""
MAX_COSIGNATURES = 63
"""A signed note has at most 64 signatures, the log's own included."""


@dataclass(frozen=True)
class Proven:
    """A published checkpoint, the proof that it extends the tree the reader knows, and for each leaf its place and
    audit path (RFC 6962 section 2.1.1), in order."""

    checkpoint: str
    consistency: tuple[bytes, ...]
    items: tuple[tuple[int, tuple[bytes, ...]], ...]


class Log:
    """One service's log. `key` signs its checkpoints, `kind` is `registry`, `records` or `proxy`.

    Appending is done by `shared.db.log.append` and `append_events` in the transaction that has the effect. All
    methods raise `DatabaseUnavailable`.
    """

    def __init__(self, database: Database, *, key: SigningKey, kind: Kind) -> None:
        self._database = database
        self._key = key
        self._kind = kind
        self._cache: Frontier | None = None
        self.origin = origin_of(kind, key.verify_key)

    # Growing

    async def sequence(self, limit: int = BATCH, *, publish: bool = False) -> int:
        """Place at most `limit` committed rows and sign the tree; returns how many were placed.

        The first run signs the empty tree, if there is nothing else. With `publish`, for a log without witnesses, the
        checkpoint is published by this. Returns 0 while another replica is sequencing. Raises `LogHalted` and
        `LogDamaged`, after which nothing was signed.
        """
        async with self._database.transaction() as session:
            # Read committed: the statements after this one see all that the holder before has committed.
            if not await tree.try_lock(session):
                return 0
            await _refuse_if_halted(session)
            signed = await tree.newest(session)
            rows = await tree.pending(session, limit)
            if signed is not None and not rows:
                return 0
            frontier = await self._frontier(session, signed)
            completed: list[tuple[int, int, bytes]] = []
            first = frontier.size
            for _, leaf in rows:
                completed += frontier.append(leaf)
            await tree.give_places(session, [row for row, _ in rows], first)
            await tree.add_nodes(session, completed)
            root = frontier.root()
            note = sign_checkpoint(self._key, self._kind, frontier.size, root)
            await tree.add_checkpoint(session, frontier.size, root, note, published=publish)
        self._cache = frontier
        return len(rows)

    async def newest(self) -> SignedCheckpoint | None:
        """The newest checkpoint signed, published or not; None before the first run. Raises `LogHalted`."""
        async with self._database.reading() as session:
            await _refuse_if_halted(session)
            return await tree.newest(session)

    async def cosign(
        self, size: int, lines: Mapping[str, str], *, witnesses: Collection[str]
    ) -> SignedCheckpoint | None:
        """Add cosignature lines, by DID and verified, to the checkpoint of this size; the newer line of a DID stays.

        It is published as soon as more than half of `witnesses` have cosigned it, or there are none. Returns the
        checkpoint as it is then, or None where a younger one has taken its place. Raises `LogHalted`.
        """
        async with self._database.transaction() as session:
            await _refuse_if_halted(session)
            checkpoint = await tree.locked_checkpoint(session, size)
            if checkpoint is None:
                return None
            merged = {did: line for did, line in {**checkpoint.cosignatures, **lines}.items() if did in witnesses}
            published = checkpoint.published or is_enough(merged, witnesses)
            kept = dict(sorted(merged.items())[:MAX_COSIGNATURES])
            await tree.set_cosignatures(session, size, list(kept.values()), published=published)
        return SignedCheckpoint(size, checkpoint.root, checkpoint.note, kept, published)

    async def refute(self, note: str) -> bool:
        """Whether a checkpoint that somebody shows contradicts this tree; if so it is kept, and the log is halted.

        Every checkpoint signed is committed before it leaves, so one beyond the newest, or with another root, was
        signed over another database's tree. Raises what `verify_checkpoint` raises unless this log has signed it.
        """
        shown = verify_checkpoint(note, self.origin)
        async with self._database.transaction() as session:
            newest = await tree.newest(session)
            if newest is not None and shown.size <= newest.size:
                node = await tree.nodes(session, needed_for_root(shown.size))
                if root_of(shown.size, node) == shown.root:
                    return False
            await tree.add_evidence(session, shown.size, note)
        return True

    async def _frontier(self, session: AsyncSession, signed: SignedCheckpoint | None) -> Frontier:
        """The right edge of the tree signed last, of its very root. Raises `LogDamaged`."""
        size, root = (0, EMPTY_ROOT) if signed is None else (signed.size, signed.root)
        if await tree.places(session) != size:
            raise LogDamaged
        if self._cache is not None and self._cache.size == size and self._cache.root() == root:
            return Frontier(size, self._cache.peaks)
        frontier = Frontier.restore(size, await tree.nodes(session, needed_for_root(size)))
        if frontier.root() != root:
            raise LogDamaged
        return frontier

    # Reading

    async def checkpoint(self) -> str:
        """The newest published checkpoint with its cosignatures, a signed note. Raises `NotInLogYet`."""
        async with self._database.reading() as session:
            return _note(await _published(session))

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof (RFC 6962 section 2.1.2) that the tree of size `new` extends that of size `old`; it is empty for
        an `old` of 0 or `new`. Raises `NoSuchTree` unless 0 <= old <= new <= the size published."""
        async with self._database.reading() as session:
            published = await _published(session)
            if not 0 <= old <= new <= published.size:
                raise NoSuchTree
            return await _consistency(session, old, new)

    async def consistency_to(self, old: int, newest: SignedCheckpoint) -> tuple[bytes, ...]:
        """As `consistency`, to a checkpoint that is signed and perhaps not published; for the witnesses."""
        async with self._database.reading() as session:
            return await _consistency(session, old, newest.size)

    async def inclusion(self, leaves: Sequence[bytes], known: int) -> Proven:
        """Prove that leaves (at most `MAX_LEAVES` hashes) are in the published tree, to a reader who knows the tree
        of size `known`, be it 0.

        Raises `LeafUnknown` for one that is in no row, `NotInLogYet` for one without a place in the published tree
        and for a known size beyond it, and ValueError for too many.
        """
        if len(leaves) > MAX_LEAVES:
            raise ValueError("too many leaves")
        async with self._database.reading() as session:
            # The order matters: a row seen by the second query only is younger than the checkpoint, hence not in it.
            published = await _published(session)
            size = published.size
            if known > size:
                raise NotInLogYet
            places = await tree.places_of(session, leaves)
            if any(leaf not in places for leaf in leaves):
                raise LeafUnknown
            indexes = [place for leaf in leaves if (place := places[leaf]) is not None and place < size]
            if len(indexes) != len(leaves):
                raise NotInLogYet
            wanted = set(needed_for_consistency(known, size)).union(
                *(needed_for_inclusion(index, size) for index in indexes)
            )
            node = await tree.nodes(session, wanted)
        return Proven(
            _note(published),
            tuple(prove_consistency(known, size, node)),
            tuple((index, tuple(prove_inclusion(index, size, node))) for index in indexes),
        )

    async def entries(self, start: int, limit: int) -> tuple[int, list[bytes]]:
        """The size of the published tree, and the data of at most `limit` of its leaves (at most `MAX_ENTRIES`) from
        place `start` on. Raises `NotInLogYet` while nothing is published."""
        async with self._database.reading() as session:
            size = (await _published(session)).size
            return size, await tree.data(session, start, min(start + min(limit, MAX_ENTRIES), size))


def is_enough(cosigners: Collection[str], witnesses: Collection[str]) -> bool:
    """Whether more than half of the witnesses have cosigned, or there are none, or a note has room for no more."""
    count = len(set(cosigners) & set(witnesses))
    return not witnesses or 2 * count > len(set(witnesses)) or count >= MAX_COSIGNATURES


async def _refuse_if_halted(session: AsyncSession) -> None:
    if await tree.has_evidence(session):
        raise LogHalted


async def _published(session: AsyncSession) -> SignedCheckpoint:
    published = await tree.newest_published(session)
    if published is None:
        raise NotInLogYet
    return published


async def _consistency(session: AsyncSession, old: int, new: int) -> tuple[bytes, ...]:
    node = await tree.nodes(session, needed_for_consistency(old, new))
    return tuple(prove_consistency(old, new, node))


def _note(checkpoint: SignedCheckpoint) -> str:
    return with_cosignatures(checkpoint.note, list(checkpoint.cosignatures.values()))
