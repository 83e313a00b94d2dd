"""Every SQL statement of the registry. What comes in was verified; nothing here decides."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from services.registry.domain import PartyCard, PartyKeys, ScopeKeys, search_text, sort_name
from services.registry.models import AssertionRow, AuditRow, KeyEntryRow, PartyRow, ScopeKeyRow, StatementRow, Usage
from shared.db import log
from shared.db.quotas import Bound, Quotas
from shared.encoding import b64url, from_b64url
from shared.statements import KeyEntry, ScopeKey, Verified
from shared.transparency.entries import key_entry_data, key_label, scope_label
from shared.wire import Role

PRUNED_AT_ONCE = 100
"""Lapsed assertions removed with each new one; more than come in, so that the table stays small."""

# By their place in the table, since a plan for any arguments would look for them by reading all of it.
_PRUNE = text(
    "DELETE FROM assertions WHERE ctid = ANY (ARRAY("
    " SELECT ctid FROM assertions WHERE expires < :now ORDER BY expires LIMIT :many FOR UPDATE SKIP LOCKED))"
)


@dataclass(frozen=True)
class DirectoryEntry:
    """One party of the directory, without its chain, and how long the chain is."""

    did: str
    length: int


class Repository:
    """The tables, within the transaction of one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    # Parties and their chains

    async def lock_party(self, did: str) -> bool:
        """Whether the party is registered; if so, other writes of it wait for the end of this transaction."""
        query = select(PartyRow.did).where(PartyRow.did == did).with_for_update(key_share=True)
        return await self._session.scalar(query) is not None

    async def keys(self, did: str) -> PartyKeys | None:
        """The identity keys of a party, or None for an unknown one."""
        query = (
            select(PartyRow.role, KeyEntryRow.identity_key)
            .join(KeyEntryRow, KeyEntryRow.did == PartyRow.did)
            .where(PartyRow.did == did)
            .order_by(KeyEntryRow.seq)
        )
        rows = (await self._session.execute(query)).all()
        if not rows:
            return None
        return PartyKeys(
            did=did,
            role=Role(rows[-1].role),
            current_identity_key=rows[-1].identity_key,
            all_identity_keys=frozenset(row.identity_key for row in rows),
        )

    async def role(self, did: str) -> Role | None:
        role = await self._session.scalar(select(PartyRow.role).where(PartyRow.did == did))
        return None if role is None else Role(role)

    async def chain(self, did: str) -> list[str]:
        """The party's key-entries, oldest first; empty for an unknown party."""
        query = select(KeyEntryRow.token).where(KeyEntryRow.did == did).order_by(KeyEntryRow.seq)
        return list((await self._session.scalars(query)).all())

    async def cards(self, dids: Collection[str]) -> dict[str, PartyCard]:
        """The parties of these ids, with their whole chains."""
        rows = (await self._session.scalars(select(PartyRow).where(PartyRow.did.in_(dids)))).all()
        chains: dict[str, list[str]] = {row.did: [] for row in rows}
        query = (
            select(KeyEntryRow.did, KeyEntryRow.token)
            .where(KeyEntryRow.did.in_(dids))
            .order_by(KeyEntryRow.did, KeyEntryRow.seq)
        )
        for did, token in await self._session.execute(query):
            chains.setdefault(did, []).append(token)
        return {
            row.did: PartyCard(
                did=row.did,
                role=Role(row.role),
                seq=row.seq,
                name=row.name,
                organisation=row.organisation,
                endpoint=row.endpoint,
                # A rotation may have been committed between the two queries; the card says one thing throughout.
                entries=tuple(chains[row.did][: row.seq + 1]),
            )
            for row in rows
        }

    async def add_party(self, entry: Verified[KeyEntry], now: int) -> bool:
        """Register a party with its first key-entry; False if the id is registered already."""
        row = insert(PartyRow).values(
            did=entry.payload.iss, role=entry.payload.role.value, created_at=now, **_shown(entry.payload)
        )
        if await self._inserted(row.on_conflict_do_nothing().returning(PartyRow.did)):
            return await self._add_key_entry(entry, now)
        return False

    async def extend_chain(self, entry: Verified[KeyEntry], now: int) -> bool:
        """Add the next key-entry; False if its place in the chain is taken."""
        if not await self._add_key_entry(entry, now):
            return False
        await self._session.execute(
            update(PartyRow).where(PartyRow.did == entry.payload.iss).values(**_shown(entry.payload))
        )
        return True

    async def _add_key_entry(self, entry: Verified[KeyEntry], now: int) -> bool:
        row = insert(KeyEntryRow).values(
            did=entry.payload.iss,
            seq=entry.payload.seq,
            id=from_b64url(entry.id, 32),
            identity_key=from_b64url(entry.payload.identity_key, 32),
            token=entry.token,
            received_at=now,
        )
        return await self._inserted(row.on_conflict_do_nothing().returning(KeyEntryRow.seq))

    # Directory

    async def directory(
        self, role: Role, query: str | None, among: Collection[str] | None, after: str | None, limit: int
    ) -> list[DirectoryEntry]:
        """The next parties of a role, by name and DID, after the party `after`; `query` is folded text.

        `among`, where given, leaves out all other parties.
        """
        rows = select(PartyRow.did, PartyRow.seq).where(PartyRow.role == role.value)
        if query is not None:
            # Part of a name may be in every name or in none: a plan for any query would read all of them for some.
            await self._session.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
            rows = rows.where(PartyRow.search_text.contains(query, autoescape=True))
        if among is not None:
            rows = rows.where(PartyRow.did.in_(among))
        if after is not None:
            last = aliased(PartyRow)
            place = select(last.sort_name, last.did).where(last.did == after, last.role == role.value)
            rows = rows.where(tuple_(PartyRow.sort_name, PartyRow.did) > place.scalar_subquery())
        rows = rows.order_by(PartyRow.sort_name, PartyRow.did).limit(limit)
        return [DirectoryEntry(row.did, row.seq + 1) for row in await self._session.execute(rows)]

    # Statements

    async def statement_ids(self, issuer: str, jtis: Collection[str]) -> dict[str, str]:
        """The ids of the issuer's statements with these jtis, by jti."""
        wanted = [from_b64url(jti, 16) for jti in jtis]
        query = select(StatementRow.jti, StatementRow.id).where(
            StatementRow.issuer == issuer, StatementRow.jti.in_(wanted)
        )
        return {b64url(row.jti): b64url(row.id) for row in await self._session.execute(query)}

    async def note_statements(
        self, statements: Sequence[Verified[KeyEntry]] | Sequence[Verified[ScopeKey]], act: str, now: int
    ) -> bool:
        """Write down that the statements were accepted, for replays and for the audit log.

        False if a jti is taken, which the callers have looked for under the party's lock.
        """
        if not statements:
            return True
        rows = [
            {
                "issuer": statement.payload.iss,
                "jti": from_b64url(statement.payload.jti, 16),
                "id": from_b64url(statement.id, 32),
                "kind": statement.payload.typ,
                "received_at": now,
            }
            for statement in statements
        ]
        query = insert(StatementRow).values(rows).on_conflict_do_nothing().returning(StatementRow.jti)
        if len((await self._session.scalars(query)).all()) != len(rows):
            return False
        await self._session.execute(
            insert(AuditRow),
            [_audit(row["issuer"], act, "accepted", now, statement=row["id"]) for row in rows],
        )
        return True

    # The log

    async def log_key_entry(self, entry: Verified[KeyEntry]) -> None:
        """Put a key-entry that has been accepted into the log."""
        await log.append(self._session, [key_entry_data(key_label(entry.payload.iss), entry.id)])

    async def log_scope_keys(self, statements: Sequence[Verified[ScopeKey]]) -> None:
        """Put scope-keys that have been published into the log."""
        labelled = [(scope_label(one.payload.iss, one.payload.scope), one.id) for one in statements]
        await log.append(self._session, [key_entry_data(label, statement) for label, statement in labelled])

    # Scope-keys

    async def scope_keys_around(self, patient: str, batch: Sequence[Verified[ScopeKey]]) -> ScopeKeys:
        """The newest epoch of each scope in the batch, and the keys published where the batch would put one."""
        scopes = {from_b64url(statement.payload.scope, 16) for statement in batch}
        places = {(from_b64url(statement.payload.scope, 16), statement.payload.epoch) for statement in batch}
        newest = (
            select(ScopeKeyRow.scope, func.max(ScopeKeyRow.epoch).label("epoch"))
            .where(ScopeKeyRow.patient == patient, ScopeKeyRow.scope.in_(scopes))
            .group_by(ScopeKeyRow.scope)
        )
        published = select(ScopeKeyRow.scope, ScopeKeyRow.epoch, ScopeKeyRow.delegating_key, ScopeKeyRow.token).where(
            ScopeKeyRow.patient == patient, tuple_(ScopeKeyRow.scope, ScopeKeyRow.epoch).in_(places)
        )
        return ScopeKeys(
            newest={b64url(row.scope): row.epoch for row in await self._session.execute(newest)},
            published={
                (b64url(row.scope), row.epoch): (b64url(row.delegating_key), row.token)
                for row in await self._session.execute(published)
            },
        )

    async def count_scope_keys(self, patient: str, added: int, most: int) -> None:
        """Count scope-keys that are being published; raises `QuotaExceeded` where they would be more than `most`."""
        bounds = {"scope_keys": Bound(most, "scope-keys of one patient")}
        await Quotas(self._session, Usage, bounds).change({(patient, "scope_keys"): added})

    async def add_scope_keys(self, statements: Sequence[Verified[ScopeKey]]) -> bool:
        """Publish scope-keys; False if an epoch of a scope has a key already."""
        if not statements:
            return True
        rows = [
            {
                "patient": statement.payload.iss,
                "scope": from_b64url(statement.payload.scope, 16),
                "epoch": statement.payload.epoch,
                "id": from_b64url(statement.id, 32),
                "delegating_key": from_b64url(statement.payload.delegating_key, 33),
                "token": statement.token,
            }
            for statement in statements
        ]
        query = insert(ScopeKeyRow).values(rows).on_conflict_do_nothing().returning(ScopeKeyRow.epoch)
        return len((await self._session.scalars(query)).all()) == len(rows)

    async def scope_keys(
        self, patient: str, scope: bytes | None, after: tuple[bytes, int] | None, limit: int
    ) -> list[tuple[bytes, int, str]]:
        """Scope id (16 bytes), epoch and statement of the next scope-keys, in this order."""
        query = select(ScopeKeyRow.scope, ScopeKeyRow.epoch, ScopeKeyRow.token).where(ScopeKeyRow.patient == patient)
        if scope is not None:
            query = query.where(ScopeKeyRow.scope == scope)
        if after is not None:
            query = query.where(tuple_(ScopeKeyRow.scope, ScopeKeyRow.epoch) > tuple_(*after))
        query = query.order_by(ScopeKeyRow.scope, ScopeKeyRow.epoch).limit(limit)
        return [(row.scope, row.epoch, row.token) for row in await self._session.execute(query)]

    # Assertions and the audit log

    async def use_assertion(self, client: str, jti: bytes, expires: int) -> bool:
        """Take the jti's SHA-256 as used until `expires`; False if it was used before."""
        row = insert(AssertionRow).values(client=client, jti=jti, expires=expires)
        return await self._inserted(row.on_conflict_do_nothing().returning(AssertionRow.client))

    async def prune_assertions(self, now: int) -> None:
        """Remove some assertions that would be refused for their age alone; two prunings never wait for each other."""
        await self._session.execute(_PRUNE, {"now": now, "many": PRUNED_AT_ONCE})

    async def audit(
        self, did: str, act: str, outcome: str, now: int, *, statement: str | None = None, cause: str | None = None
    ) -> None:
        """Write one row of the audit log; `outcome` is `accepted` or the code of a refusal."""
        identity = None if statement is None else from_b64url(statement, 32)
        await self._session.execute(
            insert(AuditRow).values(**_audit(did, act, outcome, now, statement=identity, cause=cause))
        )

    async def _inserted(self, query: Any) -> bool:
        return await self._session.scalar(query) is not None


def _shown(payload: KeyEntry) -> Mapping[str, Any]:
    """What the party's row repeats of its newest key-entry."""
    return {
        "seq": payload.seq,
        "name": payload.name,
        "organisation": payload.organisation,
        "endpoint": payload.endpoint,
        "sort_name": sort_name(payload.name),
        "search_text": search_text(payload.name, payload.organisation),
    }


def _audit(
    did: Any, act: str, outcome: str, now: int, *, statement: Any = None, cause: str | None = None
) -> dict[str, Any]:
    return {"did": did, "at": now, "act": act, "outcome": outcome, "cause": cause, "statement": statement}
