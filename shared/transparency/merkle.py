"""The Merkle tree of RFC 6962 section 2.1: hashes, verification and proofs.

Verification follows RFC 9162 sections 2.1.3.2 and 2.1.4.2, which walk the path once without recursion. Proofs are
built from complete nodes only: node `(level, index)` is the hash of the leaves `index * 2**level` up to, without,
`(index + 1) * 2**level`, and level 0 are the leaf hashes. A complete node never changes while the log grows, so that a
store writes each once and finds all of one proof in one query (`needed_for_inclusion` and its siblings).

Sizes and indexes are below 2**63, as the wire and the database hold them; every hash has 32 bytes. A root does not fix
the size of its tree: a path may hold for a claimed size too that leads to the same shape (leaf 0 of 3 or of 4 leaves).
Sizes are therefore taken from signed checkpoints only, where a false one is the log's own signed lie.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import NamedTuple

from shared.encoding import sha256
from shared.transparency.errors import ConsistencyNotProven, InclusionNotProven, NoSuchTree

HASH_SIZE = 32
MAX_SIZE = 2**63 - 1
MAX_PATH = 64
"""No proof in a tree of `MAX_SIZE` leaves is longer: 63 levels, and the hash that a consistency proof starts at."""

EMPTY_ROOT = sha256(b"")
"""The root of the tree without leaves."""


class Subtree(NamedTuple):
    """The leaves from `start` up to, without, `end`."""

    start: int
    end: int


Node = tuple[int, int, bytes]
"""A complete node: its level, its index in that level, and its hash."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf, SHA-256(00 || data), 32 bytes."""
    return sha256(b"\x00" + data)


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees, SHA-256(01 || left || right), 32 bytes."""
    return sha256(b"\x01" + left + right)


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Return if the leaf with hash `leaf` is number `index`, from 0, of the tree of `size` leaves with `root`.

    Raises `InclusionNotProven`. RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < size <= MAX_SIZE or not _are_hashes(leaf, root) or not _is_path(path):
        raise InclusionNotProven
    fn, sn, r = index, size - 1, leaf
    for p in path:
        if sn == 0:
            raise InclusionNotProven
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    if sn or not hmac.compare_digest(r, root):
        raise InclusionNotProven


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Return if the tree of `new_size` leaves with `new_root` begins with that of `old_size` leaves with `old_root`.

    From the empty tree, and between equal sizes, the path is empty: the first proves nothing but that the earlier root
    is that of no leaves, the second that the roots are one (C2SP tlog-witness). Raises `ConsistencyNotProven`.
    RFC 9162 section 2.1.4.2.
    """
    if not 0 <= old_size <= new_size <= MAX_SIZE or not _are_hashes(old_root, new_root) or not _is_path(path):
        raise ConsistencyNotProven
    if (old_size == 0 and old_root != EMPTY_ROOT) or (new_size == 0 and new_root != EMPTY_ROOT):
        raise ConsistencyNotProven
    if old_size in (0, new_size):
        if path or (old_size == new_size and old_root != new_root):
            raise ConsistencyNotProven
        return
    # An earlier tree of 2**i leaves is itself a node of the later one; the proof then leaves its hash out.
    hashes = [old_root, *path] if old_size & (old_size - 1) == 0 else list(path)
    if not path:
        raise ConsistencyNotProven
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = hashes[0]
    for c in hashes[1:]:
        if sn == 0:
            raise ConsistencyNotProven
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    if sn or not hmac.compare_digest(fr, old_root) or not hmac.compare_digest(sr, new_root):
        raise ConsistencyNotProven


