"""did:key for Ed25519 (W3C CCG did:key method, multicodec 0xed): an id that *is* the first identity key.

Nobody can bind another identity key to such an id. A key of the party is named by a DID URL: the id, a hash
sign and the key's multibase, `did:key:z6Mk…#z6Mk…`; before any rotation both halves are the same.
"""

from __future__ import annotations

from functools import lru_cache

import base58

from shared.errors import Malformed

PREFIX = "did:key:"
_MULTICODEC_ED25519 = b"\xed\x01"
_REMEMBERED = 4096
"""Keys whose text is remembered, and texts whose key is: a service meets the same parties again and again, and base58
is arithmetic on long numbers. All of it is public."""


@lru_cache(_REMEMBERED)
def multibase(public_key: bytes) -> str:
    """The multibase form (base58btc, multicodec ed25519-pub) of a 32-byte Ed25519 public key."""
    if len(public_key) != 32:
        raise Malformed("An Ed25519 public key has 32 bytes.")
    return "z" + base58.b58encode(_MULTICODEC_ED25519 + public_key).decode("ascii")


@lru_cache(_REMEMBERED)
def key_from_multibase(text: str) -> bytes:
    """The 32-byte Ed25519 public key behind a multibase text; raises `Malformed` for anything else."""
    if not 40 <= len(text) <= 56 or not text.startswith("z"):
        raise Malformed("The key is not a multibase Ed25519 public key.")
    try:
        data = base58.b58decode(text[1:])
    except ValueError:
        raise Malformed("The key is not a multibase Ed25519 public key.") from None
    if len(data) != 34 or data[:2] != _MULTICODEC_ED25519 or multibase(data[2:]) != text:
        raise Malformed("The key is not a multibase Ed25519 public key.")
    return data[2:]


def did_from_key(public_key: bytes) -> str:
    """The id of the party whose first identity key is `public_key` (32 bytes)."""
    return PREFIX + multibase(public_key)


def key_from_did(did: str) -> bytes:
    """The first identity key (32 bytes) that the id stands for; raises `Malformed` for any other text."""
    if not did.startswith(PREFIX):
        raise Malformed("The id is not a did:key of an Ed25519 key.")
    return key_from_multibase(did.removeprefix(PREFIX))


def key_id(did: str, public_key: bytes) -> str:
    """The DID URL that names one identity key of a party; this is the `kid` of a statement."""
    return f"{did}#{multibase(public_key)}"


def split_key_id(kid: str) -> tuple[str, bytes]:
    """The party's id and the 32-byte key that a DID URL names; raises `Malformed` for anything else."""
    did, hash_sign, fragment = kid.partition("#")
    if not hash_sign:
        raise Malformed("The key id is not a DID URL with a fragment.")
    key_from_did(did)
    return did, key_from_multibase(fragment)
