"""Access tokens and client assertions: every way one is refused, and that no refusal says why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from shared import jose, tokens, wire
from shared.crypto.signing import SigningKey
from shared.encoding import b64url
from shared.errors import Unauthenticated
from tests.unit.protocol.parties import NOW, SeededParty

KEY = SigningKey(bytes(range(32)))
KEYS = {tokens.key_thumbprint(KEY.verify_key): KEY.verify_key}
ISSUER = "http://registry.test"
ENDPOINT = f"{ISSUER}/v1/oauth/token"
ALICE = SeededParty(1)
CURRENT = bytes(ALICE.identity().verify_key)


def mint(**overrides: Any) -> str:
    arguments: dict[str, Any] = {
        "key": KEY,
        "issuer": ISSUER,
        "subject": ALICE.did,
        "role": wire.Role.PATIENT,
        "audience": wire.RECORDS_AUDIENCE,
        "now": NOW,
    }
    return tokens.mint_access_token(**arguments | overrides)


def check(token: str, **overrides: Any) -> tokens.Caller:
    arguments: dict[str, Any] = {"keys": KEYS, "issuer": ISSUER, "audience": wire.RECORDS_AUDIENCE, "now": NOW}
    return tokens.verify_access_token(token, **arguments | overrides)


def test_a_token_speaks_for_its_subject() -> None:
    assert check(mint()) == tokens.Caller(did=ALICE.did, role=wire.Role.PATIENT)


@pytest.mark.parametrize(
    ("minted", "checked"),
    [
        ({"audience": wire.REGISTRY_AUDIENCE}, {}),
        ({"issuer": "http://other.test"}, {}),
        ({"now": NOW - tokens.ACCESS_TOKEN_LIFETIME - wire.SKEW_SECONDS}, {}),
        ({"now": NOW + wire.SKEW_SECONDS + 1}, {}),
        ({"key": SigningKey(bytes(32))}, {}),
        ({}, {"keys": {}}),
    ],
    ids=["another service's", "another issuer's", "expired", "from the future", "another key's", "no key known"],
)
def test_a_token_is_refused(minted: dict[str, Any], checked: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated) as refused:
        check(mint(**minted), **checked)
    assert refused.value.detail == Unauthenticated.title


def test_a_statement_is_no_access_token() -> None:
    with pytest.raises(Unauthenticated):
        check(ALICE.key_entry())


def test_a_token_whose_kid_names_a_known_key_but_is_signed_by_another_is_refused() -> None:
    claims = {
        "iss": ISSUER,
        "sub": ALICE.did,
        "client_id": ALICE.did,
        "aud": wire.RECORDS_AUDIENCE,
        "iat": NOW,
        "exp": NOW + 300,
        "jti": b64url(bytes(16)),
        "role": "patient",
    }
    forged = jose.sign(claims, key=SigningKey(bytes(32)), kid=next(iter(KEYS)), typ=tokens.ACCESS_TOKEN_TYP)
    with pytest.raises(Unauthenticated):
        check(forged)


@given(some.text(max_size=200))
def test_hostile_text_is_unauthenticated(text: str) -> None:
    with pytest.raises(Unauthenticated):
        check(text)


def assertion(**overrides: Any) -> str:
    arguments: dict[str, Any] = {
        "did": ALICE.did,
        "key": ALICE.identity(),
        "token_endpoint": ENDPOINT,
        "now": NOW,
    }
    return tokens.make_client_assertion(**arguments | overrides)


def verify(text: str, **overrides: Any) -> tokens.AssertionClaims:
    arguments: dict[str, Any] = {"current_key": CURRENT, "audiences": [ENDPOINT], "now": NOW}
    return tokens.verify_client_assertion(tokens.parse_client_assertion(text), **arguments | overrides)


def foreign(header: dict[str, Any], claims: dict[str, Any], *, indent: int | None = 1) -> str:
    """An assertion as another JOSE library would spell it: members in any order, white space allowed."""
    parts = [b64url(json.dumps(part, indent=indent).encode()) for part in (header, claims)]
    signing_input = ".".join(parts)
    return f"{signing_input}.{b64url(ALICE.identity().sign(signing_input.encode()))}"


HEADER = {"typ": "JWT", "alg": "EdDSA", "kid": f"{ALICE.did}#{ALICE.did.removeprefix('did:key:')}"}
CLAIMS = {"sub": ALICE.did, "iss": ALICE.did, "jti": "some-unique-id", "exp": NOW + 60, "aud": [ENDPOINT]}


def test_an_assertion_holds() -> None:
    assert verify(assertion()).iss == ALICE.did


def test_an_assertion_of_another_library_holds() -> None:
    assert verify(foreign(HEADER, CLAIMS)).jti == "some-unique-id"


@pytest.mark.parametrize(
    ("text", "checked"),
    [
        (assertion(token_endpoint="http://other.test/token"), {}),
        (assertion(now=NOW - 1000), {}),
        (assertion(now=NOW + 1000), {}),
        (assertion(), {"current_key": bytes(SeededParty(2).identity().verify_key)}),
        (foreign(HEADER | {"alg": "none"}, CLAIMS), {}),
        (foreign(HEADER | {"typ": "at+jwt"}, CLAIMS), {}),
        (foreign(HEADER | {"crit": []}, CLAIMS), {}),
        (foreign(HEADER, CLAIMS | {"iss": SeededParty(2).did}), {}),
        (foreign(HEADER, CLAIMS | {"sub": SeededParty(2).did}), {}),
        (foreign(HEADER, CLAIMS | {"exp": NOW + 100_000}), {}),
        (foreign(HEADER, CLAIMS | {"exp": "soon"}), {}),
        (foreign(HEADER, CLAIMS | {"jti": ""}), {}),
        (foreign(HEADER, CLAIMS | {"aud": []}), {}),
        ("a.b", {}),
        ("x" * 5000, {}),
    ],
    ids=[
        "another endpoint",
        "lapsed",
        "from the future",
        "rotated away",
        "alg none",
        "another type",
        "critical header",
        "another issuer",
        "another subject",
        "lives too long",
        "expiry as text",
        "empty jti",
        "no audience",
        "two parts",
        "too long",
    ],
)
def test_an_assertion_is_refused(text: str, checked: dict[str, Any]) -> None:
    with pytest.raises(tokens.InvalidClient) as refused:
        verify(text, **checked)
    assert refused.value.detail == tokens.InvalidClient.title


def test_a_jwks_gives_back_the_key_under_its_thumbprint() -> None:
    found = tokens.keys_from_jwks({"keys": [tokens.jwk(KEY.verify_key), {"kty": "RSA"}]})
    assert {kid: bytes(key) for kid, key in found.items()} == {kid: bytes(key) for kid, key in KEYS.items()}
