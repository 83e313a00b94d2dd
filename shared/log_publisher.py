"""Gives what has been appended its place in the log, has the witnesses cosign the tree, and publishes it.

A task of every replica. It sequences when kicked after a commit, or else every `poll` seconds, and hands the newest
checkpoint to each witness in a task of its own, without a transaction open: one that is dead, slow or lies keeps
nobody else from cosigning, and costs one attempt after each growing pause. A new checkpoint is signed only when the
one before is published, or has not been for `patience` seconds; otherwise checkpoints under load would overtake the
cosignatures of each other, and none would get enough.

Before the first new signature after a start the newest checkpoint is shown to the witnesses. If one can show a
checkpoint with the log's own signature that this tree does not extend, the database is an old copy; from then on
nothing is signed or published (`shared.db.log.LogHalted`), a line in the log says so every minute, and
`pcehr_log_halted` is 1. A witness's word alone halts nothing. The service goes on working and stays ready, since what
takes access away must be possible at any time; what it writes waits in the table.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx
from prometheus_client import CollectorRegistry, Gauge

from shared.db.log import BATCH, Log, LogDamaged, LogHalted, SignedCheckpoint, is_enough
from shared.errors import PcehrError, Unavailable
from shared.transparency.checkpoints import verify_checkpoint
from shared.web.logs import log_unexpected
from shared.witness_client import NotConsistent, OtherSize, Witness, WitnessClient, WitnessFailure

log = logging.getLogger("pcehr.log")

SAY_AGAIN_SECONDS = 60.0
ATTEMPTS = 3
"""Sizes that are tried with a witness in a row; it may have cosigned another replica's checkpoint in between."""

Witnesses = Callable[[], Awaitable[Sequence[Witness]]]
"""Gives all witnesses of the moment; asked before each round, so that a slow source should keep its answer a while."""


@dataclass(frozen=True)
class Pace:
    """All in seconds. `poll` is how often to look without being kicked, `rest` the least time from one look to the
    next, however often it is kicked: a look costs as much as what it is kicked for, and takes in all that has come
    meanwhile. `whole` is the most that one witness gets for one checkpoint, `grace` how long a published checkpoint
    still waits for the other witnesses before there is a next, `patience` how long one waits that is not published,
    `first_backoff` and `max_backoff` the pauses after failures of a witness, and `refresh` the age at which a
    cosignature is asked for anew."""

    poll: float = 1.0
    rest: float = 0.5
    whole: float = 5.0
    grace: float = 0.2
    patience: float = 5.0
    first_backoff: float = 0.5
    max_backoff: float = 30.0
    refresh: float = 600.0


class Superseded(Exception):
    """Another replica has signed a younger checkpoint, and the witness has it already."""


@dataclass
class _Courier:
    """What is known of one witness: the size it knows, whether it has been asked since the start, what it has cosigned
    last and when, and when it may be asked again."""

    known: int = 0
    tried: bool = False
    cosigned_size: int = -1
    cosigned_at: float = 0.0
    failures: int = 0
    not_before: float = 0.0
    task: asyncio.Task[None] | None = None


