"""The access token of a request: Swagger UI's Authorize box and the dependency that checks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.clock import Clock
from shared.errors import PcehrError, Unauthenticated
from shared.registry_client import TokenKeys
from shared.tokens import Caller, verify_access_token
from shared.web.problems import problem_response

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


FREE_BODY_BYTES = 64 * 1024
"""What anybody may send before the access token is looked at."""


class TokenBeforeBody:
    """ASGI middleware: reads a large body only for the holder of a valid access token.

    FastAPI parses a body before it runs the dependency that checks the token, so that without this anybody could make
    a service parse megabytes. The dependency checks the token all the same.
    """

    def __init__(self, app: ASGIApp, operations: Sequence[str]) -> None:
        self.app = app
        self.operations = tuple(operations)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._concerns(scope):
            try:
                scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
                if scheme.lower() != "bearer":
                    raise Unauthenticated
                tokens: AccessTokens = scope["app"].state.access_tokens
                await tokens.verify(token)
            except PcehrError as error:
                await problem_response(error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _concerns(self, scope: Scope) -> bool:
        length = Headers(scope=scope).get("content-length", "")
        small = length.isdigit() and int(length) <= FREE_BODY_BYTES
        return not small and f"{scope['method']} {scope['path']}".startswith(self.operations)


async def _caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    if credentials is None:
        raise Unauthenticated
    tokens: AccessTokens = request.app.state.access_tokens
    return await tokens.verify(credentials.credentials)


Authorized = Annotated[Caller, Depends(_caller)]
"""The route needs an access token; this is whom it speaks for."""
