"""Parties and their chains of keys.

A party is known by the `did:key` of its first identity key. Its keys are a chain of key-entries: entry 0 is signed
by the key that is the id, and each later entry is signed by the identity key of the entry before and names that
entry by its hash. A chain therefore proves itself: whoever serves it can withhold its end, but can neither swap a
key nor insert an entry. A reader that has seen a longer chain refuses a shorter or a different one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.crypto.errors import BadSignature
from shared.crypto.sealing import SealingPublicKey
from shared.crypto.signing import VerifyKey
from shared.crypto.umbral import PublicKey
from shared.did import key_from_did
from shared.encoding import b64url, from_b64url
from shared.errors import Conflict, Malformed
from shared.statements import KeyEntry, Verified, verify_under
from shared.wire import Role

MAX_CHAIN = 1_000


class BrokenChain(Malformed):
    code = "broken_key_chain"
    title = "The key-entries do not form an unbroken chain."


class ChainRolledBack(Conflict):
    code = "key_chain_rolled_back"
    title = "A shorter or different chain of keys than the one already known was presented."


@dataclass(frozen=True)
class VerifiedParty:
    """A party whose whole chain of keys has been verified."""

    did: str
    entries: tuple[Verified[KeyEntry], ...]
    _by_id: dict[str, Verified[KeyEntry]] = field(repr=False, compare=False, default_factory=dict)

    @property
    def role(self) -> Role:
        return self.entries[0].payload.role

    @property
    def current(self) -> Verified[KeyEntry]:
        """The newest key-entry."""
        return self.entries[-1]

    @property
    def current_identity_key(self) -> bytes:
        return from_b64url(self.current.payload.identity_key)

    @property
    def all_identity_keys(self) -> frozenset[bytes]:
        return frozenset(from_b64url(entry.payload.identity_key) for entry in self.entries)

    @property
    def name(self) -> str | None:
        return self.current.payload.name

    @property
    def organisation(self) -> str | None:
        return self.current.payload.organisation

    @property
    def tokens(self) -> list[str]:
        """The chain as it travels: the compact forms, oldest first."""
        return [entry.token for entry in self.entries]

    def entry(self, entry_id: str) -> Verified[KeyEntry] | None:
        """The entry with this statement id, if it is in the chain."""
        return self._by_id.get(entry_id)

    def extends(self, earlier: VerifiedParty) -> bool:
        """Whether this chain is `earlier` or a continuation of it."""
        known = [entry.id for entry in earlier.entries]
        return [entry.id for entry in self.entries[: len(known)]] == known


def verifying_key(entry: Verified[KeyEntry]) -> PublicKey:
    """The key that kfrags of this party are signed with (33 bytes); raises `Malformed` where the role has none."""
    return _umbral_key(entry.payload.verifying_key)


def receiving_key(entry: Verified[KeyEntry]) -> PublicKey:
    """The key that capsules are re-encrypted to (33 bytes); raises `Malformed` where the role has none."""
    return _umbral_key(entry.payload.receiving_key)


def sealing_key(entry: Verified[KeyEntry]) -> SealingPublicKey:
    """The X25519 key that shares for this proxy are sealed to (32 bytes)."""
    if entry.payload.sealing_key is None:
        raise Malformed("The party has no sealing key: it is not a proxy.")
    return SealingPublicKey.from_bytes(from_b64url(entry.payload.sealing_key, 32))


def verify_chain(did: str, tokens: Sequence[str]) -> VerifiedParty:
    """Verify a whole chain of key-entries, oldest first, and return the party.

    Raises `BrokenChain` for an empty, overlong, misnumbered or unlinked chain or a role that changes, and what
    `statements.verify_under` raises for a single bad entry.
    """
    if not 1 <= len(tokens) <= MAX_CHAIN:
        raise BrokenChain
    entries: list[Verified[KeyEntry]] = []
    signer = key_from_did(did)
    for token in tokens:
        entry = verify_under(token, KeyEntry, did, [signer])
        _check_link(entry, entries)
        entries.append(entry)
        signer = from_b64url(entry.payload.identity_key, 32)
    return VerifiedParty(did=did, entries=tuple(entries), _by_id={entry.id: entry for entry in entries})


def verify_next(party: VerifiedParty, token: str) -> VerifiedParty:
    """Verify one more entry at the end of a known chain and return the party as it then is."""
    return verify_chain(party.did, [*party.tokens, token])


def _check_link(entry: Verified[KeyEntry], before: list[Verified[KeyEntry]]) -> None:
    payload = entry.payload
    if payload.seq != len(before):
        raise BrokenChain("A key-entry does not carry the next number of its chain.")
    if before:
        previous = before[-1]
        if payload.prev != previous.id:
            raise BrokenChain("A key-entry does not name the entry before it.")
        if payload.role is not previous.payload.role:
            raise BrokenChain("The role of a party never changes.")
        if payload.iat < previous.payload.iat:
            raise BrokenChain("A key-entry is older than the entry before it.")
        if any(payload.identity_key == earlier.payload.identity_key for earlier in before):
            raise BrokenChain("An identity key is used in one entry only.")
        _check_possession(payload)
    elif payload.identity_key != _own_key(payload):
        raise BrokenChain("The first key-entry carries the key that is the id.")
    for key in (payload.verifying_key, payload.receiving_key):
        if key is not None:
            PublicKey.from_bytes(from_b64url(key, 33))
    if payload.sealing_key is not None:
        SealingPublicKey.from_bytes(from_b64url(payload.sealing_key, 32))


def _own_key(payload: KeyEntry) -> str:
    return b64url(key_from_did(payload.iss))


def _check_possession(payload: KeyEntry) -> None:
    if payload.possession is None:
        raise BrokenChain("A new identity key proves that its holder agrees.")
    try:
        VerifyKey.from_bytes(from_b64url(payload.identity_key, 32)).verify(
            from_b64url(payload.possession, 64), payload.possession_message()
        )
    except BadSignature:
        raise BrokenChain("The proof of possession of the new identity key does not hold.") from None


def _umbral_key(text: str | None) -> PublicKey:
    if text is None:
        raise Malformed("The party has no such key: it is a proxy.")
    return PublicKey.from_bytes(from_b64url(text, 33))
