"""One seed, one run: `n` proxies of which some lie, crashes, losses, and a patient who takes a grant back.

What must hold, whatever the seed:

  S1  From the moment the patient's client says `sealed`, the recipient can put together fewer than `t` re-encryptions
      of any capsule that was undisclosed then. It may hold every ciphertext, as if the records service were on its
      side; it gets whatever any liar has; and a share still on its way to a proxy without a tombstone counts as there.
      Undisclosed is a capsule no re-encryption of which has come from a proxy that has ended the grant since. Who has
      asked such proxies directly before has part of what opens it, and `sealed` says nothing of that capsule: each
      answer is in the log of the proxy that gave it (`test_revocation.py` shows the case).
  S2  An honest records service lets nothing leave any more from the moment that it has filed the revocation.
  S3  An honest proxy with a tombstone holds no share and gives nothing out.
  L   When the faults have ended, `sealed` comes if and only if enough proxies sign: with `r` that refuse,
      if n - r >= n - t + 1 + k.

Judged is what could be had, not only what the recipient happened to ask for, so that one seed stands for many.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.simulation.cast import CAPSULES, cast
from tests.simulation.network import Network, Node, Tell, Weather
from tests.simulation.parties import Nature, PatientClient, Proxy, Recipient, RecordsService
from tests.simulation.rules import Rules

FAULTS_END = 30.0
END = 110.0
"""Seconds: some rounds of the slowest back-off, of leases and of the patient's patience after the faults have ended."""
STILL = 4.0
"""Seconds that are watched after `sealed`, when the faults have ended too."""

GROUPS = ((2, 3), (3, 5), (4, 7))
"""(t, n) as issued by default, and two larger ones."""


def liars_that_make_sense(threshold: int) -> range:
    """With more liars than `t - 1` not even a receipt of every proxy would be enough."""
    return range(threshold)


class Broken(AssertionError):
    """A property does not hold; the message says which, and when."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run, so that a campaign can say that it has seen what it is about."""

    sealed: bool
    possible: bool
    undisclosed: int
    """Capsules that S1 was about."""
    during_faults: bool
    liars: int
    disclosed: int


class Judge:
    """Sees everything, and decides nothing for anybody."""

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self.network: Network
        self.records: RecordsService
        self.proxies: list[Proxy] = []
        self.sealed_at: float | None = None
        self.undisclosed: list[int] = []
        self.left: set[int] = set()
        self._filed = False
        self._releases: list[set[int]] = [set() for _ in range(CAPSULES)]

    def released(self, capsule: int, proxy: Proxy) -> None:
        if proxy.nature is Nature.HONEST and proxy.revoked:
            raise Broken(f"S3: proxy {proxy.index} answers at {self.network.now:.2f} s, and has a tombstone")
        self._releases[capsule].add(proxy.index)
        self.look()

    def disclosed(self, capsule: int) -> None:
        if self._filed:
            raise Broken(f"S2: capsule {capsule} left at {self.network.now:.2f} s, after the revocation was filed")
        self.left.add(capsule)

    def revocation_filed(self) -> None:
        self._filed = True

    def sealed(self) -> None:
        able = {proxy.index for proxy in self.proxies if proxy.can_release}
        self.sealed_at = self.network.now
        self.network.until = max(FAULTS_END, self.sealed_at) + STILL
        self.undisclosed = [capsule for capsule in range(CAPSULES) if self._releases[capsule] <= able]
        self.look()

    def look(self) -> None:
        """Called whenever anything has changed that a property depends on."""
        for proxy in self.proxies:
            if proxy.revoked and proxy.share:
                raise Broken(f"S3: proxy {proxy.index} holds a share at {self.network.now:.2f} s, and a tombstone")
        if self.sealed_at is None:
            return
        able = {proxy.index for proxy in self.proxies if proxy.can_release}
        for capsule in self.undisclosed:
            if len(able | self._releases[capsule]) >= self._threshold:
                raise Broken(
                    f"S1: sealed since {self.sealed_at:.2f} s, and at {self.network.now:.2f} s proxies"
                    f" {sorted(able | self._releases[capsule])} open capsule {capsule}"
                )


HONEST_RULES = Rules()


def simulate(
    threshold: int, shares: int, liars: int, seed: int, rules: Rules = HONEST_RULES, tell: Tell | None = None
) -> Outcome:
    """One run; raises `Broken`. The same arguments give the same run."""
    random = Random(f"{threshold} {shares} {liars} {seed}")
    chance = random.random
    weather = Weather(chance() * 0.5, chance() * 0.3, 0.2 + chance() * 4.0, FAULTS_END)
    network = Network(random, weather, END, tell)
    known, judge = cast(threshold, shares), Judge(threshold)
    lying = set(random.sample(range(shares), random.randint(0, liars)))
    proxies = [Proxy(index, _nature(random, index in lying), network, rules, known, judge) for index in range(shares)]
    records = RecordsService(chance() < 0.85, network, rules, known, judge)
    client = PatientClient(liars, network, rules, known, judge)
    recipient = Recipient(network)
    judge.network, judge.records = network, records
    for node in (judge, records, client, recipient):
        node.proxies = proxies
    client.records = recipient.records = records

    records.begin()
    network.after(1 + chance() * (FAULTS_END - 10), client.begin)
    for node in (records, client, *proxies):
        _plan_crashes(random, network, node)
    _plan_questions(random, network, recipient)

    network.run()
    refusing = sum(proxy.nature is Nature.REFUSES for proxy in proxies)
    possible = shares - refusing >= shares - threshold + 1 + liars
    if client.sealed != possible:
        raise Broken(f"L: {refusing} refuse, and the revocation is {'' if client.sealed else 'not '}sealed")
    return Outcome(
        sealed=client.sealed,
        possible=possible,
        undisclosed=len(judge.undisclosed),
        during_faults=judge.sealed_at is not None and judge.sealed_at < FAULTS_END,
        liars=len(lying),
        disclosed=len(judge.left),
    )


def _nature(random: Random, lies: bool) -> Nature:
    if not lies:
        return Nature.HONEST
    return Nature.PRETENDS if random.random() < 0.7 else Nature.REFUSES


def _plan_crashes(random: Random, network: Network, node: Node) -> None:
    """None, one or two crashes while there are faults, each followed by a restart."""
    at = random.random() * FAULTS_END
    while random.random() < 0.4 and at < FAULTS_END - 1:
        down = min(at + random.random() * 15, FAULTS_END)
        network.after(at, node.crash)
        network.after(down, node.restart)
        at = down + random.random() * 10


def _plan_questions(random: Random, network: Network, recipient: Recipient) -> None:
    """Some capsules are asked for early, all of them late."""
    for capsule in range(CAPSULES):
        asked = []
        if capsule < CAPSULES - 1 and random.random() < 0.4:
            asked.append(random.random() * FAULTS_END)
        asked.append(random.random() * (FAULTS_END + STILL))
        for at in asked:
            network.after(at, recipient.ask_proxies if random.random() < 0.6 else recipient.ask_records, capsule)
