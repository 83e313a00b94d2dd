"""Composition root of the registry: `uvicorn --factory services.registry.main:create`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.registry import api
from services.registry.service import Issuing, Registry
from services.registry.settings import Settings
from shared.clock import Clock, system_clock
from shared.crypto.signing import VerifyKey
from shared.db.engine import Database
from shared.registry_client import TokenKeys
from shared.tokens import key_thumbprint
from shared.web.access import AccessTokens
from shared.web.app import create_app
from shared.wire import REGISTRY_AUDIENCE


def create() -> FastAPI:
    """The app with settings from the environment."""
    return build(Settings())


def build(settings: Settings, *, clock: Clock = system_clock) -> FastAPI:
    """The app; the database is opened when it starts and closed when it stops. The registry calls no other service."""
    key = settings.signing_key
    published = api.Published(
        issuer=settings.issuer,
        public_url=settings.public_url,
        records_url=settings.records_url,
        threshold=settings.threshold,
        key=key.verify_key,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(
            settings.database_url.get_secret_value(),
            pool_size=settings.database_pool_size,
            application_name="pcehr-registry",
        )
        app.state.service = Registry(
            database,
            issuing=Issuing(
                key=key,
                issuer=settings.issuer,
                audiences=frozenset({published.token_endpoint, settings.issuer}),
            ),
            admitted=settings.admitted_proxies,
            clock=clock,
        )
        try:
            yield
        finally:
            await database.dispose()

    async def own_keys() -> dict[str, VerifyKey]:
        return {key_thumbprint(key.verify_key): key.verify_key}

    async def ready() -> None:
        service: Registry = app.state.service
        await service.check()

    app = create_app(
        title="PCEHR registry",
        description=api.DESCRIPTION,
        tags=api.TAGS,
        routers=[api.router, api.tokens],
        lifespan=lifespan,
        ready=ready,
        body_limits=api.BODY_LIMITS,
        token_before_body=["PUT /v1/"],
    )
    app.state.published = published
    app.state.access_tokens = AccessTokens(
        TokenKeys(own_keys), issuer=settings.issuer, audience=REGISTRY_AUDIENCE, clock=clock
    )
    return app
