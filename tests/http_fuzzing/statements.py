"""Bodies with statements that their issuer has signed: as they should be, or with one member that is another one.

A fuzzer that knows the schema alone makes texts that are no statements, and never gets past the first look at them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as hs

from shared import jose
from shared.errors import PcehrError
from shared.tokens import ASSERTION_TYPE_URN, make_client_assertion
from shared.wire import RECORDS_AUDIENCE, Role
from tests.http_fuzzing.parties import Stage
from tests.services.signing_parties import SignedGrant, TestParty, random_hash

Body = dict[str, Any]
Make = Callable[[Stage, TestParty], Body]
"""A body of an operation that the party may send, made anew at every call."""

ODD: list[Any] = [
    None,
    True,
    "",
    "\x00",
    "\ud800",
    "A" * 22,
    "A" * 43,
    "did:key:z6MkehRgf7yJbgaGfYsdoAsKdBPE3dj2CYhowQdcjqSJgvVd",
    "urn:pcehr:records",
    "x" * 5_000,
    -1,
    0,
    1,
    2**31,
    2**53,
    2**63,
    2**70,
    [],
    ["read", "read"],
    {},
]
"""Values that a member may be given in the place of its own."""


def bodies(stage: Stage, issuer: TestParty, make: Make) -> hs.SearchStrategy[Body]:
    """Bodies made by `make`, and the same with one member of one of their statements changed and signed again."""
    whole = hs.builds(lambda: make(stage, issuer))
    return hs.one_of(whole, hs.builds(_changed, whole, hs.just(issuer), hs.randoms(use_true_random=False)))


def _changed(body: Body, issuer: TestParty, choice: Any) -> Body:
    places = list(_statements(body))
    if not places:
        return body
    container, key = choice.choice(places)
    container[key] = _mutated(container[key], issuer, choice)
    return body


def _statements(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where the statements in a body are: container and key of each."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, str) and item.count(".") == 2:
            yield value, key
        else:
            yield from _statements(item)


def _mutated(token: str, issuer: TestParty, choice: Any) -> str:
    """The statement with one member of its payload changed, added or left out, under a good signature."""
    header, payload, _ = token.split(".")
    claims, typ = _object(payload), _object(header)["typ"]
    name = choice.choice([*claims, "unknown"])
    if choice.random() < 0.2:
        claims.pop(name, None)
    else:
        claims[name] = choice.choice(ODD)
    try:
        return jose.sign(claims, key=issuer.identity_key(), kid=_object(header)["kid"], typ=typ)
    except (PcehrError, ValueError):
        # Nobody can sign what canonical JSON cannot hold.
        return token


def _object(part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


# What each operation takes


def _new_entry(role: Role) -> Make:
    def make(stage: Stage, _: TestParty) -> Body:
        return {"key_entry": TestParty(role, issued=stage.known.now).entries[0]}

    return make


def _own_entry(stage: Stage, _: TestParty) -> Body:
    return {"key_entry": stage.second.entries[0]}


def _next_entry(stage: Stage, _: TestParty) -> Body:
    return {"key_entry": stage.next_to_rotate().next_entry(stage.known.now)}


def _scope_keys(stage: Stage, issuer: TestParty) -> Body:
    return {"scope_keys": [issuer.scope_key(name, now=stage.known.now) for name in ("allergies", random_hash())]}


def _token(stage: Stage, issuer: TestParty) -> Body:
    known = stage.known
    assertion = make_client_assertion(
        did=issuer.did, key=issuer.identity_key(), token_endpoint=known.token_endpoint, now=known.now
    )
    return {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE_URN,
        "client_assertion": assertion,
        "resource": RECORDS_AUDIENCE,
    }


def _records(stage: Stage, issuer: TestParty) -> Body:
    grant = None if issuer is stage.patient else stage.known.grant
    first = issuer.record(stage.patient, "allergies", grant=grant, now=stage.known.now)
    second = issuer.record(stage.patient, "allergies", after=first, grant=grant, now=stage.known.now)
    return {"records": [first.as_json(), second.as_json()]}


def _request(stage: Stage, issuer: TestParty) -> Body:
    return {"statement": issuer.disclosure_request(stage.patient, now=stage.known.now)}


def _denial(stage: Stage, issuer: TestParty) -> Body:
    return {"statement": issuer.denial(stage.recipient, stage.request(), now=stage.known.now)}


def _given(stage: Stage, issuer: TestParty) -> SignedGrant:
    proxies = [stage.proxy, stage.second]
    return issuer.grant(stage.recipient, proxies=proxies, threshold=2, now=stage.known.now)


def _grant(stage: Stage, issuer: TestParty) -> Body:
    return _given(stage, issuer).as_json()


def _share(stage: Stage, issuer: TestParty) -> Body:
    grant = _given(stage, issuer)
    return {"grant": grant.token, "sealed": grant.shares[stage.proxy.did]}


def _revocation(member: str) -> Make:
    def make(stage: Stage, issuer: TestParty) -> Body:
        return {member: issuer.revocation(stage.recipient, random_hash(), [("imaging", 1)], now=stage.known.now)}

    return make


def _wanted(stage: Stage, issuer: TestParty) -> str:
    known = stage.known
    return issuer.reencryption_request(known.grant, [(0, known.capsule_hash)], now=known.now)


def _disclosure(stage: Stage, issuer: TestParty) -> Body:
    return {"request": _wanted(stage, issuer)}


def _reencryption(stage: Stage, issuer: TestParty) -> Body:
    return {"request": _wanted(stage, issuer), "capsules": [stage.known.capsule]}


def _erasure(stage: Stage, issuer: TestParty) -> Body:
    audience = stage.proxy.did if stage.known.service == "proxy" else RECORDS_AUDIENCE
    return {"statement": issuer.log_erasure(audience, 1, now=stage.known.now)}


def _inclusion(stage: Stage, _: TestParty) -> Body:
    return {"leaves": [stage.known.leaf], "size": 0}


MAKERS: dict[tuple[str, str], Make] = {
    ("registry", "POST /v1/patients"): _new_entry(Role.PATIENT),
    ("registry", "POST /v1/recipients"): _new_entry(Role.RECIPIENT),
    ("registry", "POST /v1/proxies"): _own_entry,
    ("registry", "POST /v1/parties/{did}/keys"): _next_entry,
    ("registry", "PUT /v1/patients/{did}/scope-keys"): _scope_keys,
    ("registry", "POST /v1/oauth/token"): _token,
    ("records", "POST /v1/records"): _records,
    ("records", "POST /v1/disclosure-requests"): _request,
    ("records", "POST /v1/denials"): _denial,
    ("records", "POST /v1/grants"): _grant,
    ("records", "POST /v1/revocations"): _revocation("statement"),
    ("records", "POST /v1/disclosures"): _disclosure,
    ("records", "POST /v1/me/audit/erasures"): _erasure,
    ("proxy", "POST /v1/kfrags"): _share,
    ("proxy", "POST /v1/reencryptions"): _reencryption,
    ("proxy", "POST /v1/revocations"): _revocation("revocation"),
    ("proxy", "POST /v1/audit/erasures"): _erasure,
    **{(service, "POST /v1/log/inclusion"): _inclusion for service in ("registry", "records", "proxy")},
}
"""By service and operation."""
