"""What an audit came to: findings and gaps of all kinds, and one line for each thing that happened; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from client.audit.chain import RECORDS, CheckedLog
from client.audit.events import DISCLOSED, DONE, ERASED, REENCRYPTED, STORED, purpose_in_words, words_for
from client.audit.gathered import Gathered
from client.audit.story import Finding, Gap, Reference, tell
from shared.transparency.entries import Event

_UNWITNESSED = ("checkpoint_stale", "not_enough_cosignatures")


@dataclass(frozen=True)
class Line:
    """One thing that happened, as one log or several have it.

    `purpose` and `recipient` are those of the patient's own grant, whatever a service says. `records` are titles as far
    as the patient could open the headers, `capsules` how many records it was about. `agreeing` are the services whose
    logs have it, and `needed` how many proxies had to take part.
    """

    at: int
    service: str
    n: int
    event: str
    outcome: str
    actor: str | None
    grant: str | None
    recipient: str | None
    purpose: str | None
    capsules: tuple[str, ...]
    records: tuple[str, ...]
    proven: bool
    agreeing: tuple[str, ...] = ()
    needed: int = 0

    @property
    def what(self) -> str:
        """What happened, in words."""
        return words_for(self.event)

    @property
    def why(self) -> str:
        """The purpose of use, in words."""
        return "" if self.purpose is None else purpose_in_words(self.purpose)


@dataclass(frozen=True)
class Received:
    """What one recipient has received under one grant, by the records service's log."""

    recipient: str
    grant: str
    purpose: str
    records: tuple[str, ...]
    capsules: int
    last: int


@dataclass(frozen=True)
class Audit:
    """The checked audit. `lines` are newest first; erased events are in none of them."""

    gathered: Gathered
    findings: tuple[Finding, ...]
    gaps: tuple[Gap, ...]
    lines: tuple[Line, ...]
    received: tuple[Received, ...] = field(default=())

    @property
    def events(self) -> int:
        """How many events all logs have together."""
        return sum(len(log.events) for log in self.gathered.logs.values())

    @property
    def unproven(self) -> int:
        """How many of them no checkpoint covers yet."""
        return sum(len(log.unproven) for log in self.gathered.logs.values())

    @property
    def closing(self) -> str:
        """One sentence that says how it stands."""
        logs, events = len(self.gathered.logs), self.events
        proven = "all proven" if not self.unproven else f"{events - self.unproven} of them proven so far"
        if self.findings:
            number = len(self.findings)
            noun = "1 finding" if number == 1 else f"{number} findings"
            return f"The logs do not agree: {noun} in {_counted(events, 'event')} of {_counted(logs, 'log')}."
        if not logs:
            return "No log could be had: nothing has been checked."
        if logs == 1:
            return f"1 log holds together: {_counted(events, 'event')}, {proven}."
        reservation = " as far as they could be compared" if self.gaps else ""
        return f"{logs} logs agree{reservation}: {_counted(events, 'event')}, {proven}."

    def name_of(self, service_or_did: str) -> str | None:
        """What a service or a party is called; `you` for the patient, None for a party without a name."""
        if service_or_did == RECORDS:
            return "records service"
        if service_or_did == self.gathered.patient.did:
            return "you"
        return self.gathered.name_of(service_or_did)


def audit_of(gathered: Gathered) -> Audit:
    """Compare everything that was gathered, and put it in order."""
    story = tell(gathered.material)
    broken = tuple(
        Finding(problem.code, problem.detail, (service,))
        for service, problem in sorted(gathered.broken.items())
        if not _for_want_of_witnesses(gathered, problem.code)
    )
    away = tuple(
        Gap("log_away", f"The log could not be had: {problem.detail}", (service,))
        for service, problem in sorted(gathered.away.items())
    ) + tuple(
        Gap(problem.code, problem.detail, (service,))
        for service, problem in sorted(gathered.broken.items())
        if _for_want_of_witnesses(gathered, problem.code)
    )
    shown = tuple(Gap(problem.code, problem.detail, (problem.proxy or RECORDS,)) for problem in gathered.problems)
    lines = _lines(gathered, story.confirmed)
    return Audit(gathered, (*broken, *story.findings), (*away, *shown, *story.gaps), lines, _received(lines))


def _for_want_of_witnesses(gathered: Gathered, code: str) -> bool:
    """Whether no head can be vouched for by now because the witnesses themselves are away: nobody's lie."""
    there = [witness for witness in gathered.witnesses if witness not in gathered.away]
    needed = (len(gathered.witnesses) + gathered.witness_faults) // 2 + 1
    return code in _UNWITNESSED and len(there) < needed


