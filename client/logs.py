"""The services' transparency logs, as a client believes them (docs/spec.md, sections 11 and 12).

A checkpoint of the registry's or the records service's log is accepted when the log that is known for the service has
signed it, enough of the pinned witnesses have cosigned it lately, and it extends the one accepted before. A proxy's
own log has no witnesses; it is checked by being compared with the records service's.

What has been proven to be in a log stays in it, since every checkpoint accepted later extends the one it was proven
under. So each key is proven once in the life of a profile, and known keys go on working while the witnesses are away.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import stamina

from client.errors import (
    LogContradicted,
    NotInLog,
    ServiceRefused,
    ServiceUnreachable,
    StateBusy,
    VerificationFailed,
)
from client.files import write_atomically
from client.log_memory import RECORDS, REGISTRY, KnownLog
from client.verification import verifying
from client.witnesses import Witnesses
from shared.encoding import from_b64url
from shared.identity import VerifiedParty
from shared.schemas.log import MAX_LEAVES, InclusionOut
from shared.transparency.checkpoints import VerifiedCheckpoint, key_of_origin, parse_checkpoint, verify_checkpoint
from shared.transparency.errors import ConsistencyNotProven, InclusionNotProven, LogReplaced, LogRolledBack
from shared.transparency.merkle import verify_consistency, verify_inclusion

if TYPE_CHECKING:
    from client.session import Session

T = TypeVar("T")
Proof = tuple[int, tuple[bytes, ...]]
"""Where a leaf stands in the tree, and its audit path."""

PATIENCE = 9
"""Attempts, half a minute: an entry has its place after some tenths of a second, the witnesses' word soon after."""

OWN_PATIENCE = 5
"""Attempts, some three seconds: for one's own keys, whose proof others need more than oneself."""

WAITING = frozenset({"not_in_log_yet", "not_enough_cosignatures", "checkpoint_stale"})
"""Codes of what may be otherwise in a moment, or when witnesses are back."""

_ATTEMPTS = 5
"""How often a proof is asked for anew because another command of this profile has accepted a newer checkpoint."""

_MAX_EVIDENCE = 1_000
"""Files of evidence kept of one second."""


