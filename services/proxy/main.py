"""Composition root: `uvicorn --factory services.proxy.main:create`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
from fastapi import FastAPI

from services.proxy import api
from services.proxy.arithmetic import Arithmetic
from services.proxy.enrolment import Enrolment
from services.proxy.errors import NotEnrolled
from services.proxy.housekeeping import keep_house
from services.proxy.identity import identity_from_seed
from services.proxy.models import Party
from services.proxy.repository import Repository
from services.proxy.service import ProxyService
from services.proxy.settings import ProxySettings
from shared.clock import Clock, system_clock
from shared.db.engine import Database
from shared.db.known_parties import DatabasePartyStore
from shared.encoding import from_b64url
from shared.registry_client import PartyDirectory, TokenKeys, jwks_fetcher
from shared.web.access import AccessTokens
from shared.web.app import create_app

DESCRIPTION = """
Holds one share of each grant that names it, and re-encrypts capsules with it for the recipient whom the patient chose.
Fewer than the threshold of proxies together can decrypt nothing. Everything with consequences is a signed statement.
"""


def create() -> FastAPI:
    """The app, with settings from the environment."""
    return build(ProxySettings())


def build(
    settings: ProxySettings, *, clock: Clock = system_clock, transport: httpx.AsyncBaseTransport | None = None
) -> FastAPI:
    """The app; `transport` stands in for the network towards the registry."""
    identity = identity_from_seed(from_b64url(settings.seed.get_secret_value(), 32))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            database = Database(
                settings.database_url.get_secret_value(),
                pool_size=settings.database_pool_size,
                application_name="pcehr-proxy",
            )
            stack.push_async_callback(database.dispose)
            http = await stack.enter_async_context(
                httpx.AsyncClient(
                    timeout=settings.http_timeout_seconds,
                    transport=transport,
                    # Nobody's answers may leave a trace in what is asked later.
                    cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                )
            )
            arithmetic = Arithmetic(settings.workers)
            stack.push_async_callback(arithmetic.close)
            await arithmetic.start()
            repository = Repository(database)
            enrolment = Enrolment(
                identity=identity,
                repository=repository,
                http=http,
                registry_url=settings.registry_url,
                endpoint=settings.endpoint,
                name=settings.name,
                clock=clock,
            )
            service = app.state.service = ProxyService(
                identity=identity,
                repository=repository,
                directory=PartyDirectory(
                    http,
                    settings.registry_url,
                    DatabasePartyStore(database, Party),
                    cache_seconds=settings.party_cache_seconds,
                ),
                arithmetic=arithmetic,
                enrolment=enrolment,
                clock=clock,
            )
            app.state.access_tokens = AccessTokens(
                TokenKeys(jwks_fetcher(http, settings.registry_url)),
                issuer=settings.issuer,
                audience=identity.did,
                clock=clock,
            )
            for loop in (enrolment.run(), keep_house(service.prune)):
                stack.push_async_callback(_end, asyncio.create_task(loop))
            yield

    async def ready() -> None:
        service: ProxyService | None = getattr(app.state, "service", None)
        if service is None:
            raise NotEnrolled
        await service.ready()

    app = create_app(
        title="PCEHR proxy",
        description=DESCRIPTION,
        tags=api.TAGS,
        routers=[api.router],
        lifespan=lifespan,
        ready=ready,
        body_limits=api.BODY_LIMITS,
    )
    return app


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
