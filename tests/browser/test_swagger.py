"""Swagger UI of each service as a person uses it: open the page, authorize, execute a call, read the answer."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from client.embedded.platform import EmbeddedPlatform
from client.keyring import Keyring
from shared import statements, wire
from shared.encoding import b64url, sha256
from shared.schemas.examples import example
from shared.wire import RECORDS_AUDIENCE, REGISTRY_AUDIENCE
from tests.browser.chromium import Page
from tests.browser.swagger import SwaggerPage
from tests.e2e.actors import Actor, ActorMaker, granted, note
from tests.examples.generate import ExampleParty

pytestmark = pytest.mark.browser
SERVICES = ("registry", "records", "proxy-1")
ENDLESS = "get /v1/me/events"
"""A stream, which Swagger UI waits for the end of."""


async def opened(page: Page, platform: EmbeddedPlatform, service: str) -> SwaggerPage:
    return await SwaggerPage.of(page, platform.urls[service])


async def openapi(swagger: SwaggerPage) -> dict[str, Any]:
    """The document that the page was drawn from."""
    document: dict[str, Any] = await swagger.page.value("fetch('/openapi.json').then(answer => answer.json())")
    return document


async def token_of(actor: Actor, platform: EmbeddedPlatform, service: str) -> str:
    audience = {"registry": REGISTRY_AUDIENCE, "records": RECORDS_AUDIENCE}.get(service) or platform.proxy_dids[service]
    return await actor.session.platform.token(await actor.session.credentials(), audience)


@pytest.mark.parametrize("service", SERVICES)
async def test_the_page_shows_every_operation_and_asks_nobody_else(
    page: Page, platform: EmbeddedPlatform, service: str
) -> None:
    swagger = await opened(page, platform, service)
    document = await openapi(swagger)
    declared = {f"{method} {path}" for path, ways in document["paths"].items() for method in ways}
    shown = await swagger.operations()
    assert sorted(shown) == sorted(declared)
    assert await swagger.page.value("document.title") == f"PCEHR {service.removesuffix('-1')} - Swagger UI"
    swagger.assert_clean()


@pytest.mark.parametrize("service", SERVICES)
async def test_not_even_a_script_on_the_page_can_ask_another_host(
    page: Page, platform: EmbeddedPlatform, service: str
) -> None:
    # The page may have been given something bad to show; the policy it is served with holds all the same.
    swagger = await opened(page, platform, service)
    other = next(url for name, url in platform.urls.items() if name != service)
    fetched = f"fetch('{other}/healthz', {{mode: 'no-cors'}}).then(() => 'an answer', () => 'refused')"
    assert await swagger.page.value(fetched) == "refused"
    assert any("Content Security Policy" in error for error in swagger.page.errors)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_call_with_a_token(page: Page, platform: EmbeddedPlatform, make: ActorMaker, service: str) -> None:
    alice = await make.patient()
    await alice.patient.add_records([note("no known allergies", title="Allergies")])
    await granted(alice, await make.recipient(), scopes=["allergies"])
    swagger = await opened(page, platform, service)
    await swagger.authorize(await token_of(alice, platform, service))
    match service:
        case "registry":
            answer = await swagger.execute("get /v1/patients/{did}/scope-keys", did=alice.did)
        case "records":
            answer = await swagger.execute("get /v1/me/records")
        case _:
            answer = await swagger.execute("get /v1/audit")
    assert answer.status == 200
    assert json.loads(answer.body)["items"]
    swagger.assert_clean()


@pytest.mark.parametrize("kind", ["patient", "recipient"])
async def test_the_example_of_a_sign_up_can_be_posted_as_it_stands(
    page: Page, platform: EmbeddedPlatform, kind: str
) -> None:
    swagger = await opened(page, platform, "registry")
    first = await swagger.execute(f"post /v1/{kind}s")
    assert first.status == 201
    assert json.loads(first.body)["did"] == example(f"{kind}_did")
    # Whoever presses the button again, or comes after somebody who did, sees the same.
    again = await swagger.execute(f"post /v1/{kind}s")
    assert (again.status, again.body) == (201, first.body)
    found = await swagger.execute("get /v1/parties/{did}", did=example(f"{kind}_did"))
    assert found.status == 200
    # The chain grows when somebody posts the example of a later entry, too; its beginning stays.
    assert json.loads(found.body)["entries"][0] == json.loads(first.body)["entries"][0]
    swagger.assert_clean()


async def test_a_body_of_ones_own_can_be_posted(page: Page, platform: EmbeddedPlatform) -> None:
    keyring = Keyring.generate()
    entry = statements.KeyEntry(
        iss=keyring.did,
        aud=REGISTRY_AUDIENCE,
        iat=1_790_000_000,
        jti=b64url(sha256(keyring.did.encode())[:16]),
        role=wire.Role.RECIPIENT,
        seq=0,
        prev=None,
        identity_key=keyring.identity(0).verify_key.b64,
        verifying_key=keyring.signer(0).verifying_key().b64,
        receiving_key=keyring.receiving(0).public_key().b64,
        name="Demo Practice",
    )
    swagger = await opened(page, platform, "registry")
    token = statements.sign(entry, keyring.identity(0))
    answer = await swagger.execute("post /v1/recipients", body=json.dumps({"key_entry": token}))
    assert answer.status == 201
    assert json.loads(answer.body)["did"] == keyring.did
    swagger.assert_clean()


async def test_a_write_that_needs_a_token(page: Page, platform: EmbeddedPlatform, make: ActorMaker) -> None:
    # The seed of the example patient is public, so that its example can be posted with a token as well.
    patient = await make.blank(Keyring(ExampleParty(0xA1, wire.Role.PATIENT).seed))
    assert patient.did == example("patient_did")
    swagger = await opened(page, platform, "registry")
    assert (await swagger.execute("post /v1/patients")).status == 201
    refused = await swagger.execute("put /v1/patients/{did}/scope-keys", did=patient.did)
    assert refused.status == 401
    await swagger.authorize(await token_of(patient, platform, "registry"))
    answer = await swagger.execute("put /v1/patients/{did}/scope-keys")
    assert answer.status == 200
    assert json.loads(answer.body)["items"] == [example("scope_key")]
    assert swagger.page.strangers(swagger.url) == set()


async def test_a_file_can_be_uploaded(page: Page, platform: EmbeddedPlatform, make: ActorMaker, tmp_path: Path) -> None:
    body = secrets.token_bytes(100_000)
    file = tmp_path / "ciphertext"
    file.write_bytes(body)
    swagger = await opened(page, platform, "records")
    await swagger.authorize(await token_of(await make.patient(), platform, "records"))
    answer = await swagger.execute("put /v1/blobs/{sha256}", sha256=b64url(sha256(body)), file=file)
    assert answer.status == 201
    assert json.loads(answer.body) == {"sha256": b64url(sha256(body)), "size": len(body)}
    swagger.assert_clean()


async def test_a_token_of_another_service_is_refused(page: Page, platform: EmbeddedPlatform, make: ActorMaker) -> None:
    swagger = await opened(page, platform, "records")
    await swagger.authorize(await token_of(await make.patient(), platform, "registry"))
    assert (await swagger.execute("get /v1/me/records")).status == 401


async def test_without_a_token_the_page_shows_a_refusal_with_a_trace_to_quote(
    page: Page, platform: EmbeddedPlatform
) -> None:
    swagger = await opened(page, platform, "records")
    answer = await swagger.execute("get /v1/me/records")
    assert answer.status == 401
    problem = json.loads(answer.body)
    assert problem["code"] == "unauthenticated"
    assert problem["trace_id"]
    assert "x-request-id" in answer.text


@pytest.mark.parametrize("service", SERVICES)
async def test_every_operation_answers_what_the_page_says_it_may_answer(
    page: Page, platform: EmbeddedPlatform, make: ActorMaker, service: str, tmp_path: Path
) -> None:
    """Each with the examples of the page, unedited; the token is that of somebody whom the examples do not concern."""
    stranger = await make.patient()
    swagger = await opened(page, platform, service)
    await swagger.authorize(await token_of(stranger, platform, service))
    document = await openapi(swagger)
    empty = tmp_path / "empty"
    empty.touch()
    for operation in await swagger.operations():
        if operation == ENDLESS:
            continue
        method, path = operation.split(" ")
        declared = document["paths"][path][method]
        uploads = "application/octet-stream" in declared.get("requestBody", {}).get("content", {})
        answer = await swagger.execute(operation, file=empty if uploads else None, **_examples(document, declared))
        assert answer.status < 500, operation
        assert "Undocumented" not in answer.text, (operation, answer)
        await swagger.fold(operation)
    assert swagger.page.strangers(swagger.url) == set()


async def test_an_answer_that_the_document_lacks_would_be_noticed(page: Page, platform: EmbeddedPlatform) -> None:
    swagger = await opened(page, platform, "records")
    document = await openapi(swagger)
    del document["paths"]["/v1/me/records"]["get"]["responses"]["401"]
    await page.value(f"void ui.getSystem().specActions.updateJsonSpec({json.dumps(document)})")
    answer = await swagger.execute("get /v1/me/records")
    assert answer.status == 401
    assert "Undocumented" in answer.text


def _examples(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, str]:
    """A value for each parameter that must be given, from the document itself."""
    values = {}
    for parameter in operation.get("parameters", []):
        if parameter["required"]:
            schema = parameter["schema"]
            if "$ref" in schema:
                schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            values[parameter["name"]] = str((schema.get("examples") or schema["enum"])[0])
    return values
