"""Composition root of the records service: `uvicorn --factory services.records.main:create`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
from fastapi import FastAPI

from services.records import api
from services.records.blobs import open_store
from services.records.models import Party
from services.records.outbox import Milliseconds, Outbox, Pace, system_milliseconds
from services.records.proxies import Proxies
from services.records.repository import Store
from services.records.service import RecordsService
from services.records.service.bodies import Bodies
from services.records.service.consents import Consents
from services.records.service.disclosures import Disclosures
from services.records.service.reading import Reading
from services.records.service.statements import Statements
from services.records.service.writing import Writing
from services.records.settings import Settings
from shared.clock import Clock, system_clock
from shared.db.engine import Database
from shared.db.known_parties import DatabasePartyStore
from shared.errors import DatabaseUnavailable
from shared.registry_client import PartyDirectory, TokenKeys, jwks_fetcher
from shared.web.access import AccessTokens
from shared.web.app import create_app
from shared.wire import RECORDS_AUDIENCE


def create() -> FastAPI:
    """The app with settings from the environment."""
    return build(Settings())


def build(
    settings: Settings,
    *,
    clock: Clock = system_clock,
    milliseconds: Milliseconds = system_milliseconds,
    transport: httpx.AsyncBaseTransport | None = None,
) -> FastAPI:
    """The app; `transport` stands in for the network towards the registry and the proxies, `clock` for the time and
    `milliseconds` for that of the outbox's leases and pauses."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            database = Database(
                settings.database_url.get_secret_value(),
                pool_size=settings.database_pool_size,
                application_name="pcehr-records",
            )
            stack.push_async_callback(database.dispose)
            http = await stack.enter_async_context(
                httpx.AsyncClient(timeout=settings.http_timeout_seconds, transport=transport)
            )
            store = Store(database)
            directory = PartyDirectory(
                http,
                settings.registry_url,
                DatabasePartyStore(database, Party),
                cache_seconds=settings.party_cache_seconds,
            )
            proxies = Proxies(http, directory, timeout_seconds=settings.proxy_timeout_seconds)
            outbox = Outbox(store, proxies, _pace(settings), clock=clock, milliseconds=milliseconds)
            statements = Statements(store, directory, clock)
            app.state.database = database
            app.state.service = RecordsService(
                writing=Writing(statements),
                reading=Reading(store, clock),
                bodies=Bodies(store, open_store(settings.blob_dir, settings.blob_url), clock),
                consents=Consents(statements, outbox.kick),
                disclosures=Disclosures(statements, proxies, hedge_seconds=settings.hedge_seconds),
            )
            app.state.access_tokens = AccessTokens(
                TokenKeys(jwks_fetcher(http, settings.registry_url)),
                issuer=settings.issuer,
                audience=RECORDS_AUDIENCE,
                clock=clock,
            )
            app.state.outbox = outbox
            if settings.outbox_enabled:
                stack.push_async_callback(_end, asyncio.create_task(outbox.run()))
            yield

    async def ready() -> None:
        database: Database | None = getattr(app.state, "database", None)
        if database is None:
            raise DatabaseUnavailable
        await database.check()

    app = create_app(
        title="PCEHR records",
        description=api.DESCRIPTION,
        tags=api.TAGS,
        routers=[api.router],
        lifespan=lifespan,
        ready=ready,
        body_limits=api.body_limits(settings.max_blob_bytes),
    )
    return app


def _pace(settings: Settings) -> Pace:
    return Pace(
        poll=settings.outbox_poll_seconds,
        first_backoff=settings.outbox_first_backoff_seconds,
        max_backoff=settings.outbox_max_backoff_seconds,
        # Twice the most that a delivery takes: looking the proxy up, and asking it.
        lease=2 * (settings.http_timeout_seconds + settings.proxy_timeout_seconds),
    )


async def _end(task: asyncio.Task[None]) -> None:
    """Stop the worker; what it was delivering is delivered again when its lease has ended."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
