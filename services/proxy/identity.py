"""Who this proxy is: the one place that holds its seed's keys. Only public cards leave it.

The keys are the identity key (signs statements, and cosigns the logs that the proxy witnesses), the key of its own log,
the sealing key (opens shares on their way in) and the storage key (encrypts kfrags at rest); docs/spec.md section 3 has
their labels.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared import statements, wire
from shared.crypto import aead
from shared.crypto.derivation import Seed
from shared.crypto.sealing import SealingKey
from shared.crypto.secrecy import Secret
from shared.crypto.signing import SigningKey
from shared.did import did_from_key
from shared.encoding import canonical_json
from shared.statements import KeyEntry, Receipt, new_jti
from shared.transparency.checkpoints import VerifiedCheckpoint, cosign

_AT_REST = b"pcehr/v1/kfrag-at-rest\0"


class ProxyIdentity(Secret):
    """The proxy's keys. It signs, opens, encrypts and decrypts; it shows no key but the public ones."""

    __slots__ = ("_identity", "_sealing", "_storage_key", "did", "log_key")

    def __init__(self, seed: Seed) -> None:
        self._identity = SigningKey(seed.derive("identity/0", 32))
        self._sealing = SealingKey(seed.derive("sealing/0", 32))
        self._storage_key = seed.derive("storage/0", aead.KEY_SIZE)
        self.log_key = SigningKey(seed.derive("log/0", 32))
        self.did = did_from_key(bytes(self._identity.verify_key))

    def new_key_entry(self, *, endpoint: str, name: str | None, now: int) -> str:
        """A first key-entry in compact form, dated `now` (seconds). Every call makes another statement: keep it."""
        return statements.sign(
            KeyEntry(
                iss=self.did,
                aud="urn:pcehr:registry",
                iat=now,
                jti=new_jti(),
                role=wire.Role.PROXY,
                seq=0,
                identity_key=self._identity.verify_key.b64,
                sealing_key=self._sealing.public_key.b64,
                endpoint=endpoint,
                name=name,
            ),
            self._identity,
        )

    def is_mine(self, entry: KeyEntry) -> bool:
        """Whether a verified key-entry is a first one of this proxy, with the keys that its seed gives."""
        return (
            entry.iss == self.did
            and entry.seq == 0
            and entry.role is wire.Role.PROXY
            and entry.sealing_key == self._sealing.public_key.b64
        )

    def sign_receipt(
        self,
        *,
        audience: str,
        statement: str,
        grant: str,
        act: wire.ReceiptAct,
        seq: int,
        now: int,
        cfrags: Sequence[str] | None = None,
    ) -> str:
        """A receipt in compact form: what was done about `statement`, as event `seq` of the subject's chain says too.

        `cfrags` are the hashes of what was released, for a re-encryption only.
        """
        return statements.sign(
            Receipt(
                iss=self.did,
                aud=audience,
                iat=now,
                jti=new_jti(),
                statement=statement,
                grant=grant,
                act=act,
                seq=seq,
                cfrags=None if cfrags is None else tuple(cfrags),
            ),
            self._identity,
        )

    def cosign(self, checkpoint: VerifiedCheckpoint, now: int) -> str:
        """The line that says: this proxy has seen this log at this state, and it only grew (`now` in seconds)."""
        return cosign(checkpoint, self.did, self._identity, now)

    def open_share(self, sealed: bytes) -> bytes:
        """What was sealed to this proxy; raises `DecryptionFailed`."""
        return self._sealing.open(sealed)

    def encrypt_kfrag(self, kfrag: bytes, *, grant: str, entry: int) -> bytes:
        """A kfrag as it rests in the database: 40 bytes longer, bound to its place and to this proxy."""
        return aead.encrypt(self._storage_key, kfrag, self._place(grant, entry))

    def decrypt_kfrag(self, ciphertext: bytes, *, grant: str, entry: int) -> bytes:
        """The inverse of `encrypt_kfrag`; raises `DecryptionFailed`, also for a row moved to another place."""
        return aead.decrypt(self._storage_key, ciphertext, self._place(grant, entry))

    def _place(self, grant: str, entry: int) -> bytes:
        return _AT_REST + canonical_json({"entry": entry, "grant": grant, "proxy": self.did})


def identity_from_seed(seed: bytes) -> ProxyIdentity:
    """The identity that a seed of 32 bytes stands for; the seed itself is not kept."""
    return ProxyIdentity(Seed.from_bytes(seed))
