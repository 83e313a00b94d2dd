"""The chains of events of each subject: written with their leaves in the caller's transaction, read, and erased.

What the tree holds of an event is its commitment. Text and salt stand beside it, for the subject, until the subject
has them erased; the chain and the tree remain whole without them.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.db.log.entries import sql
from shared.encoding import b64url
from shared.transparency.entries import Event, commitment
from shared.transparency.merkle import leaf_hash

SALT_SIZE = 32


@dataclass(frozen=True)
class NewEvent:
    """What happened or was refused, before it has a number.

    `subject` is the party whose log it stands in, `at` in seconds since the epoch, `outcome` `done` or the code of
    the refusal, `grant`, `statement` and `capsules` are ids and hashes in base64url. `cause` is for the operator
    alone and no part of the event.
    """

    subject: str
    at: int
    event: str
    outcome: str = "done"
    actor: str | None = None
    grant: str | None = None
    statement: str | None = None
    capsules: tuple[str, ...] = ()
    cause: str | None = None


@dataclass(frozen=True)
class LoggedEvent:
    """An event in its subject's chain; `text` and `salt` are None once erased. `entry` is the id of its leaf's row."""

    subject: str
    n: int
    entry: int
    commitment: bytes
    salt: bytes | None
    text: str | None


# A row that is there already is written once more as it was, since only so is it locked and returned in one step.
_LOCK_HEADS = sql(
    "INSERT INTO log_heads (subject, n) SELECT subject, 0 FROM unnest(:subjects) AS s (subject)"
    ' ORDER BY subject COLLATE "C"'
    " ON CONFLICT (subject) DO UPDATE SET n = log_heads.n RETURNING subject, n, commitment",
    subjects="text",
)
_WRITE = sql(
    "WITH leaves AS ("
    "  INSERT INTO log_entries (data, leaf) SELECT * FROM unnest(:commitments, :leaves) RETURNING id, data"
    "), heads AS ("
    "  UPDATE log_heads SET n = ends.n, commitment = ends.commitment"
    "  FROM unnest(:head_subjects, :head_ns, :head_commitments) AS ends (subject, n, commitment)"
    "  WHERE log_heads.subject = ends.subject"
    ") INSERT INTO log_events (subject, n, entry, actor, salt, text, cause)"
    " SELECT e.subject, e.n, leaves.id, e.actor, e.salt, e.text, e.cause"
    " FROM unnest(:subjects, :ns, :commitments, :actors, :salts, :texts, :causes)"
    "   AS e (subject, n, commitment, actor, salt, text, cause)"
    " JOIN leaves ON leaves.data = e.commitment"
    " RETURNING subject, n, entry",
    commitments="bytea",
    leaves="bytea",
    head_subjects="text",
    head_ns="bigint",
    head_commitments="bytea",
    subjects="text",
    ns="bigint",
    actors="text",
    salts="bytea",
    texts="text",
    causes="text",
)
_READ = (
    "SELECT e.subject, e.n, e.entry, e.salt, e.text, l.data AS commitment"
    " FROM log_events e JOIN log_entries l ON l.id = e.entry"
)


async def append_event(session: AsyncSession, event: NewEvent) -> LoggedEvent:
    """As `append_events`, for one."""
    return (await append_events(session, [event]))[0]


async def append_events(session: AsyncSession, events: Sequence[NewEvent]) -> list[LoggedEvent]:
    """Append events to their subjects' chains and their commitments to the log; returns them in order.

    Other transactions that write about one of these subjects wait until this one ends. So that no two ever wait for
    each other, a transaction calls this once, with all its events, as the last thing that it does.
    """
    if not events:
        return []
    subjects = sorted({event.subject for event in events})
    rows = await session.execute(_LOCK_HEADS, {"subjects": subjects})
    heads = {row.subject: (int(row.n), None if row.commitment is None else bytes(row.commitment)) for row in rows}
    chained: list[tuple[NewEvent, int, bytes, bytes, str]] = []
    for new in events:
        n, previous = heads[new.subject]
        salt = secrets.token_bytes(SALT_SIZE)
        canonical = _event(new, n + 1, previous).canonical()
        hidden = commitment(salt, canonical)
        heads[new.subject] = (n + 1, hidden)
        chained.append((new, n + 1, hidden, salt, canonical.decode("utf-8")))
    commitments = [hidden for _, _, hidden, _, _ in chained]
    rows = await session.execute(
        _WRITE,
        {
            "commitments": commitments,
            "leaves": [leaf_hash(hidden) for hidden in commitments],
            "head_subjects": subjects,
            "head_ns": [heads[subject][0] for subject in subjects],
            "head_commitments": [heads[subject][1] for subject in subjects],
            "subjects": [new.subject for new in events],
            "ns": [n for _, n, _, _, _ in chained],
            "actors": [new.actor for new in events],
            "salts": [salt for _, _, _, salt, _ in chained],
            "texts": [written for _, _, _, _, written in chained],
            "causes": [new.cause for new in events],
        },
    )
    entries = {(row.subject, int(row.n)): int(row.entry) for row in rows}
    return [
        LoggedEvent(new.subject, n, entries[new.subject, n], hidden, salt, written)
        for new, n, hidden, salt, written in chained
    ]


async def events(session: AsyncSession, subject: str, before: int | None, limit: int) -> list[LoggedEvent]:
    """At most `limit` events of a subject's chain, newest first; with `before` those of a lower `n` only."""
    query = _READ + " WHERE e.subject = :subject AND e.n < :before ORDER BY e.n DESC LIMIT :limit"
    rows = await session.execute(text(query), {"subject": subject, "before": _below(before), "limit": limit})
    return [_logged(row) for row in rows]


async def erase(session: AsyncSession, subject: str, upto: int) -> int:
    """Erase text, salt, actor and cause of a subject's events up to number `upto`; returns of how many.

    Without the salt nobody can test a guess against the commitment that stays. Postgres keeps the old rows' bytes
    until VACUUM reuses their space, and wherever a replica or a backup has copied them.
    """
    rows = await session.execute(
        text(
            "UPDATE log_events SET salt = NULL, text = NULL, actor = NULL, cause = NULL"
            " WHERE subject = :subject AND n <= :upto AND salt IS NOT NULL RETURNING n"
        ),
        {"subject": subject, "upto": upto},
    )
    return len(rows.all())


def _event(new: NewEvent, n: int, previous: bytes | None) -> Event:
    return Event(
        subject=new.subject,
        n=n,
        prev=None if previous is None else b64url(previous),
        at=new.at,
        event=new.event,
        outcome=new.outcome,
        actor=new.actor,
        grant=new.grant,
        statement=new.statement,
        capsules=new.capsules or None,
    )


def _below(before: int | None) -> int:
    return 2**63 - 1 if before is None else before


def _logged(row: Row[tuple[object, ...]]) -> LoggedEvent:
    return LoggedEvent(
        subject=row.subject,
        n=row.n,
        entry=row.entry,
        commitment=bytes(row.commitment),
        salt=None if row.salt is None else bytes(row.salt),
        text=row.text,
    )
