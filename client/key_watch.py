"""Reading the registry's log: what is published in one's own name, and what is hidden of those one knows (docs/spec.md,
section 12).

The log holds labels and statement ids, so reading all of it tells a party about its own labels and those of parties it
knows, and about nobody else. Asking the witnesses besides shows what a registry keeps from this party alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from client.errors import REFUSALS, LogContradicted, ServiceRefused, UnexpectedAnswer, VerificationFailed
from client.log_memory import REGISTRY
from client.verification import check_scope_key, verifying
from shared.encoding import from_b64url
from shared.identity import VerifiedParty
from shared.schemas.log import MAX_ENTRIES
from shared.statements import ScopeKey, Verified
from shared.transparency.checkpoints import VerifiedCheckpoint, verify_checkpoint
from shared.transparency.entries import KEY_ENTRY_SIZE, key_label, scope_label, split_key_entry
from shared.transparency.errors import ConsistencyNotProven
from shared.transparency.merkle import Frontier, leaf_hash, verify_consistency

if TYPE_CHECKING:
    from client.session import Session

FOREIGN = "foreign_key_entry"
"""An entry under one's own label that is none of one's own statements."""

WITHHELD = "key_entry_withheld"
"""An entry under the label of a party one knows, which the registry does not show for that party."""

CHECKPOINT_WITHHELD = "checkpoint_withheld"
"""Witnesses have cosigned a larger tree than the registry shows."""

FORKED = "log_forked"
"""A witness has cosigned another history than the registry shows."""

_TRIES = 4
"""How often the registry may be behind a witness before it counts: a checkpoint is published a moment after most have
cosigned it."""

_PAUSE = 1.0
"""Seconds between these."""


@dataclass(frozen=True)
class Finding:
    """Something that does not fit. `did` is the party whose label it is, or the witness; `scope` the id of a scope,
    `statement` the id in the entry, `place` its place in the log; `evidence` a file with two checkpoints."""

    code: str
    detail: str
    did: str
    scope: str | None = None
    statement: str | None = None
    place: int | None = None
    evidence: Path | None = None


@dataclass(frozen=True)
class WatchReport:
    """What one visit has shown: the size of the log, how many entries of it were read, what does not fit, and by DID
    where each witness stands (`agrees`, `behind`, `ahead`, `other`, `silent` or `away`)."""

    size: int
    read: int
    findings: tuple[Finding, ...]
    witnesses: Mapping[str, str]


@dataclass(frozen=True)
class _Hit:
    """An entry under a label of interest: whose key, or the key of whose scope."""

    did: str
    scope: str | None
    statement: str
    place: int


async def watch_keys(session: Session, names: Iterable[str] = ()) -> WatchReport:
    """Read what has come into the registry's log since the last visit, and compare; `names` are those of own scopes.

    With a label that was not looked for before, all of the log is read anew. A visit that finds something does not
    count as one: what was found is found again, until it does not hold any more. Raises what `Logs.refresh` raises, and
    `log_forked` where the entries are not those of the tree that the registry has signed.
    """
    memory, names = session.state.logs, list(names)
    await session.me()
    seen = await _seen_by_witnesses(session)
    checkpoint = await session.logs.refresh(REGISTRY, session.platform.registry_url)
    labels = _labels(session, names)
    begun = memory.watched(checkpoint.origin, labels)
    frontier = Frontier() if begun is None else Frontier.from_bytes(begun)
    start = frontier.size
    hits = [hit async for hit in _read(session, frontier, checkpoint, labels)]
    findings = [
        *await _own(session, names, [hit for hit in hits if hit.did == session.did]),
        *await _others(session, [hit for hit in hits if hit.did != session.did]),
    ]
    standing, differing = await _compare(session, checkpoint, seen)
    if not findings:
        memory.has_watched(checkpoint.origin, frontier.to_bytes(), labels)
    session.state.save_if_changed()
    return WatchReport(checkpoint.size, checkpoint.size - start, (*findings, *differing), standing)


# --- the entries ----------------------------------------------------------------------------------------------------


def _labels(session: Session, names: Iterable[str]) -> dict[bytes, tuple[str, str | None]]:
    """The labels of interest, each with the party and the scope that it stands for."""
    own = {session.keyring.scope_id(name) for name in names}
    scopes = {(session.did, scope_id) for scope_id in own} | set(session.state.known_scopes())
    return {key_label(did): (did, None) for did in {session.did, *session.state.known_parties()}} | {
        scope_label(did, scope_id): (did, scope_id) for did, scope_id in scopes
    }


async def _read(
    session: Session,
    frontier: Frontier,
    checkpoint: VerifiedCheckpoint,
    labels: Mapping[bytes, tuple[str, str | None]],
) -> AsyncIterator[_Hit]:
    """The entries of interest from `frontier`, which is moved, up to the end of the tree, whose root is compared."""
    while frontier.size < checkpoint.size:
        limit = min(MAX_ENTRIES, checkpoint.size - frontier.size)
        items = (await session.platform.log_entries(frontier.size, limit)).items
        if not 1 <= len(items) <= limit:
            raise UnexpectedAnswer("The registry sent another number of the log's entries than it was asked for.")
        for item in items:
            with verifying():
                data = from_b64url(item, KEY_ENTRY_SIZE)
                label, statement = split_key_entry(data)
            if label in labels:
                yield _Hit(*labels[label], statement, frontier.size)
            frontier.append(leaf_hash(data))
    if frontier.size != checkpoint.size or frontier.root() != checkpoint.root:
        with verifying():
            raise ConsistencyNotProven("The entries that the registry shows are not those of the tree it has signed.")


async def _own(session: Session, names: Iterable[str], hits: list[_Hit]) -> list[Finding]:
    """Entries in one's own name that are none of one's own statements."""
    if not hits:
        return []
    me = await session.me(fresh=True)
    known = {entry.id for entry in me.entries}
    titles = {session.keyring.scope_id(name): name for name in names}
    if any(hit.scope is not None for hit in hits):
        async for token in session.platform.scope_keys(await session.credentials(), session.did):
            statement = check_scope_key(token, me)
            if _is_derived(session, statement, titles):
                known.add(statement.id)
    return [
        Finding(
            FOREIGN,
            "A key that is not yours has been published in your name."
            if hit.scope is None
            else "A key that is not yours has been published for a scope of yours.",
            hit.did,
            hit.scope,
            hit.statement,
            hit.place,
        )
        for hit in hits
        if hit.statement not in known
    ]


def _is_derived(session: Session, statement: Verified[ScopeKey], titles: Mapping[str, str]) -> bool:
    """Whether the recovery words give this key. A scope whose name is not known cannot be told; its key bears this
    party's signature."""
    payload = statement.payload
    name = titles.get(payload.scope)
    return name is None or payload.delegating_key == (session.keyring.delegating(name, payload.epoch).public_key().b64)


