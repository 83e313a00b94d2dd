"""What the operators of the services have at hand: their log keys, their seeds, their databases.

An attack may use all of it: sign false checkpoints, events, receipts and cosignatures just as the operator could.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from client.embedded.platform import EmbeddedPlatform
from services.proxy.identity import ProxyIdentity, identity_from_seed
from shared.crypto.derivation import Seed
from shared.crypto.signing import SigningKey
from shared.db.engine import Database
from shared.db.log import append
from shared.encoding import b64url, from_b64url
from shared.transparency.checkpoints import Kind, cosign, sign_checkpoint, verify_checkpoint, with_cosignatures
from shared.transparency.checkpoints import origin_of as _origin_of
from shared.transparency.merkle import leaf_hash, node_hash, prove_consistency, prove_inclusion, root_of
from tests.attacks.lying import Asked, Json, Refusal

DAY = 86_400


class Tree:
    """A Merkle tree in memory, over leaf hashes."""

    def __init__(self, leaves: Iterable[bytes]) -> None:
        self.leaves = list(leaves)
        self._nodes: dict[tuple[int, int], bytes] = {}

    @property
    def size(self) -> int:
        return len(self.leaves)

    @property
    def root(self) -> bytes:
        return root_of(self.size, self.node)

    def node(self, level: int, index: int) -> bytes:
        """The hash over 2^level leaves."""
        if level == 0:
            return self.leaves[index]
        if (level, index) not in self._nodes:
            self._nodes[level, index] = node_hash(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))
        return self._nodes[level, index]

    def with_leaf(self, place: int, data: bytes) -> Tree:
        """The same tree with another leaf at this place: a fork."""
        leaves = list(self.leaves)
        leaves[place] = leaf_hash(data)
        return Tree(leaves)

    def first(self, size: int) -> Tree:
        """The tree as it was when it had so many leaves."""
        return Tree(self.leaves[:size])

    def inclusion(self, leaf: bytes) -> Json:
        """The proof of inclusion as a service sends it."""
        if leaf not in self.leaves:
            raise Refusal(404, "not_found")
        index = self.leaves.index(leaf)
        return {"index": index, "path": [b64url(step) for step in prove_inclusion(index, self.size, self.node)]}

    def consistency(self, known: int) -> list[str]:
        """The proof that it extends its first `known` leaves, whatever anybody else took these for."""
        if known in (0, self.size) or known > self.size:
            return []
        return [b64url(step) for step in prove_consistency(known, self.size, self.node)]


class Operators:
    """Everything that the operators of a platform in one folder hold."""

    def __init__(self, platform: EmbeddedPlatform) -> None:
        self._secrets: Path = platform.home / "secrets"
        self.urls = platform.urls
        self.proxies = dict(platform.proxy_dids)
        self.names = {did: name for name, did in self.proxies.items()}

    def log_key(self, service: str) -> SigningKey:
        """The key that a service signs the checkpoints of its log with."""
        if service in self.proxies:
            return SigningKey(self._seed(service).derive("log/0", 32))
        return SigningKey.from_bytes(self._secret(service, "pcehr_log_signing_key"))

    def origin(self, service: str) -> str:
        """The name of a service's log."""
        return _origin_of(_kind(service), self.log_key(service).verify_key)

    def proxy(self, name: str) -> ProxyIdentity:
        """A proxy's own identity, from its seed."""
        return identity_from_seed(bytes(self._secret(name, "pcehr_seed")))

    def identity_key(self, name: str) -> SigningKey:
        """The key that a proxy signs receipts and cosigns with."""
        return SigningKey(self._seed(name).derive("identity/0", 32))

    def checkpoint(
        self,
        service: str,
        tree: Tree,
        *,
        by: Sequence[str] | None = None,
        at: int | None = None,
        key: SigningKey | None = None,
    ) -> str:
        """A checkpoint of a tree, signed with the service's key or another, and cosigned by these proxies: all of
        them, if not said otherwise, at time `at`, which is now."""
        text = sign_checkpoint(key or self.log_key(service), _kind(service), tree.size, tree.root)
        names = list(self.proxies) if by is None else by
        return self.cosigned(text, [(self.proxies[name], self.identity_key(name)) for name in names], at)

    def cosigned(self, text: str, by: Sequence[tuple[str, SigningKey]], at: int | None = None) -> str:
        """The note with cosignatures in these names and by these keys."""
        checkpoint = verify_checkpoint(text, text.partition("\n")[0])
        now = int(time.time()) if at is None else at
        return with_cosignatures(text, [cosign(checkpoint, did, key, now) for did, key in by])

    def tells(self, service: str, tree: Tree, *, checkpoint: str | None = None) -> FalseLog:
        """A log of this service that consists of this tree, vouched for by all proxies, or under that checkpoint."""
        return FalseLog(tree, checkpoint or self.checkpoint(service, tree))

    async def registry_tree(self) -> Tree:
        """The registry's tree as it is published now."""
        leaves: list[bytes] = []
        async with httpx.AsyncClient(base_url=self.urls["registry"], trust_env=False, verify=False) as http:
            while True:
                answer = (await http.get("/v1/log/entries", params={"start": len(leaves), "limit": 1000})).json()
                leaves += [leaf_hash(from_b64url(item)) for item in answer["items"]]
                if len(leaves) >= answer["size"]:
                    return Tree(leaves)

    async def registry_checkpoint(self) -> str:
        """The registry's checkpoint as it is published now."""
        async with httpx.AsyncClient(base_url=self.urls["registry"], trust_env=False, verify=False) as http:
            return (await http.get("/v1/log/checkpoint")).text

    async def commit(self, service: str, datas: Sequence[bytes]) -> None:
        """Append to the real log of a service, as its operator can: the real tree grows by whatever this is."""
        async with self.database(service) as database, database.transaction() as session:
            await append(session, list(datas))

    @asynccontextmanager
    async def database(self, service: str) -> AsyncIterator[Database]:
        """The service's own database."""
        url = (self._secrets / service / "pcehr_database_url").read_text()
        database = Database(url, pool_size=1, application_name="operator")
        try:
            yield database
        finally:
            await database.dispose()

    def _seed(self, name: str) -> Seed:
        return Seed.from_bytes(bytes(self._secret(name, "pcehr_seed")))

    def _secret(self, service: str, name: str) -> bytes:
        return from_b64url((self._secrets / service / name).read_text("ascii").strip(), 32)


class FalseLog:
    """Answers `POST /v1/log/inclusion` from a tree of the liar's own; `items` and `path` change single proofs."""

    def __init__(self, tree: Tree, checkpoint: str) -> None:
        self.tree = tree
        self.checkpoint = checkpoint

    def __call__(self, asked: Asked) -> Json:
        leaves = [from_b64url(leaf, 32) for leaf in asked.json["leaves"]]
        return {
            "checkpoint": self.checkpoint,
            "consistency": self.tree.consistency(asked.json["size"]),
            "items": [self.tree.inclusion(leaf) for leaf in leaves],
        }


def _kind(service: str) -> Kind:
    if service == "registry":
        return "registry"
    return "records" if service == "records" else "proxy"
