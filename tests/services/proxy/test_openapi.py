"""The OpenAPI document says what the proxy does: errors, bounds, examples."""

from __future__ import annotations

from typing import Any

import pytest

from services.proxy.main import build
from tests.services.proxy.world import World

EXPECTED = {
    ("post", "/v1/kfrags"): {
        "400": ["malformed", "malformed_key_material", "broken_key_chain"],
        "403": ["wrong_signer", "quota_exceeded"],
        "404": ["unknown_party"],
        "409": ["grant_revoked", "jti_reused", "key_chain_rolled_back"],
        "413": ["too_large"],
        "422": [
            "invalid_request",
            "bad_signature",
            "statement_expired",
            "statement_from_the_future",
            "not_for_this_proxy",
            "grant_expired",
            "refused",
            "kfrag_rejected",
        ],
        "429": ["too_many_requests"],
        "500": ["internal_error"],
        "503": ["database_unavailable", "registry_unavailable", "unavailable"],
    },
    ("post", "/v1/reencryptions"): {
        "400": ["malformed", "malformed_key_material", "broken_key_chain"],
        "403": [
            "wrong_signer",
            "not_granted",
            "grant_not_yet_valid",
            "grant_expired",
            "grant_revoked",
            "capsule_not_granted",
        ],
        "404": ["unknown_party", "unknown_grant"],
        "409": ["jti_reused", "key_chain_rolled_back"],
        "413": ["too_large"],
        "422": [
            "invalid_request",
            "bad_signature",
            "statement_expired",
            "statement_from_the_future",
            "wrong_audience",
            "capsule_mismatch",
        ],
        "429": ["too_many_requests"],
        "500": ["internal_error"],
        "503": ["database_unavailable", "registry_unavailable", "unavailable"],
    },
    ("post", "/v1/revocations"): {
        "400": ["malformed", "malformed_key_material", "broken_key_chain"],
        "403": ["wrong_signer"],
        "404": ["unknown_party"],
        "409": ["jti_reused", "key_chain_rolled_back"],
        "413": ["too_large"],
        "422": ["invalid_request", "bad_signature", "statement_from_the_future"],
        "429": ["too_many_requests"],
        "500": ["internal_error"],
        "503": ["database_unavailable", "registry_unavailable"],
    },
    ("get", "/v1/identity"): {
        "429": ["too_many_requests"],
        "500": ["internal_error"],
        "503": ["database_unavailable", "unavailable"],
    },
    ("get", "/v1/audit"): {
        "400": ["malformed"],
        "401": ["unauthenticated"],
        "422": ["invalid_request"],
        "429": ["too_many_requests"],
        "500": ["internal_error"],
        "503": ["database_unavailable", "registry_unavailable"],
    },
    ("post", "/v1/audit/erasures"): {
        "400": ["malformed", "malformed_key_material", "broken_key_chain"],
        "401": ["unauthenticated"],
        "403": ["wrong_signer"],
        "404": ["unknown_party"],
        "409": ["jti_reused", "key_chain_rolled_back"],
        "413": ["too_large"],
        "422": [
            "invalid_request",
            "bad_signature",
            "statement_expired",
            "statement_from_the_future",
            "wrong_audience",
        ],
        "429": ["too_many_requests"],
        "500": ["internal_error"],
        "503": ["database_unavailable", "registry_unavailable"],
    },
    ("post", "/v1/witness/add-checkpoint"): {
        "400": ["malformed"],
        "403": ["not_signed_by_log"],
        "404": ["unknown_log"],
        "409": [],
        "413": ["too_large"],
        "422": ["invalid_request", "log_forked"],
        "429": ["too_many_requests"],
        "500": ["internal_error"],
        "503": ["database_unavailable"],
    },
    ("get", "/v1/witness/checkpoints"): {
        "429": ["too_many_requests"],
        "500": ["internal_error"],
        "503": ["database_unavailable"],
    },
    ("get", "/v1/log/checkpoint"): {
        "429": ["too_many_requests"],
        "500": ["internal_error"],
        "503": ["not_in_log_yet", "database_unavailable"],
    },
    ("get", "/v1/log/consistency"): {
        "422": ["invalid_request"],
        "429": ["too_many_requests"],
        "500": ["internal_error"],
        "503": ["not_in_log_yet", "database_unavailable"],
    },
    ("post", "/v1/log/inclusion"): {
        "400": ["malformed"],
        "404": ["not_found"],
        "413": ["too_large"],
        "422": ["invalid_request"],
        "429": ["too_many_requests"],
        "500": ["internal_error"],
        "503": ["not_in_log_yet", "database_unavailable"],
    },
}


@pytest.fixture
def document(idle_world: World) -> dict[str, Any]:
    return build(idle_world.settings()).openapi()


async def test_every_route_is_declared(document: dict[str, Any]) -> None:
    declared = {(method, path) for path, routes in document["paths"].items() for method in routes}
    assert {route for route in declared if route[1].startswith("/v1/")} == set(EXPECTED)


@pytest.mark.parametrize("route", EXPECTED, ids=" ".join)
async def test_every_error_is_declared_and_no_other(document: dict[str, Any], route: tuple[str, str]) -> None:
    method, path = route
    answers = document["paths"][path][method]["responses"]
    found = {
        status: {part.split("`")[1] for part in answer["description"].split("\n\n") if part.startswith("`")}
        for status, answer in answers.items()
        if status not in ("200", "204")
    }
    assert found == {status: set(codes) for status, codes in EXPECTED[route].items()}
    for status, codes in found.items():
        # A conflict with a witness is no problem document: the protocol of C2SP wants the size as text.
        if not codes:
            continue
        assert list(answers[status]["content"]) == ["application/problem+json"]


async def test_bodies_lists_and_strings_have_bounds(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("KfragsIn", "ReencryptionIn", "RevocationIn", "ErasureIn", "InclusionIn"):
        for member, schema in schemas[name]["properties"].items():
            assert schema.keys() & {"maxLength", "maxItems", "maximum"}, (name, member)
    assert schemas["LogEventPage"]["properties"]["items"]["maxItems"] == 100
    for path in ("/v1/kfrags", "/v1/reencryptions", "/v1/revocations"):
        assert document["paths"][path]["post"]["x-max-body-bytes"] <= 320 * 1024


async def test_bodies_have_examples(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("KfragsIn", "ReencryptionIn", "RevocationIn"):
        (example,) = schemas[name]["examples"]
        assert set(example) == set(schemas[name]["properties"])


async def test_reading_the_audit_log_wants_a_token_and_nothing_else_does(document: dict[str, Any]) -> None:
    secured = {
        (method, path)
        for path, routes in document["paths"].items()
        for method, route in routes.items()
        if route.get("security")
    }
    assert secured == {("get", "/v1/audit"), ("post", "/v1/audit/erasures")}
