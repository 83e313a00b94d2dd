"""All logs compared with each other and with what the patient has signed; pure.

Each log has been checked for itself before (`client.audit.chain`). What is found here is what one service says and
another does not, or what nobody was allowed to do. Three things are kept apart:

- a *finding* does not fit together, whoever is honest: somebody must explain it;
- a *gap* could not be looked at, because a service is away or a text was erased; nobody is accused;
- what is younger than `SETTLING_SECONDS` may still be on its way to the other log and is a gap as well.

A proxy that re-encrypted and whose answer came too late is no finding, nor is a request that too few proxies answered:
the records service writes an event for the statement either way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from client.audit.chain import RECORDS, CheckedLog, LoggedEvent
from client.audit.events import (
    DISCLOSED,
    DONE,
    ERASED,
    GRANTED,
    LOG_ERASED,
    REENCRYPTED,
    REVOKED,
    STORED,
)
from shared.statements import Grant, Receipt, Revocation, Verified
from shared.transparency.entries import Event
from shared.wire import SKEW_SECONDS

SETTLING_SECONDS = 60
"""For so long an event of one service may wait for its counterpart at another."""

UNPROVEN_SECONDS = 86_400
"""For so long an event may wait for a checkpoint that covers it: as long as a checkpoint is accepted (section 12)."""

SENTENCES = {
    "disclosed_without_proxies": "Records were disclosed, and fewer proxies than your consent asks for have an event"
    " of it.",
    "released_without_event": "A proxy has re-encrypted your records, and the records service shows no event of it.",
    "share_without_grant": "A proxy has stored a share under a grant that you never signed, or that does not name it.",
    "share_missing": "A proxy is said to have stored its share, and its own log has no event of it.",
    "erasure_missing": "A proxy is said to have erased its share, and its own log has no event of it.",
    "receipt_without_event": "A proxy has signed a receipt, and its own log has no such event.",
    "grant_unknown": "Something was done under a grant that you never signed.",
    "grant_without_event": "The records service shows a grant of yours, and its log has no event of it.",
    "revocation_without_event": "The records service shows that you ended a grant, and its log has no event of it.",
    "beyond_grant": "Records were disclosed to somebody else, at another time, or others than the grant says.",
    "revoked_but_served": "A grant was used after you had ended it.",
    "event_withheld": "The texts of events are not shown, and no event says that you had them erased.",
    "event_from_the_future": "An event is dated in the future.",
    "not_in_log": "An event has been waiting for more than a day to be proven.",
}
"""What each finding says to people; docs/audit.md says what to do."""


@dataclass(frozen=True)
class Reference:
    """One event of one log."""

    service: str
    n: int


@dataclass(frozen=True)
class Finding:
    """Something that does not fit together. `services` are those that have to explain it."""

    code: str
    sentence: str
    services: tuple[str, ...]
    events: tuple[Reference, ...] = ()
    receipts: tuple[str, ...] = ()
    grant: str | None = None


@dataclass(frozen=True)
class Gap:
    """Something that could not be looked at, and hence is neither right nor wrong."""

    code: str
    sentence: str
    services: tuple[str, ...]
    events: tuple[Reference, ...] = ()


@dataclass(frozen=True)
class OwnGrant:
    """A grant that the patient has signed, with its end and the proxies' receipts, all verified.

    `shown` and `revocation_shown`: the records service itself shows the one or the other.
    """

    statement: Verified[Grant]
    revocation: Verified[Revocation] | None = None
    receipts: tuple[Verified[Receipt], ...] = ()
    shown: bool = True
    revocation_shown: bool = True

    @property
    def proxies(self) -> tuple[str, ...]:
        """DIDs of the proxies that have a share."""
        shares = self.statement.payload.shares
        return tuple(proxy.did for proxy in shares.proxies) if shares else ()

    @property
    def threshold(self) -> int:
        """How many proxies have to take part in a disclosure; 0 for a grant that does not allow reading."""
        shares = self.statement.payload.shares
        return shares.threshold if shares else 0


@dataclass(frozen=True)
class Material:
    """What is compared. `records` is None, and a proxy absent, where the log could not be had or does not hold.

    The logs were fetched between `began` and `now` (seconds): one may have an event of then that another had not yet.
    """

    patient: str
    began: int
    now: int
    records: CheckedLog | None
    proxies: Mapping[str, CheckedLog]
    grants: Mapping[str, OwnGrant]


@dataclass(frozen=True)
class Story:
    """What came of it. `confirmed` says, by the number of a disclosure's event, which proxies have an event of it."""

    findings: tuple[Finding, ...]
    gaps: tuple[Gap, ...]
    confirmed: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _At:
    """An event with the log it stands in."""

    service: str
    event: Event

    @property
    def reference(self) -> Reference:
        return Reference(self.service, self.event.n)


