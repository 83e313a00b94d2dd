"""Who cosigns this service's log: the proxies of the registry's directory, each verified by its chain of keys."""

from __future__ import annotations

import logging
import time

import httpx

from shared.errors import PcehrError, RegistryUnavailable
from shared.registry_client import PartyDirectory, list_proxies
from shared.wire import Role
from shared.witness_client import Witness

KEPT_SECONDS = 30.0
KEPT_EMPTY_SECONDS = 1.0
"""Without any witness the log is published as it is, so that the first proxy should not wait long to be one."""

log = logging.getLogger("pcehr.records")


class Witnesses:
    """The witnesses at the moment, asked of the registry every half minute."""

    def __init__(self, http: httpx.AsyncClient, registry_url: str, directory: PartyDirectory) -> None:
        self._http = http
        self._registry_url = registry_url
        self._directory = directory
        self._found: list[Witness] = []
        self._asked_at: float | None = None

    async def now(self) -> list[Witness]:
        """Raises `RegistryUnavailable` while nobody is known."""
        kept = KEPT_SECONDS if self._found else KEPT_EMPTY_SECONDS
        if self._asked_at is None or time.monotonic() - self._asked_at > kept:
            self._found = await self._ask()
            self._asked_at = time.monotonic()
        return self._found

    async def _ask(self) -> list[Witness]:
        try:
            dids = await list_proxies(self._http, self._registry_url)
        except RegistryUnavailable:
            # Who was there a while ago can cosign without the registry.
            if not self._found:
                raise
            return self._found
        found = []
        for did in dids:
            try:
                party = await self._directory.resolve_for_less(did)
            except RegistryUnavailable:
                raise
            except PcehrError as error:
                # One chain that does not verify must not keep all the others from cosigning.
                log.warning("a proxy of the directory is no witness: %s", error.code, extra={"code": error.code})
            else:
                if party.role is Role.PROXY:
                    found.append(Witness.of(party))
        return found
