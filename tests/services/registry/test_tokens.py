"""The token endpoint: what it gives, and what it refuses in the words of OAuth as well as of RFC 9457."""

import asyncio
from typing import Any

import httpx
import pytest

from shared import wire
from shared.crypto.signing import SigningKey
from shared.encoding import b64url, canonical_json
from shared.statements import new_jti
from shared.tokens import ASSERTION_TYPE_URN, Caller, keys_from_jwks, make_client_assertion, verify_access_token
from shared.wire import Role
from tests.services.registry.running import (
    PUBLIC_URL,
    TOKEN_ENDPOINT,
    RunningRegistry,
    assert_problem,
    running,
    settings_for,
)
from tests.services.signing_parties import NOW, TestClock, TestParty


def assert_oauth_problem(response: httpx.Response, status: int, code: str, error: str | None = None) -> None:
    problem = assert_problem(response, status, code)
    assert problem["error"] == (error or code)
    assert problem["error_description"]
    assert response.headers["cache-control"] == "no-store"


def hand_made(party: TestParty, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """An assertion with members changed, signed with the party's current key."""
    head = {"alg": "EdDSA", "kid": party.kid(), "typ": "JWT"} | (header or {})
    body = {
        "iss": party.did,
        "sub": party.did,
        "aud": TOKEN_ENDPOINT,
        "exp": NOW + 300,
        "jti": new_jti(),
    } | claims
    signing_input = f"{b64url(canonical_json(head))}.{b64url(canonical_json(body))}"
    return f"{signing_input}.{b64url(party.identity_key().sign(signing_input.encode()))}"


@pytest.mark.parametrize(
    ("resource", "audience"),
    [
        (None, wire.REGISTRY_AUDIENCE),
        (wire.REGISTRY_AUDIENCE, wire.REGISTRY_AUDIENCE),
        (wire.RECORDS_AUDIENCE, wire.RECORDS_AUDIENCE),
    ],
)
async def test_a_token_verifies_under_the_published_keys(
    registry: RunningRegistry, patient: TestParty, resource: str | None, audience: str
) -> None:
    response = await registry.post_token(registry.assertion(patient), resource=resource)
    assert response.status_code == 200
    body = response.json()
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 300)
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"
    keys = keys_from_jwks((await registry.http.get("/.well-known/jwks.json")).json())
    caller = verify_access_token(body["access_token"], keys=keys, issuer=PUBLIC_URL, audience=audience, now=NOW)
    assert caller == Caller(did=patient.did, role=Role.PATIENT)
    assert (await registry.audit(patient))[-1] == ("token", "accepted", None)


async def test_a_token_for_a_proxy_has_its_did_as_audience(
    registry: RunningRegistry, recipient: TestParty, admitted_proxy: TestParty
) -> None:
    await registry.sign_up(admitted_proxy)
    response = await registry.post_token(registry.assertion(recipient), resource=admitted_proxy.did)
    keys = keys_from_jwks((await registry.http.get("/.well-known/jwks.json")).json())
    caller = verify_access_token(
        response.json()["access_token"], keys=keys, issuer=PUBLIC_URL, audience=admitted_proxy.did, now=NOW
    )
    assert caller == Caller(did=recipient.did, role=Role.RECIPIENT)


async def test_the_issuer_may_be_set_apart_from_the_address(database_url: str, clock: TestClock) -> None:
    settings = settings_for(database_url, token_issuer="https://issuer.example")
    async with running(settings, clock) as registry:
        patient = await registry.registered(Role.PATIENT)
        token = (await registry.post_token(registry.assertion(patient))).json()["access_token"]
        keys = keys_from_jwks((await registry.http.get("/.well-known/jwks.json")).json())
        verify_access_token(token, keys=keys, issuer="https://issuer.example", audience=wire.REGISTRY_AUDIENCE, now=NOW)
        headers = {"Authorization": f"Bearer {token}"}
        response = await registry.publish(patient, patient.scope_key("allergies"), headers=headers)
        assert response.status_code == 200


@pytest.mark.parametrize("typ", ["JWT", "client-authentication+jwt"])
@pytest.mark.parametrize("audience", [TOKEN_ENDPOINT, PUBLIC_URL, [TOKEN_ENDPOINT, "https://other.example"]])
async def test_an_assertion_of_another_jose_library_is_accepted(
    registry: RunningRegistry, patient: TestParty, typ: str, audience: Any
) -> None:
    assertion = hand_made(patient, {"typ": typ}, aud=audience, nonce="anything", client_name="x")
    response = await registry.post_token(assertion, client_id=patient.did, scope="system/*.read")
    assert response.status_code == 200, response.text


async def test_an_assertion_used_before_is_invalid_client(registry: RunningRegistry, patient: TestParty) -> None:
    assertion = registry.assertion(patient)
    assert (await registry.post_token(assertion)).status_code == 200
    assert_oauth_problem(await registry.post_token(assertion), 401, "invalid_client")
    assert (await registry.audit(patient))[-1] == ("token", "invalid_client", "replayed")


