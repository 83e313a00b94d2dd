"""Consent as docs/spec.md tells it (sections 7 to 9), in plain Python, without anything of the project's code.

One patient; recipients by name; everything that a party could ask for has a prediction: what it gets, or the code of
the refusal. The model never looks at what the platform says, but for ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

OK = "ok"
THRESHOLD = 2
SKEW = 60
"""Seconds by which a statement may be late."""

Entry = tuple[str, int, frozenset[str] | None]
"""Scope, epoch, and the capsules it is limited to."""


@dataclass
class Version:
    """One version of one record."""

    record: str
    number: int
    scope: str
    epoch: int
    author: str
    body: bytes
    capsule: str


@dataclass
class Request:
    """What a recipient asked for, and whether it was denied."""

    id: str
    recipient: str
    scopes: frozenset[str]
    actions: frozenset[str]
    expires: int
    denied: bool = False
    answered: bool = False


@dataclass
class Grant:
    """One grant; those of one `consent` end together. `shares` and `ends` say how far each proxy is."""

    id: str
    consent: int
    recipient: str
    actions: frozenset[str]
    entries: list[Entry]
    expires: int
    signed_with: int
    shares: dict[str, str] = field(default_factory=dict)
    """By proxy: `waiting`, `stored`, `refused`, or `dropped` where the revocation overtook it."""
    ends: dict[str, str] = field(default_factory=dict)
    """By proxy, once revoked: `waiting` or `erased`."""
    revoked: bool = False

    @property
    def reads(self) -> bool:
        return "read" in self.actions

    def covers(self, scope: str, epoch: int, capsules: set[str]) -> bool:
        """Whether an entry is of this scope and epoch and, where it is limited, lists one of these capsules."""
        return any(
            (name, at) == (scope, epoch) and (limit is None or limit & capsules) for name, at, limit in self.entries
        )


class Model:
    """The state of consent, and what follows from it."""

    def __init__(self, proxies: list[str], now: int) -> None:
        self.now = now
        self.up = dict.fromkeys(proxies, True)
        self.records: dict[str, list[Version]] = {}
        self.grants: list[Grant] = []
        self.requests: list[Request] = []
        self.epochs: dict[str, int] = {}
        self.patient_keys = 0
        self.seen: dict[tuple[str, str], int] = {}
        """The newest version of a record that a recipient's client has opened or written over."""

    # What follows for a grant

    def holds(self, grant: Grant) -> bool:
        return not grant.revoked and self.now < grant.expires

    def active(self, grant: Grant) -> bool:
        stored = sum(state == "stored" for state in grant.shares.values())
        return not grant.reads or stored >= THRESHOLD

    def grant(self, grant_id: str) -> Grant:
        return next(grant for grant in self.grants if grant.id == grant_id)

    def versions(self) -> Iterator[Version]:
        for versions in self.records.values():
            yield from versions

    # Reading

    def visible(self, reader: str, record: str) -> list[int]:
        """The versions of a record that a recipient is shown, without bodies."""
        versions = self.records[record]
        capsules = {version.capsule for version in versions}
        mine = [grant for grant in self.grants if grant.recipient == reader and self.holds(grant)]
        shown = []
        for version in versions:
            as_reader = any(
                self.active(grant)
                and grant.actions & {"read", "amend"}
                and grant.covers(version.scope, version.epoch, capsules)
                for grant in mine
            )
            as_author = version.author == reader and any(
                version.scope == scope for grant in mine for scope, _, _ in grant.entries
            )
            if as_reader or as_author:
                shown.append(version.number)
        return shown

    def listed(self, grant: Grant) -> dict[str, Version]:
        """Of each record the newest version that a grant to read opens."""
        found = {}
        for version in self.versions():
            if grant.covers(version.scope, version.epoch, {version.capsule}):
                found[version.record] = version
        return found

    def disclosure(self, asker: str, grant: Grant, entry: int, capsule: str) -> str:
        """What the records service says to a request for one capsule."""
        if grant.recipient != asker or not grant.reads:
            return "not_granted"
        if self.now >= grant.expires:
            return "grant_expired"
        if grant.revoked:
            return "grant_revoked"
        if entry >= len(grant.entries):
            return "capsule_not_granted"
        scope, epoch, limit = grant.entries[entry]
        if limit is not None and capsule not in limit:
            return "capsule_not_granted"
        if not any((one.capsule, one.scope, one.epoch) == (capsule, scope, epoch) for one in self.versions()):
            return "not_found"
        return OK if self.enough(grant) else "not_enough_proxies"

    def enough(self, grant: Grant) -> bool:
        """Whether so many proxies answer as a disclosure takes."""
        return self.active(grant) and sum(self.answers(proxy, grant) for proxy in grant.shares) >= THRESHOLD

    def answers(self, proxy: str, grant: Grant) -> bool:
        """Whether a proxy is there and holds its share."""
        return self.up[proxy] and grant.shares.get(proxy) == "stored" and grant.ends.get(proxy) != "erased"

    def reencryption(self, proxy: str, asker: str, grant: Grant, entry: int, capsule: str) -> str:
        """What a proxy says that is asked directly. Which scope a capsule is of it cannot see."""
        if not self.up[proxy]:
            return "service_unreachable"
        if grant.shares.get(proxy) != "stored":
            return "unknown_grant"
        if grant.recipient != asker:
            return "not_granted"
        if self.now >= grant.expires:
            return "grant_expired"
        if grant.ends.get(proxy) == "erased":
            return "grant_revoked"
        if entry >= len(grant.entries):
            return "capsule_not_granted"
        limit = grant.entries[entry][2]
        return OK if limit is None or capsule in limit else "capsule_not_granted"

    def fetch(self, reader: str) -> dict[str, Version | str]:
        """What a recipient's client opens of everything, or why it does not: of each record the newest version that
        any of its grants opens, under the newest of these grants."""
        best: dict[str, tuple[Grant, Version]] = {}
        for grant in reversed(self.grants):
            if grant.recipient == reader and grant.reads and self.holds(grant) and self.active(grant):
                for record, version in self.listed(grant).items():
                    if record not in best or version.number > best[record][1].number:
                        best[record] = (grant, version)
        return {record: self._opened(reader, grant, version) for record, (grant, version) in best.items()}

    def fetch_under(self, reader: str, grant: Grant) -> str | dict[str, Version | str]:
        """The same under one grant, where one refusal is the answer."""
        if grant.recipient != reader:
            return "unknown_grant"
        if not grant.reads:
            return "invalid_grant"
        if grant.revoked:
            return "grant_revoked"
        if self.now >= grant.expires:
            return "grant_expired"
        if not self.active(grant):
            return "grant_pending"
        found = {record: self._opened(reader, grant, version) for record, version in self.listed(grant).items()}
        return "not_enough_proxies" if "not_enough_proxies" in found.values() else found

    def _opened(self, reader: str, grant: Grant, version: Version) -> Version | str:
        if not self.enough(grant):
            return "not_enough_proxies"
        if self.seen.get((reader, version.record), 0) > version.number:
            return "record_rolled_back"
        return version

    # Writing

    def append(self, author: str, grant: Grant, scope: str) -> str:
        """What becomes of a new record by a recipient."""
        early = self._before_writing(author, grant, "append", scope)
        return early if early is not None else (OK if self.holds(grant) else "not_granted")

    def amend(self, author: str, grant: Grant, record: str, scope: str) -> str:
        """What becomes of a new version by a recipient, which puts it after the newest version it is shown."""
        if author != grant.recipient:
            return "unknown_grant"
        if "amend" not in grant.actions:
            return "invalid_grant"
        if grant.revoked:
            return "grant_revoked"
        shown = self.visible(author, record)
        if not shown:
            return "unknown_record"
        if self.seen.get((author, record), 0) > shown[-1]:
            return "record_rolled_back"
        early = self._before_writing(author, grant, "amend", scope)
        if early is not None:
            return early
        versions = self.records[record]
        before = versions[shown[-1] - 1]
        capsules = {version.capsule for version in versions}
        allowed = self.holds(grant) and any(
            before.scope == name and (limit is None or limit & capsules) for name, _, limit in grant.entries
        )
        if not allowed:
            return "not_granted"
        return OK if shown[-1] == len(versions) else "version_conflict"

    def _before_writing(self, author: str, grant: Grant, action: str, scope: str) -> str | None:
        """What the author's own client says before it sends anything."""
        if author != grant.recipient:
            return "unknown_grant"
        if action not in grant.actions:
            return "invalid_grant"
        if grant.revoked:
            return "grant_revoked"
        if scope not in {name for name, _, _ in grant.entries}:
            return "unknown_scope"
        return None

    # Consent

    def entries(self, scopes: frozenset[str], records: list[str] | None) -> list[Entry] | None:
        """What a grant covers: of each scope the epochs that newest versions of records are in, and the newest epoch;
        or just some records, each by its newest version. None where one of these is not in the scopes."""
        newest = [versions[-1] for versions in self.records.values() if versions[-1].scope in scopes]
        if records is None:
            places = {(one.scope, one.epoch) for one in newest}
            places |= {(scope, self.epochs.get(scope, 0)) for scope in scopes}
            return [(scope, epoch, None) for scope, epoch in sorted(places)]
        wanted = [one for one in newest if one.record in records]
        if len(wanted) != len(records):
            return None
        limited = {
            (one.scope, one.epoch): frozenset(
                other.capsule for other in wanted if (other.scope, other.epoch) == (one.scope, one.epoch)
            )
            for one in wanted
        }
        return [(scope, epoch, limit) for (scope, epoch), limit in sorted(limited.items())]

    def answer(self, request: Request) -> str:
        """What becomes of a grant that answers a request and asks for no more."""
        if self.now >= request.expires + SKEW:
            return "statement_expired"
        return "already_answered" if request.denied else OK

    def deny(self, request: Request) -> str:
        return "already_answered" if request.denied or request.answered else OK

    def deliver(self) -> None:
        """The outbox reaches every proxy that is there. One refuses a share that was signed with keys of before."""
        for grant in self.grants:
            for proxy, state in grant.shares.items():
                if state == "waiting" and self.up[proxy]:
                    late = self.now >= grant.expires or grant.signed_with != self.patient_keys
                    grant.shares[proxy] = "refused" if late else "stored"
            for proxy, state in grant.ends.items():
                if state == "waiting" and self.up[proxy]:
                    grant.ends[proxy] = "erased"

    def revoke(self, consent: int) -> list[Grant]:
        """End a consent with all its grants. The client tells the proxies that are there itself; the next epoch of
        each scope begins that the consent could have reached."""
        family = [grant for grant in self.grants if grant.consent == consent]
        for grant in family:
            grant.revoked = True
            for proxy, state in grant.shares.items():
                if state == "waiting":
                    grant.shares[proxy] = "dropped"
                if grant.ends.get(proxy) != "erased":
                    grant.ends[proxy] = "erased" if self.up[proxy] else "waiting"
        reach: dict[str, int] = {}
        for grant in family:
            for scope, epoch, _ in grant.entries:
                reach[scope] = max(epoch, reach.get(scope, 0))
        for scope, epoch in reach.items():
            if self.epochs[scope] <= epoch:
                self.epochs[scope] += 1
        return family

    def to_be_continued(self, family: list[Grant]) -> dict[int, set[str]]:
        """Scopes of which other consents would miss what is written from now on, by consent: those that they cover
        in full and that have a newer epoch than they reach."""
        touched = {scope for grant in family for scope, _, _ in grant.entries}
        missing: dict[int, set[str]] = {}
        for grant in self.grants:
            if grant.reads and self.holds(grant):
                for scope, _, limit in grant.entries:
                    if scope in touched and limit is None and not self._reaches(grant.consent, scope):
                        missing.setdefault(grant.consent, set()).add(scope)
        return missing

    def _reaches(self, consent: int, scope: str) -> bool:
        return any(
            (name, epoch, limit) == (scope, self.epochs[scope], None)
            for grant in self.grants
            if grant.consent == consent
            for name, epoch, limit in grant.entries
        )

    def may_rotate(self) -> str:
        """A patient's keys must not change while a proxy waits for its share of a live grant."""
        waiting = any(
            self.holds(grant) and any(state != "stored" for state in grant.shares.values()) for grant in self.grants
        )
        return "shares_undelivered" if waiting else OK
