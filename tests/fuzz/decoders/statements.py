"""Everything signed in compact form: statements of each type, chains of keys, access tokens, client assertions.

Each is tried twice: as it comes, where a signature stands in the way of nearly all that is changed, and with the
payload signed anew after the change, as a dishonest party would sign it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from client.evidence.file import EvidenceSeal
from client.given import unverified_audience
from client.reading import _claim
from shared import tokens
from shared.did import key_id
from shared.encoding import b64url, canonical_json, from_b64url, sha256
from shared.errors import PcehrError
from shared.identity import receiving_key, sealing_key, verify_chain, verify_next, verifying_key
from shared.schemas.examples import example
from shared.schemas.records import RecordOut
from shared.statements import (
    KINDS,
    Grant,
    Payload,
    Receipt,
    StatementExpired,
    StatementFromTheFuture,
    claims_of,
    unverified_issuer,
    verify_delayed,
    verify_fresh,
    verify_stored,
    verify_under,
)
from shared.wire import Role
from tests.fuzz.decoder import Decoder
from tests.fuzz.decoders.text import of_text, raw, text
from tests.unit.protocol.parties import NOW, SeededParty

_PARTY = SeededParty(1)
_KEY = _PARTY.identity()
_PUBLIC = bytes(_KEY.verify_key)
_VERIFIED = verify_chain(_PARTY.did, _PARTY.chain())
_HASH = b64url(bytes(range(32)))
_AUDIENCE, _ISSUER = "http://127.0.0.1:8401", "http://127.0.0.1:8400"
_EXAMPLES = (
    "patient_key_entry", "recipient_key_entry", "proxy_key_entry", "recipient_rotation", "scope_key",
    "disclosure_request", "denial", "grant", "reencryption_request", "revocation", "log_erasure",
)  # fmt: skip


def _claims(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(from_b64url(token.split(".")[1]))
    return claims


def _typ(token: str) -> str:
    typ: str = json.loads(from_b64url(token.split(".", maxsplit=1)[0]))["typ"]
    return typ


def _own(claims: dict[str, Any]) -> dict[str, Any]:
    """The same claims as the party's own, who then is the patient too where the issuer was."""
    return claims | {"iss": _PARTY.did} | ({"aud": _PARTY.did} if claims["aud"] == claims["iss"] else {})


def _common(audience: str) -> dict[str, Any]:
    return {"iss": _PARTY.did, "aud": audience, "iat": NOW, "jti": b64url(bytes(range(16)))}


def _all_claims() -> dict[str, list[dict[str, Any]]]:
    """Claims that each type of statement accepts, by `typ`."""
    found: dict[str, list[dict[str, Any]]] = {kind.typ: [] for kind in (*KINDS, EvidenceSeal)}
    for token in (*map(example, _EXAMPLES), example("record")["manifest"]):
        found[_typ(token)].append(_own(_claims(token)))
    receipt = _common(_PARTY.did) | {"statement": _HASH, "grant": _HASH, "seq": 7}
    found[Receipt.typ] = [receipt | {"act": "stored"}, receipt | {"act": "reencrypted", "cfrags": [_HASH]}]
    found[EvidenceSeal.typ] = [_common("urn:pcehr:evidence") | {"digest": _HASH}]
    return found


_CLAIMS = _all_claims()


def _signed(payload: bytes, typ: str, kid: str = key_id(_PARTY.did, _PUBLIC)) -> str:
    """Any payload at all, signed by the party."""
    header = canonical_json({"alg": "EdDSA", "kid": kid, "typ": typ})
    signing_input = f"{b64url(header)}.{b64url(payload)}"
    return f"{signing_input}.{b64url(_KEY.sign(signing_input.encode()))}"


# --- statements -------------------------------------------------------------------------------------------------------


def _as_it_comes(kind: type[Payload], samples: list[str]) -> Callable[[bytes], bytes]:
    def run(data: bytes) -> bytes:
        token = text(data)
        assert unverified_issuer(token, kind) == _PARTY.did or token not in samples
        verify_stored(token, kind, _VERIFIED)
        # Nobody else can sign for the party, so nothing else may be accepted.
        return data if token in samples else b""

    return run


def _signed_anew(kind: type[Payload]) -> Callable[[bytes], bytes]:
    def run(data: bytes) -> bytes:
        token = _signed(data, kind.typ)
        payload = verify_under(token, kind, _PARTY.did, [_PUBLIC]).payload
        for verify in (verify_fresh, verify_delayed):
            try:
                verify(token, kind, _VERIFIED, now=NOW)
            except (StatementExpired, StatementFromTheFuture):
                continue
        return canonical_json(claims_of(payload))

    return run


def _of_kind(kind: type[Payload]) -> tuple[Decoder, Decoder]:
    payloads = [canonical_json(claims) for claims in _CLAIMS[kind.typ]]
    samples = [_signed(payload, kind.typ) for payload in payloads]
    name = kind.typ.removeprefix("pcehr-").removesuffix("+jwt")
    return (
        Decoder(f"statement.{name}", _as_it_comes(kind, samples), [raw(token) for token in samples], share=0.5),
        Decoder(
            f"statement-signed-anew.{name}",
            _signed_anew(kind),
            payloads,
            share=0.3,
        ),
    )


# --- chains -----------------------------------------------------------------------------------------------------------


def _chain_of(party: SeededParty) -> list[dict[str, Any]]:
    return [_claims(token) for token in party.chain(2)]


