"""Some thousands of seeds, and the planted faults that they must find; `make fuzz-revocation` runs many more."""

from __future__ import annotations

from random import Random

import pytest

from tests.simulation.cast import cast
from tests.simulation.controls import CONTROLS, Control
from tests.simulation.network import Network, Weather
from tests.simulation.parties import Nature, PatientClient, Proxy, Recipient, RecordsService
from tests.simulation.simulation import GROUPS, HONEST_RULES, Broken, Judge, liars_that_make_sense, simulate

SEEDS = 300
"""For each (t, n, k), of which there are nine."""

CASES = [(threshold, shares, liars) for threshold, shares in GROUPS for liars in liars_that_make_sense(threshold)]


@pytest.mark.parametrize(("threshold", "shares", "liars"), CASES)
def test_never_sealed_while_something_undisclosed_can_be_opened(threshold: int, shares: int, liars: int) -> None:
    outcomes = [simulate(threshold, shares, liars, seed) for seed in range(SEEDS)]
    # The seeds have seen what the property is about: ends in the middle of the faults, with something left to protect.
    assert sum(outcome.during_faults and outcome.undisclosed > 0 for outcome in outcomes) > SEEDS // 20
    assert any(outcome.disclosed for outcome in outcomes)
    assert liars == 0 or any(outcome.liars == liars and outcome.sealed for outcome in outcomes)


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_a_planted_fault_is_found(control: Control) -> None:
    for seed in range(SEEDS):
        for case in CASES:
            if case[2] >= control.liars:
                try:
                    simulate(*case, seed, rules=control.rules)
                except Broken as fault:
                    if str(fault).startswith(control.property):
                        return
    pytest.fail("no seed shows it")


def test_a_seed_is_a_run() -> None:
    def told(seed: int) -> list[float]:
        times: list[float] = []
        simulate(3, 5, 1, seed, tell=lambda now, *_: times.append(now))
        return times

    assert told(7) == told(7)
    assert told(7) != told(8)


def test_what_proxies_were_asked_for_directly_before_is_no_part_of_the_promise() -> None:
    """Two of three. One proxy gives out its part of capsule 0 before the end; `sealed` comes while the third is away,
    and the part that this one gives afterwards is the second. Of capsule 1, which nobody had asked for, it is the
    first. The one that answered before has it in its log, and the records service gives no body to go with it."""
    calm, known, judge = Weather(0, 0, 0.1, 0), cast(2, 3), Judge(2)
    network = Network(Random(1), calm, until=5)
    proxies = [Proxy(index, Nature.HONEST, network, HONEST_RULES, known, judge) for index in range(3)]
    records = RecordsService(True, network, HONEST_RULES, known, judge)
    client, recipient = PatientClient(0, network, HONEST_RULES, known, judge), Recipient(network)
    judge.network, client.records, recipient.records = network, records, records
    for node in (judge, records, client, recipient):
        node.proxies = proxies
    records.begin()
    network.run()
    assert [proxy.share for proxy in proxies] == [True, True, True]

    network.send(proxies[0], proxies[0].reencrypt, 0, recipient, recipient.life, recipient.got)
    network.until = 7
    network.run()
    for node in (records, proxies[2]):
        node.crash()
    client.begin()
    network.until = 20
    network.run()
    assert client.sealed
    assert judge.undisclosed == [1, 2]

    proxies[2].restart()
    for capsule in (0, 1):
        network.send(proxies[2], proxies[2].reencrypt, capsule, recipient, recipient.life, recipient.got)
    network.until += 1
    network.run()
    assert recipient.has == {0: {0, 2}, 1: {2}}
    assert judge.left == set()
