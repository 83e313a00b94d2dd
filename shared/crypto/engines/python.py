"""The engine over pyUmbral, which runs wherever CPython does, three to five times slower than umbral-pre.

pyUmbral 0.3.0 made two choices that the suite has since changed, so this module sets them right in memory when it is
loaded (the installed package stays as it is):

* a digest becomes a scalar by `int(digest) mod (n - 1) + 1`, which is never zero, where pyUmbral takes it mod n;
* the parameter u is another point, because the hash it comes from is domain-separated differently.

With both, capsules, kfrags, cfrags and derived keys are interchangeable with umbral-pre in every direction. The change
applies to everything in the process that uses pyUmbral, and nothing but this module does; umbral-pre is compiled and
shares no code with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import umbral
from umbral.curve import CURVE
from umbral.curve_point import CurvePoint
from umbral.curve_scalar import CurveScalar
from umbral.dem import DEM
from umbral.openssl import ErrorInvalidCompressedPoint, ErrorInvalidPointEncoding, InternalError
from umbral.params import PARAMETERS

from shared.crypto.engines.protocol import Engine, Handle
from shared.crypto.errors import (
    CapsuleFragRejected,
    DecryptionFailed,
    KeyFragRejected,
    MalformedKeyMaterial,
    SharesDoNotCombine,
)
from shared.crypto.wireform import ORDER, PARAMETER_U

# pyUmbral lets OpenSSL's own exceptions through, so a refusal has many faces. `AssertionError` is how it reports a
# number that does not fit, `OverflowError` how its foreign-function layer does.
_REFUSALS: Final[tuple[type[Exception], ...]] = (
    ValueError,
    AssertionError,
    OverflowError,
    umbral.VerificationError,
    InternalError,
    ErrorInvalidCompressedPoint,
    ErrorInvalidPointEncoding,
)


class PythonEngine:
    """Umbral by pyUmbral 0.3.0 with the suite's current parameters."""

    name = "umbral"

    def random_secret_key(self) -> Handle:
        return umbral.SecretKey.random()

    def derive_secret_key(self, seed: bytes, label: bytes) -> Handle:
        return umbral.SecretKeyFactory.from_secure_randomness(seed).make_key(label)

    def decode_secret_key(self, data: bytes) -> Handle:
        # pyUmbral would take zero for a secret key, whose public key is the point at infinity.
        if not any(data):
            raise MalformedKeyMaterial
        return _decode(umbral.SecretKey, data)

    def encode_secret_key(self, key: Handle) -> bytes:
        return bytes(key.to_secret_bytes())

    def public_key_of(self, key: Handle) -> Handle:
        return key.public_key()

    def decode_public_key(self, data: bytes) -> Handle:
        return _decode(umbral.PublicKey, data)

    def encode_public_key(self, key: Handle) -> bytes:
        return bytes(key)

    def decode_capsule(self, data: bytes) -> Handle:
        return _decode(umbral.Capsule, data)

    def encode_capsule(self, capsule: Handle) -> bytes:
        return bytes(capsule)

    def decode_kfrag(self, data: bytes) -> Handle:
        return _decode(umbral.KeyFrag, data)

    def encode_kfrag(self, kfrag: Handle) -> bytes:
        return bytes(kfrag)

    def encode_verified_kfrag(self, kfrag: Handle) -> bytes:
        return bytes(kfrag)

    def decode_cfrag(self, data: bytes) -> Handle:
        return _decode(umbral.CapsuleFrag, data)

    def encode_cfrag(self, cfrag: Handle) -> bytes:
        return bytes(cfrag)

    def encode_verified_cfrag(self, cfrag: Handle) -> bytes:
        return bytes(cfrag)

    def verify_kfrag(self, kfrag: Handle, verifying: Handle, delegating: Handle, receiving: Handle) -> Handle:
        try:
            return kfrag.verify(verifying, delegating, receiving)
        except _REFUSALS:
            raise KeyFragRejected from None

    def trust_kfrag(self, kfrag: Handle) -> Handle:
        return umbral.VerifiedKeyFrag(kfrag)

    def verify_cfrag(
        self, cfrag: Handle, capsule: Handle, verifying: Handle, delegating: Handle, receiving: Handle
    ) -> Handle:
        try:
            return cfrag.verify(capsule, verifying, delegating, receiving)
        except _REFUSALS:
            raise CapsuleFragRejected from None

    def trust_cfrag(self, cfrag: Handle) -> Handle:
        return umbral.VerifiedCapsuleFrag(cfrag)

    def encrypt(self, delegating: Handle, plaintext: bytes) -> tuple[Handle, bytes]:
        capsule, ciphertext = umbral.encrypt(delegating, plaintext)
        return capsule, bytes(ciphertext)

    def decrypt_original(self, secret: Handle, capsule: Handle, ciphertext: bytes) -> bytes:
        try:
            return bytes(umbral.decrypt_original(secret, capsule, ciphertext))
        except _REFUSALS:
            raise DecryptionFailed from None

    def generate_kfrags(
        self, secret: Handle, receiving: Handle, signing: Handle, threshold: int, shares: int
    ) -> list[Handle]:
        return list(umbral.generate_kfrags(secret, receiving, umbral.Signer(signing), threshold, shares, True, True))

    def reencrypt(self, capsule: Handle, kfrag: Handle) -> Handle:
        return umbral.reencrypt(capsule, kfrag)

    def decrypt_reencrypted(
        self, secret: Handle, delegating: Handle, capsule: Handle, cfrags: Sequence[Handle], ciphertext: bytes
    ) -> bytes:
        # pyUmbral's own function does these two steps in one and gives both failures the same exception. They are
        # taken apart here, because a caller replaces shares after the first and gives up after the second.
        try:
            key_seed = capsule.open_reencrypted(secret, delegating, [verified.cfrag for verified in cfrags])
        except _REFUSALS:
            raise SharesDoNotCombine from None
        try:
            return bytes(DEM(bytes(key_seed)).decrypt(ciphertext, authenticated_data=bytes(capsule)))
        except _REFUSALS:
            raise DecryptionFailed from None


def create() -> Engine:
    """The engine, with pyUmbral's parameters set right; called once by `load_engine`."""
    CurveScalar.from_digest = classmethod(_scalar_from_digest)
    PARAMETERS.u = CurvePoint.from_bytes(PARAMETER_U)
    return PythonEngine()


def _scalar_from_digest(cls: Any, digest: Any) -> Any:
    """A scalar in [1, n-1] from a 32-byte digest, as the current version of the suite defines it."""
    if CURVE.order != ORDER:
        raise MalformedKeyMaterial
    return cls.from_int(int.from_bytes(digest.finalize(), "big") % (ORDER - 1) + 1)


def _decode(kind: Any, data: bytes) -> Handle:
    try:
        return kind.from_bytes(data)
    except _REFUSALS:
        raise MalformedKeyMaterial from None
