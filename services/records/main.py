"""Composition root of the records service: `uvicorn --factory services.records.main:create`."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from fastapi import FastAPI

from services.records import api
from services.records.blobs import ABANDONED_AFTER, BlobStore, BlobStoreUnavailable, open_store
from services.records.figures import Figures, OutboxFigures
from services.records.models import Party
from services.records.outbox import Milliseconds, Outbox, Pace, system_milliseconds
from services.records.proxies import Proxies
from services.records.repository import Store
from services.records.repository.notices import CHANNEL
from services.records.service import RecordsService
from services.records.service.bodies import Bodies
from services.records.service.consents import Consents
from services.records.service.disclosures import Disclosures
from services.records.service.notices import Housekeeping, NoticeStreams
from services.records.service.reading import Reading
from services.records.service.statements import Statements
from services.records.service.writing import Writing
from services.records.settings import Settings
from services.records.witnesses import Witnesses
from shared.clock import Clock, system_clock
from shared.db.engine import Database
from shared.db.known_parties import DatabasePartyStore
from shared.db.listener import Listener
from shared.db.log import Log
from shared.db.schema import newest_revision
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
from shared.wire import RECORDS_AUDIENCE

log = logging.getLogger("pcehr.records")


def create() -> FastAPI:
    """The app with settings from the environment."""
    return build(settings_from_environment("records", Settings))


def build(
    settings: Settings,
    *,
    clock: Clock = system_clock,
    milliseconds: Milliseconds = system_milliseconds,
    transport: httpx.AsyncBaseTransport | None = None,
) -> FastAPI:
    """The app; `transport` stands in for the network towards the registry and the proxies, `clock` for the time and
    `milliseconds` for that of the outbox's leases and pauses."""
    metrics = Metrics("records")
    rates = RequestRates(**settings.rates, refused=metrics.count_beyond)
    figures = Figures(metrics.registry)
    outbox_figures = OutboxFigures(metrics.registry, clock)
    metrics.read_before(outbox_figures)
    count_lookups = metrics.count_lookups()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            database = Database(
                settings.database_url.get_secret_value(),
                pool_size=settings.database_pool_size,
                application_name="pcehr-records",
                needs=newest_revision("records"),
            )
            stack.push_async_callback(database.dispose)
            metrics.watch_pool(lambda: database.pool_use)
            # Two pools: proxies that take their time cannot use up the connections to the registry.
            to_registry = await stack.enter_async_context(
                service_client(settings.http_timeout_seconds, transport, **settings.peers)
            )
            to_proxies = await stack.enter_async_context(
                service_client(settings.proxy_timeout_seconds, transport, **settings.peers)
            )
            directory = PartyDirectory(
                to_registry,
                settings.registry_url,
                DatabasePartyStore(database, Party),
                cache_seconds=settings.party_cache_seconds,
                count=count_lookups,
            )
            app.state.log = Log(database, key=settings.log_key, kind="records")
            witnesses = Witnesses(to_registry, settings.registry_url, directory)
            publisher = Publisher(app.state.log, to_proxies, witnesses.now, metrics=metrics.registry)
            store = Store(database, publisher.kick, settings.limits.bounds)
            outbox_figures.watch(store)
            blobs = open_store(settings.blob_dir, settings.blob_url)
            proxies = Proxies(to_proxies, directory, figures, timeout_seconds=settings.proxy_timeout_seconds)
            outbox = Outbox(store, proxies, _pace(settings), figures, clock=clock, milliseconds=milliseconds)
            statements = Statements(store, directory, clock)
            listener = Listener(
                settings.database_url.get_secret_value(), CHANNEL, application_name="pcehr-records-listener"
            )
            notices = NoticeStreams(store, listener, clock)
            app.state.database = database
            app.state.service = RecordsService(
                writing=Writing(statements),
                reading=Reading(statements),
                bodies=Bodies(store, blobs, clock, max_bytes=settings.max_blob_bytes),
                consents=Consents(statements, outbox.kick),
                disclosures=Disclosures(statements, proxies, hedge_seconds=settings.hedge_seconds),
                notices=notices,
            )
            app.state.access_tokens = AccessTokens(
                TokenKeys(jwks_fetcher(to_registry, settings.registry_url)),
                issuer=settings.issuer,
                audience=RECORDS_AUDIENCE,
                clock=clock,
            )
            app.state.outbox = outbox
            if settings.outbox_enabled:
                keep_running(stack, outbox.run())
            for work in (_sweep(blobs), listener.run(), Housekeeping(store, clock).run(), publisher.run()):
                keep_running(stack, work)
            yield

    async def ready() -> None:
        database: Database | None = getattr(app.state, "database", None)
        if database is None:
            raise DatabaseUnavailable
        await database.check()

    app = create_app(
        title="PCEHR records",
        description=api.DESCRIPTION,
        tags=[*api.TAGS, log_routes.TAG],
        routers=[api.router, log_routes.router],
        lifespan=lifespan,
        ready=ready,
        body_limits=api.body_limits(settings.max_blob_bytes) | log_routes.BODY_LIMITS,
        metrics=metrics,
        rates=rates,
        forwarded_by=settings.forwarded_by,
        token_before_body=["POST /v1/", "PUT /v1/"],
    )
    return app


async def _sweep(blobs: BlobStore) -> None:
    """Remove what uploads left behind when a process was killed; the next start does what this one could not."""
    try:
        await blobs.sweep(time.time() - ABANDONED_AFTER)
    except BlobStoreUnavailable:
        log.warning("the blob store is away; abandoned uploads stay until the next start")


def _pace(settings: Settings) -> Pace:
    # Looking the proxy up, and asking it.
    whole = settings.http_timeout_seconds + settings.proxy_timeout_seconds
    return Pace(
        poll=settings.outbox_poll_seconds,
        first_backoff=settings.outbox_first_backoff_seconds,
        max_backoff=settings.outbox_max_backoff_seconds,
        whole=whole,
        lease=2 * whole,
    )