def tell(material: Material) -> Story:
    """Compare everything with everything. Logs that fail for themselves are not part of the material."""
    return _Comparison(material).story()


class _Comparison:
    def __init__(self, material: Material) -> None:
        self._material = material
        self._logs: dict[str, CheckedLog] = dict(material.proxies)
        if material.records is not None:
            self._logs[RECORDS] = material.records
        self._findings: list[Finding] = []
        self._gaps: list[Gap] = []
        self._confirmed: dict[int, tuple[str, ...]] = {}
        self._unread = {service: _readable_from(log) for service, log in self._logs.items()}
        self._events: dict[tuple[str, str], list[_At]] = {}
        self._by_statement: dict[tuple[str, str, str | None], list[_At]] = {}
        self._by_grant: dict[str, list[_At]] = {}
        self._firsts: dict[tuple[str, str, str], _At] = {}
        for service, log in self._logs.items():
            for one in log.events:
                if one.event is not None:
                    self._index(_At(service, one.event))

    def story(self) -> Story:
        for service, log in self._logs.items():
            self._of_one_log(service, log)
        for grant_id, events in self._by_grant.items():
            self._grant_is_known(grant_id, events)
        for at in self._done(RECORDS, DISCLOSED):
            self._disclosure(at)
        for proxy in self._material.proxies:
            for at in self._done(proxy, REENCRYPTED):
                self._release(at)
        for kind in (STORED, ERASED):
            for at in self._done(RECORDS, kind):
                self._said_of_a_proxy(at)
        for grant in self._material.grants.values():
            self._consent(grant)
            self._ended(grant)
            for receipt in grant.receipts:
                self._receipt(grant, receipt)
        return Story(tuple(self._findings), tuple(self._gaps), self._confirmed)

    # --- one log --------------------------------------------------------------------------------------------------

    def _of_one_log(self, service: str, log: CheckedLog) -> None:
        erased = tuple(Reference(service, one.n) for one in log.events if one.event is None)
        if erased:
            self._gap("texts_erased", "The texts of these events were erased; what they said is not compared.", erased)
        withheld = _withheld(log)
        if withheld:
            self._find("event_withheld", [Reference(service, one.n) for one in withheld])
        late: list[Reference] = []
        waiting: list[Reference] = []
        for one in log.events:
            if one.event is not None and one.event.at > self._material.now + SKEW_SECONDS:
                self._find("event_from_the_future", [Reference(service, one.n)])
            if one.n in log.unproven:
                old = one.event is None or one.event.at < self._material.now - UNPROVEN_SECONDS
                (late if old else waiting).append(Reference(service, one.n))
        if late:
            self._find("not_in_log", late)
        if waiting:
            self._gap("not_proven_yet", "No checkpoint covers these events yet; look again later.", waiting)

    # --- between the logs -----------------------------------------------------------------------------------------

    def _index(self, at: _At) -> None:
        event = at.event
        self._events.setdefault((at.service, event.event), []).append(at)
        self._by_statement.setdefault((at.service, event.event, event.statement), []).append(at)
        if event.grant is not None and event.outcome == DONE:
            self._by_grant.setdefault(event.grant, []).append(at)
            self._firsts.setdefault((at.service, event.event, event.grant), at)

    def _grant_is_known(self, grant_id: str, events: list[_At]) -> None:
        """Nothing was done under a grant that the patient has not signed; a refusal may name what it likes."""
        grant = self._material.grants.get(grant_id)
        shares: list[_At] = []
        others: list[_At] = []
        for at in events:
            (shares if at.service != RECORDS and at.event.event == STORED else others).append(at)
        unasked = [at for at in shares if grant is None or at.service not in grant.proxies]
        for code, found in (("share_without_grant", unasked), ("grant_unknown", others if grant is None else [])):
            if found:
                services = tuple(dict.fromkeys(at.service for at in found))
                # Another machine of the patient's may have given it a moment ago.
                self._find_unless_settling(
                    code, found, [at.reference for at in found], services=services, grant=grant_id
                )

    def _disclosure(self, at: _At) -> None:
        grant = self._material.grants.get(at.event.grant or "")
        if grant is None:
            if at.event.grant is None:
                self._find("grant_unknown", [at.reference])
            return
        if not _allowed(grant.statement.payload, at.event):
            self._find("beyond_grant", [at.reference], grant=at.event.grant)
        confirming = tuple(
            proxy
            for proxy in grant.proxies
            if any(_same_release(one.event, at.event) for one in self._released(proxy, at.event))
        )
        self._confirmed[at.event.n] = confirming
        needed = max(grant.threshold, 1)
        if len(confirming) >= needed:
            return
        silent = tuple(proxy for proxy in grant.proxies if proxy not in confirming)
        unknown = tuple(proxy for proxy in silent if not self._would_show(proxy, at.event.at))
        if len(confirming) + len(unknown) >= needed:
            sentence = f"Only {len(confirming)} of {needed} proxies could be asked about a disclosure."
            self._gap("disclosure_unconfirmed", sentence, [at.reference], services=unknown)
        else:
            told = [one.reference for proxy in confirming for one in self._released(proxy, at.event)]
            self._find_unless_settling(
                "disclosed_without_proxies",
                [at],
                [at.reference, *told],
                services=(RECORDS, *silent),
                grant=at.event.grant,
            )

    def _release(self, at: _At) -> None:
        if self._material.records is None:
            return
        known = self._by_statement.get((RECORDS, DISCLOSED, at.event.statement), ())
        if any(one.event.capsules in (None, at.event.capsules) for one in known):
            return
        if not self._would_show(RECORDS, at.event.at):
            self._gap("release_unexplained", "What the records service wrote of it has been erased.", [at.reference])
            return
        self._find_unless_settling(
            "released_without_event", [at], [at.reference], services=(RECORDS, at.service), grant=at.event.grant
        )

    def _said_of_a_proxy(self, at: _At) -> None:
        """The records service says that a proxy has stored or erased a share: the proxy's own log must say so too."""
        proxy, kind = at.event.actor, at.event.event
        log = self._material.proxies.get(proxy or "")
        if log is None or proxy is None:
            return
        if self._first(proxy, kind, at.event.grant or "") is not None or not self._would_show(proxy, at.event.at):
            return
        code = "share_missing" if kind == STORED else "erasure_missing"
        self._find_unless_settling(code, [at], [at.reference], services=(RECORDS, proxy), grant=at.event.grant)

    # --- what the patient has signed ------------------------------------------------------------------------------

    def _consent(self, grant: OwnGrant) -> None:
        """What the records service shows it has done must stand in its log."""
        if self._material.records is None:
            return
        signed = grant.statement.payload.iat
        if grant.shown and self._is_absent(GRANTED, grant.statement.id, signed):
            self._find("grant_without_event", [], services=(RECORDS,), grant=grant.statement.id)
        if grant.revocation is None:
            return
        if self._is_absent(REVOKED, grant.statement.id, grant.revocation.payload.iat):
            if grant.revocation_shown:
                self._find("revocation_without_event", [], services=(RECORDS,), grant=grant.statement.id)
            else:
                self._gap(
                    "revocation_not_received",
                    "The records service shows no event of a grant that you have ended: end it once more.",
                    [],
                    services=(RECORDS,),
                )

    def _is_absent(self, kind: str, grant_id: str, signed: int) -> bool:
        return self._would_show(RECORDS, signed) and self._first(RECORDS, kind, grant_id) is None

    def _ended(self, grant: OwnGrant) -> None:
        """After the event of the revocation nothing is disclosed: by the order within a log, by the time between two.

        A proxy that had not heard of it yet may have re-encrypted; that is said as well, since something was released.
        """
        grant_id = grant.statement.id
        revoked = self._first(RECORDS, REVOKED, grant_id)
        for at in self._by_grant.get(grant_id, ()):
            if at.event.event not in (DISCLOSED, REENCRYPTED):
                continue
            own = revoked if at.service == RECORDS else self._first(at.service, ERASED, grant_id)
            end = None
            if own is not None and at.event.n > own.event.n:
                end = own
            elif revoked is not None and at.event.at > revoked.event.at + SKEW_SECONDS:
                end = revoked
            if end is not None:
                self._find("revoked_but_served", [at.reference, end.reference], services=(at.service,), grant=grant_id)

    def _first(self, service: str, kind: str, grant_id: str) -> _At | None:
        """The first event of something done under a grant."""
        return self._firsts.get((service, kind, grant_id))

    def _receipt(self, grant: OwnGrant, receipt: Verified[Receipt]) -> None:
        payload = receipt.payload
        log = self._material.proxies.get(payload.iss)
        if log is None:
            return
        entry = log.event(payload.seq)
        if entry is not None and entry.event is None:
            return
        event = None if entry is None else entry.event
        said = (payload.act, DONE, payload.statement, payload.grant)
        if event is not None and (event.event, event.outcome, event.statement, event.grant) == said:
            return
        code = "erasure_missing" if payload.act == ERASED else "receipt_without_event"
        known = [] if event is None else [Reference(payload.iss, payload.seq)]
        if self._is_settling(payload.iat):
            self._gap("settling", _SETTLING, known, services=(payload.iss,))
            return
        self._find(code, known, services=(payload.iss,), receipts=(receipt.id,), grant=grant.statement.id)

    # --- how ------------------------------------------------------------------------------------------------------

    def _done(self, service: str, kind: str) -> Iterator[_At]:
        return (at for at in self._events.get((service, kind), ()) if at.event.outcome == DONE)

    def _released(self, proxy: str, disclosure: Event) -> list[_At]:
        """What a proxy has re-encrypted for the statement of a disclosure."""
        found = self._by_statement.get((proxy, REENCRYPTED, disclosure.statement), ())
        return [at for at in found if at.event.outcome == DONE]

    def _would_show(self, service: str, at: int) -> bool:
        """Whether this log was had, and its texts are there for what happened at that time."""
        return service in self._logs and at - SKEW_SECONDS >= self._unread[service]

    def _is_settling(self, at: int) -> bool:
        return self._material.began - SETTLING_SECONDS < at <= self._material.now + SKEW_SECONDS

    def _find_unless_settling(
        self,
        code: str,
        young: list[_At],
        events: list[Reference],
        *,
        services: tuple[str, ...],
        grant: str | None = None,
    ) -> None:
        if all(self._is_settling(at.event.at) for at in young):
            self._gap("settling", _SETTLING, events, services=services)
        else:
            self._find(code, events, services=services, grant=grant)

    def _find(
        self,
        code: str,
        events: list[Reference],
        *,
        services: tuple[str, ...] | None = None,
        receipts: tuple[str, ...] = (),
        grant: str | None = None,
    ) -> None:
        named = services or tuple(dict.fromkeys(one.service for one in events))
        self._findings.append(Finding(code, SENTENCES[code], named, tuple(events), receipts, grant))

    def _gap(
        self,
        code: str,
        sentence: str,
        events: Iterable[Reference],
        *,
        services: tuple[str, ...] | None = None,
    ) -> None:
        known = tuple(events)
        named = services or tuple(dict.fromkeys(one.service for one in known))
        self._gaps.append(Gap(code, sentence, named, known))