def _lines(gathered: Gathered, confirmed: Mapping[int, tuple[str, ...]]) -> tuple[Line, ...]:
    """All events but what a proxy wrote of something that the records service's log has as well."""
    lines: list[Line] = []
    told: dict[tuple[str, str, str | None, str | None], int] = {}
    records = gathered.logs.get(RECORDS)
    for one in () if records is None else records.events:
        if records is None or one.event is None:
            continue
        line = _line(gathered, records, one.event)
        if line.event == DISCLOSED:
            grant = gathered.grants.get(line.grant or "")
            line = replace(
                line, agreeing=(RECORDS, *confirmed.get(one.n, ())), needed=0 if grant is None else grant.threshold
            )
        if line.event in (STORED, ERASED) and line.outcome == DONE:
            told[line.actor or "", line.event, line.grant, None] = len(lines)
        elif line.event == DISCLOSED:
            told["", REENCRYPTED, line.grant, one.event.statement] = len(lines)
        lines.append(line)
    for service, log in gathered.logs.items():
        for one in log.events if service != RECORDS else ():
            event = one.event
            if event is None:
                continue
            whose, statement = ("", event.statement) if event.event == REENCRYPTED else (service, None)
            place = told.get((whose, event.event, event.grant, statement)) if event.outcome == DONE else None
            if place is None:
                lines.append(_line(gathered, log, event))
            elif service not in lines[place].agreeing:
                lines[place] = replace(lines[place], agreeing=(*lines[place].agreeing, service))
    return tuple(sorted(lines, key=lambda line: (line.at, line.service == RECORDS, line.n), reverse=True))


def _line(gathered: Gathered, log: CheckedLog, event: Event) -> Line:
    grant = gathered.grants.get(event.grant or "")
    capsules = event.capsules or ()
    return Line(
        at=event.at,
        service=log.service,
        n=event.n,
        event=event.event,
        outcome=event.outcome,
        actor=event.actor,
        grant=event.grant,
        recipient=None if grant is None else grant.statement.payload.aud,
        purpose=None if grant is None else grant.statement.payload.purpose.value,
        capsules=capsules,
        records=tuple(gathered.titles[capsule] for capsule in capsules if capsule in gathered.titles),
        proven=event.n not in log.unproven,
        agreeing=(log.service,),
    )


def _received(lines: Sequence[Line]) -> tuple[Received, ...]:
    """By recipient and grant what left, each record once; the latest first."""
    found: dict[tuple[str, str], tuple[dict[str, None], dict[str, None], str, int]] = {}
    for line in lines:
        if line.event == DISCLOSED and line.outcome == DONE and line.grant is not None:
            key = (line.recipient or line.actor or "", line.grant)
            titles, capsules, purpose, last = found.get(key, ({}, {}, line.why, line.at))
            titles |= dict.fromkeys(line.records)
            capsules |= dict.fromkeys(line.capsules)
            found[key] = (titles, capsules, purpose, max(last, line.at))
    return tuple(
        Received(recipient, grant, purpose, tuple(titles), len(capsules), last)
        for (recipient, grant), (titles, capsules, purpose, last) in found.items()
    )


def document_of(audit: Audit) -> dict[str, Any]:
    """The same for programs."""
    gathered = audit.gathered
    return {
        "patient": gathered.patient.did,
        "checked_at": gathered.now,
        "agree": not audit.findings,
        "closing": audit.closing,
        "logs": [_log_document(audit, service, log) for service, log in gathered.logs.items()],
        "findings": [
            {
                "code": one.code,
                "sentence": one.sentence,
                "services": list(one.services),
                "events": [_reference(event) for event in one.events],
                "receipts": list(one.receipts),
                "grant": one.grant,
            }
            for one in audit.findings
        ],
        "gaps": [
            {
                "code": one.code,
                "sentence": one.sentence,
                "services": list(one.services),
                "events": [_reference(event) for event in one.events],
            }
            for one in audit.gaps
        ],
        "events": [
            {
                "at": line.at,
                "service": line.service,
                "n": line.n,
                "event": line.event,
                "outcome": line.outcome,
                "actor": line.actor,
                "actor_name": None if line.actor is None else audit.name_of(line.actor),
                "grant": line.grant,
                "recipient": line.recipient,
                "purpose": line.purpose,
                "capsules": list(line.capsules),
                "records": list(line.records),
                "proven": line.proven,
                "agreeing": list(line.agreeing),
            }
            for line in audit.lines
        ],
    }


def _log_document(audit: Audit, service: str, log: CheckedLog) -> dict[str, Any]:
    checkpoint = log.proofs[-1].checkpoint if log.proofs else None
    return {
        "service": service,
        "name": audit.name_of(service),
        "origin": None if checkpoint is None else checkpoint.origin,
        "size": None if checkpoint is None else checkpoint.size,
        "events": len(log.events),
        "proven": len(log.events) - len(log.unproven),
        "erased": log.erased,
    }


def _reference(reference: Reference) -> dict[str, Any]:
    return {"service": reference.service, "n": reference.n}


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
