"""What a service asks of the registry: chains of keys and the keys of access tokens.

Nothing the registry answers is believed as such: a chain proves itself (`shared.identity`), and a chain that is
shorter than or different from one this service has seen before is refused, whatever the registry says now.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import httpx
from cachetools import TTLCache

from shared.crypto.signing import VerifyKey
from shared.did import split_key_id
from shared.errors import NotFound, PcehrError, RegistryUnavailable, Unauthenticated
from shared.identity import ChainRolledBack, VerifiedParty, verify_chain
from shared.jose import parse
from shared.statements import Payload
from shared.tokens import keys_from_jwks, unverified_key_id

MAX_CACHED_PARTIES = 10_000
JWKS_RELOAD_SECONDS = 5.0
"""An unknown key id makes the JWKS be fetched anew, but not more often than this."""


class UnknownParty(NotFound):
    code = "unknown_party"
    title = "The registry knows no party of this id."


class PartyStore(Protocol):
    """Where a service keeps the chains it has seen, across restarts (see `shared.db.known_parties`)."""

    async def load(self, did: str) -> list[str] | None:
        """The longest chain seen of this party, or None."""

    async def save(self, did: str, entries: list[str]) -> None:
        """Keep a chain that extends the one kept before."""


class PartyDirectory:
    """Resolves ids to verified parties, with a short-lived cache in front of the registry."""

    def __init__(self, http: httpx.AsyncClient, registry_url: str, store: PartyStore, *, cache_seconds: int) -> None:
        self._http = http
        self._url = registry_url.rstrip("/")
        self._store = store
        self._cache: TTLCache[str, VerifiedParty] = TTLCache(MAX_CACHED_PARTIES, max(cache_seconds, 0))

    async def resolve(self, did: str) -> VerifiedParty:
        """The party as the registry shows it now (or did, at most the cache's lifetime ago).

        Raises `UnknownParty`, `RegistryUnavailable`, `ChainRolledBack`, or what `verify_chain` raises.
        """
        cached = self._cache.get(did)
        if cached is not None:
            return cached
        party = verify_chain(did, await self._fetch(did))
        known = await self._store.load(did)
        if known is not None and not party.extends(verify_chain(did, known)):
            raise ChainRolledBack
        if known is None or len(known) < len(party.entries):
            await self._store.save(did, party.tokens)
        self._cache[did] = party
        return party

    async def resolve_anew(self, did: str) -> VerifiedParty:
        """As `resolve`, but asks the registry whatever the cache holds."""
        self._cache.pop(did, None)
        return await self.resolve(did)

    async def issuer_of(self, token: str, kind: type[Payload]) -> VerifiedParty:
        """The party a statement claims to come from, asked for anew when the key it names is not the current one.

        Without the second look a rotation would lock its party out for the cache's lifetime.
        """
        did, key = split_key_id(parse(token, typ=kind.typ, max_size=kind.max_size).kid)
        party = await self.resolve(did)
        if key != party.current_identity_key:
            party = await self.resolve_anew(did)
        return party

    async def resolve_for_less(self, did: str) -> VerifiedParty:
        """As `resolve`, but falls back to the last chain seen when the registry is away.

        Only for statements that take access away: a revocation must not depend on the registry being up.
        """
        try:
            return await self.resolve(did)
        except RegistryUnavailable:
            known = await self._store.load(did)
            if known is None:
                raise
            return verify_chain(did, known)

    async def issuer_of_for_less(self, token: str, kind: type[Payload]) -> VerifiedParty:
        """As `issuer_of`, but falls back to the last chain seen when the registry is away.

        Only for statements that take access away. Where the chain seen does not hold the key that the statement
        names, nobody can say yet whose key it is, and `RegistryUnavailable` stands.
        """
        try:
            return await self.issuer_of(token, kind)
        except RegistryUnavailable:
            did, key = split_key_id(parse(token, typ=kind.typ, max_size=kind.max_size).kid)
            known = await self._store.load(did)
            if known is None:
                raise
            party = verify_chain(did, known)
            if key not in party.all_identity_keys:
                raise
            return party

    async def resolve_holding(self, did: str, entry: str) -> VerifiedParty:
        """As `resolve`, asked for anew when the chain in the cache does not hold the key-entry of this id.

        Whether the entry is in the chain then is for the caller to look at. Without the second look a statement that
        names an entry younger than the cache would be refused for good.
        """
        party = await self.resolve(did)
        if party.entry(entry) is None:
            party = await self.resolve_anew(did)
        return party

    async def _fetch(self, did: str) -> list[str]:
        try:
            response = await self._http.get(f"{self._url}/v1/parties/{did}")
        except httpx.HTTPError:
            raise RegistryUnavailable from None
        if response.status_code == 404:
            raise UnknownParty
        if response.status_code != 200:
            raise RegistryUnavailable
        try:
            return [str(entry) for entry in response.json()["entries"]]
        except (ValueError, KeyError, TypeError):
            raise RegistryUnavailable from None


class TokenKeys:
    """The registry's token keys, fetched when needed and again when a token names a key not seen yet."""

    def __init__(self, fetch: Callable[[], Awaitable[dict[str, VerifyKey]]]) -> None:
        self._fetch = fetch
        self._keys: dict[str, VerifyKey] = {}
        self._fetched_at = -JWKS_RELOAD_SECONDS

    async def for_token(self, token: str) -> dict[str, VerifyKey]:
        """Keys that may have signed `token`; raises `Unauthenticated` or `RegistryUnavailable`."""
        if unverified_key_id(token) not in self._keys and time.monotonic() - self._fetched_at >= JWKS_RELOAD_SECONDS:
            self._keys = await self._fetch()
            self._fetched_at = time.monotonic()
        if not self._keys:
            raise Unauthenticated
        return self._keys


def jwks_fetcher(http: httpx.AsyncClient, registry_url: str) -> Callable[[], Awaitable[dict[str, VerifyKey]]]:
    """A function that fetches the registry's JWKS over HTTP."""

    async def fetch() -> dict[str, VerifyKey]:
        try:
            response = await http.get(f"{registry_url.rstrip('/')}/.well-known/jwks.json")
            response.raise_for_status()
            return keys_from_jwks(response.json())
        except (httpx.HTTPError, ValueError, AttributeError, PcehrError):
            raise RegistryUnavailable from None

    return fetch
