"""Delivers sealed shares and revocations to the proxies: at least once, until a receipt that verifies has come.

Messages are rows written in the transaction of the grant or the revocation, so none is lost with the process. Any
number of replicas may run a worker: each takes due rows under a lease, delivers without a transaction open, and then
writes down what came of it. Whoever crashes in between has delivered once more than was written down; a proxy gives
the same answer to the same statement, so that this has no second effect.

Each attempt begins a trace of its own: a revocation is repeated for ever, and its patient's trace must come to an end.
The number of the message links the two, since the line that a request logs when it fills the outbox has it as well.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from services.records.domain import pause
from services.records.figures import Delivered, Figures
from services.records.proxies import Proxies, ProxyFailure
from services.records.repository import Store
from services.records.repository.deliveries import DueDelivery
from shared import trace
from shared.clock import Clock
from shared.db.log import NewEvent
from shared.errors import DatabaseUnavailable, PcehrError
from shared.web.logs import log_unexpected

log = logging.getLogger("pcehr.records.outbox")

AT_ONCE = 64
"""Deliveries under way at once."""
AT_ONCE_PER_PROXY = 4
"""Of these to one proxy, so that one that never answers leaves the places of the others alone."""

Milliseconds = Callable[[], int]


def system_milliseconds() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Pace:
    """How often to look, how long to pause after failures, and how long a lease lasts; all in seconds.

    `whole` is the most that one delivery takes, and a lease must outlast it, or two workers would deliver the same
    message as a rule.
    """

    poll: float
    first_backoff: float
    max_backoff: float
    whole: float
    lease: float


class Outbox:
    """The worker. `clock` dates audit rows; `milliseconds` is what leases and pauses are measured by."""

    def __init__(
        self,
        store: Store,
        proxies: Proxies,
        pace: Pace,
        figures: Figures,
        *,
        clock: Clock,
        milliseconds: Milliseconds = system_milliseconds,
    ) -> None:
        self._store = store
        self._proxies = proxies
        self._pace = pace
        self._figures = figures
        self._clock = clock
        self._milliseconds = milliseconds
        self._kicked = asyncio.Event()

    def kick(self, deliveries: Collection[int]) -> None:
        """Say that these messages have been put into the outbox, if there are any, and that this is committed."""
        if deliveries:
            log.info("deliveries wait", extra={"deliveries": list(deliveries)})
        self._kicked.set()

    async def run(self) -> None:
        """Deliver until cancelled. A place that gets free is filled at once, whatever the other deliveries are at."""
        under_way: dict[asyncio.Task[None], str] = {}
        try:
            while True:
                self._kicked.clear()
                for delivery in await self._take_safely(Counter(under_way.values())):
                    under_way[asyncio.create_task(self._make(delivery))] = delivery.proxy
                for task in await self._until_something_happens(under_way):
                    del under_way[task]
                    if (error := task.exception()) is not None:
                        _log_failure(error)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def run_once(self) -> int:
        """Make deliveries that are due, as many as may be under way at once; returns how many were tried."""
        due = await self.take(Counter())
        # Each to its end, whatever becomes of the others.
        ends = await asyncio.gather(*(self._make(delivery) for delivery in due), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return len(due)

    async def take(self, under_way: Counter[str]) -> list[DueDelivery]:
        """Take due deliveries for the places that are free, revocations first; `under_way` says how many each proxy
        is being made already. Raises `DatabaseUnavailable`."""
        free = AT_ONCE - under_way.total()
        if free <= 0:
            return []
        async with self._store.transaction() as repository:
            return await repository.deliveries.claim(
                lease=secrets.token_hex(8),
                now_ms=self._milliseconds(),
                lease_ms=int(self._pace.lease * 1000),
                limit=free,
                per_proxy=AT_ONCE_PER_PROXY,
                under_way=under_way,
            )

    async def _take_safely(self, under_way: Counter[str]) -> list[DueDelivery]:
        try:
            return await self.take(under_way)
        except Exception as error:
            # The worker must outlive whatever it runs into.
            _log_failure(error)
            return []

    async def _until_something_happens(self, under_way: Collection[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        """The deliveries that have ended, as soon as one has; none when something new has come or the poll is due."""
        kicked = asyncio.create_task(self._kicked.wait())
        try:
            done, _ = await asyncio.wait(
                {kicked, *under_way}, timeout=self._pace.poll, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            kicked.cancel()
        return {task for task in under_way if task in done}

    async def _make(self, delivery: DueDelivery) -> None:
        with trace.working_for(trace.new_trace()):
            try:
                receipt = await self._deliver(delivery)
            except ProxyFailure as failure:
                await self._failed(delivery, failure)
            except DatabaseUnavailable:
                raise
            except Exception as error:
                # One message that cannot be delivered must not keep the others waiting.
                log_unexpected(log, "unexpected while delivering", error)
                await self._failed(delivery, ProxyFailure(PcehrError.code))
            else:
                await self._done(delivery, receipt)
                self._note(delivery, Delivered.DONE)

    async def _deliver(self, delivery: DueDelivery) -> str:
        try:
            # Over everything, the registry included: whatever drips must not keep a place for ever.
            async with asyncio.timeout(self._pace.whole):
                return await self._hand_over(delivery)
        except TimeoutError:
            raise ProxyFailure("proxy_unreachable") from None

    async def _hand_over(self, delivery: DueDelivery) -> str:
        if delivery.sealed is not None:
            return await self._proxies.store(
                delivery.proxy,
                grant=delivery.statement,
                grant_id=delivery.grant,
                patient=delivery.patient,
                sealed=delivery.sealed,
            )
        return await self._proxies.erase(
            delivery.proxy,
            revocation=delivery.statement,
            revocation_id=delivery.statement_id,
            grant_id=delivery.grant,
            patient=delivery.patient,
        )

    async def _done(self, delivery: DueDelivery, receipt: str) -> None:
        async with self._store.transaction() as repository:
            await repository.grants.lock(delivery.grant)
            if not await repository.deliveries.done(delivery, receipt):
                return
            event = "stored" if delivery.kind == "shares" else "erased"
            await repository.journal.log([self._entry(delivery, event)])
            if delivery.kind == "shares":
                await repository.notices.add(
                    await repository.notices.of_grant_now_active(delivery.grant, self._clock())
                )

    def _note(self, delivery: DueDelivery, outcome: Delivered, code: str | None = None) -> None:
        self._figures.delivered[delivery.kind, outcome].inc()
        log.log(
            logging.INFO if outcome is Delivered.DONE else logging.WARNING,
            "delivery",
            extra={
                "delivery": delivery.id,
                "kind": delivery.kind,
                "attempts": delivery.attempts,
                "outcome": outcome.value,
            }
            | ({} if code is None else {"code": code}),
        )

    async def _failed(self, delivery: DueDelivery, failure: ProxyFailure) -> None:
        refused = failure.for_good and delivery.kind == "shares"
        self._note(delivery, Delivered.REFUSED if refused else Delivered.FAILED, failure.code)
        if refused:
            async with self._store.transaction() as repository:
                if await repository.deliveries.refused(delivery, failure.code):
                    await repository.journal.log([self._entry(delivery, "stored", outcome=failure.code)])
            return
        wait = pause(
            delivery.attempts,
            first=self._pace.first_backoff,
            cap=self._pace.max_backoff,
            chance=random.random(),  # noqa: S311  Spreads load; nothing depends on its being unforeseeable.
        )
        async with self._store.transaction() as repository:
            await repository.deliveries.failed(delivery, failure.code, self._milliseconds() + int(wait * 1000))

    def _entry(self, delivery: DueDelivery, event: str, *, outcome: str = "done") -> NewEvent:
        return NewEvent(
            subject=delivery.patient,
            at=self._clock(),
            event=event,
            actor=delivery.proxy,
            grant=delivery.grant,
            statement=delivery.statement_id,
            outcome=outcome,
        )


def _log_failure(error: BaseException) -> None:
    if isinstance(error, DatabaseUnavailable):
        log.warning("the database is away; deliveries wait")
    else:
        log_unexpected(log, "unexpected in the outbox", error)
