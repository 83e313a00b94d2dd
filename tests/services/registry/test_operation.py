"""Running the registry: settings, what it says of itself, and a database that goes away."""

import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from client.embedded.postgres import EmbeddedPostgres
from services.registry import main
from services.registry.settings import Settings
from shared.db import migrate
from shared.encoding import b64url
from shared.tokens import jwk
from shared.wire import Role
from tests.services.registry.running import (
    LOG_ORIGIN,
    LOG_SEED,
    PUBLIC_URL,
    RECORDS_LOG,
    SIGNING_SEED,
    TOKEN_KEY,
    RunningRegistry,
    assert_problem,
    running,
    settings_for,
)
from tests.services.signing_parties import TestClock, TestParty


async def test_the_models_are_what_the_migrations_make(database_url: str) -> None:
    await migrate.check_models("registry", database_url)


async def test_the_keys_are_published(registry: RunningRegistry) -> None:
    assert (await registry.http.get("/.well-known/jwks.json")).json() == {"keys": [jwk(TOKEN_KEY)]}


async def test_the_metadata_of_the_authorization_server(registry: RunningRegistry) -> None:
    assert (await registry.http.get("/.well-known/oauth-authorization-server")).json() == {
        "issuer": PUBLIC_URL,
        "token_endpoint": f"{PUBLIC_URL}/v1/oauth/token",
        "jwks_uri": f"{PUBLIC_URL}/.well-known/jwks.json",
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["EdDSA"],
    }


async def test_the_platform_is_described(registry: RunningRegistry) -> None:
    assert (await registry.http.get("/.well-known/pcehr")).json() == {
        "issuer": PUBLIC_URL,
        "token_endpoint": f"{PUBLIC_URL}/v1/oauth/token",
        "jwks_uri": f"{PUBLIC_URL}/.well-known/jwks.json",
        "records_url": "https://records.example",
        "threshold": 2,
        "registry_log": LOG_ORIGIN,
        "records_log": RECORDS_LOG,
        "witness_faults": 0,
    }


async def test_health_and_readiness(registry: RunningRegistry) -> None:
    assert (await registry.http.get("/healthz")).status_code == 204
    assert (await registry.http.get("/readyz")).status_code == 204


async def test_no_log_and_no_figure_names_a_party(
    registry: RunningRegistry, patient: TestParty, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await registry.publish(patient, patient.scope_key("allergies"))
        await registry.rotate(patient, "a" * 200)
    shown = caplog.text + (await registry.http.get("/metrics")).text
    # asyncpg and the engine are quiet; httpx, on the client's side of the test, logs addresses.
    shown = "\n".join(line for line in shown.splitlines() if "httpx" not in line)
    assert patient.did not in shown
    assert patient.entries[0] not in shown


async def test_postgres_away_is_503_with_retry_after_and_the_registry_recovers(
    postgres_dir: Path, clock: TestClock
) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        await server.create_role_and_database("registry", "secret")
        url = server.url_for("registry", "secret")
        await migrate.upgrade("registry", url)
        async with running(settings_for(url), clock) as registry:
            patient = await registry.registered(Role.PATIENT)
            headers = await registry.headers(patient)
            newcomer = TestParty(Role.RECIPIENT)
            key = patient.scope_key("allergies")
            assertion = registry.assertion(patient)
            await server.stop()

            away = [
                await registry.sign_up(newcomer),
                await registry.rotate(patient, patient.next_entry()),
                await registry.http.get(f"/v1/parties/{patient.did}"),
                await registry.http.get("/v1/recipients"),
                await registry.http.get("/v1/proxies"),
                await registry.publish(patient, key, headers=headers),
                await registry.http.get(f"/v1/patients/{patient.did}/scope-keys", headers=headers),
                await registry.http.get("/readyz"),
                await registry.post_token(assertion),
            ]
            for response in away:
                assert_problem(response, 503, "database_unavailable")
                assert response.headers["retry-after"] == "2"
            assert away[-1].json()["error"] == "temporarily_unavailable"
            # What needs no database goes on.
            assert (await registry.http.get("/healthz")).status_code == 204
            assert (await registry.http.get("/.well-known/jwks.json")).status_code == 200

            await server.start()
            assert (await registry.http.get("/readyz")).status_code == 204
            assert (await registry.sign_up(newcomer)).status_code == 201
            assert (await registry.publish(patient, key, headers=headers)).status_code == 200
            assert (await registry.post_token(assertion)).status_code == 200


async def test_connections_that_were_cut_are_replaced(registry: RunningRegistry, patient: TestParty) -> None:
    await registry.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert (await registry.http.get(f"/v1/parties/{patient.did}")).status_code == 200


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("PCEHR_DATABASE_URL", "PCEHR_TOKEN_SIGNING_KEY", "PCEHR_ADMITTED_PROXIES", "PCEHR_SECRETS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return monkeypatch


@pytest.mark.usefixtures("logging_as_before")
def test_settings_come_from_the_environment(environment: pytest.MonkeyPatch, admitted_proxy: TestParty) -> None:
    other = TestParty(Role.PROXY)
    environment.setenv("PCEHR_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    environment.setenv("PCEHR_TOKEN_SIGNING_KEY", b64url(SIGNING_SEED))
    environment.setenv("PCEHR_LOG_SIGNING_KEY", b64url(LOG_SEED))
    environment.setenv("PCEHR_RECORDS_LOG", RECORDS_LOG)
    environment.setenv("PCEHR_ADMITTED_PROXIES", f"{admitted_proxy.did}, {other.did},")
    environment.setenv("PCEHR_PUBLIC_URL", "https://registry.example/")
    settings = Settings()
    assert settings.admitted_proxies == {admitted_proxy.did, other.did}
    assert settings.issuer == "https://registry.example"
    assert (settings.records_url, settings.threshold) == ("http://127.0.0.1:8401", 2)
    assert b64url(SIGNING_SEED) not in repr(settings)
    # Nothing connects before the app starts.
    assert main.create().title == "PCEHR registry"


def test_nobody_is_admitted_by_default(environment: pytest.MonkeyPatch) -> None:
    assert settings_for("postgresql://nobody@127.0.0.1:1/nothing", admitted=[]).admitted_proxies == frozenset()


@pytest.mark.parametrize("missing", ["PCEHR_DATABASE_URL", "PCEHR_TOKEN_SIGNING_KEY", "PCEHR_LOG_SIGNING_KEY"])
def test_a_secret_has_no_default(environment: pytest.MonkeyPatch, missing: str) -> None:
    environment.setenv("PCEHR_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    environment.setenv("PCEHR_TOKEN_SIGNING_KEY", b64url(SIGNING_SEED))
    environment.setenv("PCEHR_LOG_SIGNING_KEY", b64url(LOG_SEED))
    environment.setenv("PCEHR_RECORDS_LOG", RECORDS_LOG)
    environment.delenv(missing)
    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"token_signing_key": "a-secret-that-is-too-short"}, id="a-key-of-another-size"),
        pytest.param({"admitted_proxies": "did:web:proxy.example"}, id="a-proxy-that-is-no-did-key"),
        pytest.param({"public_url": "registry.example"}, id="an-address-without-scheme"),
        pytest.param({"threshold": 0}, id="a-threshold-of-none"),
    ],
)
def test_settings_that_do_not_fit_are_refused_without_showing_them(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        settings_for("postgresql://nobody@127.0.0.1:1/nothing", **changes)
    assert "a-secret-that-is-too-short" not in str(caught.value)