class Logs:
    """What one party accepts of the logs. All methods raise `VerificationFailed` with a code of its own for each fault,
    and what talking to a service raises."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._memory = session.state.logs
        self._witnesses = Witnesses(session)
        # One for each service: a slow one keeps nobody waiting for another.
        self._one_at_a_time: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def prove_keys(self, leaves: Mapping[bytes, str]) -> None:
        """Return when every leaf is proven to be in the registry's log; what was proven once is not again, since the
        log only grows.

        `leaves` says whose each is, by DID. Up to 200 are asked for at once; what was accepted a moment ago is waited
        for. Raises `NotInLog`, which names the party, for one that the registry does not have in its log.
        """
        await self._prove_all(leaves, PATIENCE)

    async def prove_own_keys(self, leaves: Sequence[bytes]) -> bool:
        """The same for keys of this party's own, which it has checked to be derived from its seed; whether all are
        proven.

        They are good whether they are in the log or not: it is others who refuse them until they are. So they are
        waited for a while, and used all the same while the log or the witnesses are away. Raises `NotInLog` where the
        registry says that it has not logged them, and what shows that the log is another one than before.
        """
        try:
            await self._prove_all(dict.fromkeys(leaves, self._session.did), OWN_PATIENCE)
        except ServiceUnreachable:
            return False
        except (ServiceRefused, VerificationFailed) as failed:
            if failed.code not in WAITING:
                raise
            return False
        return True

    async def prove(
        self, service: str, url: str, leaves: Sequence[bytes], *, attempts: int = PATIENCE
    ) -> tuple[VerifiedCheckpoint, list[Proof]]:
        """Have the log of a service (`registry`, `records` or a proxy's DID), reached at `url`, prove that it holds
        these leaves (1 to 200 hashes of 32 bytes); returns the checkpoint accepted and the proofs, in order.

        What has no place under a published checkpoint yet is waited for: the request is made `attempts` times. Raises
        what `accept` raises, and `not_in_log`.
        """

        async def once() -> tuple[VerifiedCheckpoint, list[Proof]] | None:
            known = await self.known(service)
            answer = await self._ask(url, leaves, known, attempts)
            checkpoint = await self.accept(service, answer.checkpoint, _path(answer.consistency), known=known)
            return None if checkpoint is None else (checkpoint, _proofs(checkpoint, leaves, answer))

        return await self._repeatedly(service, once)

    async def refresh(self, service: str, url: str) -> VerifiedCheckpoint:
        """Accept the newest checkpoint that a service publishes; raises what `accept` raises."""
        platform = self._session.platform

        async def once() -> VerifiedCheckpoint | None:
            known = await self.known(service)
            text = await platform.log_checkpoint(url)
            with verifying():
                size = parse_checkpoint(text).size
            path: list[bytes] = []
            # From nothing, to itself and backwards there is no proof to be had.
            if known is not None and 0 < known.size < size:
                path = _path((await platform.log_consistency(url, known.size, size)).path)
            return await self.accept(service, text, path, known=known)

        return await self._repeatedly(service, once)

    async def accept(
        self, service: str, text: str, consistency: Sequence[bytes], *, known: KnownLog | None
    ) -> VerifiedCheckpoint | None:
        """Accept a checkpoint of a service's log, with the proof that it extends `known`, as the memory had it when the
        proof was asked for. None where another command of this profile has accepted one in the meantime: nothing says
        yet whether this one extends that, so ask anew.

        Raises `log_replaced`, `bad_checkpoint_signature`, `not_enough_cosignatures`, `checkpoint_stale`,
        `log_rolled_back` or `log_forked`; of the last two, both checkpoints are kept beside the state as evidence.
        """
        with verifying():
            shown = parse_checkpoint(text)
            kind, _ = key_of_origin(shown.origin)
            if kind != (service if service in (REGISTRY, RECORDS) else "proxy"):
                raise LogReplaced
            if known is not None and shown.origin != known.origin:
                raise LogReplaced
            checkpoint = verify_checkpoint(text, shown.origin)
        # Before the witnesses are asked: what the log has signed against itself needs nobody else's word.
        old = None if known is None or known.note is None else parse_checkpoint(known.note)
        if old is not None:
            try:
                if checkpoint.size < old.size:
                    raise LogRolledBack
                verify_consistency(old.size, old.root, checkpoint.size, checkpoint.root, consistency)
            except (LogRolledBack, ConsistencyNotProven) as fault:
                raise self.contradiction(fault.code, fault.detail, old.note.format(), text) from None
        if service in (REGISTRY, RECORDS):
            await self._witnesses.check(text)
        if known is None:
            # A proxy's log is pinned when it is first seen; the others are named by the registry (`known`).
            known = self._memory.pin(service, checkpoint.origin)
            if known.origin != checkpoint.origin:
                with verifying():
                    raise LogReplaced
        if old is not None and old.size == checkpoint.size:
            return checkpoint
        return checkpoint if self._memory.accept(service, known, checkpoint) else None

    async def witnesses(self, *, fresh: bool = False) -> dict[str, VerifiedParty | None]:
        """The proxies that vouch for the logs: the pinned ones, or those of the directory at the first use. None for
        one whose keys the registry does not show."""
        return await self._witnesses.all(fresh=fresh)

    async def faults(self) -> int:
        """How many of the witnesses may lie."""
        return await self._witnesses.faults()

    async def witnesses_needed(self) -> int:
        """How many of the witnesses must have cosigned a checkpoint."""
        return await self._witnesses.needed()

    def contradiction(self, code: str, detail: str, old: str, new: str) -> LogContradicted:
        """The failure of this code, with two checkpoints that do not fit together kept as evidence: in a file beside
        the state, if it has one."""
        return LogContradicted.of(code, detail, self._keep_evidence(old, new))

    async def known(self, service: str) -> KnownLog | None:
        """What is remembered of the log; for registry and records service the one named by the registry is pinned.

        Raises `log_replaced` where the registry names another one by now.
        """
        known = self._memory.log(service)
        if service not in (REGISTRY, RECORDS):
            return known
        named = await self._session.platform.discovery()
        origin = named.registry_log if service == REGISTRY else named.records_log
        if known is None:
            known = self._memory.pin(service, origin)
        if known.origin != origin:
            with verifying():
                raise LogReplaced
        return known

    async def _prove_all(self, owners: Mapping[bytes, str], attempts: int) -> None:
        proven = self._memory.proven(list(owners))
        wanted = [leaf for leaf in owners if leaf not in proven]
        for start in range(0, len(wanted), MAX_LEAVES):
            await self._prove_keys(wanted[start : start + MAX_LEAVES], owners, attempts)

    async def _prove_keys(self, leaves: Sequence[bytes], owners: Mapping[bytes, str], attempts: int) -> None:
        dids = list(dict.fromkeys(owners[leaf] for leaf in leaves))
        try:
            await self.prove(REGISTRY, self._session.platform.registry_url, leaves, attempts=attempts)
        except NotInLog:
            if len(dids) == 1:
                raise NotInLog.of(dids[0]) from None
            # The service says of all of them together that one is missing.
            for did in dids:
                await self._prove_keys([leaf for leaf in leaves if owners[leaf] == did], owners, attempts)
        else:
            self._memory.has_proven(leaves)

    async def _ask(self, url: str, leaves: Sequence[bytes], known: KnownLog | None, attempts: int) -> InclusionOut:
        size = known.size if known else 0
        try:
            return await self._session.platform.log_inclusion(url, leaves, size, attempts=attempts)
        except ServiceRefused as refused:
            if refused.code != "not_found":
                raise
            raise NotInLog("The service shows something that is not in its log.") from None

    async def _repeatedly(self, service: str, once: Callable[[], Awaitable[T | None]]) -> T:
        """What `once` returns, tried again where another command was faster (None), or where the last witnesses are
        about to cosign: a checkpoint is published as soon as most of all proxies have, be they one's own or not."""
        async with self._one_at_a_time[service]:
            async for attempt in stamina.retry_context(
                on=_may_change, attempts=_ATTEMPTS, timeout=20.0, wait_initial=0.2, wait_max=1.0, wait_jitter=0.1
            ):
                with attempt:
                    found = await once()
                    if found is None:
                        raise StateBusy
                    return found
        raise StateBusy

    def _keep_evidence(self, old: str, new: str) -> Path | None:
        state = self._session.state.path
        if state is None:
            return None
        now = self._session.clock()
        for number in range(_MAX_EVIDENCE):
            path = state.with_name(f"evidence-{now}-{number}.txt" if number else f"evidence-{now}.txt")
            try:
                # Two checkpoints, one after the other; each ends at the empty line after its signatures.
                write_atomically(path, f"{old}\n{new}".encode(), replace=False)
            except FileExistsError:
                continue
            return path
        return None


def _may_change(error: Exception) -> bool:
    return isinstance(error, StateBusy) or (isinstance(error, VerificationFailed) and error.code in WAITING)


def _path(steps: Sequence[str]) -> list[bytes]:
    with verifying():
        return [from_b64url(step, 32) for step in steps]


def _proofs(checkpoint: VerifiedCheckpoint, leaves: Sequence[bytes], answer: InclusionOut) -> list[Proof]:
    with verifying():
        proofs = [(item.index, tuple(from_b64url(step, 32) for step in item.path)) for item in answer.items]
        if len(proofs) != len(leaves):
            raise InclusionNotProven
        for leaf, (index, path) in zip(leaves, proofs, strict=True):
            verify_inclusion(leaf, index, checkpoint.size, path, checkpoint.root)
    return proofs
