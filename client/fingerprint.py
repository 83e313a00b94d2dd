"""Eight words by which two people compare a party's identity over the telephone.

The words are the first 88 bits of SHA-256 over `"pcehr/v1/fingerprint" 00 || DID || 00 || id of key-entry 0`, eleven
bits at a time, most significant first, as indices into the English list of BIP-39. They never change, since neither
the DID nor the first entry of a chain ever does; 2^88 attempts are out of reach for whoever would like a party of
its own to have the same words.
"""

from __future__ import annotations

from mnemonic import Mnemonic

from shared.encoding import sha256
from shared.identity import VerifiedParty

WORDS = 8
_BITS = 11
_LIST = Mnemonic("english").wordlist


def fingerprint(party: VerifiedParty) -> list[str]:
    """The eight words of a party whose chain has been verified."""
    return fingerprint_of(party.did, party.entries[0].id)


def fingerprint_of(did: str, first_entry: str) -> list[str]:
    """The eight words for a DID and the id of its key-entry 0."""
    digest = sha256(b"pcehr/v1/fingerprint\0" + did.encode("ascii") + b"\0" + first_entry.encode("ascii"))
    number = int.from_bytes(digest, "big") >> (256 - WORDS * _BITS)
    indices = [(number >> (_BITS * place)) & 0x7FF for place in reversed(range(WORDS))]
    return [_LIST[index] for index in indices]
