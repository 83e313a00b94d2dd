"""Threshold proxy re-encryption, whichever engine is running: the door that the rest of the project uses.

Objects hold their fixed-length wire form and are immutable. What comes from outside starts *unverified* (`KeyFrag`,
`CapsuleFrag`) and becomes usable only through `verify` or `accept_kfrag`; a function that needs a verified object
takes the verified type, so that mypy finds what was forgotten.

Decoding is strict: exact length, one spelling per object, scalars in range, low-S signatures, no point at infinity.
Hostile bytes raise `MalformedKeyMaterial` and never anything that is not a `PcehrError`.

Source of the scheme: Nuñez, "Umbral: a threshold proxy re-encryption scheme" (NuCypher, 2018). What it does *not*
give is listed in `docs/threat-model.md`: `t` shares and the receiving key together give the delegating key, and one
set of shares opens every capsule made for its delegating key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, Self

from shared.crypto import wireform
from shared.crypto.engines import Engine, Handle, current_engine
from shared.crypto.errors import (
    CapsuleFragRejected,
    DecryptionFailed,
    InvalidThreshold,
    KeyFragRejected,
    MalformedKeyMaterial,
    SharesDoNotCombine,
)
from shared.crypto.secrecy import Secret
from shared.encoding import b64url, sha256

MAX_SHARES = 64
"""The most shares one set may have; Umbral itself knows no bound."""

SECRET_KEY_SIZE = 32
PUBLIC_KEY_SIZE = wireform.PUBLIC_KEY_SIZE
CAPSULE_SIZE = wireform.CAPSULE_SIZE
KFRAG_SIZE = wireform.KFRAG_SIZE
CFRAG_SIZE = wireform.CFRAG_SIZE
CIPHERTEXT_OVERHEAD = wireform.CIPHERTEXT_OVERHEAD
"""How many bytes longer a ciphertext is than its plaintext: a nonce of 24 and a tag of 16."""


class _Wire:
    """An object with a fixed-length wire form and its counterpart in the engine that made or parsed it."""

    __slots__ = ("_engine", "_handle", "_wire")

    _wire: bytes
    _engine: Engine
    _handle: Handle

    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__} is made by from_bytes or by the functions of this module.")

    @staticmethod
    def _check(data: bytes) -> None:
        """Raise `MalformedKeyMaterial` unless `data` has this type's form."""
        raise NotImplementedError

    @staticmethod
    def _decode(engine: Engine, data: bytes) -> Handle:
        raise NotImplementedError

    @staticmethod
    def _encode(engine: Engine, handle: Handle) -> bytes:
        raise NotImplementedError

    @classmethod
    def _made(cls, wire: bytes, engine: Engine, handle: Handle) -> Self:
        made = cls.__new__(cls)
        made._wire, made._engine, made._handle = wire, engine, handle
        return made

    @classmethod
    def _of(cls, engine: Engine, handle: Handle) -> Self:
        """Wrap what an engine made. The check holds the engine to the same form as everybody else."""
        wire = cls._encode(engine, handle)
        cls._check(wire)
        return cls._made(wire, engine, handle)

    @classmethod
    def _parsed(cls, data: bytes) -> Self:
        cls._check(data)
        engine = current_engine()
        handle = cls._decode(engine, data)
        wireform.check_same(cls._encode(engine, handle), data)
        return cls._made(data, engine, handle)

    def _on(self, engine: Engine) -> Handle:
        """The counterpart in `engine`, which differs from the first one only inside tests and benchmarks."""
        if self._engine is engine:
            return self._handle
        return self._decode(engine, self._wire)

    def __bytes__(self) -> bytes:
        return self._wire

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, _Wire) and other._wire == self._wire

    def __hash__(self) -> int:
        return hash((type(self), self._wire))

    def __repr__(self) -> str:
        # Eight bytes of the hash tell objects apart in a log without putting the objects themselves there.
        return f"<{type(self).__name__} sha256:{self.hash[:8].hex()}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # A pickle would carry an object past the checks of `from_bytes`; send the bytes and parse them instead.
        raise TypeError(f"{type(self).__name__} cannot be pickled; carry its bytes.")

    @property
    def b64(self) -> str:
        """The wire form in base64url without padding (RFC 4648 section 5)."""
        return b64url(self._wire)

    @property
    def hash(self) -> bytes:
        """SHA-256 of the wire form, 32 bytes."""
        return sha256(self._wire)


