"""What the platform needs of an implementation of Umbral.

Whatever an engine takes or returns as `Handle` is its own object and means nothing to any other engine; bytes are
always the fixed-length wire form (public key 33, capsule 98, kfrag 260, cfrag 359, secret key 32 bytes). The caller
has checked lengths, ranges and signatures' form (`shared.crypto.wireform`); the engine checks what needs the curve.
Source of the scheme: Nuñez, "Umbral: a threshold proxy re-encryption scheme" (NuCypher, 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

Handle: TypeAlias = Any
"""An object of the engine's library; `Any`, because the two libraries share no types."""


class Engine(Protocol):
    """One implementation of Umbral. Every method raises nothing but subclasses of `PcehrError` for hostile input."""

    @property
    def name(self) -> str:
        """`umbral-pre` or `umbral`, as in `PCEHR_UMBRAL_ENGINE`."""

    def random_secret_key(self) -> Handle:
        """A fresh secret key from the operating system's randomness."""

    def derive_secret_key(self, seed: bytes, label: bytes) -> Handle:
        """The secret key that Umbral's key factory makes from a 32-byte seed and a label; equal in all engines."""

    def decode_secret_key(self, data: bytes) -> Handle:
        """A secret key from 32 big-endian bytes in [1, n-1]."""

    def encode_secret_key(self, key: Handle) -> bytes:
        """The 32 big-endian bytes of a secret key; only ever used to carry a key from one engine to the other."""

    def public_key_of(self, key: Handle) -> Handle:
        """The public key of a secret key."""

    def decode_public_key(self, data: bytes) -> Handle:
        """Parse 33 bytes; raises `MalformedKeyMaterial`."""

    def encode_public_key(self, key: Handle) -> bytes:
        """The 33 bytes of a public key."""

    def decode_capsule(self, data: bytes) -> Handle:
        """Parse 98 bytes and check the capsule's own proof; raises `MalformedKeyMaterial`."""

    def encode_capsule(self, capsule: Handle) -> bytes:
        """The 98 bytes of a capsule."""

    def decode_kfrag(self, data: bytes) -> Handle:
        """Parse 260 bytes into an unverified kfrag; raises `MalformedKeyMaterial`."""

    def encode_kfrag(self, kfrag: Handle) -> bytes:
        """The 260 bytes of an unverified kfrag."""

    def encode_verified_kfrag(self, kfrag: Handle) -> bytes:
        """The 260 bytes of a verified kfrag."""

    def decode_cfrag(self, data: bytes) -> Handle:
        """Parse 359 bytes into an unverified cfrag; raises `MalformedKeyMaterial`."""

    def encode_cfrag(self, cfrag: Handle) -> bytes:
        """The 359 bytes of an unverified cfrag."""

    def encode_verified_cfrag(self, cfrag: Handle) -> bytes:
        """The 359 bytes of a verified cfrag."""

    def verify_kfrag(self, kfrag: Handle, verifying: Handle, delegating: Handle, receiving: Handle) -> Handle:
        """Turn an unverified kfrag into a verified one; raises `KeyFragRejected`."""

    def trust_kfrag(self, kfrag: Handle) -> Handle:
        """Turn an unverified kfrag into a verified one without a check."""

    def verify_cfrag(
        self, cfrag: Handle, capsule: Handle, verifying: Handle, delegating: Handle, receiving: Handle
    ) -> Handle:
        """Turn an unverified cfrag into a verified one; raises `CapsuleFragRejected`."""

    def trust_cfrag(self, cfrag: Handle) -> Handle:
        """Turn an unverified cfrag into a verified one without a check."""

    def encrypt(self, delegating: Handle, plaintext: bytes) -> tuple[Handle, bytes]:
        """Encrypt; the ciphertext is 40 bytes longer than the plaintext (nonce 24, tag 16)."""

    def decrypt_original(self, secret: Handle, capsule: Handle, ciphertext: bytes) -> bytes:
        """Decrypt with the delegating key; raises `DecryptionFailed`."""

    def generate_kfrags(
        self, secret: Handle, receiving: Handle, signing: Handle, threshold: int, shares: int
    ) -> list[Handle]:
        """Verified kfrags with both keys signed. The caller has checked the threshold."""

    def reencrypt(self, capsule: Handle, kfrag: Handle) -> Handle:
        """Re-encrypt a capsule with a verified kfrag into a verified cfrag."""

    def decrypt_reencrypted(
        self, secret: Handle, delegating: Handle, capsule: Handle, cfrags: Sequence[Handle], ciphertext: bytes
    ) -> bytes:
        """Combine verified cfrags and decrypt.

        Raises `SharesDoNotCombine` when the capsule does not open, `DecryptionFailed` when it does and the
        ciphertext does not authenticate.
        """
