"""One log's events for one subject, checked: nothing is missing, nothing was changed, and all of it is in the tree.

Pure: what is shown, what was remembered and what the log's accepted checkpoints say goes in, and a `CheckedLog` comes
out, or the refusal that names what does not hold (docs/spec.md sections 11 and 13).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from shared.encoding import b64url, from_b64url
from shared.errors import PcehrError, Refused
from shared.transparency.checkpoints import VerifiedCheckpoint
from shared.transparency.entries import Event, commitment, parse_event
from shared.transparency.errors import InclusionNotProven
from shared.transparency.merkle import leaf_hash, verify_inclusion

MAX_EVENTS = 1_000_000
"""Events of one subject in one log that a client takes in; more is refused before memory runs out."""

Kind = Literal["records", "proxy"]
RECORDS = "records"
"""What the records service is called where services are told apart by an id; a proxy is called by its DID."""


class LogFault(Refused):
    """A log that does not hold together; `n` is the event that shows it, where one does."""

    def __init__(self, detail: str | None = None, *, n: int | None = None) -> None:
        super().__init__(detail)
        self.n = n


class EventChanged(LogFault):
    code = "event_changed"
    title = "An event is not the one that was written down."


class EventMissing(LogFault):
    code = "event_missing"
    title = "An event is not shown."


class EventsOutOfOrder(LogFault):
    code = "events_out_of_order"
    title = "The events do not come newest first, each once."


class LogRewritten(LogFault):
    code = "log_rewritten"
    title = "What the log showed before is no part of what it shows now."


class NotInLog(LogFault):
    code = "not_in_log"
    title = "It is not proven that an event stands in the log."


class TooManyEvents(LogFault):
    code = "too_many_events"
    title = "The log shows more events than a client takes in."


class ShownEvent(Protocol):
    """An event as a service shows it: commitment and salt in base64url, text and salt absent once erased."""

    @property
    def n(self) -> int: ...
    @property
    def commitment(self) -> str: ...
    @property
    def event(self) -> str | None: ...
    @property
    def salt(self) -> str | None: ...


@dataclass(frozen=True)
class ChainEnd:
    """The newest event of a chain that was checked: its number and its commitment (base64url)."""

    n: int
    commitment: str


@dataclass(frozen=True)
class LoggedEvent:
    """An event whose commitment holds and which names the one before; `event` is None once its text is erased."""

    n: int
    commitment: str
    event: Event | None
    text: str | None = field(default=None, repr=False)
    salt: str | None = field(default=None, repr=False)

    @property
    def leaf(self) -> bytes:
        """The hash of its leaf, 32 bytes."""
        return leaf_hash(from_b64url(self.commitment, 32))


@dataclass(frozen=True)
class Inclusion:
    """Where a leaf is said to stand, from 0, and the path from its sibling up."""

    index: int
    path: tuple[bytes, ...]


@dataclass(frozen=True)
class Proven:
    """Proofs, by the number of the event, under one checkpoint that the caller has accepted.

    `consistency` is the proof that it extends the checkpoint of the batch before; empty for the first.
    """

    checkpoint: VerifiedCheckpoint
    items: Mapping[int, Inclusion]
    consistency: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class CheckedLog:
    """A chain of which every event is in its place; `unproven` are those that no accepted checkpoint covers yet.

    `service` is `RECORDS` or a proxy's DID. Only `check_log` makes one.
    """

    service: str
    subject: str
    events: tuple[LoggedEvent, ...]
    """Oldest first; the event number `n` stands at `n - 1`."""
    proofs: tuple[Proven, ...] = field(repr=False)
    unproven: frozenset[int]

    @property
    def end(self) -> ChainEnd | None:
        """What to remember of it; None where there is no event."""
        return ChainEnd(self.events[-1].n, self.events[-1].commitment) if self.events else None

    @property
    def erased(self) -> int:
        """How many events have no text any more."""
        return sum(one.event is None for one in self.events)

    def event(self, n: int) -> LoggedEvent | None:
        """The event of this number."""
        return self.events[n - 1] if 1 <= n <= len(self.events) else None


def check_log(
    service: str,
    subject: str,
    shown: Sequence[ShownEvent],
    proofs: Sequence[Proven],
    *,
    remembered: ChainEnd | None = None,
) -> CheckedLog:
    """Check a whole log, newest event first as services show it; `remembered` is the end that was seen last.

    Raises a `LogFault`. Events without a proof are in `unproven`: for how long that may be so, the caller decides.
    """
    events = check_chain(subject, shown, remembered=remembered)
    proven: set[int] = set()
    for batch in proofs:
        for n, proof in batch.items.items():
            _check_inclusion(events, n, proof, batch.checkpoint)
            proven.add(n)
    return CheckedLog(service, subject, events, tuple(proofs), frozenset(one.n for one in events) - proven)


def check_chain(
    subject: str, shown: Sequence[ShownEvent], *, remembered: ChainEnd | None = None
) -> tuple[LoggedEvent, ...]:
    """The events of a subject, oldest first, from 1 without a gap, each with its commitment and naming the one before.

    Raises `EventsOutOfOrder`, `EventMissing`, `EventChanged`, `LogRewritten` or `TooManyEvents`.
    """
    if len(shown) > MAX_EVENTS:
        raise TooManyEvents
    _check_numbers([one.n for one in shown], remembered)
    commitments = [_commitment(one) for one in shown]
    if len(set(commitments)) != len(commitments):
        raise EventChanged("Two events are shown with one and the same commitment.")
    if remembered is not None:
        known = shown[len(shown) - remembered.n]
        if known.commitment != remembered.commitment:
            raise LogRewritten("The newest event seen before is another one now.", n=remembered.n)
    events: list[LoggedEvent] = []
    for one in reversed(shown):
        events.append(_checked(subject, one, events[-1] if events else None))
    return tuple(events)


def _check_numbers(numbers: Sequence[int], remembered: ChainEnd | None) -> None:
    newest = numbers[0] if numbers else 0
    if remembered is not None and newest < remembered.n:
        raise LogRewritten("The log ends before the newest event that was seen before.", n=remembered.n)
    expected = newest
    for n in numbers:
        if n > expected or n < 1:
            raise EventsOutOfOrder(n=n)
        if n < expected:
            raise EventMissing(f"Event {expected} is not shown.", n=expected)
        expected -= 1
    if expected > 0:
        raise EventMissing(f"Event {expected} is not shown.", n=expected)


def _commitment(shown: ShownEvent) -> bytes:
    try:
        return from_b64url(shown.commitment, 32)
    except PcehrError:
        raise EventChanged("The commitment of an event is no hash.", n=shown.n) from None


def _checked(subject: str, shown: ShownEvent, before: LoggedEvent | None) -> LoggedEvent:
    n = shown.n
    if (shown.event is None) != (shown.salt is None):
        raise EventChanged(f"Of event {n} only half is shown.", n=n)
    if shown.event is None or shown.salt is None:
        return LoggedEvent(n, shown.commitment, None)
    try:
        own = commitment(from_b64url(shown.salt, 32), shown.event.encode("utf-8"))
        same = hmac.compare_digest(own, from_b64url(shown.commitment, 32))
        event = parse_event(shown.event) if same else None
    except (PcehrError, UnicodeError):
        event = None
    if event is None:
        raise EventChanged(f"Event {n} is not the one that its commitment stands for.", n=n)
    if event.n != n or event.subject != subject:
        raise EventChanged(f"Event {n} is another event, or another party's.", n=n)
    if before is not None and event.prev != before.commitment:
        raise EventChanged(f"Event {n} does not follow the event that is shown before it.", n=n)
    return LoggedEvent(n, shown.commitment, event, shown.event, shown.salt)


def _check_inclusion(events: Sequence[LoggedEvent], n: int, proof: Inclusion, checkpoint: VerifiedCheckpoint) -> None:
    if not 1 <= n <= len(events):
        raise NotInLog("A proof is for an event that is not shown.", n=n)
    try:
        verify_inclusion(events[n - 1].leaf, proof.index, checkpoint.size, proof.path, checkpoint.root)
    except InclusionNotProven:
        raise NotInLog(f"It is not proven that event {n} stands in the log.", n=n) from None


def proven_leaves(events: Iterable[LoggedEvent]) -> list[str]:
    """The leaf hashes of events, in base64url, as a service is asked for their proofs."""
    return [b64url(one.leaf) for one in events]
