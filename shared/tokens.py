"""OAuth 2.0 as SMART Backend Services uses it: client assertions in, short-lived access tokens out.

A client signs an assertion with its identity key (`private_key_jwt`, RFC 7523 section 2.2); the registry answers
with an access token (`at+jwt`, RFC 9068) for one service, named by `resource` (RFC 8707); every service checks
tokens by itself against the registry's JWKS (RFC 7517). A token opens reading of metadata and ciphertext;
whatever has consequences is a signed statement besides.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared import did as did_key
from shared import jose, wire
from shared.crypto.errors import BadSignature
from shared.crypto.signing import SigningKey, VerifyKey
from shared.encoding import b64url, canonical_json, from_b64url, sha256
from shared.errors import PcehrError, Unauthenticated
from shared.statements import new_jti
from shared.wire import SKEW_SECONDS, Role, WireModel

ACCESS_TOKEN_TYP = "at+jwt"  # noqa: S105  This is the name of a kind of token.
ASSERTION_TYPES = ("JWT", "client-authentication+jwt")
ASSERTION_TYPE_URN = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ACCESS_TOKEN_LIFETIME = 300
"""Seconds; SMART Backend Services recommends at most five minutes."""
MAX_ASSERTION_LIFETIME = 300
MAX_TOKEN_CHARS = 4_096


class InvalidClient(Unauthenticated):
    """The client assertion does not hold; RFC 6749 section 5.2 calls it `invalid_client`."""

    code = "invalid_client"
    title = "The client assertion is not valid for this token endpoint."


class AccessTokenClaims(WireModel):
    """Claims of RFC 9068 plus the role of the party."""

    typ: ClassVar[str] = ACCESS_TOKEN_TYP

    iss: str = Field(min_length=1, max_length=200)
    sub: wire.Did
    client_id: wire.Did
    aud: str = Field(min_length=1, max_length=200)
    iat: wire.Time
    exp: wire.Time
    jti: wire.Jti
    role: Role


class AssertionClaims(BaseModel):
    """Claims of a client assertion. Others are ignored, as RFC 7519 section 4 asks."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    iss: wire.Did
    sub: wire.Did
    aud: str | list[str]
    exp: wire.Time
    iat: wire.Time | None = None
    jti: Annotated[str, Field(min_length=8, max_length=128)]


@dataclass(frozen=True)
class Caller:
    """Whoever presented a valid access token."""

    did: str
    role: Role


@dataclass(frozen=True)
class UnverifiedAssertion:
    """A client assertion in parts; the key to check it with is found through `client`."""

    client: str
    key: bytes
    signing_input: bytes
    signature: bytes
    unverified_payload: bytes


def mint_access_token(*, key: SigningKey, issuer: str, subject: str, role: Role, audience: str, now: int) -> str:
    """Return an access token for one service, valid for `ACCESS_TOKEN_LIFETIME` seconds."""
    claims = AccessTokenClaims(
        iss=issuer,
        sub=subject,
        client_id=subject,
        aud=audience,
        iat=now,
        exp=now + ACCESS_TOKEN_LIFETIME,
        jti=new_jti(),
        role=role,
    )
    return jose.sign(claims.model_dump(mode="json"), key=key, kid=key_thumbprint(key.verify_key), typ=ACCESS_TOKEN_TYP)


def verify_access_token(token: str, *, keys: Mapping[str, VerifyKey], issuer: str, audience: str, now: int) -> Caller:
    """Return whom the token speaks for. Raises `Unauthenticated`, never saying which check failed."""
    try:
        jws = jose.parse(token, typ=ACCESS_TOKEN_TYP, max_size=MAX_TOKEN_CHARS)
        key = keys.get(jws.kid)
        if key is None:
            raise Unauthenticated
        jws.verify(key)
        claims = AccessTokenClaims.model_validate_json(jws.unverified_payload)
    except (PcehrError, ValidationError):
        raise Unauthenticated from None
    in_time = claims.iat <= now + SKEW_SECONDS and now < claims.exp + SKEW_SECONDS
    if claims.iss != issuer or claims.aud != audience or claims.sub != claims.client_id or not in_time:
        raise Unauthenticated
    return Caller(did=claims.sub, role=claims.role)


