"""Grants, their proxies, and revocations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, and_, exists, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.records.domain import ScopeEntry, Terms
from services.records.models import (
    Disclosed,
    GrantCapsule,
    GrantProxyRow,
    GrantRow,
    GrantScopeRow,
    RevocationRow,
)
from shared.db import locks
from shared.statements import Grant, Revocation, Verified, WantedCapsule
from shared.wire import Action


@dataclass(frozen=True)
class StoredProxy:
    """How far one proxy is with a grant."""

    did: str
    stored: str | None
    erased: str | None
    problem: str | None


@dataclass(frozen=True)
class StoredGrant:
    """A grant as it is listed; `disclosed` counts record versions."""

    number: int
    id: str
    statement: str
    expires_at: int
    threshold: int
    received_at: int
    revocation: str | None
    disclosed: int
    proxies: tuple[StoredProxy, ...]


class Grants:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def lock_id(self, grant: str) -> None:
        """Let only one transaction at a time add or revoke the grant of this id, whether or not it is known yet, and
        none use it meanwhile."""
        await locks.take(self._session, [_lock_of(grant)])

    async def keep_as_they_are(self, grants: Iterable[str]) -> None:
        """None of these can be revoked before this transaction ends; a revocation that waits already is first."""
        await locks.share(self._session, map(_lock_of, grants))

    async def add(self, grant: Verified[Grant], now: int) -> None:
        payload = grant.payload
        await self._session.execute(
            insert(GrantRow).values(
                id=grant.id,
                patient=payload.iss,
                recipient=payload.aud,
                request=payload.request,
                actions=[action.value for action in payload.actions],
                not_before=payload.nbf,
                expires_at=payload.exp,
                threshold=payload.shares.threshold if payload.shares is not None else 0,
                statement=grant.token,
                received_at=now,
            )
        )
        entries = list(enumerate(payload.scopes))
        await self._session.execute(
            insert(GrantScopeRow).values(
                [
                    {
                        "grant_id": grant.id,
                        "entry": index,
                        "scope": entry.scope,
                        "epoch": entry.epoch,
                        "limited": entry.capsules is not None,
                    }
                    for index, entry in entries
                ]
            )
        )
        capsules = [
            {"grant_id": grant.id, "entry": index, "capsule_hash": capsule}
            for index, entry in entries
            for capsule in dict.fromkeys(entry.capsules or ())
        ]
        if capsules:
            await self._session.execute(insert(GrantCapsule).values(capsules))
        if payload.shares is not None:
            await self._session.execute(
                insert(GrantProxyRow).values(
                    [
                        {"grant_id": grant.id, "proxy": proxy.did, "position": position}
                        for position, proxy in enumerate(payload.shares.proxies)
                    ]
                )
            )

    async def terms(self, ids: Collection[str]) -> dict[str, Terms]:
        """What those of the grants that are known say."""
        rows = (await self._session.scalars(select(GrantRow).where(GrantRow.id.in_(list(ids))))).all()
        revoked = exists().where(RevocationRow.issuer == GrantRow.patient, RevocationRow.grant_id == GrantRow.id)
        stored = (
            select(func.count())
            .where(GrantProxyRow.grant_id == GrantRow.id, GrantProxyRow.stored.is_not(None))
            .scalar_subquery()
        )
        looked = await self._session.execute(
            select(GrantRow.id, revoked.label("revoked"), stored.label("stored")).where(
                GrantRow.id.in_([row.id for row in rows])
            )
        )
        standing = {row.id: row for row in looked}
        scopes: dict[str, list[ScopeEntry]] = {row.id: [] for row in rows}
        for entry in await self._session.scalars(
            select(GrantScopeRow)
            .where(GrantScopeRow.grant_id.in_(list(scopes)))
            .order_by(GrantScopeRow.grant_id, GrantScopeRow.entry)
        ):
            scopes[entry.grant_id].append(ScopeEntry(entry.entry, entry.scope, entry.epoch, entry.limited))
        return {
            row.id: Terms(
                id=row.id,
                patient=row.patient,
                recipient=row.recipient,
                actions=frozenset(Action(action) for action in row.actions),
                not_before=row.not_before,
                expires_at=row.expires_at,
                threshold=row.threshold,
                stored=standing[row.id].stored,
                revoked=standing[row.id].revoked,
                scopes=tuple(scopes[row.id]),
            )
            for row in rows
        }

    async def lock(self, grant: str) -> None:
        """Wait for whoever else is about to change what the grant has come to; held until this transaction ends."""
        await self._session.execute(select(GrantRow.id).where(GrantRow.id == grant).with_for_update(key_share=True))

    async def lock_to_revoke(self, grant: str) -> tuple[str, str] | None:
        """As `lock`; patient and recipient of the grant, or None if it is not known."""
        row = (
            await self._session.execute(
                select(GrantRow.patient, GrantRow.recipient).where(GrantRow.id == grant).with_for_update(key_share=True)
            )
        ).first()
        return None if row is None else (row.patient, row.recipient)

    async def listed_capsules(self, grant: str, wanted: Iterable[WantedCapsule]) -> set[tuple[int, str]]:
        """Which of these (entry, capsule) a grant's limited entries list."""
        pairs = [(one.entry, one.capsule) for one in wanted]
        rows = await self._session.execute(
            select(GrantCapsule.entry, GrantCapsule.capsule_hash).where(
                GrantCapsule.grant_id == grant,
                tuple_(GrantCapsule.entry, GrantCapsule.capsule_hash).in_(pairs),
            )
        )
        return {(row.entry, row.capsule_hash) for row in rows}

    async def is_revoked(self, patient: str, grant: str) -> bool:
        """Whether there is a tombstone by this patient."""
        return await self._session.get(RevocationRow, (patient, grant)) is not None

    async def revoke(self, revocation: Verified[Revocation], now: int) -> int:
        """Write the tombstone; returns 1 if that ends a grant, and 0 if it is not known or had ended already.

        A later revocation of the same grant takes the place of the one before.
        """
        command = insert(RevocationRow).values(
            issuer=revocation.payload.iss,
            grant_id=revocation.payload.grant,
            id=revocation.id,
            statement=revocation.token,
            received_at=now,
        )
        await self._session.execute(
            command.on_conflict_do_update(
                index_elements=["issuer", "grant_id"],
                set_={"id": command.excluded.id, "statement": command.excluded.statement},
            )
        )
        # The holder is told of the revocation; that the grant would have lapsed later is no news.
        ended = await self._session.scalars(
            update(GrantRow)
            .where(
                GrantRow.id == revocation.payload.grant,
                GrantRow.patient == revocation.payload.iss,
                GrantRow.end_told.is_(False),
            )
            .values(end_told=True)
            .returning(GrantRow.number)
        )
        return len(ended.all())

    async def is_between(self, patient: str, recipient: str | None) -> bool:
        """Whether the patient has ever given this recipient a grant."""
        query = select(GrantRow.id).where(GrantRow.patient == patient, GrantRow.recipient == recipient).limit(1)
        return await self._session.scalar(query) is not None

    async def patient_of(self, grant: str) -> str | None:
        """Who gave the grant; None if it is not known."""
        patient: str | None = await self._session.scalar(select(GrantRow.patient).where(GrantRow.id == grant))
        return patient

    async def proxies(self, grant: str) -> list[StoredProxy]:
        """The proxies of a grant, in its order."""
        return list((await self._proxies([grant])).get(grant, ()))

    async def one(self, grant: str, party: str) -> StoredGrant | None:
        """The grant, if it was given or is held by this party."""
        query = _listed().where(GrantRow.id == grant, or_(GrantRow.patient == party, GrantRow.recipient == party))
        found = await self._with_proxies(query)
        return found[0] if found else None

    async def listed(self, party: str, *, given: bool, before: int | None, limit: int) -> list[StoredGrant]:
        """Grants given, or held, by a party; newest first."""
        query = (
            _listed()
            .where((GrantRow.patient if given else GrantRow.recipient) == party)
            .order_by(GrantRow.number.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(GrantRow.number < before)
        return await self._with_proxies(query)

    async def _with_proxies(self, query: Select[GrantRow, str | None, int]) -> list[StoredGrant]:
        rows = (await self._session.execute(query)).all()
        proxies = await self._proxies([row.id for row, _, _ in rows])
        return [
            StoredGrant(
                number=row.number,
                id=row.id,
                statement=row.statement,
                expires_at=row.expires_at,
                threshold=row.threshold,
                received_at=row.received_at,
                revocation=revocation,
                disclosed=disclosed,
                proxies=tuple(proxies.get(row.id, ())),
            )
            for row, revocation, disclosed in rows
        ]

    async def _proxies(self, grants: Sequence[str]) -> dict[str, list[StoredProxy]]:
        found: dict[str, list[StoredProxy]] = {}
        for row in await self._session.scalars(
            select(GrantProxyRow)
            .where(GrantProxyRow.grant_id.in_(grants))
            .order_by(GrantProxyRow.grant_id, GrantProxyRow.position)
        ):
            found.setdefault(row.grant_id, []).append(StoredProxy(row.proxy, row.stored, row.erased, row.problem))
        return found


def _listed() -> Select[GrantRow, str | None, int]:
    disclosed = (
        select(func.count())
        .select_from(Disclosed)
        .where(Disclosed.patient == GrantRow.patient, Disclosed.grant_id == GrantRow.id)
        .scalar_subquery()
    )
    return select(GrantRow, RevocationRow.statement, disclosed).outerjoin(
        RevocationRow, and_(RevocationRow.issuer == GrantRow.patient, RevocationRow.grant_id == GrantRow.id)
    )


def _lock_of(grant: str) -> str:
    return f"grant {grant}"
