"""Composition root of the registry: `uvicorn --factory services.registry.main:create`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from fastapi import FastAPI

from services.registry import api
from services.registry.service import Issuing, Registry
from services.registry.settings import Settings
from services.registry.witnesses import Witnesses
from shared.clock import Clock, system_clock
from shared.crypto.signing import VerifyKey
from shared.db.engine import Database
from shared.db.log import Log
from shared.db.schema import newest_revision
from shared.log_publisher import Publisher
from shared.registry_client import TokenKeys
from shared.tokens import key_thumbprint
from shared.transparency.checkpoints import origin_of
from shared.web import log as log_routes
from shared.web.access import AccessTokens
from shared.web.app import create_app
from shared.web.background import keep_running
from shared.web.metrics import Metrics
from shared.web.rates import RequestRates
from shared.web.starting import settings_from_environment
from shared.web.tracing import service_client
from shared.wire import REGISTRY_AUDIENCE


def create() -> FastAPI:
    """The app with settings from the environment."""
    return build(settings_from_environment("registry", Settings))


def build(
    settings: Settings, *, clock: Clock = system_clock, transport: httpx.AsyncBaseTransport | None = None
) -> FastAPI:
    """The app; the database is opened when it starts and closed when it stops. `transport` stands in for the network
    towards the proxies, which the registry calls as witnesses of its log and for nothing else."""
    metrics = Metrics("registry")
    rates = RequestRates(**settings.rates, refused=metrics.count_beyond)
    key = settings.signing_key
    published = api.Published(
        issuer=settings.issuer,
        public_url=settings.public_url,
        records_url=settings.records_url,
        threshold=settings.threshold,
        key=key.verify_key,
        registry_log=origin_of("registry", settings.log_key.verify_key),
        records_log=settings.records_log,
        witness_faults=settings.witness_faults,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            database = Database(
                settings.database_url.get_secret_value(),
                pool_size=settings.database_pool_size,
                application_name="pcehr-registry",
                needs=newest_revision("registry"),
            )
            stack.push_async_callback(database.dispose)
            metrics.watch_pool(lambda: database.pool_use)
            log = Log(database, key=settings.log_key, kind="registry")
            to_witnesses = await stack.enter_async_context(
                service_client(settings.http_timeout_seconds, transport, **settings.peers)
            )
            witnesses = Witnesses(database, settings.admitted_proxies)
            publisher = Publisher(log, to_witnesses, witnesses.now, metrics=metrics.registry)
            app.state.log = log
            app.state.service = Registry(
                database,
                issuing=Issuing(
                    key=key,
                    issuer=settings.issuer,
                    audiences=frozenset({published.token_endpoint, settings.issuer}),
                ),
                admitted=settings.admitted_proxies,
                clock=clock,
                kick=publisher.kick,
                max_scope_keys=settings.max_scope_keys_per_patient,
                charge=rates.charge,
                charge_sign_up=rates.charge_sign_up,
            )
            keep_running(stack, publisher.run())
            yield

    async def own_keys() -> dict[str, VerifyKey]:
        return {key_thumbprint(key.verify_key): key.verify_key}

    async def ready() -> None:
        service: Registry = app.state.service
        await service.check()

    app = create_app(
        title="PCEHR registry",
        description=api.DESCRIPTION,
        tags=[*api.TAGS, log_routes.TAG],
        routers=[api.router, api.tokens, log_routes.router, log_routes.entries_router],
        lifespan=lifespan,
        ready=ready,
        body_limits=api.BODY_LIMITS | log_routes.BODY_LIMITS,
        metrics=metrics,
        rates=rates,
        forwarded_by=settings.forwarded_by,
        token_before_body=["PUT /v1/"],
    )
    app.state.published = published
    app.state.access_tokens = AccessTokens(
        TokenKeys(own_keys), issuer=settings.issuer, audience=REGISTRY_AUDIENCE, clock=clock
    )
    return app