_SETTLING = "This happened within the last minute, and the other service may not have written it down yet."


def _allowed(grant: Grant, disclosure: Event) -> bool:
    """Whether recipient, time and, where every scope is limited to capsules, the capsules are those of the grant."""
    if disclosure.actor != grant.aud or grant.shares is None:
        return False
    if not grant.nbf - SKEW_SECONDS <= disclosure.at < grant.exp + SKEW_SECONDS:
        return False
    listed: set[str] = set()
    for entry in grant.scopes:
        if entry.capsules is None:
            return True
        listed.update(entry.capsules)
    return listed.issuperset(disclosure.capsules or ())


def _same_release(release: Event, disclosure: Event) -> bool:
    """Whether a proxy's event and the records service's are about the same request and the same capsules."""
    return (
        release.statement is not None
        and release.capsules is not None
        and (release.statement, release.grant, release.capsules)
        == (disclosure.statement, disclosure.grant, disclosure.capsules)
    )


def _readable_from(log: CheckedLog) -> int:
    """From which time on the texts of a log are there: after the newest event that was erased. 0 if none was."""
    erased = [one.n for one in log.events if one.event is None]
    if not erased:
        return 0
    following = log.event(erased[-1] + 1)
    return following.event.at if following is not None and following.event is not None else 2**63


def _withheld(log: CheckedLog) -> list[LoggedEvent]:
    """Events without text that no later event of the subject's own asking covers."""
    own = [
        one.n
        for one in log.events
        if one.event is not None
        and (one.event.event, one.event.outcome, one.event.actor) == (LOG_ERASED, DONE, log.subject)
    ]
    last = max(own, default=0)
    return [one for one in log.events if one.event is None and one.n > last]
