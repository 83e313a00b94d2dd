"""Enrolment: the proxy tells the registry who it is, and goes on until the registry has accepted it.

The service runs meanwhile, since it must take revocations whatever the registry does; it is only not ready. The
key-entry is made once and kept in the database, so that every start posts the very same statement.
"""

from __future__ import annotations

import asyncio
import logging
import random
from enum import Enum, auto

import httpx

from services.proxy.errors import NotEnrolled
from services.proxy.identity import ProxyIdentity
from services.proxy.repository import Repository
from shared.clock import Clock
from shared.errors import PcehrError
from shared.identity import verify_chain

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0
"""Seconds between two tries; each pause is about twice the one before, with jitter."""

log = logging.getLogger("pcehr.proxy")


class _Outcome(Enum):
    ACCEPTED = auto()
    TAKEN = auto()
    REFUSED = auto()


class Enrolment:
    """This proxy's key-entry, and whether the registry has it."""

    def __init__(
        self,
        *,
        identity: ProxyIdentity,
        repository: Repository,
        http: httpx.AsyncClient,
        registry_url: str,
        endpoint: str,
        name: str | None,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._repository = repository
        self._http = http
        self._registry = registry_url.rstrip("/")
        self._endpoint = endpoint
        self._name = name
        self._clock = clock
        self._entry: str | None = None
        self._accepted = False

    def check(self) -> None:
        """Raises `NotEnrolled` until the registry has accepted this proxy."""
        if not self._accepted:
            raise NotEnrolled

    async def own_entry(self) -> str:
        """The key-entry in compact form, made at the first start ever.

        Raises `DatabaseUnavailable`, and `NotEnrolled` where the database belongs to a proxy with another seed.
        """
        if self._entry is None:
            async with self._repository.transaction() as work:
                kept = await work.own_entry()
                if kept is None:
                    entry = self._identity.new_key_entry(endpoint=self._endpoint, name=self._name, now=self._clock())
                    # Of two replicas that start at once, the first one's entry stays and is read by both.
                    await work.keep_own_entry(self._identity.did, entry, replace=False)
                    kept = await work.own_entry()
            if kept is None or kept[0] != self._identity.did:
                log.error("the database belongs to another proxy: was the seed changed?")
                raise NotEnrolled("The database of this proxy was made under another seed.")
            self._entry = kept[1]
        return self._entry

    async def run(self) -> None:
        """Try until the registry has accepted this proxy, however long that takes."""
        pause = FIRST_PAUSE
        while not await self._try():
            # Jitter, so that proxies which lost the registry together do not come back to it together.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  No secret depends on it.
            pause = min(pause * 2, LONGEST_PAUSE)
        self._accepted = True
        log.info("the registry has accepted this proxy")

    async def _try(self) -> bool:
        try:
            outcome = await self._post(await self.own_entry())
            return outcome is _Outcome.ACCEPTED or (outcome is _Outcome.TAKEN and await self._adopt())
        except (httpx.HTTPError, PcehrError) as error:
            log.warning("enrolment has to wait: %s", error.code if isinstance(error, PcehrError) else "no connection")
        except Exception as error:
            # Nothing else makes the proxy ready, hence a surprise (say, a database not migrated yet) must not end it.
            log.error("enrolment has to wait: unexpected %s", type(error).__name__)
        return False

    async def _post(self, entry: str) -> _Outcome:
        response = await self._http.post(f"{self._registry}/v1/proxies", json={"key_entry": entry})
        if response.is_success:
            return _Outcome.ACCEPTED
        code = _code_of(response)
        if code == "already_registered":
            return _Outcome.TAKEN
        log.warning("the registry answered %s %s", response.status_code, code)
        return _Outcome.REFUSED

    async def _adopt(self) -> bool:
        """The registry has an entry of this id already: take it for one's own if it holds the keys of this seed.

        So a proxy finds itself again whose database was lost and whose seed was not.
        """
        response = await self._http.get(f"{self._registry}/v1/parties/{self._identity.did}")
        response.raise_for_status()
        try:
            tokens = [str(token) for token in response.json()["entries"]]
        except (ValueError, KeyError, TypeError):
            return False
        party = verify_chain(self._identity.did, tokens)
        if not self._identity.is_mine(party.current.payload):
            log.error("the registry has other keys for this proxy than its seed gives")
            return False
        async with self._repository.transaction() as work:
            await work.keep_own_entry(self._identity.did, party.current.token, replace=True)
        self._entry = party.current.token
        return True


def _code_of(response: httpx.Response) -> str:
    """The code of a problem, if the answer is one; it is the registry's text and is cut to what a code can be."""
    try:
        code = response.json()["code"]
    except (ValueError, KeyError, TypeError):
        return "without a code"
    return code if isinstance(code, str) and code.isidentifier() and len(code) <= 64 else "without a code"