def _chain(role: Role) -> Callable[[bytes], None]:
    """A JSON array of the claims of each key-entry, each signed by the key of the entry before, and linked."""
    party = SeededParty(5, role)

    def run(data: bytes) -> None:
        entries = json.loads(data)
        links: list[str] = []
        for seq, claims in enumerate(entries if isinstance(entries, list) else []):
            linked = claims | {"prev": b64url(sha256(links[-1].rpartition(".")[0].encode()))} if links else claims
            key = party.identity(max(seq - 1, 0))
            header = canonical_json(
                {"alg": "EdDSA", "kid": key_id(party.did, bytes(key.verify_key)), "typ": "pcehr-key-entry+jwt"}
            )
            if "possession" in linked:
                proven = {name: value for name, value in linked.items() if name != "possession"}
                message = b"pcehr/v1/possession\0" + canonical_json(proven)
                linked |= {"possession": b64url(party.identity(seq).sign(message))}
            signing_input = f"{b64url(header)}.{b64url(canonical_json(linked))}"
            links.append(f"{signing_input}.{b64url(key.sign(signing_input.encode()))}")
        known = verify_chain(party.did, links)
        assert known.tokens == links
        for entry in known.entries:
            if role is Role.PROXY:
                sealing_key(entry)
            else:
                verifying_key(entry)
                receiving_key(entry)

    return run


def _next_entry(said: str) -> str:
    return verify_next(_VERIFIED, said).tokens[-1]


def _broken_sample(error: type[Exception]) -> tuple[type[Exception], ...]:
    """What the test's own signing makes of a change that is not for any decoder to judge."""
    return (PcehrError, error, TypeError, AttributeError, RecursionError)


# --- tokens -----------------------------------------------------------------------------------------------------------


_KEYS = {tokens.key_thumbprint(_KEY.verify_key): _KEY.verify_key}
_ACCESS = tokens.mint_access_token(
    key=_KEY, issuer=_ISSUER, subject=_PARTY.did, role=Role.PATIENT, audience=_AUDIENCE, now=NOW
)
_ASSERTION = tokens.make_client_assertion(did=_PARTY.did, key=_KEY, token_endpoint=_ISSUER, now=NOW)


def _access_token(said: str) -> str:
    tokens.unverified_key_id(said)
    tokens.verify_access_token(said, keys=_KEYS, issuer=_ISSUER, audience=_AUDIENCE, now=NOW)
    return _ACCESS


def _access_token_signed_anew(data: bytes) -> None:
    """Whoever holds the registry's key may have signed anything."""
    token = _signed(data, tokens.ACCESS_TOKEN_TYP, next(iter(_KEYS)))
    tokens.verify_access_token(token, keys=_KEYS, issuer=_ISSUER, audience=_AUDIENCE, now=NOW)


def _assertion(said: str) -> None:
    parsed = tokens.parse_client_assertion(said)
    tokens.verify_client_assertion(parsed, current_key=_PUBLIC, audiences=[_ISSUER], now=NOW)


def _assertion_signed_anew(data: bytes) -> None:
    _assertion(_signed(data, "JWT"))


def _jwks(data: bytes) -> None:
    """As the services' fetcher does, which makes one refusal of all of these."""
    keys = tokens.keys_from_jwks(json.loads(data))
    assert all(tokens.key_thumbprint(key) == name for name, key in keys.items())


def _claimed(said: str) -> None:
    """A manifest in a list, which is named before it is verified."""
    _claim(RecordOut.model_construct(manifest=said))


def _grant_audience(said: str) -> None:
    unverified_audience(said)


_MANIFEST = _signed(canonical_json(_CLAIMS["pcehr-manifest+jwt"][0]), "pcehr-manifest+jwt")
_GRANT = _signed(canonical_json(_CLAIMS[Grant.typ][0]), Grant.typ)


def _payload(token: str) -> bytes:
    return from_b64url(token.split(".")[1])


def _json(value: Mapping[str, Any] | list[Any]) -> bytes:
    return canonical_json(value)


DECODERS = (
    *(decoder for kind in (*KINDS, EvidenceSeal) for decoder in _of_kind(kind)),
    *(
        Decoder(
            f"chain-signed-anew.{role.value}",
            _chain(role),
            [_json(_chain_of(SeededParty(5, role)))],
            refusals=_broken_sample(ValueError),
            share=0.2,
        )
        for role in Role
    ),
    Decoder(
        "next-key-entry",
        of_text(_next_entry),
        [raw(_PARTY.key_entry(1, _VERIFIED.current.id))],
        share=0.2,
    ),
    Decoder(
        "access-token",
        of_text(_access_token),
        [raw(_ACCESS)],
    ),
    Decoder("access-token-signed-anew", _access_token_signed_anew, [_payload(_ACCESS)]),
    Decoder(
        "client-assertion",
        of_text(_assertion),
        [raw(_ASSERTION)],
    ),
    Decoder("client-assertion-signed-anew", _assertion_signed_anew, [_payload(_ASSERTION)]),
    Decoder(
        "jwks",
        _jwks,
        [_json({"keys": [tokens.jwk(_KEY.verify_key)]})],
        refusals=(ValueError, AttributeError, TypeError, RecursionError, PcehrError),
    ),
    Decoder("manifest-unverified", of_text(_claimed), [raw(_MANIFEST)], refusals=()),
    Decoder("grant-unverified", of_text(_grant_audience), [raw(_GRANT)]),
)
