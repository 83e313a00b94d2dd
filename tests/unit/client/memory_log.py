"""A transparency log in memory, with its witnesses: the tree, the keys and the rules are the real ones.

`MemoryLog.branch` makes another history of the same log, as a dishonest service would show it to somebody else; an
honest witness cosigns one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shared.crypto.signing import SigningKey
from shared.encoding import b64url
from shared.transparency.checkpoints import (
    Kind,
    cosign,
    origin_of,
    sign_checkpoint,
    verify_checkpoint,
    with_cosignatures,
)
from shared.transparency.errors import ConsistencyNotProven, MalformedSubmission, StaleSize
from shared.transparency.merkle import Frontier, leaf_hash, prove_consistency, prove_inclusion
from shared.transparency.witnessing import AddCheckpoint, Known, judge

MAX_ENTRIES = 1_000


class LeafUnknown(Exception):
    """A leaf that nobody has put into the log."""


class NotPublished(Exception):
    """A leaf without a place under the published checkpoint, or a caller that knows of a larger tree."""


class MemoryWitness:
    """An honest one: it cosigns what extends what it cosigned before. `away` and the clock are for the tests."""

    def __init__(self, did: str, key: SigningKey, clock: Callable[[], int]) -> None:
        self.did, self.key, self.clock = did, key, clock
        self.away = False
        self.known: dict[str, Known] = {}
        self.notes: dict[str, str] = {}

    def size_of(self, origin: str) -> int:
        """The size of the newest checkpoint that it has cosigned of this log."""
        return self.known[origin].size if origin in self.known else 0

    def submit(self, request: AddCheckpoint) -> str:
        """The cosignature line; raises what `judge` raises."""
        checkpoint = judge(self.known.get(request.origin), request, request.origin)
        self.known[request.origin] = Known(checkpoint.size, checkpoint.root)
        self.notes[request.origin] = request.checkpoint_text
        return self.sign(request.checkpoint_text)

    def sign(self, text: str) -> str:
        """The cosignature line of one that signs whatever it is handed."""
        origin = text.partition("\n")[0]
        return cosign(verify_checkpoint(text, origin), self.did, self.key, self.clock())

    def shown(self) -> dict[str, Any]:
        """What GET /v1/witness/checkpoints answers."""
        return {"items": [{"origin": origin, "checkpoint": note} for origin, note in self.notes.items()]}


class MemoryLog:
    """Append with `append`; `inclusion`, `consistency` and `entries` answer as the routes of a service do.

    `publish` gets the cosignatures for what has been appended, unless `held_back` says how many of the newest leaves
    stay outside of the published tree.
    """

    def __init__(
        self,
        kind: Kind,
        witnesses: Sequence[MemoryWitness],
        clock: Callable[[], int],
        *,
        key: SigningKey | None = None,
    ) -> None:
        self.kind: Kind = kind
        self.witnesses = list(witnesses)
        self.clock = clock
        self.key = key or SigningKey.generate()
        self.origin = origin_of(kind, self.key.verify_key)
        self.datas: list[bytes] = []
        self.held_back = 0
        self.frozen = False
        self.size = 0
        """Of the published tree."""
        self.note = ""
        """The published checkpoint."""
        self._places: dict[bytes, int] = {}
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._frontier = Frontier()
        self._roots = [self._frontier.root()]

    def append(self, data: bytes) -> None:
        """Put an entry into the tree; one that is there already stays where it is."""
        leaf = leaf_hash(data)
        if leaf in self._places:
            return
        self._places[leaf] = len(self.datas)
        self._nodes[0, len(self.datas)] = leaf
        for level, index, node in self._frontier.append(leaf):
            self._nodes[level, index] = node
        self.datas.append(data)
        self._roots.append(self._frontier.root())

    def branch(self, size: int | None = None) -> MemoryLog:
        """Another log of the same key that begins with the first `size` leaves of this one."""
        other = MemoryLog(self.kind, self.witnesses, self.clock, key=self.key)
        for data in self.datas[:size]:
            other.append(data)
        return other

    def signed(self, size: int) -> str:
        """The checkpoint of this size, with the log's signature alone."""
        return sign_checkpoint(self.key, self.kind, size, self._roots[size])

    def publish(self) -> None:
        """Publish with the cosignatures of all witnesses that are there and agree."""
        if self.frozen:
            return
        self.size = len(self.datas) - self.held_back
        text = self.signed(self.size)
        self.note = with_cosignatures(text, filter(None, (self._cosigned(text, one) for one in self.witnesses)))

    def publish_as(self, size: int, cosignatures: Sequence[str]) -> None:
        """Publish from now on what no honest service would: any tree, with any cosignatures."""
        self.frozen = True
        self.size, self.note = size, with_cosignatures(self.signed(size), cosignatures)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """RFC 6962 section 2.1.2."""
        if new > self.size:
            raise NotPublished
        return list(prove_consistency(old, new, self._node))

    def inclusion(self, leaves: Sequence[bytes], known: int) -> dict[str, Any]:
        """What POST /v1/log/inclusion answers; raises `LeafUnknown` and `NotPublished`."""
        if any(leaf not in self._places for leaf in leaves):
            raise LeafUnknown
        places = [self._places[leaf] for leaf in leaves]
        if known > self.size or max(places) >= self.size:
            raise NotPublished
        paths = [prove_inclusion(place, self.size, self._node) for place in places]
        return {
            "checkpoint": self.note,
            "consistency": [b64url(step) for step in self.consistency(known, self.size)],
            "items": [
                {"index": place, "path": [b64url(step) for step in path]}
                for place, path in zip(places, paths, strict=True)
            ],
        }

    def entries(self, start: int, limit: int) -> dict[str, Any]:
        """What GET /v1/log/entries answers."""
        datas = self.datas[: self.size][start : start + min(limit, MAX_ENTRIES)]
        return {"size": self.size, "items": [b64url(data) for data in datas]}

    def _cosigned(self, text: str, witness: MemoryWitness) -> str | None:
        if witness.away:
            return None
        old = witness.size_of(self.origin)
        path = tuple(prove_consistency(old, self.size, self._node)) if old <= self.size else ()
        try:
            return witness.submit(AddCheckpoint(old, path, text))
        except (ConsistencyNotProven, MalformedSubmission, StaleSize):
            return None

    def _node(self, level: int, index: int) -> bytes:
        return self._nodes[level, index]