class PublicKey(_Wire):
    """A delegating, receiving or verifying public key: a point of secp256k1, 33 bytes compressed (SEC 1, 2.3.3)."""

    __slots__ = ()

    @staticmethod
    def _check(data: bytes) -> None:
        wireform.check_public_key(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> PublicKey:
        """Parse 33 bytes; raises `MalformedKeyMaterial`."""
        return cls._parsed(data)

    @staticmethod
    def _decode(engine: Engine, data: bytes) -> Handle:
        return engine.decode_public_key(data)

    @staticmethod
    def _encode(engine: Engine, handle: Handle) -> bytes:
        return engine.encode_public_key(handle)


class SecretKey(Secret):
    """A delegating or receiving secret key: a scalar of secp256k1.

    Keys of a party come from its seed (`shared.crypto.derivation.Seed.umbral_key`).
    """

    __slots__ = ("_engine", "_handle", "_public")

    def __init__(self) -> None:
        raise TypeError("A SecretKey is derived from a Seed, or made by SecretKey.generate.")

    _engine: Engine
    _handle: Handle
    _public: PublicKey

    @classmethod
    def _of(cls, engine: Engine, handle: Handle) -> SecretKey:
        made = cls.__new__(cls)
        made._engine, made._handle = engine, handle
        made._public = PublicKey._of(engine, engine.public_key_of(handle))
        return made

    @classmethod
    def generate(cls) -> SecretKey:
        """A fresh key that no seed can restore, for throw-away use."""
        engine = current_engine()
        return cls._of(engine, engine.random_secret_key())

    @classmethod
    def _derived(cls, seed: bytes, label: bytes) -> SecretKey:
        """The key that Umbral's key factory makes of a 32-byte seed and a label; for `derivation` only."""
        engine = current_engine()
        return cls._of(engine, engine.derive_secret_key(seed, label))

    @classmethod
    def from_revealed(cls, data: bytes) -> SecretKey:
        """The key that another process of the same party has revealed; raises `MalformedKeyMaterial`."""
        if not isinstance(data, bytes) or len(data) != SECRET_KEY_SIZE:
            raise MalformedKeyMaterial
        engine = current_engine()
        return cls._of(engine, engine.decode_secret_key(data))

    def reveal(self) -> bytes:
        """The 32 bytes themselves. For a pipe to a process of the same party only; no disk ever sees them."""
        return self._engine.encode_secret_key(self._handle)

    def public_key(self) -> PublicKey:
        """The public half, 33 bytes."""
        return self._public

    def _on(self, engine: Engine) -> Handle:
        if self._engine is engine:
            return self._handle
        return engine.decode_secret_key(self._engine.encode_secret_key(self._handle))


class KfragSigner(Secret):
    """The key a patient signs kfrags with, and nothing else.

    A kfrag's signature has no domain tag, so a key that signed anything else could be led to sign a kfrag. For that
    reason there is no `sign` here: the only use of a signer is `generate_kfrags`.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: SecretKey) -> None:
        self._secret = secret

    def verifying_key(self) -> PublicKey:
        """The public half, 33 bytes."""
        return self._secret.public_key()

    def _on(self, engine: Engine) -> Handle:
        return self._secret._on(engine)


class Capsule(_Wire):
    """An encapsulated symmetric key, 98 bytes, with its own proof of being well made."""

    __slots__ = ()

    @staticmethod
    def _check(data: bytes) -> None:
        wireform.check_capsule(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> Capsule:
        """Parse 98 bytes and check the capsule's own proof; raises `MalformedKeyMaterial`."""
        return cls._parsed(data)

    @staticmethod
    def _decode(engine: Engine, data: bytes) -> Handle:
        return engine.decode_capsule(data)

    @staticmethod
    def _encode(engine: Engine, handle: Handle) -> bytes:
        return engine.encode_capsule(handle)


class VerifiedKeyFrag(_Wire):
    """One share of a re-encryption key, 260 bytes, that may be used."""

    __slots__ = ()

    @staticmethod
    def _check(data: bytes) -> None:
        wireform.check_kfrag(data)

    @classmethod
    def from_verified_bytes(cls, data: bytes) -> VerifiedKeyFrag:
        """Restore a share that was verified before it was stored; nothing is verified again.

        Only for bytes from the caller's own authenticated storage. Raises `MalformedKeyMaterial`.
        """
        unverified = KeyFrag.from_bytes(data)
        return cls._made(data, unverified._engine, unverified._engine.trust_kfrag(unverified._handle))

    @staticmethod
    def _decode(engine: Engine, data: bytes) -> Handle:
        return engine.trust_kfrag(engine.decode_kfrag(data))

    @staticmethod
    def _encode(engine: Engine, handle: Handle) -> bytes:
        return engine.encode_verified_kfrag(handle)


class KeyFrag(_Wire):
    """One share of a re-encryption key, 260 bytes, from anybody."""

    __slots__ = ()

    @staticmethod
    def _check(data: bytes) -> None:
        wireform.check_kfrag(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> KeyFrag:
        """Parse 260 bytes; raises `MalformedKeyMaterial`."""
        return cls._parsed(data)

    def verify(self, verifying_key: PublicKey, delegating_key: PublicKey, receiving_key: PublicKey) -> VerifiedKeyFrag:
        """Check the signature for the proxy, which must cover both keys.

        Raises `KeyFragRejected`. A proxy calls `accept_kfrag` instead: this check does not cover the signature that
        the recipient will need.
        """
        if not wireform.both_keys_signed(self._wire):
            raise KeyFragRejected
        engine = self._engine
        verified = engine.verify_kfrag(
            self._handle, verifying_key._on(engine), delegating_key._on(engine), receiving_key._on(engine)
        )
        return VerifiedKeyFrag._made(self._wire, engine, verified)

    @staticmethod
    def _decode(engine: Engine, data: bytes) -> Handle:
        return engine.decode_kfrag(data)

    @staticmethod
    def _encode(engine: Engine, handle: Handle) -> bytes:
        return engine.encode_kfrag(handle)


class VerifiedCapsuleFrag(_Wire):
    """One re-encryption of a capsule, 359 bytes, whose proof holds."""

    __slots__ = ()

    @staticmethod
    def _check(data: bytes) -> None:
        wireform.check_cfrag(data)

    @classmethod
    def from_verified_bytes(cls, data: bytes) -> VerifiedCapsuleFrag:
        """Restore a fragment that was verified just now in another process of the caller; nothing is verified again.

        Only for bytes that `CapsuleFrag.verify` has accepted under the same keys. Raises `MalformedKeyMaterial`.
        """
        unverified = CapsuleFrag.from_bytes(data)
        return cls._made(data, unverified._engine, unverified._engine.trust_cfrag(unverified._handle))

    @staticmethod
    def _decode(engine: Engine, data: bytes) -> Handle:
        return engine.trust_cfrag(engine.decode_cfrag(data))

    @staticmethod
    def _encode(engine: Engine, handle: Handle) -> bytes:
        return engine.encode_verified_cfrag(handle)


class CapsuleFrag(_Wire):
    """One re-encryption of a capsule, 359 bytes, from anybody."""

    __slots__ = ()

    @staticmethod
    def _check(data: bytes) -> None:
        wireform.check_cfrag(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> CapsuleFrag:
        """Parse 359 bytes; raises `MalformedKeyMaterial`."""
        return cls._parsed(data)

    def verify(
        self, capsule: Capsule, verifying_key: PublicKey, delegating_key: PublicKey, receiving_key: PublicKey
    ) -> VerifiedCapsuleFrag:
        """Check that an honest re-encryption of `capsule` by a share of these keys gives this fragment.

        Raises `CapsuleFragRejected`.
        """
        engine = self._engine
        verified = engine.verify_cfrag(
            self._handle,
            capsule._on(engine),
            verifying_key._on(engine),
            delegating_key._on(engine),
            receiving_key._on(engine),
        )
        return VerifiedCapsuleFrag._made(self._wire, engine, verified)

    @staticmethod
    def _decode(engine: Engine, data: bytes) -> Handle:
        return engine.decode_cfrag(data)

    @staticmethod
    def _encode(engine: Engine, handle: Handle) -> bytes:
        return engine.encode_cfrag(handle)


def engine_name() -> str:
    """The engine in use: `umbral-pre` or `umbral`."""
    return current_engine().name


def encrypt(delegating_key: PublicKey, plaintext: bytes) -> tuple[Capsule, bytes]:
    """Encrypt to a delegating key: a capsule (98 bytes) and a ciphertext 40 bytes longer than the plaintext.

    Whoever has the delegating key, or `t` re-encryptions and the receiving key, can decrypt. The ciphertext is bound
    to the capsule and to nothing else; who made it is not authenticated.
    """
    engine = current_engine()
    capsule, ciphertext = engine.encrypt(delegating_key._on(engine), plaintext)
    return Capsule._of(engine, capsule), ciphertext


def decrypt_original(secret_key: SecretKey, capsule: Capsule, ciphertext: bytes) -> bytes:
    """Decrypt with the delegating key itself; raises `DecryptionFailed`."""
    if len(ciphertext) < CIPHERTEXT_OVERHEAD:
        raise DecryptionFailed
    engine = current_engine()
    return engine.decrypt_original(secret_key._on(engine), capsule._on(engine), ciphertext)


def generate_kfrags(
    delegating_sk: SecretKey, receiving_key: PublicKey, signer: KfragSigner, threshold: int, shares: int
) -> list[VerifiedKeyFrag]:
    """Split the re-encryption key from `delegating_sk` to `receiving_key`; any `threshold` of the `shares` serve.

    Both keys are signed into every share. Each call makes a new set; shares of different sets do not combine. Raises
    `InvalidThreshold` unless 1 <= threshold <= shares <= 64, which neither library checks in full.
    """
    if not (_is_int(threshold) and _is_int(shares) and 1 <= threshold <= shares <= MAX_SHARES):
        raise InvalidThreshold
    engine = current_engine()
    kfrags = engine.generate_kfrags(
        delegating_sk._on(engine), receiving_key._on(engine), signer._on(engine), threshold, shares
    )
    return [VerifiedKeyFrag._of(engine, kfrag) for kfrag in kfrags]


def accept_kfrag(
    kfrag: KeyFrag, verifying_key: PublicKey, delegating_key: PublicKey, receiving_key: PublicKey
) -> VerifiedKeyFrag:
    """What a proxy does before it takes a share: verify it, and try it.

    `KeyFrag.verify` checks the signature meant for the proxy only. Every cfrag also carries the one meant for the
    recipient, and if that is wrong an honest proxy would look dishonest ever after. So the share re-encrypts a
    throw-away capsule made for the delegating key, and the result must verify. Raises `KeyFragRejected`.

    No single proxy can find out that shares of a set do not combine: that shows at the recipient.
    """
    verified = kfrag.verify(verifying_key, delegating_key, receiving_key)
    throw_away, _ = encrypt(delegating_key, b"")
    try:
        reencrypted = reencrypt(throw_away, verified)
        CapsuleFrag.from_bytes(bytes(reencrypted)).verify(throw_away, verifying_key, delegating_key, receiving_key)
    except (CapsuleFragRejected, MalformedKeyMaterial):
        raise KeyFragRejected from None
    return verified


def reencrypt(capsule: Capsule, kfrag: VerifiedKeyFrag) -> VerifiedCapsuleFrag:
    """Re-encrypt a capsule with one share: a fragment of 359 bytes, with a proof.

    For a capsule made for another delegating key the result is valid in form and opens nothing.
    """
    engine = current_engine()
    return VerifiedCapsuleFrag._of(engine, engine.reencrypt(capsule._on(engine), kfrag._on(engine)))


def decrypt_reencrypted(
    receiving_sk: SecretKey,
    delegating_key: PublicKey,
    capsule: Capsule,
    cfrags: Sequence[VerifiedCapsuleFrag],
    ciphertext: bytes,
) -> bytes:
    """Combine at least `t` verified fragments of one capsule and decrypt.

    Raises `SharesDoNotCombine` for fragments that are none, more than 64, repeated, too few, of different sets or of
    another capsule, or made for other keys than these; and `DecryptionFailed` when they combine and the ciphertext
    does not authenticate, be it changed, of another capsule, or made for another delegating key than the shares were.
    A caller replaces fragments after the first and has nothing to gain from that after the second.
    """
    wires = [bytes(cfrag) for cfrag in cfrags]
    # The libraries differ in what they call repeated (one compares shares, the other whole fragments), so the
    # checks on public fields are made here, once for both.
    if not 1 <= len(wires) <= MAX_SHARES:
        raise SharesDoNotCombine
    if len({wireform.kfrag_id_of(wire) for wire in wires}) != len(wires):
        raise SharesDoNotCombine
    if len({wireform.precursor_of(wire) for wire in wires}) != 1:
        raise SharesDoNotCombine
    engine = current_engine()
    return engine.decrypt_reencrypted(
        receiving_sk._on(engine),
        delegating_key._on(engine),
        capsule._on(engine),
        [cfrag._on(engine) for cfrag in cfrags],
        ciphertext,
    )


def _is_int(value: object) -> bool:
    """Whether `value` is an integer and not a truth value, which Python would take for 0 or 1."""
    return isinstance(value, int) and not isinstance(value, bool)