class Frontier:
    """The right edge of a growing tree: its size and its peaks, the complete nodes that its root is made of.

    Of a tree of any size at most 63 hashes are needed to append to it and to know its root.
    """

    __slots__ = ("_peaks", "_size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """`peaks` are the hashes of `needed_for_root(size)` from the left; raises `NoSuchTree` for another number."""
        if not 0 <= size <= MAX_SIZE or len(peaks) != size.bit_count() or not _are_hashes(*peaks):
            raise NoSuchTree
        self._size = size
        self._peaks = list(peaks)

    @classmethod
    def restore(cls, size: int, node: Callable[[int, int], bytes]) -> Frontier:
        """The frontier of the first `size` leaves, out of the complete nodes that `node(level, index)` gives."""
        return cls(size, [node(level, index) for level, index in nodes_of(0, size)])

    @classmethod
    def from_bytes(cls, data: bytes) -> Frontier:
        """The reverse of `to_bytes`; raises `NoSuchTree` for other bytes."""
        if len(data) < 8:
            raise NoSuchTree
        return cls(
            int.from_bytes(data[:8], "big"), [data[at : at + HASH_SIZE] for at in range(8, len(data), HASH_SIZE)]
        )

    def to_bytes(self) -> bytes:
        """The size in 8 bytes, big-endian, and each peak in 32, from the left."""
        return self._size.to_bytes(8, "big") + b"".join(self._peaks)

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self._size

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The hashes of the complete nodes under the root, from the left, each larger than the next."""
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> list[Node]:
        """Append the leaf with hash `leaf`; returns the nodes that this completes, of level 1 and up, lowest first.

        Raises `NoSuchTree` for a hash that is not 32 bytes or a tree that is full.
        """
        if not _are_hashes(leaf) or self._size >= MAX_SIZE:
            raise NoSuchTree
        completed: list[Node] = []
        level, index, top = 0, self._size, leaf
        while index & 1:
            top = node_hash(self._peaks.pop(), top)
            level, index = level + 1, index >> 1
            completed.append((level, index, top))
        self._peaks.append(top)
        self._size += 1
        return completed

    def root(self) -> bytes:
        """The root, 32 bytes; `EMPTY_ROOT` without leaves."""
        return _fold(self._peaks) if self._peaks else EMPTY_ROOT


def nodes_of(start: int, end: int) -> list[tuple[int, int]]:
    """The fewest complete nodes `(level, index)` that make up the leaves from `start` to `end`, from the left.

    `start` must be a multiple of the least power of two that is not below the number of leaves, as it is for every
    subtree that occurs in a proof; otherwise their hash is no hash of the tree, and `NoSuchTree` is raised.
    """
    if not 0 <= start <= end <= MAX_SIZE or (end > start and start % (1 << (end - start - 1).bit_length())):
        raise NoSuchTree
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def inclusion_subtrees(index: int, size: int) -> list[Subtree]:
    """The subtrees whose hashes are the path of leaf `index` in the tree of `size` leaves, in the order of the proof.

    Raises `NoSuchTree` unless `0 <= index < size`. RFC 6962 section 2.1.1.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise NoSuchTree
    start, end = 0, size
    subtrees = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            subtrees.append(Subtree(middle, end))
            end = middle
        else:
            subtrees.append(Subtree(start, middle))
            start = middle
    return subtrees[::-1]


def consistency_subtrees(old: int, new: int) -> list[Subtree]:
    """The subtrees whose hashes prove that the tree of `new` leaves extends that of `old`, in the order of the proof.

    None where `old` is 0 or `new`. Raises `NoSuchTree` unless `0 <= old <= new`. RFC 6962 section 2.1.2.
    """
    if not 0 <= old <= new <= MAX_SIZE:
        raise NoSuchTree
    if old in (0, new):
        return []
    start, end = 0, new
    subtrees = []
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            subtrees.append(Subtree(middle, end))
            end = middle
        else:
            subtrees.append(Subtree(start, middle))
            start = middle
    if start:  # Where the earlier tree is itself a node, the verifier has its hash already.
        subtrees.append(Subtree(start, end))
    return subtrees[::-1]


def needed_for_inclusion(index: int, size: int) -> set[tuple[int, int]]:
    """The complete nodes `(level, index)` that `prove_inclusion` will ask for; level 0 are leaf hashes."""
    return {node for subtree in inclusion_subtrees(index, size) for node in nodes_of(*subtree)}


def needed_for_consistency(old: int, new: int) -> set[tuple[int, int]]:
    """The complete nodes `(level, index)` that `prove_consistency` will ask for; level 0 are leaf hashes."""
    return {node for subtree in consistency_subtrees(old, new) for node in nodes_of(*subtree)}


def needed_for_root(size: int) -> set[tuple[int, int]]:
    """The complete nodes `(level, index)` that `root_of` and `Frontier.restore` will ask for."""
    return set(nodes_of(0, size))


def prove_inclusion(index: int, size: int, node: Callable[[int, int], bytes]) -> tuple[bytes, ...]:
    """The path of leaf `index` in the tree of `size` leaves, from the leaf's sibling up; at most 63 hashes."""
    return tuple(_subtree_hash(subtree, node) for subtree in inclusion_subtrees(index, size))


def prove_consistency(old: int, new: int, node: Callable[[int, int], bytes]) -> tuple[bytes, ...]:
    """The proof that the tree of `new` leaves extends that of `old`: at most 64 hashes, none if `old` is 0 or `new`."""
    return tuple(_subtree_hash(subtree, node) for subtree in consistency_subtrees(old, new))


def root_of(size: int, node: Callable[[int, int], bytes]) -> bytes:
    """The root of the first `size` leaves, 32 bytes."""
    return _subtree_hash(Subtree(0, size), node) if size else EMPTY_ROOT


def _subtree_hash(subtree: Subtree, node: Callable[[int, int], bytes]) -> bytes:
    return _fold([node(level, index) for level, index in nodes_of(*subtree)])


def _fold(peaks: Sequence[bytes]) -> bytes:
    """The hash over complete nodes of falling size, joined from the right as RFC 6962 splits them from the left."""
    top = peaks[-1]
    for peak in reversed(peaks[:-1]):
        top = node_hash(peak, top)
    return top


def _split(count: int) -> int:
    """The largest power of two below `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def _are_hashes(*values: bytes) -> bool:
    return all(isinstance(value, bytes) and len(value) == HASH_SIZE for value in values)


def _is_path(path: Sequence[bytes]) -> bool:
    return len(path) <= MAX_PATH and _are_hashes(*path)
