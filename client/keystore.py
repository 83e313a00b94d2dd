"""The seed on disk, under a passphrase.

The file is canonical JSON with a version. Its public header (version, kind, id of the party, parameters of the
password hash, salt) is the associated data of the encryption, so nobody can change a part of it unnoticed:

    key          Argon2id (RFC 9106, libsodium) of the passphrase in NFKC and UTF-8, 32 bytes
    ciphertext   XChaCha20-Poly1305: nonce (24 bytes) || encrypted seed || tag

The cost parameters stand in the file and are bounded when read, so that a planted file can neither ask for all of the
machine's memory nor weaken the hash of a passphrase that is set anew.
"""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from nacl.pwhash import argon2id
from pydantic import Field, ValidationError

from client.errors import KeystoreDamaged, KeystoreExists, KeystoreExposed, KeystoreMissing, WrongPassphrase
from client.files import is_exposed, write_atomically
from client.keyring import Keyring
from shared import wire
from shared.crypto import aead
from shared.crypto.derivation import Seed
from shared.crypto.errors import DecryptionFailed
from shared.encoding import b64url, canonical_json, from_b64url, from_canonical_json
from shared.errors import Malformed
from shared.wire import WireModel

_MAX_FILE = 8_192
_SALT_SIZE = argon2id.SALTBYTES
_MIN_MEMORY = 8 * 2**20
_MAX_MEMORY = 2**30
_MAX_OPERATIONS = 16
_SEALED_SIZE = 32 + aead.OVERHEAD


@dataclass(frozen=True)
class Cost:
    """What one guess at the passphrase costs: passes over memory, and bytes of it."""

    operations: int
    memory: int


MODERATE = Cost(argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE)
"""libsodium's MODERATE: 3 passes over 256 MiB, about 0.7 s."""

LIGHT = Cost(1, _MIN_MEMORY)
"""The least that is accepted: for tests, where the passphrase protects nothing."""


class _Header(WireModel):
    v: Literal[1]
    kind: Literal["pcehr-keystore"]
    did: wire.Did
    kdf: Literal["argon2id13"]
    operations: Annotated[int, Field(ge=1, le=_MAX_OPERATIONS)]
    memory: Annotated[int, Field(ge=_MIN_MEMORY, le=_MAX_MEMORY)]
    salt: Annotated[str, Field(min_length=22, max_length=22)]

    def associated_data(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))


class _File(WireModel):
    header: _Header
    sealed: Annotated[str, Field(min_length=96, max_length=96)]


def create(path: Path, keyring: Keyring, passphrase: str, *, cost: Cost = MODERATE) -> None:
    """Write a new keystore. Raises `KeystoreExists` where there is one, whatever is in it."""
    try:
        write_atomically(path, _encrypted(keyring, passphrase, cost), replace=False)
    except FileExistsError:
        raise KeystoreExists from None


def load(path: Path, passphrase: str) -> Keyring:
    """Open a keystore.

    Raises `KeystoreMissing`, `KeystoreExposed` where other users may read or write the file, `KeystoreDamaged`, or
    `WrongPassphrase`, which is also what a changed file looks like.
    """
    keystore = _read(path)
    header = keystore.header
    key = _key(passphrase, header)
    try:
        seed = aead.decrypt(key, from_b64url(keystore.sealed), header.associated_data())
    except DecryptionFailed:
        raise WrongPassphrase from None
    except Malformed:
        raise KeystoreDamaged from None
    keyring = Keyring(Seed.from_bytes(seed))
    if keyring.did != header.did:
        raise KeystoreDamaged
    return keyring


def change_passphrase(path: Path, old: str, new: str, *, cost: Cost = MODERATE) -> None:
    """Put the keystore under another passphrase; raises as `load` does. The file is the old or the new one, whole."""
    keyring = load(path, old)
    write_atomically(path, _encrypted(keyring, new, cost))


def did_of(path: Path) -> str:
    """Whose keystore this is, without the passphrase. Nothing vouches for it until the keystore is opened."""
    return _read(path).header.did


def _read(path: Path) -> _File:
    try:
        if is_exposed(path):
            raise KeystoreExposed(f"{path} can be read or written by other users of this machine.")
        data = path.read_bytes()
    except FileNotFoundError:
        raise KeystoreMissing(f"There is no keystore at {path}.") from None
    try:
        if len(data) > _MAX_FILE:
            raise KeystoreDamaged
        from_canonical_json(data.removesuffix(b"\n"))
        return _File.model_validate_json(data)
    except (Malformed, ValidationError):
        raise KeystoreDamaged(f"{path} is not a keystore of this version.") from None


def _encrypted(keyring: Keyring, passphrase: str, cost: Cost) -> bytes:
    header = _Header(
        v=1,
        kind="pcehr-keystore",
        did=keyring.did,
        kdf="argon2id13",
        operations=cost.operations,
        memory=cost.memory,
        salt=b64url(secrets.token_bytes(_SALT_SIZE)),
    )
    sealed = aead.encrypt(_key(passphrase, header), keyring.reveal_seed(), header.associated_data())
    return canonical_json(_File(header=header, sealed=b64url(sealed)).model_dump(mode="json")) + b"\n"


def _key(passphrase: str, header: _Header) -> bytes:
    """NFKC makes the same passphrase of what different keyboards type for the same letters."""
    try:
        salt = from_b64url(header.salt, _SALT_SIZE)
        text = unicodedata.normalize("NFKC", passphrase).encode("utf-8")
    except Malformed:
        raise KeystoreDamaged from None
    except UnicodeEncodeError:
        raise WrongPassphrase("The passphrase has characters that no keyboard types.") from None
    return argon2id.kdf(aead.KEY_SIZE, text, salt, opslimit=header.operations, memlimit=header.memory)