class Publisher:
    """The task. Without `witnesses` (a proxy's own log) every checkpoint is published as it is signed.

    `metrics` is where the figures go: `app.state.metrics.registry`.
    """

    def __init__(
        self,
        store: Log,
        http: httpx.AsyncClient | None = None,
        witnesses: Witnesses | None = None,
        *,
        pace: Pace | None = None,
        metrics: CollectorRegistry | None = None,
    ) -> None:
        if (http is None) != (witnesses is None):
            raise ValueError("witnesses are asked over HTTP")
        self._log = store
        self._client = WitnessClient(http) if http is not None else None
        self._witnesses = witnesses
        self._pace = pace or Pace()
        self._kicked = asyncio.Event()
        self._couriers: dict[str, _Courier] = {}
        self._panel: tuple[Witness, ...] = ()
        self._shown_since: float | None = None
        self._shown = False
        self._round: tuple[int, float] = (-1, 0.0)
        self._published_at = 0.0
        self._said_at = -SAY_AGAIN_SECONDS
        self.size = 0
        self.published_size = 0
        self.halted = False
        if metrics is not None:
            self._measure(metrics)

    def kick(self) -> None:
        """Say that a transaction that appended to the log has just been committed."""
        self._kicked.set()

    async def run(self) -> None:
        """Publish until cancelled, whatever happens."""
        try:
            while True:
                self._kicked.clear()
                started = time.monotonic()
                wait = await self._step_safely()
                try:
                    async with asyncio.timeout(wait):
                        await self._kicked.wait()
                except TimeoutError:
                    pass
                await asyncio.sleep(max(0.0, started + self._pace.rest - time.monotonic()))
        finally:
            tasks = [courier.task for courier in self._couriers.values() if courier.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _step_safely(self) -> float:
        try:
            wait = await (self._step_alone() if self._witnesses is None else self._step())
        except (LogHalted, LogDamaged) as error:
            self.halted = True
            self._say(error)
            return self._pace.poll
        except Unavailable as error:
            log.warning("publishing waits: %s", error.code, extra={"code": error.code})
            return self._pace.poll
        except Exception as error:
            # The task must outlive whatever it runs into.
            log_unexpected(log, "unexpected while publishing", error)
            return self._pace.poll
        self.halted = False
        return wait

    async def _step_alone(self) -> float:
        while await self._log.sequence(publish=True) == BATCH:
            pass
        self._note(await self._log.newest())
        return self._pace.poll

    async def _step(self) -> float:
        """Whatever can be done now; returns after how many seconds there may be more to do."""
        now = time.monotonic()
        newest = await self._log.newest()
        if newest is None:
            # The empty tree contradicts nothing, whatever was signed before.
            await self._log.sequence(0)
            newest = await self._log.newest()
            if newest is None:
                return self._pace.poll
        await self._ask_for_panel()
        if self._may_grow(newest, now):
            while await self._log.sequence() == BATCH:
                pass
            newest = await self._log.newest() or newest
        members = {witness.did for witness in self._panel}
        if not newest.published and is_enough(newest.cosignatures, members):
            # There are no witnesses, or those that had not cosigned are none any more.
            newest = await self._log.cosign(newest.size, {}, witnesses=members) or newest
        self._note(newest)
        for witness in self._panel:
            self._send(witness, newest, now)
        if newest.published and self._busy(newest.size):
            return min(self._pace.poll, self._pace.grace)
        return self._pace.poll

    async def _ask_for_panel(self) -> None:
        """Raises `Unavailable` where nobody can say who the witnesses are: publishing without them needs to know that
        there are none. Who they were a moment ago serves as well."""
        assert self._witnesses is not None
        try:
            async with asyncio.timeout(self._pace.whole):
                panel = tuple(await self._witnesses())
        except (PcehrError, TimeoutError):
            if self._shown_since is None:
                raise Unavailable from None
            return
        self._panel = panel
        for did in self._couriers.keys() - {witness.did for witness in panel}:
            if (task := self._couriers.pop(did).task) is not None:
                task.cancel()

    def _may_grow(self, newest: SignedCheckpoint, now: float) -> bool:
        """Whether there may be a next checkpoint after this one."""
        if self._round[0] != newest.size:
            self._round = (newest.size, now)
        if not self._shown:
            self._shown_since = self._shown_since or now
            asked = all(self._couriers.get(witness.did, _Courier()).tried for witness in self._panel)
            self._shown = asked or now - self._shown_since > self._pace.whole
            if not self._shown:
                return False
        if newest.published:
            return not self._busy(newest.size) or now - self._published_at >= self._pace.grace
        return now - self._round[1] >= self._pace.patience or newest.size == 0

    def _busy(self, size: int) -> bool:
        """Whether a witness that answered last time is at a checkpoint of this size."""
        return any(
            courier.task is not None and courier.failures == 0 and courier.cosigned_size < size
            for courier in self._couriers.values()
        )

    def _send(self, witness: Witness, newest: SignedCheckpoint, now: float) -> None:
        """Start handing the checkpoint to a witness, unless it is at another, in a pause, or has cosigned it."""
        courier = self._couriers.setdefault(witness.did, _Courier())
        if courier.task is not None or now < courier.not_before:
            return
        if courier.tried and witness.did in newest.cosignatures:
            if courier.cosigned_size != newest.size:
                # Another replica was faster.
                courier.cosigned_size, courier.cosigned_at = newest.size, now
            if now - courier.cosigned_at < self._pace.refresh:
                return
        courier.task = asyncio.create_task(self._hand_over_safely(witness, courier, newest))

    async def _hand_over_safely(self, witness: Witness, courier: _Courier, newest: SignedCheckpoint) -> None:
        try:
            async with asyncio.timeout(self._pace.whole):
                line = await self._hand_over(witness, courier, newest)
            courier.cosigned_size, courier.cosigned_at = newest.size, time.monotonic()
            courier.failures = 0
            merged = await self._log.cosign(
                newest.size, {witness.did: line}, witnesses={member.did for member in self._panel}
            )
            self._note(merged)
            courier.tried = True
        except Superseded:
            courier.tried = True
        except WitnessFailure as failure:
            self._failed(courier, failure.code)
        except TimeoutError:
            self._failed(courier, "witness_unreachable")
        except PcehrError as error:
            # The database is away, or the log has just been halted: not the witness's failure, but no haste either.
            courier.not_before = time.monotonic() + self._pace.first_backoff
            log.warning("a cosignature is asked for later: %s", error.code, extra={"code": error.code})
        except Exception as error:
            # Whatever else a witness's address or answer brings about is that witness's failure.
            log_unexpected(log, "unexpected while publishing", error)
            self._failed(courier, PcehrError.code)
        finally:
            courier.task = None
            self._kicked.set()

    async def _hand_over(self, witness: Witness, courier: _Courier, newest: SignedCheckpoint) -> str:
        assert self._client is not None
        checkpoint = verify_checkpoint(newest.note, self._log.origin)
        old = min(courier.known, newest.size)
        for _ in range(ATTEMPTS):
            path = await self._log.consistency_to(old, newest)
            try:
                line = await self._client.add_checkpoint(witness, checkpoint, old, path)
            except OtherSize as other:
                # The size it was told, once more, is what it says of another root of that size.
                if other.size > newest.size or other.size == old:
                    await self._look_into(witness, newest, other.size)
                old = other.size
            except NotConsistent:
                await self._look_into(witness, newest, old)
            else:
                courier.known = newest.size
                return line
        raise WitnessFailure("witness_answer_invalid")

    async def _look_into(self, witness: Witness, newest: SignedCheckpoint, size: int) -> None:
        """A witness says that this tree is not the one it knows. Raises `Superseded` if another replica has signed a
        younger one, `LogHalted` if the witness can show what it says, and `WitnessFailure` otherwise."""
        assert self._client is not None
        current = await self._log.newest()
        if current is not None and newest.size < size <= current.size:
            raise Superseded
        for note in await self._client.checkpoints(witness):
            if not note.startswith(self._log.origin + "\n"):
                continue
            if await self._refuted_by(note):
                raise LogHalted
        raise WitnessFailure("witness_answer_invalid")

    async def _refuted_by(self, note: str) -> bool:
        try:
            return await self._log.refute(note)
        except Unavailable:
            raise
        except PcehrError:
            # Not signed by this log, so that it says nothing about it.
            return False

    def _failed(self, courier: _Courier, code: str) -> None:
        pause = min(self._pace.first_backoff * 2**courier.failures, self._pace.max_backoff)
        courier.failures = min(courier.failures + 1, 30)
        courier.tried = True
        courier.not_before = time.monotonic() + pause
        log.info("a witness has not cosigned: %s", code, extra={"code": code})

    def _note(self, checkpoint: SignedCheckpoint | None) -> None:
        if checkpoint is None:
            return
        self.size = max(self.size, checkpoint.size)
        if checkpoint.published and checkpoint.size >= self.published_size:
            if checkpoint.size > self.published_size:
                self._published_at = time.monotonic()
            self.published_size = checkpoint.size

    def _say(self, error: LogHalted | LogDamaged) -> None:
        now = time.monotonic()
        if now - self._said_at >= SAY_AGAIN_SECONDS:
            self._said_at = now
            log.critical("%s: %s", error.code, error.title, extra={"code": error.code})

    def _measure(self, registry: CollectorRegistry) -> None:
        figures: tuple[tuple[str, str, Callable[[], float]], ...] = (
            ("pcehr_log_size", "Leaves of the newest tree signed.", lambda: self.size),
            ("pcehr_log_published_size", "Leaves of the newest tree published.", lambda: self.published_size),
            ("pcehr_log_halted", "1 if the log contradicts what it signed before.", lambda: self.halted),
            (
                "pcehr_log_failing_witnesses",
                "Witnesses that did not cosign when they were asked last.",
                lambda: sum(courier.failures > 0 for courier in self._couriers.values()),
            ),
        )
        for name, text, read in figures:
            Gauge(name, text, registry=registry).set_function(read)
