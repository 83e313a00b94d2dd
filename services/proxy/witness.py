"""The proxy as a witness (docs/spec.md, section 12): it cosigns the registry's and the records service's logs.

Which logs these are it learns once, from the registry that it is enrolled at or from its settings, and keeps for life.
A log that is shown differently to others cannot get the cosignatures of this witness for both.
"""

from __future__ import annotations

import asyncio
import logging

import httpx

from services.proxy.identity import ProxyIdentity
from services.proxy.repository import Repository
from shared.clock import Clock
from shared.errors import PcehrError
from shared.registry_client import discover
from shared.transparency.checkpoints import key_of_origin
from shared.transparency.errors import StaleSize
from shared.transparency.witnessing import AddCheckpoint, judge

PAUSE = 1.0
"""Seconds between two tries to learn which logs there are."""

log = logging.getLogger("pcehr.proxy")


class Witness:
    """What this proxy has cosigned; `configured` are origins of logs, in place of those that the registry names."""

    def __init__(
        self,
        *,
        identity: ProxyIdentity,
        repository: Repository,
        http: httpx.AsyncClient,
        registry_url: str,
        configured: frozenset[str],
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._repository = repository
        self._http = http
        self._registry = registry_url
        self._configured = configured
        self._clock = clock

    async def learn(self) -> None:
        """Find out which logs there are, however long that takes; those known already stay, whatever is said now."""
        while True:
            try:
                origins = self._configured or await self._named_by_the_registry()
                async with self._repository.transaction() as work:
                    for origin in sorted(origins):
                        kind, _ = key_of_origin(origin)
                        if not await work.know_log(kind, origin):
                            log.error("another %s log is named than the one known; it is not witnessed", kind)
                return
            except PcehrError as error:
                log.info("the logs to witness are not known yet: %s", error.code)
            await asyncio.sleep(PAUSE)

    async def add_checkpoint(self, body: bytes) -> str:
        """The cosignature line for the checkpoint submitted, which is stored before.

        Raises `MalformedSubmission`, `UnknownLog`, `NotSignedByLog`, `StaleSize`, `ConsistencyNotProven` or
        `DatabaseUnavailable`.
        """
        request = AddCheckpoint.parse(body)
        origin = request.origin
        async with self._repository.transaction() as work:
            found = await work.witnessed(origin)
        known = None if found is None else found.head
        checkpoint = judge(known, request, None if found is None else origin)
        async with self._repository.transaction() as work:
            if not await work.keep_witnessed(known, checkpoint):
                # Somebody else's submission came in between; what is known now is what to prove from.
                now = await work.witnessed(origin)
                raise StaleSize(0 if now is None or now.head is None else now.head.size)
        return self._identity.cosign(checkpoint, self._clock())

    async def checkpoints(self) -> list[tuple[str, str]]:
        """Origin and newest checkpoint, as submitted, of each log that has one. Raises `DatabaseUnavailable`."""
        async with self._repository.transaction() as work:
            return await work.all_witnessed()

    async def _named_by_the_registry(self) -> frozenset[str]:
        found = await discover(self._http, self._registry)
        return frozenset({found.registry_log, found.records_log})
