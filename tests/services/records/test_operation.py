"""What an operator sees: outages, readiness, migrations, the OpenAPI document, and what a stolen database tells."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import httpx
import pytest

from client.embedded.postgres import EmbeddedPostgres
from services.records.models import Base
from services.records.settings import Settings
from shared.db import migrate
from shared.encoding import b64url, from_b64url
from shared.wire import Action
from tests.conftest import FreshDatabases
from tests.services.records.world import World, refused
from tests.services.signing_parties import id_of


async def test_health_and_readiness(world: World) -> None:
    assert (await world.http.get("/healthz")).status_code == 204
    assert (await world.http.get("/readyz")).status_code == 204
    assert "pcehr_http_requests_total" in (await world.http.get("/metrics")).text


async def test_the_migrations_make_what_the_models_say(fresh_database: FreshDatabases) -> None:
    await migrate.check_models("records", await fresh_database("records"))


async def test_database_unavailable_and_recovery(postgres_dir: Path, tmp_path: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        await server.create_role_and_database("records", "a-password")
        url = server.url_for("records", "a-password")
        await migrate.upgrade("records", url)
        world = World(url, tmp_path / "blobs")
        async with world.running():
            record = await world.written()
            grant = await world.granted()
            await server.stop()
            another = world.patient.record(world.patient, "allergies")
            for response in (
                await world.post("/v1/records", world.patient, {"records": [another.as_json()]}),
                await world.get("/v1/me/records", world.patient),
                await world.disclose(world.wanting(grant, record)),
                await world.post(
                    "/v1/revocations", world.patient, {"statement": world.patient.revocation(world.doctor, grant.id)}
                ),
                await world.http.get("/readyz"),
            ):
                refused(response, 503, "database_unavailable")
                assert int(response.headers["retry-after"]) > 0
            # The proxies keep their answers by statement, so asking again after the outage is the same request.
            await server.start()
            await world.write(world.patient, another)
            assert (await world.disclose(world.wanting(grant, record))).status_code == 200
            # The outbox has outlived the outage as well.
            await world.granted()


async def test_a_dump_tells_no_content_no_title_and_no_name_of_a_scope(world: World) -> None:
    """Every cell of every table, as text and as bytes, encoded or not."""
    needles = ["NeedleContent", "NeedleTitle", "needle-scope", "NeedleReason"]
    record = await world.written("needle-scope", content=b"NeedleContent", title="NeedleTitle")
    request = world.doctor.disclosure_request(world.patient, ["needle-scope"], reason="NeedleReason")
    await world.post("/v1/disclosure-requests", world.doctor, {"statement": request})
    grant = await world.granted(["needle-scope"], request=id_of(request))
    assert (await world.disclose(world.wanting(grant, record))).status_code == 200
    append = await world.may_write(Action.APPEND, scopes=["needle-scope"])
    await world.revoke(append.id, [("needle-scope", 1)])
    secrets = [bytes(kfrag) for kfrags in grant.kfrags.values() for kfrag in kfrags]
    cells = 0
    for table in Base.metadata.tables:
        for row in await world.sql(f"SELECT * FROM {table}"):
            for cell in row.values():
                cells += 1
                for part in _readable(cell):
                    assert not [needle for needle in needles if needle.lower().encode() in part.lower()]
                    assert not [secret for secret in secrets if secret in part]
    assert cells > 100


def _readable(cell: object) -> list[bytes]:
    """A cell as bytes, and what the statements in it say."""
    found = []
    for item in cell if isinstance(cell, list) else [cell]:
        found.append(item if isinstance(item, bytes) else str(item).encode())
        if isinstance(item, str) and item.startswith("eyJ"):
            found += [from_b64url(part) for part in item.split(".")]
            claims = json.loads(found[-2])
            found += [from_b64url(claims["sealed"])] if "sealed" in claims else []
    return found


async def test_no_cookie_is_kept_of_the_registrys_or_a_proxys(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str | None] = []
    bring = world.network.handle_async_request

    async def setting_cookies(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("cookie"))
        response = await bring(request)
        response.headers["set-cookie"] = "trace=1; Path=/"
        return response

    monkeypatch.setattr(world.network, "handle_async_request", setting_cookies)
    record = await world.written()
    grant = await world.granted()
    for _ in range(2):
        assert (await world.disclose(world.wanting(grant, record))).status_code == 200
    assert len(sent) > 10
    assert set(sent) == {None}


async def test_logs_hold_no_id_and_no_statement(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="pcehr")
    world.proxies[0].status = 422
    record = await world.written()
    grant = await world.give(world.signed_grant())
    await world.until_state(grant.id, "active")
    await world.disclose(world.wanting(grant, record))
    own = "".join(entry.getMessage() for entry in caplog.records if entry.name.startswith("pcehr"))
    for secret in (world.patient.did, world.doctor.did, grant.id, record.id, record.record, "eyJ"):
        assert secret not in own


def test_a_setting_that_is_a_secret_has_no_default_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PCEHR_DATABASE_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("PCEHR_LOG_SIGNING_KEY", raising=False)
    with pytest.raises(ValueError, match="PCEHR_DATABASE_URL"):
        Settings()
    monkeypatch.setenv("PCEHR_DATABASE_URL", "postgresql://records:a-password@db/records")
    with pytest.raises(ValueError, match="log_signing_key"):
        Settings()
    key = b64url(b"a log's key with thirty-two octe")
    monkeypatch.setenv("PCEHR_LOG_SIGNING_KEY", key)
    shown = repr(Settings())
    assert "a-password" not in shown
    assert key not in shown


# The OpenAPI document


def operations(world: World) -> list[tuple[str, str, dict]]:
    paths = world.app.openapi()["paths"]
    return [(path, method, operation) for path, ways in paths.items() for method, operation in ways.items()]


async def test_every_route_of_the_specification_is_there(world: World) -> None:
    assert {(method.upper(), path) for path, method, _ in operations(world) if path.startswith("/v1")} == {
        ("POST", "/v1/records"),
        ("GET", "/v1/me/records"),
        ("GET", "/v1/me/events"),
        ("POST", "/v1/me/audit/erasures"),
        ("GET", "/v1/log/checkpoint"),
        ("GET", "/v1/log/consistency"),
        ("POST", "/v1/log/inclusion"),
        ("GET", "/v1/records"),
        ("GET", "/v1/records/{record}"),
        ("GET", "/v1/records/{record}/history"),
        ("PUT", "/v1/blobs/{sha256}"),
        ("GET", "/v1/blobs/{sha256}"),
        ("POST", "/v1/disclosure-requests"),
        ("GET", "/v1/disclosure-requests"),
        ("POST", "/v1/denials"),
        ("POST", "/v1/grants"),
        ("GET", "/v1/grants"),
        ("GET", "/v1/grants/{grant}"),
        ("POST", "/v1/revocations"),
        ("POST", "/v1/disclosures"),
        ("GET", "/v1/me/audit"),
    }


async def test_every_operation_declares_its_errors_and_its_token(world: World) -> None:
    for path, method, operation in operations(world):
        if not path.startswith("/v1"):
            continue
        assert {"500", "503"} <= operation["responses"].keys(), (method, path)
        # What the log says tells nothing to whom has not been told, so that everybody may watch it.
        public = path.startswith("/v1/log/")
        assert ("401" in operation["responses"]) is not public, (method, path)
        assert operation.get("security") == (None if public else [{"access token": []}]), (method, path)
        assert operation["summary"]
        assert operation["tags"]
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (method, path, status)


async def test_every_body_has_a_bound_and_an_example(world: World) -> None:
    document = world.app.openapi()
    for path, method, operation in operations(world):
        if "requestBody" not in operation:
            continue
        assert operation["x-max-body-bytes"] > 0
        assert "413" in operation["responses"], (method, path)
        for content in operation["requestBody"]["content"].values():
            name = content["schema"].get("$ref", "").rpartition("/")[2]
            assert "example" in content or document["components"]["schemas"][name]["examples"], (method, path)


async def test_every_list_and_parameter_has_a_bound(world: World) -> None:
    document = world.app.openapi()
    for _, _, operation in operations(world):
        for parameter in operation.get("parameters", []):
            text = json.dumps(parameter["schema"])
            bounded = any(word in text for word in ("maxLength", "maximum", "boolean", "pattern", "enum", "$ref"))
            assert bounded, parameter["name"]
    used = json.dumps([operation.get("responses") for _, _, operation in operations(world)])
    for name, schema in document["components"]["schemas"].items():
        for field, details in schema.get("properties", {}).items():
            if details.get("type") == "array" and (name in used or name.endswith("In")) and name != "Problem":
                assert "maxItems" in details, (name, field)