async def _others(session: Session, hits: list[_Hit]) -> list[Finding]:
    """Entries of parties one knows that the registry does not show, also when it is asked again now."""
    findings = []
    for did in dict.fromkeys(hit.did for hit in hits):
        of_party = [hit for hit in hits if hit.did == did]
        try:
            shown = await _shown(session, did, {hit.scope for hit in of_party})
        except VerificationFailed as failed:
            findings.append(Finding(failed.code, failed.detail, did))
            continue
        findings += [
            Finding(
                WITHHELD,
                "The log has a key of this party that the registry does not show.",
                did,
                hit.scope,
                hit.statement,
                hit.place,
            )
            for hit in of_party
            if hit.statement not in shown
        ]
    return findings


async def _shown(session: Session, did: str, scopes: set[str | None]) -> set[str]:
    """The ids of the statements that the registry shows now: a party's key-entries, and the keys of these scopes."""
    try:
        party = await session.party(did, fresh=True)
    except REFUSALS as refused:
        if refused.code != "unknown_party":
            raise
        return set()
    shown = {entry.id for entry in party.entries}
    for scope in scopes - {None}:
        async for token in session.platform.scope_keys(await session.credentials(), did, scope):
            shown.add(check_scope_key(token, party).id)
    return shown


# --- the witnesses --------------------------------------------------------------------------------------------------


