"""Rules of the services replaced by wrong ones, as data; the machine must disagree with each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from services.proxy import domain as proxy
from services.records.repository import visibility
from services.records.service import disclosures, writing


@dataclass(frozen=True)
class Fault:
    """One function of a module and what stands in its place."""

    module: ModuleType
    name: str
    replacement: Callable[..., Any]


@dataclass(frozen=True)
class Control:
    """A planted fault: what it is, and where."""

    name: str
    faults: tuple[Fault, ...]
    quick: bool = False
    """Whether it shows within so few steps that every run of the tests can look for it."""


_check_use, _check_disclosure = proxy.check_use, disclosures.check_disclosure


def _use_whenever(grant: Any, request: Any, *, now: int, revoked: bool) -> None:
    _check_use(replace(grant, exp=now + 1), request, now=now, revoked=revoked)


def _use_by_anybody(grant: Any, request: Any, *, now: int, revoked: bool) -> None:
    _check_use(replace(grant, recipient=request.iss), request, now=now, revoked=revoked)


def _use_for_all(grant: Any, request: Any, *, now: int, revoked: bool) -> None:
    _check_use(replace(grant, limits=tuple(None for _ in grant.limits)), request, now=now, revoked=revoked)


def _use_when_revoked(grant: Any, request: Any, *, now: int, revoked: bool) -> None:
    _check_use(grant, request, now=now, revoked=False)


def _disclose_whenever(grant: Any, issuer: str, wanted: Any, listed: Any, now: int) -> None:
    _check_disclosure(replace(grant, expires_at=now + 1), issuer, wanted, listed, now)


def _disclose_revoked(grant: Any, issuer: str, wanted: Any, listed: Any, now: int) -> None:
    _check_disclosure(replace(grant, revoked=False), issuer, wanted, listed, now)


def _disclose_all(grant: Any, issuer: str, wanted: Any, listed: Any, now: int) -> None:
    scopes = tuple(replace(entry, limited=False) for entry in grant.scopes)
    _check_disclosure(replace(grant, scopes=scopes), issuer, wanted, listed, now)


def _holds_for_ever(now: int) -> Any:
    return visibility.not_revoked()


def _author_may(*_: object) -> None:
    """Refuse no author anything."""


CONTROLS = (
    Control("proxies ignore the end of a grant", (Fault(proxy, "check_use", _use_whenever),)),
    Control("proxies ignore tombstones", (Fault(proxy, "check_use", _use_when_revoked),)),
    Control("proxies ignore lists of capsules", (Fault(proxy, "check_use", _use_for_all),)),
    Control("proxies ignore whom a grant was given to", (Fault(proxy, "check_use", _use_by_anybody),), quick=True),
    Control("records: disclosure ignores the end", (Fault(disclosures, "check_disclosure", _disclose_whenever),)),
    Control("records: disclosure ignores the tombstone", (Fault(disclosures, "check_disclosure", _disclose_revoked),)),
    Control("records: disclosure ignores lists", (Fault(disclosures, "check_disclosure", _disclose_all),)),
    Control("records: what is shown ignores the end", (Fault(visibility, "holds", _holds_for_ever),)),
    Control("records: authors are not checked", (Fault(writing, "check_author", _author_may),)),
)
