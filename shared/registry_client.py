"""What a service asks of the registry: chains of keys and the keys of access tokens.

Nothing the registry answers is believed as such: a chain proves itself (`shared.identity`), and a chain that is
shorter than or different from one this service has seen before is refused, whatever the registry says now.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Protocol

import httpx
from cachetools import TTLCache
from pydantic import ValidationError

from shared.crypto.signing import VerifyKey
from shared.did import split_key_id
from shared.errors import Malformed, NotFound, PcehrError, RegistryUnavailable
from shared.identity import ChainRolledBack, VerifiedParty, verify_chain
from shared.jose import parse
from shared.schemas.common import MAX_PAGE
from shared.schemas.registry import Discovery, PartyPage
from shared.statements import Payload
from shared.tokens import keys_from_jwks, unverified_key_id

MAX_CACHED_PARTIES = 10_000
MAX_ANSWER_BYTES = 5 * 1024 * 1024
"""A chain of a thousand key-entries of 4 KiB fits; nothing the registry has to say is longer."""
ANSWER_SECONDS = 10.0
ASK_ANEW_SECONDS = 5.0
CHAIN_AT_ONCE = 8
"""Key-entries verified without a thread; each takes a fraction of a millisecond."""
JWKS_RELOAD_SECONDS = 5.0
"""An unknown key id makes the JWKS be fetched anew, but not more often than this."""
JWKS_FRESH_SECONDS = 600.0
JWKS_USABLE_SECONDS = 3_600.0
"""How long keys are used while the registry is away."""


MAX_DIRECTORY_PAGES = 10


class UnknownParty(NotFound):
    code = "unknown_party"
    title = "The registry knows no party of this id."


class Lookup(Enum):
    """How a look-up of a party ended: with what the cache held, with what the registry answered, or without either."""

    HIT = "hit"
    MISS = "miss"
    FAILED = "failed"


class PartyStore(Protocol):
    """Where a service keeps the chains it has seen, across restarts (see `shared.db.known_parties`)."""

    async def load(self, did: str) -> list[str] | None:
        """The longest chain seen of this party, or None."""

    async def save(self, did: str, entries: list[str]) -> None:
        """Keep a chain that extends the one kept before."""


class PartyDirectory:
    """Resolves ids to verified parties, with a short-lived cache in front of the registry.

    `count` is told how each look-up ended.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        registry_url: str,
        store: PartyStore,
        *,
        cache_seconds: int,
        count: Callable[[Lookup], None] = lambda _: None,
    ) -> None:
        self._count = count
        self._http = http
        self._url = registry_url.rstrip("/")
        self._store = store
        self._cache: TTLCache[str, VerifiedParty] = TTLCache(MAX_CACHED_PARTIES, max(cache_seconds, 0))
        self._asked_anew: TTLCache[str, bool] = TTLCache(MAX_CACHED_PARTIES, ASK_ANEW_SECONDS)

    async def resolve(self, did: str) -> VerifiedParty:
        """The party as the registry shows it now (or did, at most the cache's lifetime ago).

        Raises `UnknownParty`, `RegistryUnavailable`, `ChainRolledBack`, or what `verify_chain` raises.
        """
        cached = self._cache.get(did)
        if cached is not None:
            self._count(Lookup.HIT)
            return cached
        outcome = Lookup.FAILED
        try:
            party = await self._ask(did)
            outcome = Lookup.MISS
        except UnknownParty:
            outcome = Lookup.MISS
            raise
        finally:
            self._count(outcome)
        self._cache[did] = party
        return party

    async def _ask(self, did: str) -> VerifiedParty:
        shown = await self._fetch(did)
        known = await self._store.load(did) or []
        if shown[: len(known)] != known:
            # Perhaps the party changed its keys between the two looks; a second one tells that from a roll-back.
            shown = await self._fetch(did)
            if shown[: len(known)] != known:
                await _verified(did, shown)
                raise ChainRolledBack
        party = await _verified(did, shown)
        if len(known) < len(shown):
            await self._store.save(did, party.tokens)
        return party

    async def resolve_anew(self, did: str) -> VerifiedParty:
        """As `resolve`, but asks the registry whatever the cache holds; for one party not more often than every
        `ASK_ANEW_SECONDS`, since anybody can name a key that is not there."""
        if did not in self._asked_anew:
            self._asked_anew[did] = True
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
        """As `resolve`, but uses the last chain seen where the registry shows none that continues it.

        Only for statements that take access away: a revocation must depend neither on the registry being up nor on
        its being honest.
        """
        known = await self._store.load(did)
        try:
            return await self.resolve(did)
        except PcehrError:
            if known is None:
                raise
            return await _verified(did, known)

    async def issuer_of_for_less(self, token: str, kind: type[Payload]) -> VerifiedParty:
        """As `issuer_of`, but uses the last chain seen where it holds the key that the statement names and the
        registry shows none that continues it.

        Only for statements that take access away. Where no chain seen holds that key, nobody but the registry can
        say whose key it is, and what `issuer_of` raises stands.
        """
        did, key = split_key_id(parse(token, typ=kind.typ, max_size=kind.max_size).kid)
        known = await self._store.load(did)
        try:
            return await self.issuer_of(token, kind)
        except PcehrError:
            if known is None:
                raise
            party = await _verified(did, known)
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
        status, body = await _get(self._http, f"{self._url}/v1/parties/{did}")
        if status == 404:
            raise UnknownParty
        try:
            return [str(entry) for entry in json.loads(body)["entries"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise RegistryUnavailable from None


async def _verified(did: str, tokens: Sequence[str]) -> VerifiedParty:
    """`verify_chain`, in a thread where it takes long enough to hold others up."""
    if len(tokens) <= CHAIN_AT_ONCE:
        return verify_chain(did, tokens)
    return await asyncio.to_thread(verify_chain, did, tokens)


async def _get(http: httpx.AsyncClient, url: str) -> tuple[int, bytes]:
    """Status (200 or 404) and body of an answer of the registry, bounded in time and size whatever it sends.

    httpx bounds each read, not the whole: a registry that sends a byte now and then would hold its caller for ever.
    Raises `RegistryUnavailable`.
    """
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            http.stream("GET", url, headers={"accept-encoding": "identity"}, follow_redirects=False) as response,
        ):
            # Nothing compressed was asked for, and a small compressed answer may be a very large one.
            if response.status_code not in (200, 404) or "content-encoding" in response.headers:
                raise RegistryUnavailable
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise RegistryUnavailable
            return response.status_code, bytes(body)
    except (httpx.HTTPError, TimeoutError):
        raise RegistryUnavailable from None


class TokenKeys:
    """The registry's token keys: fetched when needed, again when a token names a key not seen yet, and again when
    they have grown old, so that a key the registry no longer shows is forgotten."""

    def __init__(self, fetch: Callable[[], Awaitable[dict[str, VerifyKey]]]) -> None:
        self._fetch = fetch
        self._keys: dict[str, VerifyKey] = {}
        self._tried_at = self._fetched_at = -math.inf
        self._one_at_a_time = asyncio.Lock()

    async def for_token(self, token: str) -> dict[str, VerifyKey]:
        """Keys that may have signed `token`; raises `Unauthenticated` or `RegistryUnavailable`."""
        key_id = unverified_key_id(token)
        if self._wants_fetching(key_id):
            async with self._one_at_a_time:
                if self._wants_fetching(key_id):
                    await self._reload()
        if time.monotonic() - self._fetched_at > JWKS_USABLE_SECONDS:
            raise RegistryUnavailable
        return self._keys

    def _wants_fetching(self, key_id: str) -> bool:
        now = time.monotonic()
        wanted = key_id not in self._keys or now - self._fetched_at > JWKS_FRESH_SECONDS
        # Failed attempts count as well: junk tokens must not make a service hammer a registry that is away.
        return wanted and now - self._tried_at >= JWKS_RELOAD_SECONDS

    async def _reload(self) -> None:
        self._tried_at = time.monotonic()
        try:
            self._keys = await self._fetch()
        except RegistryUnavailable:
            if not self._keys:
                raise
            return
        self._fetched_at = time.monotonic()


def jwks_fetcher(http: httpx.AsyncClient, registry_url: str) -> Callable[[], Awaitable[dict[str, VerifyKey]]]:
    """A function that fetches the registry's JWKS over HTTP; it raises `RegistryUnavailable`."""

    async def fetch() -> dict[str, VerifyKey]:
        status, body = await _get(http, f"{registry_url.rstrip('/')}/.well-known/jwks.json")
        if status != 200:
            raise RegistryUnavailable
        try:
            keys = keys_from_jwks(json.loads(body))
        except (ValueError, AttributeError, TypeError, RecursionError, PcehrError):
            raise RegistryUnavailable from None
        if not keys:
            raise RegistryUnavailable
        return keys

    return fetch


async def discover(http: httpx.AsyncClient, registry_url: str) -> Discovery:
    """What the registry says of the platform; raises `RegistryUnavailable`."""
    status, body = await _get(http, f"{registry_url.rstrip('/')}/.well-known/pcehr")
    try:
        if status != 200:
            raise RegistryUnavailable
        return Discovery.model_validate_json(body)
    except (ValidationError, Malformed):
        raise RegistryUnavailable from None


async def list_proxies(http: httpx.AsyncClient, registry_url: str) -> list[str]:
    """The DIDs of the proxies in the directory, of at most a thousand; raises `RegistryUnavailable`."""
    found: list[str] = []
    cursor = ""
    for _ in range(MAX_DIRECTORY_PAGES):
        status, body = await _get(http, f"{registry_url.rstrip('/')}/v1/proxies?limit={MAX_PAGE}{cursor}")
        try:
            if status != 200:
                raise RegistryUnavailable
            page = PartyPage.model_validate_json(body)
        except (ValidationError, Malformed):
            raise RegistryUnavailable from None
        found += [item.did for item in page.items]
        if page.next is None:
            break
        cursor = f"&cursor={page.next}"
    return found
