"""The access token of a request: Swagger UI's Authorize box and the dependency that checks it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from shared.clock import Clock
from shared.errors import Unauthenticated
from shared.registry_client import TokenKeys
from shared.tokens import Caller, verify_access_token

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


async def _caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    if credentials is None:
        raise Unauthenticated
    tokens: AccessTokens = request.app.state.access_tokens
    return await tokens.verify(credentials.credentials)


Authorized = Annotated[Caller, Depends(_caller)]
"""The route needs an access token; this is whom it speaks for."""
