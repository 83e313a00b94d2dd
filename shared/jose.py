"""Compact JWS (RFC 7515) with Ed25519 (RFC 8037), in the one form this project accepts.

The header is canonical JSON with exactly the members `alg`, `kid` and `typ`; `alg` is always `EdDSA`; the
verifier fixes `typ` beforehand (RFC 8725 section 3.11) and knows the key before it looks at the payload. The
well-known JOSE libraries need a recent `cryptography`, which pyUmbral's pin to version 3.4 rules out; what is
left of JOSE after fixing the algorithm is small enough to hold in one module (docs/adr/0003).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared.crypto.signing import SigningKey, VerifyKey
from shared.encoding import b64url, canonical_json, from_b64url, from_canonical_json, sha256
from shared.errors import Malformed, TooLarge

ALGORITHM = "EdDSA"
MAX_HEADER_BYTES = 512
SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class UnverifiedJws:
    """A well-formed compact JWS whose signature nobody has checked yet: nothing in it may be believed."""

    token: str
    typ: str
    kid: str
    unverified_payload: bytes
    signature: bytes

    @property
    def signing_input(self) -> bytes:
        """The bytes the signature covers: everything before the last dot."""
        return self.token.rpartition(".")[0].encode("ascii")

    @property
    def id(self) -> str:
        """SHA-256 of the signing input in base64url (43 characters).

        The signature is left out, because a signature is malleable in ways a hash of what was signed is not.
        """
        return b64url(sha256(self.signing_input))

    def verify(self, key: VerifyKey) -> Any:
        """Check the signature under `key`, and only then parse and return the payload.

        Raises `BadSignature` when the signature does not hold and `Malformed` when the payload is not
        canonical JSON.
        """
        key.verify(self.signature, self.signing_input)
        return from_canonical_json(self.unverified_payload)


def sign(payload: dict[str, Any], *, key: SigningKey, kid: str, typ: str) -> str:
    """Return the compact JWS of `payload` under `key`."""
    header = canonical_json({"alg": ALGORITHM, "kid": kid, "typ": typ})
    signing_input = f"{b64url(header)}.{b64url(canonical_json(payload))}"
    return f"{signing_input}.{b64url(key.sign(signing_input.encode('ascii')))}"


def parse(token: str, *, typ: str, max_size: int) -> UnverifiedJws:
    """Split a compact JWS into its parts without believing any of them.

    Raises `TooLarge` beyond `max_size` characters and `Malformed` for every deviation from the one accepted
    form, a `typ` other than the expected one included.
    """
    if len(token) > max_size:
        raise TooLarge(f"The statement is longer than {max_size} characters.")
    parts = token.split(".")
    if len(parts) != 3:
        raise Malformed("A signed statement has three parts separated by dots.")
    header_part, payload_part, signature_part = parts
    if len(header_part) > MAX_HEADER_BYTES:
        raise TooLarge("The header of the statement is too long.")
    header = from_canonical_json(from_b64url(header_part))
    if not isinstance(header, dict) or header.keys() != {"alg", "kid", "typ"}:
        raise Malformed("The header of a statement has exactly the members alg, kid and typ.")
    if header["alg"] != ALGORITHM:
        raise Malformed("The only algorithm accepted is EdDSA with Ed25519.")
    if header["typ"] != typ:
        raise Malformed(f"A statement of type {typ} is wanted here.")
    if not isinstance(header["kid"], str):
        raise Malformed("The key id of a statement is a string.")
    return UnverifiedJws(
        token=token,
        typ=typ,
        kid=header["kid"],
        unverified_payload=from_b64url(payload_part),
        signature=from_b64url(signature_part, SIGNATURE_BYTES),
    )
