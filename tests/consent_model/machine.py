"""A patient, two recipients who read and write, one who is never given anything, and everything that can happen.

After every step some questions are put to the platform, each by whoever may and by whoever may not: to the records
service, to a proxy past it, through the recipients' own client. Every answer, opened bytes or the code of a refusal,
must be what `model.py` says. A step that is refused must be one that the model refuses, with the same code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from random import Random
from typing import Any, ClassVar

from hypothesis import note as say
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from client.records import NewRecord
from client.reports import GrantReport
from shared.encoding import b64url, from_b64url, sha256
from shared.errors import PcehrError
from shared.statements import ReencryptionRequest, WantedCapsule
from shared.wire import PROXIES_AUDIENCE, REENCRYPTION_LIFETIME, Action, Purpose, Role
from tests.consent_model.model import OK, Grant, Model, Request, Version
from tests.consent_model.platform import PROXIES, SCOPES, Actor, Services

RECIPIENTS = ("doctor", "clinic", "outsider")
ACTIONS = ("amend", "append", "read")
picks = st.integers(0, 2**16)
scopes = st.sets(st.sampled_from(SCOPES), min_size=1).map(frozenset)
actions = st.sampled_from(
    [{"read"}, {"read"}, {"append", "read"}, {"amend", "append", "read"}, {"amend", "append"}, {"amend"}]
).map(frozenset)
readers = st.sampled_from(RECIPIENTS[:2])
seconds = st.sampled_from([20, 500, 900])
lifetimes = st.sampled_from([400, 2_000, 40_000])
mostly = st.sampled_from([True, True, True, False])


async def outcome(what: Awaitable[Any]) -> tuple[str, Any]:
    """`ok` with what it returns, or the code of the refusal."""
    try:
        return OK, await what
    except PcehrError as refusal:
        return refusal.code, None


class ConsentMachine(RuleBasedStateMachine):
    """One run. `services` and `runner` are given to the class before; each run signs up parties of its own."""

    services: ClassVar[Services]
    runner: ClassVar[asyncio.Runner]
    steps: ClassVar[int] = 0
    questions: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.services.network.down.clear()
        self.actors: dict[str, Actor] = {}
        self.capsules: dict[str, str] = {}
        """Capsules in base64url by their hash."""
        self.names: dict[str, str] = {}
        self.model = Model(list(self.services.dids.values()), self.services.clock())
        self.hosts = {did: host for host, did in self.services.dids.items()}
        self.bodies = 0
        self.ends = 0
        self.run(self._begin())
        for scope in SCOPES:
            self.the_patient_writes(scope, look=1)
        self._consent("clinic", frozenset(SCOPES), frozenset({"amend", "append", "read"}), lifetime=2_000)
        self._consent("doctor", frozenset(SCOPES[:1]), frozenset({"read"}), lifetime=400)

    def run(self, what: Any) -> Any:
        return self.runner.run(what)

    async def _begin(self) -> None:
        owner = self.services.session()
        self.actors = {name: Actor(self.services.session()) for name in RECIPIENTS}
        await asyncio.gather(
            owner.sign_up(Role.PATIENT),
            *(actor.session.sign_up(Role.RECIPIENT, name=f"Demo {name}") for name, actor in self.actors.items()),
        )
        self.owner = owner
        self.patient = self.services.patient(owner)
        self.names = {actor.did: name for name, actor in self.actors.items()} | {owner.did: "patient"}
        self.scope_names = {owner.keyring.scope_id(scope): scope for scope in SCOPES}

    # What happens

    @rule(scope=st.sampled_from(SCOPES), look=picks)
    def the_patient_writes(self, scope: str, look: int) -> None:
        record = self._record(scope)
        [stored] = self.run(self.patient.add_records([record]))
        self.model.epochs.setdefault(scope, 0)
        self._written(stored.record_id, scope, "patient", record)
        self._after(look)

    @precondition(lambda self: self.model.records)
    @rule(at=picks, scope=st.sampled_from(SCOPES), look=picks)
    def the_patient_amends(self, at: int, scope: str, look: int) -> None:
        record_id, record = self._pick(list(self.model.records), at), self._record(scope)
        self.run(self.patient.add_version(record_id, record))
        self.model.epochs.setdefault(scope, 0)
        self._written(record_id, scope, "patient", record)
        self._after(look)

    @rule(who=readers, scopes=scopes, actions=actions, lifetime=lifetimes, look=picks)
    def somebody_asks(
        self, who: str, scopes: frozenset[str], actions: frozenset[str], lifetime: int, look: int
    ) -> None:
        if (
            sum(
                request.recipient == who and not request.denied and not request.answered
                for request in self.model.requests
            )
            >= 15
        ):
            return
        expires = self.services.clock() + lifetime
        request = self.run(
            self.actors[who].recipient.request(
                self.owner.did,
                scopes=sorted(scopes),
                actions=[Action(action) for action in actions],
                purpose=Purpose.TREAT,
                reason="Planned treatment",
                expires=expires,
            )
        )
        self.model.requests.append(Request(request, who, scopes, actions, expires))
        self._after(look)

    @precondition(lambda self: self.model.requests)
    @rule(
        at=picks,
        narrow=st.none() | scopes,
        fewer=st.none() | actions,
        some=st.none() | st.lists(picks, min_size=1, max_size=2),
        lifetime=lifetimes,
        prompt=mostly,
        look=picks,
    )
    def the_patient_approves(
        self,
        at: int,
        narrow: frozenset[str] | None,
        fewer: frozenset[str] | None,
        some: list[int] | None,
        lifetime: int,
        prompt: bool,
        look: int,
    ) -> None:
        request, model = self.model.requests[-1 - at % min(3, len(self.model.requests))], self.model
        asked = request.scopes if narrow is None else narrow
        allowed = request.actions if fewer is None else fewer
        records = None
        if some is not None and model.records:
            records = list(dict.fromkeys(self._pick(list(model.records), one) for one in some))
        # Every consent ends in a second of its own, so that one is taken for the continuation of another only if it is.
        self.ends += 1
        expires = self.services.clock() + lifetime + self.ends
        wider = not (asked <= request.scopes and allowed <= request.actions)
        entries = None if wider else model.entries(asked, records)
        expected = "wider_than_requested" if wider else "unknown_record" if entries is None else model.answer(request)
        code, report = self.run(
            outcome(
                self.patient.approve(
                    request.id,
                    scopes=sorted(asked),
                    actions=[Action(action) for action in allowed],
                    expires=expires,
                    records=records,
                    wait=False,
                )
            )
        )
        assert code == expected, f"approving: {code}, and the model says {expected}"
        if not wider:
            for scope in asked:
                model.epochs.setdefault(scope, 0)
        if report is not None:
            request.answered = True
            granted = self._granted(report, len(model.grants))
            assert granted.entries == entries, f"the grant covers {granted.entries}, and should {entries}"
            self._deliver(prompt)
        self._after(look)

    @precondition(lambda self: self.model.requests)
    @rule(at=picks, look=picks)
    def the_patient_denies(self, at: int, look: int) -> None:
        request = self._pick(self.model.requests, at)
        code, _ = self.run(outcome(self.patient.deny(request.id)))
        expected = self.model.deny(request)
        assert code == expected, f"denying: {code}, and the model says {expected}"
        request.denied = request.denied or code == OK
        self._after(look)

    @precondition(lambda self: self.model.grants)
    @rule(at=picks, prompt=mostly, look=picks)
    def the_patient_revokes(self, at: int, prompt: bool, look: int) -> None:
        grant, model = self._pick(self.model.grants, at), self.model
        family = model.revoke(grant.consent)
        missing = model.to_be_continued(family)
        report = self.run(self.patient.revoke(grant.id, wait_seconds=0))
        assert {one.grant_id for one in report.grants} == {one.id for one in family}
        for one in report.grants:
            erased = sum(state == "erased" for state in model.grant(one.grant_id).ends.values())
            sealed = erased >= one.shares - one.threshold + 1 if one.shares else True
            assert (one.receipts, one.state) == (erased, "sealed" if sealed else "pending")
        self._continued(report.continued_grants, missing)
        self._deliver(prompt)
        self._after(look)

    @precondition(lambda self: self.model.grants)
    @rule(at=picks, scope=st.sampled_from(SCOPES), look=picks)
    def somebody_appends(self, at: int, scope: str, look: int) -> None:
        grant = self._pick(self.model.grants, at)
        who = grant.recipient if look % 5 else self._pick(list(RECIPIENTS), look)
        record = self._record(scope)
        expected = self.model.append(who, grant, scope)
        code, stored = self.run(outcome(self.actors[who].author.append(grant.id, [record])))
        assert code == expected, f"{who} appends to {scope}: {code}, and the model says {expected}"
        if stored is not None:
            self._written(stored[0].record_id, scope, who, record)
        self._after(look)

    @precondition(lambda self: self.model.grants and self.model.records)
    @rule(at=picks, which=picks, scope=st.sampled_from(SCOPES), look=picks)
    def somebody_amends(self, at: int, which: int, scope: str, look: int) -> None:
        grant, record_id = self._pick(self.model.grants, at), self._pick(list(self.model.records), which)
        who = grant.recipient if look % 5 else self._pick(list(RECIPIENTS), look)
        record = self._record(scope)
        expected = self.model.amend(who, grant, record_id, scope)
        looked = self.model.visible(who, record_id)
        code, _ = self.run(outcome(self.actors[who].author.amend(grant.id, record_id, record)))
        assert code == expected, f"{who} amends in {scope}: {code}, and the model says {expected}"
        if code not in ("unknown_grant", "invalid_grant", "grant_revoked") and looked:
            self._saw(who, record_id, looked[-1])
        if code == OK:
            self._written(record_id, scope, who, record)
        self._after(look)

    @rule(look=picks)
    def the_patient_changes_keys(self, look: int) -> None:
        expected = self.model.may_rotate()
        force = expected != OK and look % 2 == 0
        code, _ = self.run(outcome(self.patient.rotate_keys(force=force)))
        assert code == (OK if force else expected), f"changing keys: {code}, and the model says {expected}"
        self.model.patient_keys += code == OK
        self._after(look)

    @rule(who=readers, look=picks)
    def a_recipient_changes_keys(self, who: str, look: int) -> None:
        self.run(self.actors[who].session.rotate_keys())
        self._after(look)

    @rule(host=st.sampled_from(PROXIES), look=picks)
    def a_proxy_goes_or_comes(self, host: str, look: int) -> None:
        self.services.network.down ^= {host}
        self.model.up[self.services.dids[host]] = host not in self.services.network.down
        self._after(look)

    @rule(seconds=seconds, look=picks)
    def time_passes(self, seconds: int, look: int) -> None:
        self.services.clock.advance(seconds)
        self._after(look)

    @rule(look=picks)
    def the_outbox_delivers(self, look: int) -> None:
        self._deliver(True)
        self._after(look)

    # Keeping the model up

    def _consent(self, who: str, scopes: frozenset[str], actions: frozenset[str], lifetime: int) -> None:
        """Something to begin with."""
        self.somebody_asks(who, scopes, actions, lifetime=40_000, look=1)
        self.the_patient_approves(0, narrow=None, fewer=None, some=None, lifetime=lifetime, prompt=True, look=1)

    def _pick(self, among: list[Any], at: int) -> Any:
        return among[at % len(among)]

    def _record(self, scope: str) -> NewRecord:
        self.bodies += 1
        return NewRecord(body=f"body {self.bodies}".encode(), media_type="text/plain", scope=scope)

    def _written(self, record_id: str, scope: str, author: str, record: NewRecord) -> None:
        async def newest() -> Any:
            return (await self.owner.platform.record_versions(await self.owner.credentials(), record_id))[-1]

        shown = self.run(newest())
        capsule = b64url(sha256(from_b64url(shown.capsule)))
        self.capsules[capsule] = shown.capsule
        versions = self.model.records.setdefault(record_id, [])
        body = bytes(record.body) if isinstance(record.body, bytes) else b""
        epoch = self.model.epochs[scope]
        versions.append(Version(record_id, len(versions) + 1, scope, epoch, author, body, capsule))
        if author != "patient":
            self._saw(author, record_id, len(versions))

    def _saw(self, who: str, record_id: str, version: int) -> None:
        seen = self.model.seen
        seen[who, record_id] = max(version, seen.get((who, record_id), 0))

    def _granted(self, report: GrantReport, consent: int) -> Grant:
        entries = [
            (
                self.scope_names[entry.scope],
                entry.epoch,
                None if entry.capsules is None else frozenset(entry.capsules),
            )
            for entry in report.statement.payload.scopes
        ]
        grant = Grant(
            id=report.id,
            consent=consent,
            recipient=self.names[report.recipient.did],
            actions=frozenset(action.value for action in report.actions),
            entries=entries,
            expires=report.expires,
            signed_with=self.model.patient_keys,
            shares={proxy.did: "waiting" for proxy in report.proxies},
        )
        self.model.grants.append(grant)
        return grant

    def _continued(self, made: list[str], missing: dict[int, set[str]]) -> None:
        """The grants that carry others on are these: for each consent that would miss something, what it would miss."""
        model, found = self.model, {consent: set[str]() for consent in missing}
        for grant_id in made:
            report = self.run(self.patient.grant(grant_id))
            [consent] = {other.consent for other in model.grants if other.expires == report.expires}
            before = next(other for other in model.grants if other.consent == consent)
            grant = self._granted(report, consent)
            assert (grant.recipient, grant.actions) == (before.recipient, before.actions)
            for scope, epoch, limit in grant.entries:
                assert (epoch, limit) == (model.epochs[scope], None)
                found[consent].add(scope)
        assert found == missing, f"carried on: {found}, and the model says {missing}"

    def _deliver(self, now: bool) -> None:
        if now:
            self.run(self.services.deliver())
            self.model.deliver()

    # Questions

    def _after(self, look: int) -> None:
        """A second later, ask whoever `look` says whatever it says."""
        type(self).steps += 1
        self.services.clock.advance(1)
        self.model.now = self.services.clock()
        random = Random(look)
        if self.model.grants and self.capsules:
            grant = random.choice(self.model.grants[-4:])
            asker = grant.recipient if random.random() < 0.8 else random.choice(RECIPIENTS)
            entry = random.randrange(len(grant.entries) + (random.random() < 0.1))
            capsule = random.choice(self._near(grant, entry) if random.random() < 0.7 else list(self.capsules))
            self._ask_records(asker, grant, entry, capsule)
            self._ask_proxy(random.choice(list(grant.shares) or list(self.hosts)), asker, grant, entry, capsule)
        if self.model.records:
            self._look_at(random.choice(RECIPIENTS), random.choice(list(self.model.records)))
        what = random.random()
        if what < 0.2:
            self._fetch(random.choice(RECIPIENTS))
        elif what < 0.35 and self.model.grants:
            grant = random.choice(self.model.grants)
            self._fetch_under(grant.recipient if random.random() < 0.8 else random.choice(RECIPIENTS), grant)
        elif what < 0.42 and self.model.records:
            self._patient_reads(random.choice(list(self.model.records)))

    def _near(self, grant: Grant, entry: int) -> list[str]:
        """Capsules of the scope of an entry, of whatever epoch, if there are any."""
        scope = grant.entries[entry % len(grant.entries)][0]
        return [version.capsule for version in self.model.versions() if version.scope == scope] or list(self.capsules)

    def _is(self, question: str, answer: object, expected: object) -> None:
        type(self).questions += 1
        if answer != expected:
            say(f"now {self.model.now}; grants {self.model.grants}; records {self.model.records}")
        assert answer == expected, f"{question}: {answer}, and the model says {expected}"

    async def _signed(self, asker: str, grant: Grant, entry: int, capsule: str) -> str:
        session, now = self.actors[asker].session, self.services.clock()
        wanted = (WantedCapsule(entry=entry, capsule=capsule),)
        request = await session.sign(
            ReencryptionRequest,
            PROXIES_AUDIENCE,
            iat=now,
            exp=now + REENCRYPTION_LIFETIME,
            grant=grant.id,
            capsules=wanted,
        )
        return request.token

    def _ask_records(self, asker: str, grant: Grant, entry: int, capsule: str) -> None:
        async def ask() -> None:
            session = self.actors[asker].session
            await session.platform.disclose(
                await session.credentials(), await self._signed(asker, grant, entry, capsule), []
            )

        code, _ = self.run(outcome(ask()))
        expected = self.model.disclosure(asker, grant, entry, capsule)
        self._is(f"{asker} wants capsule {capsule} under {grant.id}, entry {entry}", code, expected)

    def _ask_proxy(self, did: str, asker: str, grant: Grant, entry: int, capsule: str) -> None:
        async def ask() -> None:
            token = await self._signed(asker, grant, entry, capsule)
            await self.owner.platform.reencrypt_at(f"http://{self.hosts[did]}", token, [self.capsules[capsule]])

        if not self.model.up[did]:
            # The client would go on trying, and there is nothing to be learnt from that.
            return
        code, _ = self.run(outcome(ask()))
        expected = self.model.reencryption(did, asker, grant, entry, capsule)
        self._is(f"{asker} asks {self.hosts[did]} under {grant.id}, entry {entry}, for {capsule}", code, expected)

    def _look_at(self, reader: str, record_id: str) -> None:
        async def look() -> list[int]:
            session = self.actors[reader].session
            shown = await session.platform.record_versions(await session.credentials(), record_id)
            by_capsule = {one.capsule: one.number for one in self.model.records[record_id]}
            return [by_capsule[b64url(sha256(from_b64url(one.capsule)))] for one in shown]

        code, shown = self.run(outcome(look()))
        self._is(f"{reader} looks at {record_id}", shown if code == OK else [], self.model.visible(reader, record_id))

    def _fetch(self, reader: str) -> None:
        expected = self.model.fetch(reader)
        report = self.run(self.actors[reader].recipient.fetch())
        self._compare(f"{reader} fetches", reader, report, expected)

    def _fetch_under(self, reader: str, grant: Grant) -> None:
        expected = self.model.fetch_under(reader, grant)
        code, report = self.run(outcome(self.actors[reader].recipient.fetch(grant.id)))
        if isinstance(expected, str):
            self._is(f"{reader} fetches under {grant.id}", code, expected)
        else:
            self._is(f"{reader} fetches under {grant.id}", code, OK)
            self._compare(f"{reader} fetches under {grant.id}", reader, report, expected)

    def _compare(self, question: str, reader: str, report: Any, expected: dict[str, Version | str]) -> None:
        found: dict[str, object] = {problem.record_id or "": problem.code for problem in report.problems}
        found |= {one.record_id: (one.version, one.scope, one.epoch, one.body) for one in report.opened}
        self._is(
            question,
            found,
            {
                record: one if isinstance(one, str) else (one.number, one.scope, one.epoch, one.body)
                for record, one in expected.items()
            },
        )
        for record_id, one in expected.items():
            if isinstance(one, Version):
                self._saw(reader, record_id, one.number)

    def _patient_reads(self, record_id: str) -> None:
        newest = self.model.records[record_id][-1]
        opened = self.run(self.patient.read_record(record_id))
        self._is(f"the patient reads {record_id}", (opened.version, opened.body), (newest.number, newest.body))


def of(services: Services, runner: asyncio.Runner) -> type[ConsentMachine]:
    """A machine class of its own for a set of services, as Hypothesis wants it."""
    members = {"services": services, "runner": runner, "steps": 0, "questions": 0}
    return type("ConsentMachine", (ConsentMachine,), members)