def unverified_key_id(token: str) -> str:
    """The `kid` of an access token, for deciding whether the JWKS must be fetched anew."""
    try:
        return jose.parse(token, typ=ACCESS_TOKEN_TYP, max_size=MAX_TOKEN_CHARS).kid
    except PcehrError:
        raise Unauthenticated from None


def make_client_assertion(*, did: str, key: SigningKey, token_endpoint: str, now: int) -> str:
    """Return a client assertion of `did` for the registry's token endpoint, valid for one use."""
    claims = {
        "iss": did,
        "sub": did,
        "aud": token_endpoint,
        "iat": now,
        "exp": now + MAX_ASSERTION_LIFETIME,
        "jti": new_jti(),
    }
    return jose.sign(claims, key=key, kid=did_key.key_id(did, bytes(key.verify_key)), typ="JWT")


def parse_client_assertion(assertion: str) -> UnverifiedAssertion:
    """Split a client assertion. Its JSON need not be canonical, since any JOSE library may have made it.

    Raises `InvalidClient` for whatever cannot be a client assertion of this platform.
    """
    try:
        if len(assertion) > MAX_TOKEN_CHARS:
            raise InvalidClient
        header_part, payload_part, signature_part = assertion.split(".")
        header = json.loads(from_b64url(header_part), object_pairs_hook=_distinct)
        if not isinstance(header, dict) or not header.keys() <= {"alg", "kid", "typ"}:
            raise InvalidClient
        if header.get("alg") != jose.ALGORITHM or header.get("typ", "JWT") not in ASSERTION_TYPES:
            raise InvalidClient
        client, key = did_key.split_key_id(str(header.get("kid")))
        return UnverifiedAssertion(
            client=client,
            key=key,
            signing_input=f"{header_part}.{payload_part}".encode("ascii"),
            signature=from_b64url(signature_part, jose.SIGNATURE_BYTES),
            unverified_payload=from_b64url(payload_part),
        )
    except (PcehrError, ValueError, RecursionError):
        raise InvalidClient from None


def verify_client_assertion(
    assertion: UnverifiedAssertion, *, current_key: bytes, audiences: Collection[str], now: int
) -> AssertionClaims:
    """Check the assertion under the client's current identity key; replay of `jti` is the caller's affair.

    Raises `InvalidClient`, never saying which check failed.
    """
    try:
        if assertion.key != current_key:
            raise InvalidClient
        VerifyKey.from_bytes(current_key).verify(assertion.signature, assertion.signing_input)
        json.loads(assertion.unverified_payload, object_pairs_hook=_distinct)
        claims = AssertionClaims.model_validate_json(assertion.unverified_payload)
    except (BadSignature, PcehrError, ValueError, RecursionError):
        raise InvalidClient from None
    named = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    if claims.iss != assertion.client or claims.sub != assertion.client or not set(named) & set(audiences):
        raise InvalidClient
    too_long = claims.exp > now + MAX_ASSERTION_LIFETIME + SKEW_SECONDS
    if claims.exp + SKEW_SECONDS <= now or too_long or (claims.iat or 0) > now + SKEW_SECONDS:
        raise InvalidClient
    return claims


def jwk(key: VerifyKey) -> dict[str, str]:
    """The public JWK (RFC 8037) of a token signing key."""
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": b64url(bytes(key)),
        "kid": key_thumbprint(key),
        "use": "sig",
        "alg": jose.ALGORITHM,
    }


def keys_from_jwks(jwks: Mapping[str, Any]) -> dict[str, VerifyKey]:
    """The Ed25519 keys of a JWKS by key id; keys of other kinds are left out."""
    found = {}
    for entry in jwks.get("keys", []):
        if entry.get("kty") == "OKP" and entry.get("crv") == "Ed25519":
            key = VerifyKey.from_bytes(from_b64url(str(entry.get("x")), 32))
            found[key_thumbprint(key)] = key
    return found


def key_thumbprint(key: VerifyKey) -> str:
    """JWK thumbprint (RFC 7638) of an Ed25519 key, in base64url."""
    return b64url(sha256(canonical_json({"crv": "Ed25519", "kty": "OKP", "x": b64url(bytes(key))})))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate member")
    return value
