"""Telling parties what concerns them, as it happens."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator

from services.records.errors import TooManyStreams
from services.records.quotas import GRANTS, REQUESTS
from services.records.repository import Store
from services.records.repository.notices import NewNotice, Notice, NoticeKind
from shared.clock import Clock
from shared.db.listener import Listener
from shared.errors import DatabaseUnavailable
from shared.tokens import ACCESS_TOKEN_LIFETIME, Caller

BATCH = 100
HEARTBEAT_SECONDS = 15.0
"""A sign of life goes out at least so often, or what stands between takes the connection for dead."""
STREAM_SECONDS = ACCESS_TOKEN_LIFETIME
"""A stream ends when an access token would; the client comes back with a new one and goes on where it was."""
STREAMS_OF_A_PARTY = 4
STREAMS = 1000
"""At most so many streams of one party, and of all, are open at this replica."""
KEPT_SECONDS = 30 * 24 * 3600
HOUSEKEEPING_SECONDS = 15.0
ENDED_AT_ONCE = 500

log = logging.getLogger("pcehr.records")


class NoticeStreams:
    """The streams of this replica. `stopping` ends them all, so that the process need not wait for them."""

    def __init__(self, store: Store, listener: Listener, clock: Clock) -> None:
        self._store = store
        self._listener = listener
        self._clock = clock
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End every stream."""
        self._stopping.set()

    async def start_of(self, caller: Caller, after: int | None) -> int:
        """The number of the notice after which a stream begins: the one named, or the newest.

        A number that has not been given yet, of a database that has been set back since, counts as the newest too.
        Raises `TooManyStreams` or `DatabaseUnavailable`.
        """
        if self._listener.waiting(caller.did) >= STREAMS_OF_A_PARTY or self._listener.waiting() >= STREAMS:
            raise TooManyStreams
        async with self._store.reading() as repository:
            last = await repository.notices.last(caller.did)
        return last if after is None else min(after, last)

    async def follow(self, caller: Caller, start: int) -> AsyncIterator[Notice | None]:
        """The caller's notices after number `start`, each as soon as it is there; None is a sign of life.

        Ends after `STREAM_SECONDS`, and when the database is away.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + STREAM_SECONDS
        position = start
        with self._listener.waiting_for(caller.did) as told:
            while not self._stopping.is_set() and loop.time() < ends:
                told.clear()
                try:
                    async with self._store.reading() as repository:
                        found = await repository.notices.after(caller.did, position, BATCH)
                except DatabaseUnavailable:
                    return
                for notice in found:
                    yield notice
                    position = notice.number
                if not found:
                    await self._until(told, min(HEARTBEAT_SECONDS, max(0.0, ends - loop.time())))
                    yield None

    async def _until(self, told: asyncio.Event, seconds: float) -> None:
        waits = [asyncio.ensure_future(told.wait()), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


class Housekeeping:
    """Tells of grants that have lapsed, and forgets old notices. Any number of replicas may do it."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                while await self.tell_of_ends() == ENDED_AT_ONCE:
                    pass
                while await self.close_requests() == ENDED_AT_ONCE:
                    pass
                async with self._store.transaction() as repository:
                    await repository.notices.forget_before(self._clock() - KEPT_SECONDS)
            except DatabaseUnavailable:
                log.warning("the database is away; ends of grants are told later")
            await asyncio.sleep(HOUSEKEEPING_SECONDS)

    async def tell_of_ends(self) -> int:
        """Tell both sides of grants that have lapsed; returns of how many grants, at most `ENDED_AT_ONCE`."""
        async with self._store.transaction() as repository:
            ended = await repository.notices.of_ended_grants(self._clock(), ENDED_AT_ONCE)
            givers = Counter(grant.patient for grant in ended)
            await repository.quotas.change({(patient, GRANTS): -count for patient, count in givers.items()})
            await repository.notices.add(
                NewNotice(party, NoticeKind.EXPIRED, grant.at, other=other, grant=grant.id)
                for grant in ended
                for party, other in ((grant.patient, grant.recipient), (grant.recipient, grant.patient))
            )
        return len(ended)

    async def close_requests(self) -> int:
        """Count no longer what nobody has answered in time; returns how many requests, at most `ENDED_AT_ONCE`."""
        async with self._store.transaction() as repository:
            lapsed = await repository.requests.close_lapsed(self._clock(), ENDED_AT_ONCE)
            await repository.quotas.change({(one, REQUESTS): -count for one, count in lapsed.items()})
        return lapsed.total()
