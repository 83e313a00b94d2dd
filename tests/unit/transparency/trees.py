"""The definitions of RFC 6962 section 2.1, written as they stand there, and logs and witnesses with fixed keys."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from hypothesis import settings
from hypothesis import strategies as st

from shared.crypto.signing import SigningKey
from shared.did import did_from_key
from shared.transparency.merkle import Frontier, leaf_hash

NOW = 1_800_000_000
LOG_KEY = SigningKey(b"\x01" * 32)
OTHER_LOG_KEY = SigningKey(b"\x02" * 32)
WITNESSES = [SigningKey(bytes([number]) * 32) for number in (11, 12, 13)]
DIDS = [did_from_key(bytes(key.verify_key)) for key in WITNESSES]

KNOWN_LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
"""The inputs of Certificate Transparency's own tests."""

unhurried = settings(deadline=None)
"""On a loaded machine any example may take long; no test here is about time."""

datas = st.lists(st.binary(max_size=64), max_size=70)


def split(count: int) -> int:
    """The largest power of two smaller than `count`."""
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def mth(leaves: Sequence[bytes]) -> bytes:
    """MTH(D[n]), section 2.1."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = split(len(leaves))
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D[n]), section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def proof(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PROOF(m, D[n]), section 2.1.2, for 0 < m < n."""
    return subproof(m, leaves, True)


def subproof(m: int, leaves: Sequence[bytes], whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


class GrownTree:
    """A tree grown leaf by leaf, which holds what a store would: leaf hashes and completed nodes, nothing else."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = list(leaves)
        self.frontier = Frontier()
        self.nodes: dict[tuple[int, int], bytes] = {}
        for index, data in enumerate(leaves):
            self.nodes[0, index] = leaf_hash(data)
            for level, position, node in self.frontier.append(leaf_hash(data)):
                assert (level, position) not in self.nodes
                self.nodes[level, position] = node

    def node(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]

    def root(self, size: int | None = None) -> bytes:
        return mth(self.leaves[:size])
