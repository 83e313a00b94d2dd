"""A party's keys, all derived from one seed of 32 bytes (docs/spec.md section 3).

The seed is shown to its owner as 24 words of BIP-39 English; the words encode the seed itself (the entropy), so that
whoever has the words has everything, and nothing else is needed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from uuid import UUID

from mnemonic import Mnemonic

from client.errors import InvalidWords, UnknownScope
from shared.crypto.derivation import Seed
from shared.crypto.secrecy import Secret
from shared.crypto.signing import SigningKey
from shared.crypto.umbral import KfragSigner, SecretKey
from shared.did import did_from_key
from shared.encoding import b64url

WORD_COUNT = 24
MAX_SCOPE_NAME = 64
_SCOPE_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_WORDS = Mnemonic("english")


def check_scope_name(name: str) -> str:
    """Return `name` if it may be a scope's name (docs/spec.md section 3); raises `UnknownScope` otherwise."""
    if len(name) > MAX_SCOPE_NAME or not _SCOPE_NAME.fullmatch(name):
        raise UnknownScope(f"{name[:80]!r} cannot be a scope's name: small letters, digits and hyphens, at most 64.")
    return name


class Keyring(Secret):
    """The keys of one party. Only public halves and signatures should ever leave it."""

    __slots__ = ("_delegating", "_did", "_scope_ids", "_seed")

    def __init__(self, seed: Seed) -> None:
        self._seed = seed
        self._did = did_from_key(bytes(self.identity(0).verify_key))
        # Deriving is cheap, but an export opens thousands of records under a handful of keys.
        self._delegating = lru_cache(maxsize=1024)(self._derive_delegating)
        self._scope_ids: dict[str, str] = {}

    @classmethod
    def generate(cls) -> Keyring:
        """A new party, from the operating system's randomness."""
        return cls(Seed.generate())

    @classmethod
    def from_words(cls, words: str) -> Keyring:
        """The party behind 24 BIP-39 words, in any case and with any white space; raises `InvalidWords`."""
        listed = words.lower().split()
        if len(listed) != WORD_COUNT:
            raise InvalidWords(f"There are {WORD_COUNT} recovery words; these are {len(listed)}.")
        try:
            entropy = bytes(_WORDS.to_entropy(listed))
        except (ValueError, LookupError):
            raise InvalidWords from None
        return cls(Seed.from_bytes(entropy))

    def words(self) -> str:
        """The 24 words, separated by single spaces. Whoever sees them can do everything this party can."""
        return str(_WORDS.to_mnemonic(self._seed.reveal()))

    def reveal_seed(self) -> bytes:
        """The 32 bytes themselves; for the keystore only."""
        return self._seed.reveal()

    @property
    def did(self) -> str:
        """The party's id: did:key of identity key 0."""
        return self._did

    def identity(self, seq: int) -> SigningKey:
        """The Ed25519 key that signs the party's statements while key-entry `seq` is the newest."""
        return SigningKey.from_bytes(self._seed.derive(f"identity/{seq}", 32))

    def signer(self, seq: int) -> KfragSigner:
        """The key that signs kfrags, and nothing else, under key-entry `seq`."""
        return KfragSigner(self._seed.umbral_key(f"signer/{seq}"))

    def receiving(self, seq: int) -> SecretKey:
        """The key that requests and grants are sealed to, and capsules re-encrypted to, under key-entry `seq`."""
        return self._seed.umbral_key(f"receiving/{seq}")

    def delegating(self, scope_name: str, epoch: int) -> SecretKey:
        """The key that opens every record of one scope in one epoch."""
        return self._delegating(check_scope_name(scope_name), epoch)

    def scope_id(self, name: str) -> str:
        """What servers see of a scope: 16 derived bytes in base64url (22 characters)."""
        known = self._scope_ids.get(name)
        if known is None:
            known = b64url(self._seed.derive(f"scope-id/{check_scope_name(name)}", 16))
            self._scope_ids[name] = known
        return known

    @property
    def settings_record_id(self) -> str:
        """The id of the record that holds the patient's own settings: a UUID of version 8 (RFC 9562 section 5.8)."""
        raw = bytearray(self._seed.derive("record-id/settings", 16))
        raw[6] = 0x80 | (raw[6] & 0x0F)
        raw[8] = 0x80 | (raw[8] & 0x3F)
        return str(UUID(bytes=bytes(raw)))

    def _derive_delegating(self, scope_name: str, epoch: int) -> SecretKey:
        return self._seed.umbral_key(f"scope/{scope_name}/{epoch}")
