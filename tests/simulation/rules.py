"""The project's own rules, as the simulated parties call them. A control replaces one of them by a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from client.revoking import Promise
from services.proxy import domain as proxy
from services.records import domain as records


def distinct(receipts: Collection[tuple[str, int]]) -> int:
    """How many proxies have proved an erasure; a receipt is (way it came, proxy)."""
    return len({proxy for _, proxy in receipts})


@dataclass(frozen=True)
class Rules:
    """What each party goes by. The booleans are no functions of the project; they say what survives a crash and when
    an answer leaves, which in the services is the order of a commit and a return."""

    promise: Callable[..., Promise] = Promise
    count: Callable[[Collection[tuple[str, int]]], int] = distinct
    share_for: Callable[..., object] = proxy.share_for
    check_not_ended: Callable[..., None] = proxy.check_not_ended
    check_not_revoked: Callable[..., None] = proxy.check_not_revoked
    check_use: Callable[..., None] = proxy.check_use
    check_release: Callable[..., None] = proxy.check_use
    check_not_lapsed: Callable[..., None] = proxy.check_not_lapsed
    check_disclosure: Callable[..., None] = records.check_disclosure
    check_leaving: Callable[..., None] = records.check_disclosure
    order_of_asking: Callable[..., list[str]] = records.order_of_asking
    refused_for_good: Callable[..., bool] = records.refused_for_good
    pause: Callable[..., float] = records.pause
    revocation_survives: bool = True
    """A proxy's tombstone and erasure are on disk before its receipt leaves."""
    outbox_survives: bool = True
    """The records service's outbox is on disk."""
    client_tells: bool = True
    """The patient's client sends the revocation to silent proxies itself."""
