"""Planted faults, as data: a wrong rule, and the property whose violation must give it away."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from client.revoking import Promise
from tests.simulation.rules import Rules


class OneTooFew(Promise):
    """`A >= n - t + k`."""

    @property
    def receipts_needed(self) -> int:
        return super().receipts_needed - 1


class BelievesEverybody(Promise):
    """`A >= n - t + 1`, as if nobody lied."""

    @property
    def receipts_needed(self) -> int:
        return replace(self, assumed_liars=0).receipts_needed if self.assumed_liars else super().receipts_needed


class OneTooMany(Promise):
    """`A >= n - t + 2 + k`."""

    @property
    def receipts_needed(self) -> int:
        return super().receipts_needed + 1


def allow(*_: object, **__: object) -> None:
    """Refuse nothing."""


def every_receipt(receipts: Collection[tuple[str, int]]) -> int:
    """Count receipts and not proxies: one that answers both the records service and the patient counts twice."""
    return len(receipts)


@dataclass(frozen=True)
class Control:
    """One planted fault."""

    name: str
    rules: Rules
    property: str
    liars: int = 0
    """The least number of liars with which it shows."""


CONTROLS = (
    Control("one receipt too few is enough", Rules(promise=OneTooFew), "S1"),
    Control("liars are believed", Rules(promise=BelievesEverybody), "S1", liars=1),
    Control("one receipt too many is wanted", Rules(promise=OneTooMany), "L", liars=1),
    Control("receipts are counted instead of proxies", Rules(count=every_receipt), "S1"),
    Control("a proxy forgets its tombstone on restart", Rules(revocation_survives=False), "S1"),
    Control("a proxy takes a share after the tombstone", Rules(check_not_revoked=allow), "S3"),
    Control("a proxy does not look again before it answers", Rules(check_release=allow), "S3"),
    Control("the records service does not look again", Rules(check_leaving=allow), "S2"),
    Control(
        "the outbox is in memory, and the patient tells nobody",
        Rules(outbox_survives=False, client_tells=False),
        "L",
    ),
)
