"""The parties: proxies, the records service with its outbox, the patient's client, and a recipient who wants more.

Each decides by the project's own rules (`rules.py`). What they add is what the services add: which step is a commit,
what is only in memory, and who waits for whom.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from services.records.domain import ProxyOfGrant
from shared.errors import PcehrError
from tests.simulation.cast import BEGINNING, Cast
from tests.simulation.network import Network, Node
from tests.simulation.rules import Rules

if TYPE_CHECKING:
    from tests.simulation.simulation import Judge

FIRST_BACKOFF, MAX_BACKOFF = 1.0, 8.0
ANSWER_WITHIN, LEASE = 4.0, 8.0
"""Seconds after which a delivery counts as failed, and after which another worker takes it up."""
LOOK_EVERY, PATIENCE, RUN, REST = 3.0, 3.5, 9.0, 4.0
"""Seconds: how the client polls, when it tells the proxies itself, how long a run of `revoke` waits, and how long the
patient waits before the next one."""


class Nature(StrEnum):
    """Whether a proxy keeps to the rules."""

    HONEST = "honest"
    PRETENDS = "signs that it has erased, and keeps its share"
    REFUSES = "keeps its share, and signs nothing"


class Proxy(Node):
    """One proxy. A liar re-encrypts whatever it is asked for, for ever."""

    def __init__(self, index: int, nature: Nature, network: Network, rules: Rules, cast: Cast, judge: Judge) -> None:
        super().__init__(network)
        self.index = index
        self.did = cast.proxies[index]
        self.nature = nature
        self.share = False
        self.known = False
        self.revoked = False
        self._before = (False, False)
        self._rules, self._cast, self._judge = rules, cast, judge

    @property
    def can_release(self) -> bool:
        """Whether the recipient can still get something here, now or after a share that is on its way has come."""
        if self.nature is not Nature.HONEST:
            return True
        return not self.revoked and (self.share or not self.known)

    def restart(self) -> None:
        super().restart()
        if not self._rules.revocation_survives and self.revoked:
            self.revoked, (self.share, self.known) = False, self._before
        self._judge.look()

    def take_share(self, records: RecordsService, life: int, lease: int) -> None:
        rules, now = self._rules, BEGINNING + self.network.now
        try:
            rules.share_for(self._cast.grant, self.did)
            rules.check_not_ended(self._cast.grant, now)
            rules.check_not_revoked(revoked=self.revoked)
        except PcehrError as refusal:
            self.network.answer(records, life, records.refused, "shares", self.index, lease, refusal)
        else:
            self.later(0.3 * self.network.random.random(), self._keep_share, records, life, lease)

    def _keep_share(self, records: RecordsService, life: int, lease: int) -> None:
        try:
            self._rules.check_not_ended(self._cast.grant, BEGINNING + self.network.now)
            self._rules.check_not_revoked(revoked=self.revoked)
        except PcehrError as refusal:
            self.network.answer(records, life, records.refused, "shares", self.index, lease, refusal)
            return
        if not self.known:
            self.known = self.share = True
            self._judge.look()
        self.network.answer(records, life, records.delivered, "shares", self.index, lease, 0)

    def reencrypt(self, capsule: int, asker: Node, life: int, take: object) -> None:
        request = self._cast.requests[capsule]
        if not self.known:
            return
        if self.nature is Nature.HONEST:
            try:
                self._rules.check_use(
                    self._cast.stored, request, now=BEGINNING + self.network.now, revoked=self.revoked
                )
            except PcehrError:
                return
        if self.share:
            # Read here and used when the arithmetic is done, whatever has become of it on disk by then.
            self.later(0.5 * self.network.random.random(), self._release, capsule, asker, life, take)

    def _release(self, capsule: int, asker: Node, life: int, take: object) -> None:
        request, now = self._cast.requests[capsule], BEGINNING + self.network.now
        if self.nature is Nature.HONEST:
            try:
                self._rules.check_release(self._cast.stored, request, now=now, revoked=self.revoked)
                self._rules.check_not_lapsed(request, now)
            except PcehrError:
                return
        # From here on the recipient has it, or can fetch it: for the judge it is out, whatever the network does.
        self._judge.released(capsule, self)
        self.network.answer(asker, life, take, capsule, self.index)  # type: ignore[arg-type]

    def revoke(self, statement: int, asker: Node, life: int, take: object, *arguments: object) -> None:
        if self.nature is Nature.REFUSES:
            return
        self.later(0.2 * self.network.random.random(), self._end, statement, asker, life, take, *arguments)

    def _end(self, statement: int, asker: Node, life: int, take: object, *arguments: object) -> None:
        if self.nature is Nature.HONEST and not self.revoked:
            self._before = (self.share, self.known)
            self.revoked, self.share = True, False
            self._judge.look()
        # A crash in this moment loses the receipt and not the erasure, as the network does when it loses the answer.
        self.network.answer(asker, life, take, *arguments, statement)


class RecordsService(Node):
    """Grant, revocation, outbox and disclosures. A dishonest one keeps the revocation to itself and discloses on."""

    def __init__(self, honest: bool, network: Network, rules: Rules, cast: Cast, judge: Judge) -> None:
        super().__init__(network)
        self.honest = honest
        self.proxies: list[Proxy] = []
        self.revocation = 0
        self.stored: set[int] = set()
        self.erased: dict[int, int] = {}
        self._outbox: dict[tuple[str, int], tuple[int, int]] = {}
        """(kind, proxy): failed attempts, and the number of the lease."""
        self._leases = 0
        self._under_way: dict[int, set[int]] = {}
        self._rules, self._cast, self._judge = rules, cast, judge

    def begin(self) -> None:
        """The grant has come, with its shares."""
        for proxy in self.proxies:
            self._outbox["shares", proxy.index] = (0, 0)
            self._take("shares", proxy.index)

    def crash(self) -> None:
        super().crash()
        self._under_way.clear()
        if not self._rules.outbox_survives:
            self._outbox.clear()

    def restart(self) -> None:
        super().restart()
        for kind, proxy in self._outbox:
            self.later(LEASE * self.network.random.random(), self._take, kind, proxy)

    def file_revocation(self, statement: int, asker: Node, life: int, take: object) -> None:
        if self.honest and statement > self.revocation:
            self.revocation = statement
            self._judge.revocation_filed()
            for proxy in self.proxies:
                self._outbox.pop(("shares", proxy.index), None)
                self._outbox["revocation", proxy.index] = (0, 0)
                self._take("revocation", proxy.index)
        self.network.answer(asker, life, take, statement)

    def show(self, asker: Node, life: int, take: object) -> None:
        self.network.answer(asker, life, take, self.revocation, dict(self.erased))  # type: ignore[arg-type]

    def disclose(self, capsule: int, recipient: Recipient) -> None:
        if not self._allowed(self._rules.check_disclosure, capsule):
            return
        order = [ProxyOfGrant(proxy.did, proxy.index in self.stored) for proxy in self.proxies]
        self._under_way[capsule] = set()
        for did in self._rules.order_of_asking(order, (), {}):
            proxy = self.proxies[self._cast.proxies.index(did)]
            self.network.send(proxy, proxy.reencrypt, capsule, self, self.life, self.reencrypted)

    def reencrypted(self, capsule: int, proxy: int) -> None:
        answers = self._under_way.get(capsule)
        if answers is None:
            return
        answers.add(proxy)
        if len(answers) >= self._cast.terms.threshold:
            del self._under_way[capsule]
            if self._allowed(self._rules.check_leaving, capsule):
                self._judge.disclosed(capsule)

    def _allowed(self, check: object, capsule: int) -> bool:
        request = self._cast.requests[capsule]
        terms = self._cast.revoked_terms if self.revocation else self._cast.terms
        try:
            check(terms, request.iss, request.capsules, (), BEGINNING + self.network.now)  # type: ignore[operator]
        except PcehrError:
            return False
        return True

    # The outbox

    def _take(self, kind: str, proxy: int) -> None:
        """Make a delivery that is due, under a new lease; whoever comes with an older one has nothing to say."""
        row = self._outbox.get((kind, proxy))
        if row is None:
            return
        self._leases += 1
        self._outbox[kind, proxy] = (row[0], self._leases)
        to = self.proxies[proxy]
        if kind == "shares":
            self.network.send(to, to.take_share, self, self.life, self._leases)
        else:
            self.network.send(
                to, to.revoke, self.revocation, self, self.life, self.delivered, "revocation", proxy, self._leases
            )
        self.later(ANSWER_WITHIN, self._failed, kind, proxy, self._leases)

    def delivered(self, kind: str, proxy: int, lease: int, statement: int) -> None:
        if self._holds(kind, proxy, lease):
            del self._outbox[kind, proxy]
            if kind == "shares":
                self.stored.add(proxy)
            else:
                self.erased[proxy] = statement

    def refused(self, kind: str, proxy: int, lease: int, refusal: PcehrError) -> None:
        if not self._holds(kind, proxy, lease):
            return
        if kind == "shares" and self._rules.refused_for_good(refusal.status, refusal.code):
            del self._outbox[kind, proxy]
        else:
            self._failed(kind, proxy, lease)

    def _failed(self, kind: str, proxy: int, lease: int) -> None:
        if self._holds(kind, proxy, lease):
            attempts = self._outbox[kind, proxy][0] + 1
            self._outbox[kind, proxy] = (attempts, 0)
            chance = self.network.random.random()
            wait = self._rules.pause(attempts, first=FIRST_BACKOFF, cap=MAX_BACKOFF, chance=chance)
            self.later(wait, self._take, kind, proxy)

    def _holds(self, kind: str, proxy: int, lease: int) -> bool:
        row = self._outbox.get((kind, proxy))
        return row is not None and row[1] == lease


class PatientClient(Node):
    """Runs `revoke` until it can say `sealed`. On disk are the grant and the newest revocation, nothing else."""

    def __init__(self, liars: int, network: Network, rules: Rules, cast: Cast, judge: Judge) -> None:
        super().__init__(network)
        self.records: RecordsService
        self.proxies: list[Proxy] = []
        self.sealed = False
        self._wanted = False
        self._revocation = 0
        self._run = 0
        self._receipts: set[tuple[str, int]] = set()
        self._promise = rules.promise(shares=len(cast.proxies), threshold=cast.terms.threshold, assumed_liars=liars)
        self._rules, self._judge = rules, judge

    def begin(self) -> None:
        """The patient wants the grant to end, and goes on wanting it whatever happens to the machine."""
        self._wanted = True
        if self.up:
            self.revoke()

    def revoke(self) -> None:
        """One run of it. After a change of keys the revocation is signed anew, and older receipts say nothing."""
        if self._revocation == 0 or self.network.random.random() < 0.1:
            self._revocation += 1
            self._receipts.clear()
        self._run += 1
        self._post()
        self.later(LOOK_EVERY, self._look, self._run)
        if self._rules.client_tells:
            self.later(PATIENCE, self._tell)
        self.later(RUN + REST, self._again, self._run)

    def crash(self) -> None:
        super().crash()
        self._receipts.clear()

    def restart(self) -> None:
        super().restart()
        if self._wanted and not self.sealed:
            self.revoke()

    def _again(self, run: int) -> None:
        if run == self._run and not self.sealed:
            self.revoke()

    def _post(self) -> None:
        records = self.records
        self.network.send(records, records.file_revocation, self._revocation, self, self.life, self._filed)

    def _filed(self, statement: int) -> None:
        """The records service has it, or says so."""

    def _look(self, run: int) -> None:
        if run != self._run or self.sealed:
            return
        self.network.send(self.records, self.records.show, self, self.life, self._shown)
        self.later(LOOK_EVERY, self._look, run)

    def _shown(self, revocation: int, erased: dict[int, int]) -> None:
        if revocation == self._revocation:
            self._learn(("records", proxy) for proxy, statement in erased.items() if statement == revocation)

    def _tell(self) -> None:
        proven = {proxy for _, proxy in self._receipts}
        for proxy in self.proxies:
            if proxy.index not in proven and not self.sealed:
                self.network.send(proxy, proxy.revoke, self._revocation, self, self.life, self._told, proxy.index)

    def _told(self, proxy: int, statement: int) -> None:
        if statement == self._revocation:
            self._learn([("directly", proxy)])

    def _learn(self, receipts: object) -> None:
        self._receipts.update(receipts)  # type: ignore[arg-type]
        if not self.sealed and self._promise.sealed_by(self._rules.count(self._receipts)):
            self.sealed = True
            self._judge.sealed()


class Recipient(Node):
    """Asks for all it can get, past the records service too."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.records: RecordsService
        self.proxies: list[Proxy] = []
        self.has: dict[int, set[int]] = {}
        """Of each capsule, the proxies whose re-encryption has arrived."""

    def ask_records(self, capsule: int) -> None:
        self.network.send(self.records, self.records.disclose, capsule, self)

    def ask_proxies(self, capsule: int) -> None:
        for proxy in self.proxies:
            self.network.send(proxy, proxy.reencrypt, capsule, self, self.life, self.got)

    def got(self, capsule: int, proxy: int) -> None:
        self.has.setdefault(capsule, set()).add(proxy)
