"""The access token of a request: Swagger UI's Authorize box, the check of it, and who is let in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.clock import Clock
from shared.errors import PcehrError, TooManyRequests
from shared.registry_client import TokenKeys
from shared.tokens import Caller, verify_access_token
from shared.web.problems import problem_response
from shared.web.rates import Account, RequestRates, account_under_way

_bearer = HTTPBearer(
    bearerFormat="at+jwt",
    scheme_name="access token",
    description="Paste what `pcehr token --service …` prints.",
    auto_error=False,
)


class AccessTokens:
    """Checks access tokens for one service; lives in `app.state.access_tokens`."""

    def __init__(self, keys: TokenKeys, *, issuer: str, audience: str, clock: Clock) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    async def verify(self, token: str) -> Caller:
        """Whom the token speaks for; raises `Unauthenticated`."""
        keys = await self._keys.for_token(token)
        return verify_access_token(token, keys=keys, issuer=self._issuer, audience=self._audience, now=self._clock())


PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Answered whoever asks and however often."""
FREE_BODY_BYTES = 64 * 1024
"""What anybody may send before the access token is looked at."""

HOLD_SECONDS = 1.0
"""How long a refusal for asking too often is kept back: whoever repeats at once gets no further for it, and a flood
over few connections takes hardly any of the service's time."""
MOST_HELD = 500
"""Refusals kept back at once, by one process; beyond them each is answered at once."""


class Admission:
    """ASGI middleware: whom a request is of, by its access token, and whether that party or address may ask now.

    All of it before a byte of the body is read. FastAPI parses a body before it runs the dependency that needs the
    token, so that without this anybody could make a service parse megabytes; `operations` are those whose large bodies
    are read only for the holder of a valid token. Probes are always answered.
    """

    def __init__(self, app: ASGIApp, rates: RequestRates, operations: Sequence[str] = ()) -> None:
        self.app = app
        self.rates = rates
        self.operations = tuple(operations)
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self.app(scope, receive, send)
            return

        async def settling_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.rates.settle(message["status"])
                if message["status"] == TooManyRequests.status:
                    await self._hold()
            await send(message)

        with self.rates.account(scope) as account:
            try:
                await self._identify(scope, account)
                if account.caller is None:
                    self.rates.charge_address()
                    if self._needs_token(scope):
                        account.authorised()
                else:
                    self.rates.charge(account.caller.did)
            except PcehrError as error:
                await problem_response(error)(scope, receive, settling_send)
                return
            await self.app(scope, receive, settling_send)

    async def _hold(self) -> None:
        if self._held < MOST_HELD:
            self._held += 1
            try:
                await asyncio.sleep(HOLD_SECONDS)
            finally:
                self._held -= 1

    async def _identify(self, scope: Scope, account: Account) -> None:
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return
        tokens: AccessTokens = scope["app"].state.access_tokens
        try:
            account.caller = await tokens.verify(token)
        except PcehrError as error:
            # An operation may need no token, so it is for the operation to refuse this one.
            account.why_nobody = error

    def _needs_token(self, scope: Scope) -> bool:
        length = Headers(scope=scope).get("content-length", "")
        small = length.isdigit() and int(length) <= FREE_BODY_BYTES
        return not small and f"{scope['method']} {scope['path']}".startswith(self.operations)


async def _caller(_: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Caller:
    return account_under_way().authorised()


Authorized = Annotated[Caller, Depends(_caller)]
"""The route needs an access token; this is whom it speaks for."""