async def test_a_jti_in_a_new_assertion_is_invalid_client(registry: RunningRegistry, patient: TestParty) -> None:
    jti = new_jti()
    assert (await registry.post_token(hand_made(patient, jti=jti))).status_code == 200
    response = await registry.post_token(hand_made(patient, jti=jti, exp=NOW + 200))
    assert_oauth_problem(response, 401, "invalid_client")


async def test_one_assertion_many_times_at_once_is_used_once(registry: RunningRegistry, patient: TestParty) -> None:
    assertion = registry.assertion(patient)
    responses = await asyncio.gather(*(registry.post_token(assertion) for _ in range(6)))
    assert sorted(response.status_code for response in responses) == [200] + [401] * 5


async def test_two_clients_may_use_the_same_jti(
    registry: RunningRegistry, patient: TestParty, recipient: TestParty
) -> None:
    for party in (patient, recipient):
        assert (await registry.post_token(hand_made(party, jti="the-same-text"))).status_code == 200


async def test_a_jti_may_hold_any_text(registry: RunningRegistry, patient: TestParty) -> None:
    assertion = hand_made(patient, jti="nul \x00 and \U0001f600")
    assert (await registry.post_token(assertion)).status_code == 200
    assert_oauth_problem(await registry.post_token(assertion), 401, "invalid_client")


async def test_a_rotated_away_key_is_invalid_client(registry: RunningRegistry, patient: TestParty) -> None:
    assert (await registry.rotate(patient, patient.rotate())).status_code == 201
    response = await registry.post_token(registry.assertion(patient, seq=0))
    assert_oauth_problem(response, 401, "invalid_client")
    assert (await registry.audit(patient))[-1] == ("token", "invalid_client", "rotated_key")
    assert (await registry.post_token(registry.assertion(patient))).status_code == 200


async def test_a_party_that_is_not_registered_is_invalid_client(registry: RunningRegistry) -> None:
    stranger = TestParty(Role.PATIENT)
    assert_oauth_problem(await registry.post_token(registry.assertion(stranger)), 401, "invalid_client")
    assert await registry.audit(stranger) == []


async def test_an_assertion_that_nobody_signed_is_invalid_client_and_fills_no_log(
    registry: RunningRegistry, patient: TestParty
) -> None:
    before = await registry.audit(patient)
    unsigned = registry.assertion(patient).rpartition(".")[0] + "." + b64url(bytes(64))
    strange_key = SigningKey(bytes(32))
    foreign = make_client_assertion(did=patient.did, key=strange_key, token_endpoint=TOKEN_ENDPOINT, now=NOW)
    for assertion in (unsigned, foreign):
        assert_oauth_problem(await registry.post_token(assertion), 401, "invalid_client")
    assert await registry.audit(patient) == before


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"exp": NOW - wire.SKEW_SECONDS}, id="lapsed"),
        pytest.param({"exp": NOW + 361}, id="living-too-long"),
        pytest.param({"exp": 2**53 - 1}, id="living-for-ever"),
        pytest.param({"iat": NOW + 61}, id="from-the-future"),
        pytest.param({"aud": "https://other.example/token"}, id="for-another-endpoint"),
        pytest.param({"aud": []}, id="for-nobody"),
        pytest.param({"iss": TestParty(Role.PATIENT).did}, id="issued-by-another"),
        pytest.param({"sub": TestParty(Role.PATIENT).did}, id="about-another"),
        pytest.param({"jti": "short"}, id="with-a-short-jti"),
        pytest.param({"jti": "x" * 129}, id="with-a-long-jti"),
    ],
)
async def test_an_assertion_whose_claims_do_not_hold_is_invalid_client(
    registry: RunningRegistry, patient: TestParty, claims: dict[str, Any]
) -> None:
    assert_oauth_problem(await registry.post_token(hand_made(patient, **claims)), 401, "invalid_client")
    assert (await registry.audit(patient))[-1] == ("token", "invalid_client", "claims")


@pytest.mark.parametrize(
    "assertion",
    ["nonsense", "a.b.c", "e30.e30.e30", b64url(b'{"alg":"none"}') + "..", "ä.ö.ü", "\x00.\x00.\x00"],
)
async def test_a_text_that_is_no_assertion_is_invalid_client(registry: RunningRegistry, assertion: str) -> None:
    assert_oauth_problem(await registry.post_token(assertion), 401, "invalid_client")


async def test_a_lone_surrogate_in_an_assertion_is_invalid_client(
    registry: RunningRegistry, patient: TestParty
) -> None:
    head = b64url(canonical_json({"alg": "EdDSA", "kid": patient.kid(), "typ": "JWT"}))
    claims = (
        f'{{"iss":"{patient.did}","sub":"{patient.did}","aud":"{TOKEN_ENDPOINT}","exp":{NOW + 300},'
        '"jti":"\\ud800 surrogate"}'
    )
    signing_input = f"{head}.{b64url(claims.encode())}"
    assertion = f"{signing_input}.{b64url(patient.identity_key().sign(signing_input.encode()))}"
    assert_oauth_problem(await registry.post_token(assertion), 401, "invalid_client")


