"""The pure rules, where the routes do not already show every case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from services.records.domain import (
    ProxyOfGrant,
    grant_state,
    order_of_asking,
    patience_with,
    pause,
    refused_for_good,
    request_state,
)
from shared.schemas.records import GrantState, RequestState

NAMES = some.lists(some.sampled_from([f"did:key:z{n}" for n in range(16)]), unique=True, max_size=16)


@given(some.integers(1, 10_000), some.floats(0.01, 10), some.floats(10, 600), some.floats(0, 1))
def test_a_pause_stays_within_half_and_the_whole_of_its_interval(
    attempts: int, first: float, cap: float, chance: float
) -> None:
    whole = min(cap, first * 2.0 ** min(attempts - 1, 32))
    assert whole / 2 <= pause(attempts, first=first, cap=cap, chance=chance) <= whole <= cap


@pytest.mark.parametrize(
    ("status", "for_good"),
    [(200, False), (302, False), (400, True), (403, True), (404, True), (408, False), (409, True), (422, True),
     (425, False), (429, False), (499, True), (500, False), (503, False)],
)  # fmt: skip
def test_what_counts_as_refused_for_good(status: int, for_good: bool) -> None:
    assert refused_for_good(status, "some_code") is for_good
    # Without a problem document it may come from something before the proxy.
    assert refused_for_good(status, None) is False


@pytest.mark.parametrize(("status", "code"), [(404, "unknown_party"), (409, "key_chain_rolled_back")])
def test_what_the_registry_may_show_again_is_not_refused_for_good(status: int, code: str) -> None:
    assert refused_for_good(status, code) is False


@given(NAMES, some.data())
def test_the_order_of_asking(names: list[str], data: some.DataObject) -> None:
    proxies = [ProxyOfGrant(name, data.draw(some.booleans())) for name in names]
    exclude = set(data.draw(NAMES))
    seconds = data.draw(some.dictionaries(some.sampled_from(names or ["-"]), some.floats(0, 100)))
    order = order_of_asking(proxies, exclude, seconds)
    by_name = {proxy.did: proxy for proxy in proxies}
    assert set(order) == set(names) - exclude
    keys = [(not by_name[name].stored, seconds.get(name, 0.0)) for name in order]
    assert keys == sorted(keys)


@given(some.booleans(), some.integers(0, 16), some.integers(0, 16), some.integers(0, 16), some.integers(0, 10))
def test_the_state_of_a_grant(revoked: bool, threshold: int, proxies: int, stored: int, now: int) -> None:
    threshold, stored = min(threshold, proxies), min(stored, proxies)
    state = grant_state(revoked=revoked, expires_at=5, threshold=threshold, proxies=proxies, stored=stored, now=now)
    if revoked:
        assert state is GrantState.REVOKED
    elif now >= 5:
        assert state is GrantState.EXPIRED
    elif stored == proxies:
        assert state is GrantState.COMPLETE
    else:
        assert state is (GrantState.ACTIVE if stored >= threshold else GrantState.PENDING)


def test_a_grant_without_shares_is_complete_at_once() -> None:
    state = grant_state(revoked=False, expires_at=5, threshold=0, proxies=0, stored=0, now=1)
    assert state is GrantState.COMPLETE


@pytest.mark.parametrize(
    ("denied", "granted", "now", "state"),
    [
        (True, True, 9, RequestState.DENIED),
        (True, False, 1, RequestState.DENIED),
        (False, True, 9, RequestState.APPROVED),
        (False, False, 1, RequestState.PENDING),
        (False, False, 5, RequestState.EXPIRED),
    ],
)
def test_the_state_of_a_request(denied: bool, granted: bool, now: int, state: RequestState) -> None:
    assert request_state(denied=denied, granted=granted, expires_at=5, now=now) is state


def test_whoever_asks_for_more_capsules_waits_longer_before_another_proxy_is_asked() -> None:
    waits = [patience_with(0.25, capsules) for capsules in (1, 26, 101, 200)]
    assert waits[:3] == [0.25, 0.5, 1.25]
    assert waits == sorted(waits)
