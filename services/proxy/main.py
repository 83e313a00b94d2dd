"""Composition root: `uvicorn --factory services.proxy.main:create`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from fastapi import FastAPI

from services.proxy import api
from services.proxy.arithmetic import Arithmetic
from services.proxy.enrolment import Enrolment
from services.proxy.errors import NotEnrolled
from services.proxy.figures import Figures
from services.proxy.housekeeping import keep_house
from services.proxy.identity import identity_from_seed
from services.proxy.models import Party
from services.proxy.repository import Repository
from services.proxy.service import ProxyService
from services.proxy.settings import ProxySettings
from services.proxy.witness import Witness
from shared.clock import Clock, system_clock
from shared.db.engine import Database
from shared.db.known_parties import DatabasePartyStore
from shared.db.log import Log
from shared.db.schema import newest_revision
from shared.encoding import from_b64url
from shared.errors import DatabaseUnavailable
from shared.log_publisher import Publisher
from shared.registry_client import PartyDirectory, TokenKeys, jwks_fetcher
from shared.web import log as log_routes
from shared.web.access import AccessTokens
from shared.web.app import create_app
from shared.web.background import keep_running
from shared.web.metrics import Metrics
from shared.web.rates import RequestRates
from shared.web.starting import settings_from_environment
from shared.web.tracing import service_client

DESCRIPTION = """
Holds one share of each grant that names it, and re-encrypts capsules with it for the recipient whom the patient chose.
Fewer than the threshold of proxies together can decrypt nothing. Everything with consequences is a signed statement.

To read what this proxy has noted of you, paste an access token for it (`pcehr token --service` and its id) under
*Authorize*.
"""


def create() -> FastAPI:
    """The app, with settings from the environment."""
    return build(settings_from_environment("proxy", ProxySettings))


def build(
    settings: ProxySettings, *, clock: Clock = system_clock, transport: httpx.AsyncBaseTransport | None = None
) -> FastAPI:
    """The app; `transport` stands in for the network towards the registry."""
    identity = identity_from_seed(from_b64url(settings.seed.get_secret_value(), 32))
    metrics = Metrics("proxy")
    rates = RequestRates(**settings.rates, refused=metrics.count_beyond)
    figures = Figures(metrics.registry)
    count_lookups = metrics.count_lookups()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            database = Database(
                settings.database_url.get_secret_value(),
                pool_size=settings.database_pool_size,
                application_name="pcehr-proxy",
                needs=newest_revision("proxy"),
            )
            stack.push_async_callback(database.dispose)
            metrics.watch_pool(lambda: database.pool_use)
            http = await stack.enter_async_context(
                service_client(settings.http_timeout_seconds, transport, **settings.peers)
            )
            arithmetic = Arithmetic(settings.workers, figures)
            stack.push_async_callback(arithmetic.close)
            await arithmetic.start()
            repository = Repository(database, max_shares=settings.max_shares_per_patient)
            enrolment = Enrolment(
                identity=identity,
                repository=repository,
                http=http,
                registry_url=settings.registry_url,
                endpoint=settings.endpoint,
                name=settings.name,
                clock=clock,
            )
            log = app.state.log = Log(database, key=identity.log_key, kind="proxy")
            publisher = Publisher(log, metrics=metrics.registry)
            service = app.state.service = ProxyService(
                identity=identity,
                repository=repository,
                directory=PartyDirectory(
                    http,
                    settings.registry_url,
                    DatabasePartyStore(database, Party),
                    cache_seconds=settings.party_cache_seconds,
                    count=count_lookups,
                ),
                arithmetic=arithmetic,
                enrolment=enrolment,
                figures=figures,
                clock=clock,
                kick=publisher.kick,
                charge=rates.charge,
            )
            app.state.access_tokens = AccessTokens(
                TokenKeys(jwks_fetcher(http, settings.registry_url)),
                issuer=settings.issuer,
                audience=identity.did,
                clock=clock,
            )
            witness = app.state.witness = Witness(
                identity=identity,
                repository=repository,
                http=http,
                registry_url=settings.registry_url,
                configured=settings.witnessed_logs,
                clock=clock,
            )
            for loop in (enrolment.run(), witness.learn(), publisher.run(), keep_house(service.prune)):
                keep_running(stack, loop)
            yield

    async def ready() -> None:
        service: ProxyService | None = getattr(app.state, "service", None)
        if service is None:
            raise NotEnrolled
        await service.ready()

    app = create_app(
        title="PCEHR proxy",
        description=DESCRIPTION,
        tags=[*api.TAGS, log_routes.TAG],
        routers=[api.router, log_routes.router],
        lifespan=lifespan,
        ready=ready,
        not_ready=(DatabaseUnavailable, NotEnrolled),
        body_limits=api.BODY_LIMITS | log_routes.BODY_LIMITS,
        metrics=metrics,
        rates=rates,
        forwarded_by=settings.forwarded_by,
    )
    return app
