"""The OpenAPI document says what the registry does: errors, bounds, examples, and how to authorise."""

from collections.abc import Iterator
from typing import Any

import pytest

from services.registry.main import build
from tests.services.registry.running import settings_for

Operation = tuple[str, dict[str, Any]]

# A code of each operation that must be told beside those that all of its kind have.
CODES = {
    "POST /v1/patients": {"wrong_role", "already_registered", "jti_reused", "bad_signature", "broken_key_chain"},
    "POST /v1/recipients": {"wrong_role", "already_registered", "jti_reused", "bad_signature", "broken_key_chain"},
    "POST /v1/proxies": {"wrong_role", "already_registered", "proxy_not_admitted"},
    "POST /v1/parties/{did}/keys": {"unknown_party", "stale_key_entry", "broken_key_chain", "jti_reused"},
    "GET /v1/parties/{did}": {"unknown_party", "malformed"},
    "GET /v1/recipients": {"malformed"},
    "GET /v1/proxies": {"malformed"},
    "PUT /v1/patients/{did}/scope-keys": {"unauthenticated", "forbidden", "epoch_gap", "scope_key_exists"},
    "GET /v1/patients/{did}/scope-keys": {"unauthenticated", "forbidden", "unknown_party"},
    "GET /v1/log/checkpoint": {"not_in_log_yet"},
    "GET /v1/log/consistency": {"not_in_log_yet"},
    "POST /v1/log/inclusion": {"not_in_log_yet", "not_found", "malformed"},
    "GET /v1/log/entries": {"not_in_log_yet"},
    "POST /v1/oauth/token": {"invalid_client", "invalid_target", "unsupported_grant_type", "invalid_request"},
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build(settings_for("postgresql://nobody@127.0.0.1:1/nothing")).openapi()


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def request_schemas(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            yield name, resolved(document, content["schema"])


def assert_bounded(document: dict[str, Any], schema: dict[str, Any], place: str) -> None:
    schema = resolved(document, schema)
    for choice in schema.get("anyOf", []):
        assert_bounded(document, choice, place)
    kind = schema.get("type")
    if kind == "string":
        assert "maxLength" in schema or "enum" in schema, place
    elif kind == "integer":
        assert {"minimum", "maximum"} <= schema.keys(), place
    elif kind == "array":
        assert "maxItems" in schema, place
        assert_bounded(document, schema["items"], place)
    elif kind == "object":
        for name, member in schema.get("properties", {}).items():
            assert_bounded(document, member, f"{place}.{name}")


def test_the_routes_are_those_of_the_specification(document: dict[str, Any]) -> None:
    assert {name for name, _ in operations(document)} == CODES.keys() | {
        "GET /.well-known/jwks.json",
        "GET /.well-known/oauth-authorization-server",
        "GET /.well-known/pcehr",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
    }


def test_every_operation_declares_its_errors(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        said = " ".join(answer["description"] for answer in operation["responses"].values())
        assert "500" in operation["responses"], name
        if name.partition(" ")[2].startswith("/v1/"):
            wanted = CODES[name] | {"database_unavailable"}
            if "requestBody" in operation or operation.get("parameters"):
                wanted.add("invalid_request")
            if "requestBody" in operation:
                wanted.add("too_large")
            assert {code for code in wanted if f"`{code}`" not in said} == set(), name
        for status, answer in operation["responses"].items():
            if status[0] in "45":
                assert list(answer["content"]) == ["application/problem+json"], (name, status)


def test_every_parameter_and_request_is_bounded(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert_bounded(document, parameter["schema"], f"{name} {parameter['name']}")
        assert ("requestBody" in operation) == ("x-max-body-bytes" in operation), name
    for name, schema in request_schemas(document):
        assert_bounded(document, schema, name)


def test_every_request_schema_has_an_example_and_a_description(document: dict[str, Any]) -> None:
    found = list(request_schemas(document))
    assert len(found) == 7
    for name, schema in found:
        assert schema.get("examples"), name
        assert schema.get("description"), name


def test_every_operation_has_words_for_people(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    for name, operation in operations(document):
        assert operation["summary"], name
        assert set(operation["tags"]) <= tags, name
        if name.partition(" ")[2].startswith(("/v1/", "/.well-known/")):
            assert operation["description"], name
            for parameter in operation.get("parameters", []):
                assert parameter["description"], (name, parameter["name"])
    assert all(tag["description"] for tag in document["tags"])


def test_what_needs_a_token_has_a_padlock(document: dict[str, Any]) -> None:
    locked = {name for name, operation in operations(document) if operation.get("security")}
    assert locked == {"PUT /v1/patients/{did}/scope-keys", "GET /v1/patients/{did}/scope-keys"}
    assert document["components"]["securitySchemes"]["access token"]["scheme"] == "bearer"


def test_the_token_endpoint_takes_a_form(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/oauth/token"]["post"]["requestBody"]["content"]
    assert list(content) == ["application/x-www-form-urlencoded"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            for item in value.values():
                yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    for reference in references(document):
        assert reference.rpartition("/")[2] in document["components"]["schemas"], reference
