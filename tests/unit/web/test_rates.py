"""Token buckets: what they let through, what they ask to wait, and that they stay few."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import TooManyRequests
from shared.web.rates import Buckets, Rate, RequestRates
from shared.web.settings import LOOPBACK


class Timer:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def timer() -> Timer:
    return Timer()


def scope_of(address: str | None) -> dict[str, object]:
    return {"type": "http", "client": None if address is None else (address, 4711)}


def refused_after(rates: RequestRates, address: str | None, most: int = 50) -> int:
    """How many requests from an address were let through before one was refused."""
    for number in range(most):
        with rates.account(scope_of(address)):
            try:
                rates.charge_address()
            except TooManyRequests:
                return number
    return most


def test_a_burst_passes_and_the_next_one_waits(timer: Timer) -> None:
    buckets = Buckets(Rate(per_second=2, burst=3), timer=timer)
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a") == pytest.approx(0.5)
    assert buckets.take("b") == 0
    timer.now += 0.5
    assert buckets.take("a") == 0
    assert buckets.take("a") == pytest.approx(0.5)


@given(st.lists(st.floats(min_value=0, max_value=3), max_size=60))
def test_never_more_than_burst_and_rate_allow(pauses: list[float]) -> None:
    timer = Timer()
    buckets = Buckets(Rate(per_second=4, burst=5), timer=timer)
    taken = 0
    for pause in pauses:
        timer.now += pause
        taken += buckets.take("a") == 0
        assert taken <= 5 + 4 * (timer.now - 1_000) + 1e-6


def test_who_waits_as_long_as_told_is_let_through(timer: Timer) -> None:
    buckets = Buckets(Rate(per_second=3, burst=1), timer=timer)
    assert buckets.take("a") == 0
    timer.now += buckets.take("a") + 1e-9
    assert buckets.take("a") == 0


def test_a_full_bucket_is_forgotten_and_there_are_never_more_than_allowed(timer: Timer) -> None:
    buckets = Buckets(Rate(per_second=1, burst=10), size=100, timer=timer)
    for number in range(1_000):
        buckets.take(str(number))
    assert len(buckets) == 100
    timer.now += 11
    assert len(buckets) == 0


def test_a_penalty_empties_a_bucket_and_no_more(timer: Timer) -> None:
    buckets = Buckets(Rate(per_second=1, burst=10), timer=timer)
    buckets.spill("a", 1_000)
    assert buckets.take("a") == pytest.approx(1)


def test_an_address_that_is_refused_for_nobody_pays_tenfold(timer: Timer) -> None:
    rates = RequestRates(address=Rate(per_second=1, burst=30), timer=timer)
    served = 0
    for _ in range(30):
        with rates.account(scope_of("203.0.113.9")):
            try:
                rates.charge_address()
            except TooManyRequests:
                break
            rates.settle(422)
            served += 1
    assert served == 3
    assert refused_after(rates, "203.0.113.10") == 30


def test_what_a_party_answers_for_costs_its_address_nothing(timer: Timer) -> None:
    rates = RequestRates(address=Rate(per_second=1, burst=3), timer=timer)
    for number in range(20):
        with rates.account(scope_of("203.0.113.9")):
            rates.charge_address()
            rates.charge(f"did:key:z{number}")
            rates.settle(409)
    assert refused_after(rates, "203.0.113.9") == 3


def test_a_party_is_charged_once_for_a_request(timer: Timer) -> None:
    rates = RequestRates(party=Rate(per_second=1, burst=1), timer=timer)
    with rates.account(scope_of("203.0.113.9")):
        rates.charge("did:key:zA")
        rates.charge("did:key:zA")
    with rates.account(scope_of("203.0.113.10")), pytest.raises(TooManyRequests) as refusal:
        rates.charge("did:key:zA")
    assert refusal.value.retry_after == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", None])
def test_addresses_without_a_limit(timer: Timer, address: str | None) -> None:
    rates = RequestRates(address=Rate(per_second=1, burst=2), unlimited=LOOPBACK, timer=timer)
    assert refused_after(rates, address) == 50


SITES = [
    ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
    ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ("fe80::1%eth0", "fe80::1%eth1", True),
    ("::ffff:203.0.113.9", "203.0.113.9", True),
    ("203.0.113.9", "203.0.113.8", False),
    ("a socket", "a socket", True),
]


@pytest.mark.parametrize(("one", "other", "same"), SITES)
def test_which_addresses_share_a_bucket(timer: Timer, one: str, other: str, same: bool) -> None:
    rates = RequestRates(address=Rate(per_second=1, burst=2), timer=timer)
    assert refused_after(rates, one) == 2
    assert refused_after(rates, other) == (0 if same else 2)


def test_outside_of_a_request_nothing_is_charged_to_an_address() -> None:
    rates = RequestRates(address=Rate(per_second=1, burst=1), sign_ups=Rate(per_second=1, burst=1))
    for _ in range(3):
        rates.charge_address()
        rates.charge_sign_up()