async def _seen_by_witnesses(session: Session) -> dict[str, VerifiedCheckpoint | str]:
    """The newest checkpoint of the registry's log that each witness has cosigned, or why there is none."""
    witnesses = await session.logs.witnesses()
    seen = await asyncio.gather(*(_seen_by(session, party) for party in witnesses.values()))
    return dict(zip(witnesses, seen, strict=True))


async def _seen_by(session: Session, party: VerifiedParty | None) -> VerifiedCheckpoint | str:
    endpoint = None if party is None else party.current.payload.endpoint
    origin = (await session.platform.discovery()).registry_log
    if endpoint is None:
        return "away"
    try:
        shown = await session.platform.witnessed(endpoint)
        for item in shown.items:
            if item.origin == origin:
                # Without the log's own signature a witness can say what it likes.
                with verifying():
                    return verify_checkpoint(item.checkpoint, origin)
    except VerificationFailed:
        return "silent"
    except REFUSALS:
        return "away"
    return "silent"


async def _compare(
    session: Session, checkpoint: VerifiedCheckpoint, seen: Mapping[str, VerifiedCheckpoint | str]
) -> tuple[dict[str, str], list[Finding]]:
    """Where each witness stands, and which of them prove that the registry shows this party something else."""
    for _ in range(_TRIES - 1):
        if not any(isinstance(one, VerifiedCheckpoint) and one.size > checkpoint.size for one in seen.values()):
            break
        await asyncio.sleep(_PAUSE)
        checkpoint = await session.logs.refresh(REGISTRY, session.platform.registry_url)
    standing: dict[str, str] = {}
    findings: list[Finding] = []
    for did, one in seen.items():
        standing[did] = one if isinstance(one, str) else await _stand(session, checkpoint, one)
        if standing[did] == "other" and isinstance(one, VerifiedCheckpoint):
            found = Finding(
                FORKED, "This witness has cosigned another history of the log than the registry shows.", did
            )
            findings.append(_with_evidence(session, found, checkpoint, one))
    ahead = [did for did, where in standing.items() if where == "ahead"]
    answered = sum(where != "away" for where in standing.values())
    if answered >= await session.logs.witnesses_needed():
        # While too many witnesses are away, the registry cannot publish what the others have cosigned.
        for did in ahead:
            newer = seen[did]
            assert isinstance(newer, VerifiedCheckpoint)
            detail = f"This witness has cosigned {newer.size} entries, and the registry shows {checkpoint.size}."
            findings.append(_with_evidence(session, Finding(CHECKPOINT_WITHHELD, detail, did), checkpoint, newer))
    return standing, findings


async def _stand(session: Session, shown: VerifiedCheckpoint, seen: VerifiedCheckpoint) -> str:
    if seen.size > shown.size:
        return "ahead"
    try:
        if seen.size == shown.size:
            verify_consistency(seen.size, seen.root, shown.size, shown.root, [])
            return "agrees"
        answer = await session.platform.log_consistency(session.platform.registry_url, seen.size, shown.size)
        path = [from_b64url(step, 32) for step in answer.path]
        verify_consistency(seen.size, seen.root, shown.size, shown.root, path)
    except ConsistencyNotProven:
        return "other"
    except ServiceRefused as refused:
        # Whoever has only one history can prove that it contains what it has signed itself.
        if refused.status >= 500:
            raise
        return "other"
    return "behind"


def _with_evidence(session: Session, finding: Finding, shown: VerifiedCheckpoint, seen: VerifiedCheckpoint) -> Finding:
    failed: LogContradicted = session.logs.contradiction(finding.code, finding.detail, shown.format(), seen.format())
    return replace(finding, evidence=failed.evidence)
