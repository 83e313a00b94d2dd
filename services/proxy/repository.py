"""Every SQL statement of a proxy.

Erasure, honestly: `erase_share` deletes rows. Postgres keeps their bytes in the table's file until VACUUM reuses the
space, in the write-ahead log until its segments are recycled, and wherever a replica or a backup has copied them.
All that is ever written there is encrypted under the storage key, which the database never sees; and a share is
worth nothing without `t - 1` others and the recipient's key. An operator who must be sure keeps backups of this
database for no longer than he is ready to answer for a revoked share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import ARRAY, Integer, Row, bindparam, delete, select, text, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.proxy import models
from services.proxy.domain import StoredGrant
from services.proxy.errors import JtiReused
from shared.crypto.umbral import CFRAG_SIZE
from shared.db import locks, log
from shared.db.engine import Database
from shared.db.log import LoggedEvent, NewEvent
from shared.db.quotas import Bound, Quotas
from shared.statements import Grant, ReencryptionRequest, Verified
from shared.transparency.checkpoints import VerifiedCheckpoint
from shared.transparency.witnessing import Known

SHARES = "shares"


@dataclass(frozen=True)
class StoredAnswer:
    """What was answered: a receipt and, for a re-encryption, cfrags of 359 bytes in order."""

    receipt: str
    cfrags: tuple[bytes, ...]


@dataclass(frozen=True)
class Standing:
    """How a grant stood at one moment: `sealed` has its kfrags as they rest by index of the scope entry, `revoked` is
    whether its patient has, and `seen` the id of the statement that has used up the `jti` asked about, if any has."""

    grant: StoredGrant
    sealed: dict[int, bytes]
    revoked: bool
    seen: str | None


@dataclass(frozen=True)
class WitnessedHead:
    """A log that is witnessed; without a head until the first cosignature."""

    head: Known | None


class Claim(Enum):
    """What became of the attempt to take a `jti` for a use of a grant."""

    NEW = "new"
    SEEN = "seen"
    REVOKED = "revoked"


_STANDING = (
    text(
        "SELECT g.patient, g.id, g.recipient, g.nbf, g.exp, g.limits, k.entries, k.sealed,"
        " EXISTS (SELECT FROM tombstones t WHERE t.issuer = g.patient AND t.grant_id = g.id) AS revoked,"
        " (SELECT s.id FROM statements s WHERE s.issuer = :issuer AND s.jti = :jti) AS seen"
        " FROM grants g CROSS JOIN LATERAL ("
        "  SELECT array_agg(entry) AS entries, array_agg(sealed) AS sealed FROM kfrags"
        "  WHERE patient = g.patient AND grant_id = g.id AND entry = ANY (:entries)"
        " ) k WHERE g.id = :id"
    )
    .bindparams(bindparam("entries", type_=ARRAY(Integer)))
    .columns(limits=JSONB)
)
_CLAIM_UNREVOKED = text(
    "WITH ended AS (SELECT FROM tombstones WHERE issuer = :patient AND grant_id = :grant_id),"
    " taken AS (INSERT INTO statements (issuer, jti, id)"
    "   SELECT CAST(:issuer AS text), CAST(:jti AS text), CAST(:id AS text) WHERE NOT EXISTS (SELECT FROM ended)"
    "   ON CONFLICT DO NOTHING RETURNING id)"
    " SELECT EXISTS (SELECT FROM ended) AS revoked, EXISTS (SELECT FROM taken) AS taken"
)


class Work:
    """One transaction's view of the tables."""

    def __init__(self, session: AsyncSession, bounds: Mapping[str, Bound]) -> None:
        self._session = session
        self._quotas = Quotas(session, models.Usage, bounds)

    # Grants and shares

    async def serialise(self, grant_id: str) -> None:
        """Wait until no other transaction takes, uses or ends this grant's share; held until the transaction ends.

        The lock is on the grant's name, since a row cannot be locked before it exists: a share and its revocation that
        arrive together would each miss the other, and a share would stay for which the receipt says that it was erased.
        """
        await locks.take(self._session, [_lock_of(grant_id)])

    async def keep_as_it_is(self, grant_id: str) -> None:
        """Nobody can revoke the grant before this transaction ends; a revocation that waits already is first."""
        await locks.share(self._session, [_lock_of(grant_id)])

    async def grant(self, grant_id: str) -> StoredGrant | None:
        """The grant of this id, or None."""
        grant = models.Grant
        columns: list[Any] = [grant.patient, grant.id, grant.recipient, grant.nbf, grant.exp, grant.limits]
        row = (await self._session.execute(select(*columns).where(grant.id == grant_id))).one_or_none()
        return None if row is None else _stored_grant(row)

    async def is_revoked(self, issuer: str, grant_id: str) -> bool:
        """Whether `issuer` has revoked the grant; only what the grant's own patient says counts."""
        tombstone = models.Tombstone
        query = select(tombstone.issuer).where(tombstone.issuer == issuer, tombstone.grant_id == grant_id)
        return await self._session.scalar(query) is not None

    async def standing(self, request: Verified[ReencryptionRequest]) -> Standing | None:
        """All that a re-encryption depends on, as of one moment; None where the grant is not known."""
        payload = request.payload
        entries = sorted({wanted.entry for wanted in payload.capsules})
        row = (
            await self._session.execute(
                _STANDING, {"id": payload.grant, "issuer": payload.iss, "jti": payload.jti, "entries": entries}
            )
        ).one_or_none()
        if row is None:
            return None
        sealed = dict(zip(row.entries or (), row.sealed or (), strict=True))
        return Standing(_stored_grant(row), sealed, row.revoked, row.seen)

    async def claim_unrevoked(self, request: Verified[ReencryptionRequest], patient: str) -> Claim:
        """Take the request's `jti` as `claim` does, unless the grant has been revoked; raises what `claim` raises.

        The caller keeps the grant as it is. This is a statement of its own after the one that locks, and so it sees
        every revocation that was committed before.
        """
        payload = request.payload
        values = {
            "patient": patient,
            "grant_id": payload.grant,
            "issuer": payload.iss,
            "jti": payload.jti,
            "id": request.id,
        }
        row = (await self._session.execute(_CLAIM_UNREVOKED, values)).one()
        if row.revoked:
            return Claim.REVOKED
        if row.taken:
            return Claim.NEW
        await self.is_new(request)
        return Claim.SEEN

    async def add_grant(
        self, grant: Verified[Grant], limits: Sequence[frozenset[str] | None], sealed_kfrags: Sequence[bytes]
    ) -> None:
        """Keep a verified grant and this proxy's share of it, one encrypted kfrag for each scope entry.

        Raises `QuotaExceeded` where it would be one share of this patient's too many.
        """
        payload = grant.payload
        await self._quotas.change({(payload.iss, SHARES): 1})
        self._session.add(
            models.Grant(
                patient=payload.iss,
                id=grant.id,
                recipient=payload.aud,
                token=grant.token,
                nbf=payload.nbf,
                exp=payload.exp,
                threshold=payload.shares.threshold if payload.shares is not None else 0,
                limits=[None if limit is None else sorted(limit) for limit in limits],
            )
        )
        await self._session.flush()
        self._session.add_all(
            models.Kfrag(patient=payload.iss, grant_id=grant.id, entry=entry, sealed=sealed, exp=payload.exp)
            for entry, sealed in enumerate(sealed_kfrags)
        )
        await self._session.flush()

    async def check_room(self, patient: str) -> None:
        """Raise `QuotaExceeded` where no share of this patient's can be taken; before arithmetic that would be in
        vain."""
        await self._quotas.check(patient, SHARES)

    async def add_tombstone(self, issuer: str, grant_id: str, token: str, receipt: str) -> None:
        """Keep a revocation; the first one of an issuer for a grant stays."""
        row = insert(models.Tombstone).values(issuer=issuer, grant_id=grant_id, token=token, receipt=receipt)
        await self._session.execute(row.on_conflict_do_nothing())

    async def erase_share(self, patient: str, grant_id: str) -> int:
        """Delete the kfrags of a grant, and the cfrags that still wait to be asked for; returns how many kfrags."""
        kfrag, answer = models.Kfrag, models.Answer
        erased = await self._session.scalars(
            delete(kfrag).where(kfrag.patient == patient, kfrag.grant_id == grant_id).returning(kfrag.entry)
        )
        await self._session.execute(delete(answer).where(answer.grant_id == grant_id, answer.cfrags.is_not(None)))
        count = len(erased.all())
        if count:
            await self._quotas.change({(patient, SHARES): -1})
        return count

    # Statements and answers

    async def claim(self, statement: Verified[Any]) -> bool:
        """Take the statement's `jti`: True the first time, False if this very statement was here before.

        Waits for another transaction that is at the same `jti`. Raises `JtiReused` if it stands for other bytes.
        """
        payload = statement.payload
        row = insert(models.Statement).values(issuer=payload.iss, jti=payload.jti, id=statement.id)
        taken = await self._session.scalar(row.on_conflict_do_nothing().returning(models.Statement.id))
        if taken is not None:
            return True
        await self.is_new(statement)
        return False

    async def is_new(self, statement: Verified[Any]) -> bool:
        """Whether the statement has had no effect yet; raises `JtiReused` if its `jti` stands for other bytes."""
        payload, seen = statement.payload, models.Statement
        known = await self._session.scalar(select(seen.id).where(seen.issuer == payload.iss, seen.jti == payload.jti))
        if known is not None and known != statement.id:
            raise JtiReused
        return known is None

    async def answer(self, statement_id: str, token_hash: bytes | None = None) -> StoredAnswer | None:
        """What was answered to a statement; with `token_hash` (32 bytes) only if it was this very string."""
        query = select(models.Answer.receipt, models.Answer.cfrags).where(models.Answer.statement == statement_id)
        if token_hash is not None:
            query = query.where(models.Answer.token_hash == token_hash)
        row = (await self._session.execute(query)).one_or_none()
        if row is None:
            return None
        joined = row.cfrags or b""
        cfrags = tuple(joined[start : start + CFRAG_SIZE] for start in range(0, len(joined), CFRAG_SIZE))
        return StoredAnswer(row.receipt, cfrags)

    async def add_answer(
        self, statement_id: str, token_hash: bytes, grant_id: str, answer: StoredAnswer, lapses_at: int | None = None
    ) -> None:
        """Keep an answer; one with cfrags says when (seconds) the statement lapses."""
        await self._session.execute(
            insert(models.Answer).values(
                statement=statement_id,
                token_hash=token_hash,
                grant_id=grant_id,
                receipt=answer.receipt,
                cfrags=b"".join(answer.cfrags) or None,
                lapses_at=lapses_at,
            )
        )

    async def prune(self, *, lapsed_by: int, ended_by: int) -> int:
        """Delete the answers to re-encryption requests, and the kfrags of grants, that nobody may ask for any more;
        returns the number of kfrags."""
        await self._session.execute(delete(models.Answer).where(models.Answer.lapses_at <= lapsed_by))
        erased = await self._session.execute(
            delete(models.Kfrag)
            .where(models.Kfrag.exp <= ended_by)
            .returning(models.Kfrag.patient, models.Kfrag.grant_id)
        )
        rows = [(row.patient, row.grant_id) for row in erased]
        shares = Counter(patient for patient, _ in set(rows))
        await self._quotas.change({(patient, SHARES): -count for patient, count in shares.items()})
        return len(rows)

    # The log

    async def append_event(self, event: NewEvent) -> int:
        """Write one event and return its number in its subject's chain. Called once in a transaction."""
        return (await log.append_event(self._session, event)).n

    async def events_of(self, party: str, *, before: int | None, limit: int) -> list[LoggedEvent]:
        """At most `limit` events of a party's own chain, newest first."""
        return await log.events(self._session, party, before, limit)

    async def erase_events(self, party: str, upto: int) -> None:
        """Erase the texts of a party's events up to this number; what the log holds of them stays."""
        await log.erase(self._session, party, upto)

    # Logs witnessed

    async def know_log(self, kind: str, origin: str) -> bool:
        """Take up a log, unless one of its kind is known; whether it is this one."""
        row = insert(models.WitnessedLog).values(kind=kind, origin=origin)
        await self._session.execute(row.on_conflict_do_nothing())
        log = models.WitnessedLog
        return await self._session.scalar(select(log.origin).where(log.kind == kind)) == origin

    async def witnessed(self, origin: str) -> WitnessedHead | None:
        """What has been cosigned last of this log; None for a log that is not known."""
        log = models.WitnessedLog
        row = (await self._session.execute(select(log.size, log.root).where(log.origin == origin))).one_or_none()
        if row is None:
            return None
        return WitnessedHead(None if row.size is None or row.root is None else Known(row.size, row.root))

    async def keep_witnessed(self, known: Known | None, new: VerifiedCheckpoint) -> bool:
        """Put the checkpoint in the place of what was `known`; False, without effect, if that is no longer it."""
        log = models.WitnessedLog
        size, root = (None, None) if known is None else (known.size, known.root)
        kept = await self._session.scalars(
            update(log)
            .where(log.origin == new.origin, log.size.is_not_distinct_from(size), log.root.is_not_distinct_from(root))
            .values(size=new.size, root=new.root, note=new.format())
            .returning(log.origin)
        )
        return kept.first() is not None

    async def all_witnessed(self) -> list[tuple[str, str]]:
        """Origin and newest checkpoint of each log of which there is one."""
        log = models.WitnessedLog
        rows = await self._session.execute(
            select(log.origin, log.note).where(log.note.is_not(None)).order_by(log.origin)
        )
        return [(row.origin, row.note) for row in rows]

    # The proxy's own key-entry

    async def own_entry(self) -> tuple[str, str] | None:
        """DID and compact form of the key-entry that this database belongs to, or None in a new one."""
        row = (
            await self._session.execute(
                select(models.OwnEntry.did, models.OwnEntry.token).where(models.OwnEntry.seq == 0)
            )
        ).one_or_none()
        return None if row is None else (row.did, row.token)

    async def keep_own_entry(self, did: str, token: str, *, replace: bool) -> None:
        """Keep this proxy's key-entry; without `replace` the one that is there stays."""
        row = insert(models.OwnEntry).values(seq=0, did=did, token=token)
        if replace:
            row = row.on_conflict_do_update(
                index_elements=["seq"], set_={"token": token}, where=models.OwnEntry.did == did
            )
        else:
            row = row.on_conflict_do_nothing()
        await self._session.execute(row)


class Repository:
    """Where transactions begin; of one patient at most `max_shares` are kept."""

    def __init__(self, database: Database, *, max_shares: int) -> None:
        self._database = database
        self._bounds = {SHARES: Bound(max_shares, "shares of one patient's grants at one proxy")}

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Work]:
        """One transaction, committed before the block is left; raises `DatabaseUnavailable`."""
        async with self._database.transaction() as session:
            yield Work(session, self._bounds)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Work]:
        """For what changes nothing and locks nothing; raises `DatabaseUnavailable`."""
        async with self._database.reading() as session:
            yield Work(session, self._bounds)

    async def check(self) -> None:
        """Raises `DatabaseUnavailable` unless the database answers."""
        await self._database.check()


def _lock_of(grant_id: str) -> str:
    return f"grant {grant_id}"


def _stored_grant(row: Row[Any]) -> StoredGrant:
    return StoredGrant(
        patient=row.patient,
        id=row.id,
        recipient=row.recipient,
        nbf=row.nbf,
        exp=row.exp,
        limits=tuple(None if limit is None else frozenset(limit) for limit in row.limits),
    )
