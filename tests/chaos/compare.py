"""The ledger held against what is there: nothing acknowledged is lost, nothing is there twice. Pure; no I/O."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from tests.chaos.effects import Effects
from tests.chaos.ledger import Entry, Signed

ONE_FOR_A_STATEMENT = frozenset({"requested", "denied", "granted", "revoked", "disclosed", "reencrypted", "log_erased"})
"""Events of which a service has one for a statement; of `stored` and `erased` records has one for each proxy."""

_EVENT = {"request": "requested", "denial": "denied", "grant": "granted", "disclosure": "disclosed"}


class Logs:
    """Events of all services by what they say. Texts that were erased are taken from what had been shown before."""

    def __init__(self, effects: Effects, ledger: Iterable[Entry]) -> None:
        shown: dict[str, str] = {}
        for entry in ledger:
            shown |= {commitment: text for _, commitment, text in entry.seen if text is not None}
        self.by_statement: dict[tuple[str, str, str], list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        self.by_capsule: Counter[tuple[str, str]] = Counter()
        for logged in effects.events:
            event = logged.event
            if event is None and logged.commitment in shown:
                event = json.loads(shown[logged.commitment])
            if event is None or event["outcome"] != "done":
                continue
            key = (logged.service, event["event"], event.get("statement", ""))
            self.by_statement[key].append((logged.n, event))
            self.by_capsule.update((event["event"], capsule) for capsule in event.get("capsules", ()))


def problems(ledger: Iterable[Entry], effects: Effects, names: dict[str, str]) -> list[str]:
    """One sentence for each thing that is not as it must be; `names` are the services by host and port."""
    entries = list(ledger)
    logs = Logs(effects, entries)
    found: list[str] = []
    for entry in entries:
        service = names[urlsplit(entry.url).netloc]
        found += _of_entry(entry, service, effects, logs)
    found += _doubled(effects, logs)
    found += _chains(effects)
    found += _receipts(entries, effects, logs)
    return list(dict.fromkeys([*found, *effects.broken_trees]))


def _of_entry(entry: Entry, service: str, effects: Effects, logs: Logs) -> Iterator[str]:
    """The effects of one acknowledgement, of which each must be there exactly once."""
    if entry.kind == "blob":
        yield from _once(entry, effects.rows["records", "blob", entry.url.rpartition("/")[2]], "blob")
    for signed in entry.statements:
        yield from _once(entry, effects.rows[service, "statement", signed.id], f"statement {signed.id}")
        yield from _of_statement(entry, service, signed, effects, logs)


def _of_statement(entry: Entry, service: str, signed: Signed, effects: Effects, logs: Logs) -> Iterator[str]:
    kind = entry.kind
    if kind in ("key_entry", "scope_keys"):
        yield from _once(entry, effects.rows[service, kind, signed.id], f"key {signed.id}")
        yield from _once(entry, effects.rows[service, "leaf", signed.id], f"leaf of {signed.id}")
    elif kind == "records":
        yield from _once(entry, effects.rows[service, "version", signed.id], f"version {signed.id}")
        written = logs.by_capsule["record_written", signed.claims["capsule"]]
        yield from _once(entry, written, f"event of version {signed.id}")
    else:
        if kind in ("request", "grant"):
            yield from _once(entry, effects.rows[service, kind, signed.id], f"{kind} {signed.id}")
        name = {"revocation": "revoked" if service == "records" else "erased", "erasure": "log_erased"}.get(kind)
        yield from _once(
            entry, len(logs.by_statement[service, name or _EVENT[kind], signed.id]), f"event of {kind} {signed.id}"
        )
    if kind == "erasure":
        upto, subject = signed.claims["upto"], signed.claims["iss"]
        for logged in effects.events:
            if (logged.service, logged.subject) == (service, subject) and logged.n <= upto and logged.event:
                yield f"{service}: event {logged.n} of {subject} is there, and its erasure was acknowledged"


def _once(entry: Entry, count: int, what: str) -> Iterator[str]:
    if count == 0:
        yield f"lost: {what}, acknowledged by {entry.url}"
    elif count > 1:
        yield f"doubled: {what} is there {count} times"


def _doubled(effects: Effects, logs: Logs) -> Iterator[str]:
    """What is there twice, whether or not it was acknowledged."""
    for (service, kind, statement), count in effects.rows.items():
        if count > 1:
            yield f"doubled: {service} has {kind} {statement} {count} times"
    for (service, event, statement), found in logs.by_statement.items():
        once_for_each = event in ("stored", "erased") and service == "records"
        actors = Counter(one.get("actor") if once_for_each else None for _, one in found)
        if (event in ONE_FOR_A_STATEMENT or event in ("stored", "erased")) and max(actors.values(), default=0) > 1:
            yield f"doubled: {service} has {len(found)} events {event} of {statement}"


def _chains(effects: Effects) -> Iterator[str]:
    """Every subject's events are numbered from 1 without a gap, and each names the one before."""
    chains: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for logged in effects.events:
        chains[logged.service, logged.subject].append(logged)
    for (service, subject), chain in chains.items():
        chain.sort(key=lambda one: one.n)
        if [one.n for one in chain] != list(range(1, len(chain) + 1)):
            yield f"{service}: the events of {subject} have a gap"
        for before, after in zip([None, *chain], chain, strict=False):
            if after.event is not None and after.event.get("prev") != (before.commitment if before else None):
                yield f"{service}: event {after.n} of {subject} does not follow the one before"
        if not all(one.commitment for one in chain):
            yield f"{service}: an event of {subject} has no leaf"


def _receipts(entries: Iterable[Entry], effects: Effects, logs: Logs) -> Iterator[str]:
    """A receipt that was handed out has its event, under the receipt's number."""
    tokens = {*effects.receipts, *(receipt for entry in entries for receipt in entry.receipts)}
    for proxy, token in tokens:
        claims = Signed.of(token).claims
        found = logs.by_statement[effects.proxies[proxy], claims["act"], claims["statement"]]
        if [n for n, _ in found] != [claims["seq"]]:
            name = effects.proxies[proxy]
            yield f"lost: {name} gave receipt {claims['seq']} for {claims['statement']}, and its log has {found}"