async def test_another_client_id_is_invalid_client(
    registry: RunningRegistry, patient: TestParty, recipient: TestParty
) -> None:
    response = await registry.post_token(registry.assertion(patient), client_id=recipient.did)
    assert_oauth_problem(response, 401, "invalid_client")


async def test_another_assertion_type_is_invalid_client(registry: RunningRegistry, patient: TestParty) -> None:
    response = await registry.post_token(registry.assertion(patient), client_assertion_type="urn:other")
    assert_oauth_problem(response, 401, "invalid_client")


async def test_another_grant_type_is_unsupported_grant_type(registry: RunningRegistry, patient: TestParty) -> None:
    response = await registry.post_token(registry.assertion(patient), grant_type="password")
    assert_oauth_problem(response, 400, "unsupported_grant_type")


async def test_an_unknown_resource_is_invalid_target_and_uses_nothing_up(
    registry: RunningRegistry, patient: TestParty, recipient: TestParty, admitted_proxy: TestParty
) -> None:
    assertion = registry.assertion(patient)
    unknown = [
        "https://records.example",
        wire.PROXIES_AUDIENCE,
        recipient.did,
        TestParty(Role.PROXY).did,
        "\x00",
        # On the operator's list, but it has not signed up.
        admitted_proxy.did,
    ]
    for resource in unknown:
        assert_oauth_problem(await registry.post_token(assertion, resource=resource), 400, "invalid_target")
    assert (await registry.audit(patient))[-1] == ("token", "invalid_target", None)
    assert (await registry.post_token(assertion)).status_code == 200


async def test_a_proxy_struck_off_the_list_is_invalid_target(
    database_url: str, clock: TestClock, admitted_proxy: TestParty
) -> None:
    async with running(settings_for(database_url, admitted=[admitted_proxy.did]), clock) as registry:
        await registry.sign_up(admitted_proxy)
        patient = await registry.registered(Role.PATIENT)
    async with running(settings_for(database_url), clock) as registry:
        response = await registry.post_token(registry.assertion(patient), resource=admitted_proxy.did)
        assert_oauth_problem(response, 400, "invalid_target")


async def test_an_admitted_id_of_another_role_is_invalid_target(database_url: str, clock: TestClock) -> None:
    recipient = TestParty(Role.RECIPIENT)
    async with running(settings_for(database_url, admitted=[recipient.did]), clock) as registry:
        await registry.sign_up(recipient)
        response = await registry.post_token(registry.assertion(recipient), resource=recipient.did)
        assert_oauth_problem(response, 400, "invalid_target")


@pytest.mark.parametrize("missing", ["grant_type", "client_assertion_type", "client_assertion"])
async def test_a_missing_parameter_is_an_invalid_request(
    registry: RunningRegistry, patient: TestParty, missing: str
) -> None:
    response = await registry.post_token(registry.assertion(patient), **{missing: None})
    assert_oauth_problem(response, 400, "invalid_request")


@pytest.mark.parametrize("empty", ["grant_type", "client_assertion_type", "client_assertion"])
async def test_an_empty_parameter_is_an_invalid_request_like_a_missing_one(
    registry: RunningRegistry, patient: TestParty, empty: str
) -> None:
    response = await registry.post_token(registry.assertion(patient), **{empty: ""})
    assert_oauth_problem(response, 400, "invalid_request")


async def test_a_parameter_given_twice_is_an_invalid_request(registry: RunningRegistry, patient: TestParty) -> None:
    form = httpx.QueryParams(
        [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", ASSERTION_TYPE_URN),
            ("client_assertion", registry.assertion(patient)),
            ("resource", wire.REGISTRY_AUDIENCE),
            ("resource", wire.RECORDS_AUDIENCE),
        ]
    )
    response = await registry.http.post(
        "/v1/oauth/token",
        content=str(form),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert_oauth_problem(response, 400, "invalid_request")


async def test_an_assertion_beyond_the_bound_is_an_invalid_request(registry: RunningRegistry) -> None:
    assert_oauth_problem(await registry.post_token("a" * 4_097), 400, "invalid_request")


async def test_another_encoding_is_an_invalid_request(registry: RunningRegistry, patient: TestParty) -> None:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE_URN,
        "client_assertion": registry.assertion(patient),
    }
    responses = [
        await registry.http.post("/v1/oauth/token", json=form),
        await registry.http.post("/v1/oauth/token", files={name: (None, value) for name, value in form.items()}),
        await registry.http.post("/v1/oauth/token"),
    ]
    for response in responses:
        assert_oauth_problem(response, 400, "invalid_request")


async def test_a_form_beyond_the_bound_is_too_large(registry: RunningRegistry) -> None:
    response = await registry.post_token("a" * 17_000)
    assert_problem(response, 413, "too_large")


async def test_lapsed_assertions_are_forgotten(registry: RunningRegistry, patient: TestParty) -> None:
    for _ in range(3):
        await registry.headers(patient)
    registry.clock.advance(300 + 2 * wire.SKEW_SECONDS)
    await registry.headers(patient)
    assert len(await registry.rows("SELECT 1 FROM assertions")) == 4
    registry.clock.advance(1)
    await registry.headers(patient)
    assert len(await registry.rows("SELECT 1 FROM assertions")) == 2
