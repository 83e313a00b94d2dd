"""How often a party, or an address, may ask: token buckets in the memory of this process, bounded in number.

Whoever is verified answers for its request: the holder of a valid access token, or the issuer of a statement whose
signature holds. Its bucket is charged, and that of the address it came from is not, so that a service which relays
what many patients signed is held back for none of them, and a party is served from an address that others misuse.
What nobody answers for is charged to the address, and more where it was refused.

Replicas count each for themselves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from cachetools import TTLCache
from starlette.types import Scope

from shared.errors import PcehrError, TooManyRequests, Unauthenticated
from shared.tokens import Caller

MAX_BUCKETS = 20_000
"""Of each kind; beyond it the one that was charged longest ago is taken for full. Some 9 MiB."""
REFUSED_COST = 10
"""What a refused request costs the address that it came from, where nobody answers for it."""
IPV6_PREFIX = 64
"""Bits of an IPv6 address that count: whoever has one address has all that begin with these."""

_ROUNDING = 1e-6
"""Seconds; who waits as long as told is let in."""

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Rate:
    """`burst` at once, and `per_second` in the long run."""

    per_second: float
    burst: int


PARTY = Rate(per_second=200, burst=4_000)
ADDRESS = Rate(per_second=200, burst=4_000)
"""Unless a service is told otherwise. One busy client makes some hundred requests a second at the most."""


class Buckets:
    """A token bucket for each key. Of each is kept the moment when it will be full again (the generic cell rate
    algorithm, ITU-T I.371), and only until then."""

    def __init__(self, rate: Rate, *, size: int = MAX_BUCKETS, timer: Callable[[], float] = time.monotonic) -> None:
        self._each = 1 / rate.per_second
        self._whole = rate.burst / rate.per_second
        self._timer = timer
        self._full_at: TTLCache[str, float] = TTLCache(size, self._whole, timer)

    def take(self, key: str) -> float:
        """Take one token; returns 0, or, where there is none, in how many seconds there will be."""
        now = self._timer()
        full_at = max(self._full_at.get(key, now), now) + self._each
        missing = full_at - now - self._whole
        if missing > _ROUNDING:
            return missing
        self._full_at[key] = full_at
        return 0.0

    def spill(self, key: str, tokens: int) -> None:
        """Take these tokens, or as many as there are."""
        now = self._timer()
        full_at = max(self._full_at.get(key, now), now) + tokens * self._each
        self._full_at[key] = min(full_at, now + self._whole)

    def give_back(self, key: str) -> None:
        """Put one token back."""
        if key in self._full_at:
            self._full_at[key] -= self._each

    def __len__(self) -> int:
        return len(self._full_at)


@dataclass
class Account:
    """The request under way: where it comes from (None where that does not count), and who answers for it."""

    address: str | None
    party: str | None = None
    caller: Caller | None = None
    why_nobody: PcehrError | None = None

    def authorised(self) -> Caller:
        """Whom the access token speaks for; raises what was wrong with it."""
        if self.caller is None:
            raise self.why_nobody or Unauthenticated()
        return self.caller


_under_way: ContextVar[Account | None] = ContextVar("account", default=None)


def account_under_way() -> Account:
    """That of the request that this is done for; outside of one, that of nobody."""
    return _under_way.get() or Account(address=None)


class RequestRates:
    """The buckets of one service. `refused` is told for what a request was refused: `party`, `address`, `sign_ups`."""

    def __init__(
        self,
        *,
        party: Rate = PARTY,
        address: Rate = ADDRESS,
        unlimited: Sequence[Network] = (),
        sign_ups: Rate | None = None,
        refused: Callable[[str], None] = lambda _: None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parties = Buckets(party, timer=timer)
        self._addresses = Buckets(address, timer=timer)
        self._sign_ups = None if sign_ups is None else Buckets(sign_ups, timer=timer)
        self._unlimited = tuple(unlimited)
        self._refused = refused

    @contextmanager
    def account(self, scope: Scope) -> Iterator[Account]:
        """Opens the account of a request, to which all that is charged inside belongs."""
        opened = Account(self._address(scope))
        token = _under_way.set(opened)
        try:
            yield opened
        finally:
            _under_way.reset(token)

    def charge_address(self) -> None:
        """Nobody answers for the request so far; raises `TooManyRequests`."""
        address = account_under_way().address
        if address is not None:
            self._check(self._addresses.take(address), "address")

    def charge(self, party: str) -> None:
        """A signature of `party`'s holds, and so it answers for the request; raises `TooManyRequests`."""
        account = account_under_way()
        if account.party is not None:
            return
        account.party = party
        if account.address is not None and account.caller is None:
            self._addresses.give_back(account.address)
        self._check(self._parties.take(party), "party")

    def charge_sign_up(self) -> None:
        """A party wants to be registered; raises `TooManyRequests`."""
        address = account_under_way().address
        if address is not None and self._sign_ups is not None:
            self._check(self._sign_ups.take(address), "sign_ups")

    def settle(self, status: int) -> None:
        """The request ends with this status."""
        account = account_under_way()
        if account.party is None and account.address is not None and 400 <= status < 500 and status != 429:
            self._addresses.spill(account.address, REFUSED_COST - 1)

    def _check(self, missing: float, of: str) -> None:
        if missing > 0:
            self._refused(of)
            raise TooManyRequests(math.ceil(missing))

    def _address(self, scope: Scope) -> str | None:
        client = scope.get("client")
        if client is None:
            return None
        try:
            address = ip_address(client[0].partition("%")[0])
        except ValueError:
            return str(client[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self._unlimited):
            return None
        if isinstance(address, IPv6Address):
            return str(ip_network((address, IPV6_PREFIX), strict=False))
        return str(address)
