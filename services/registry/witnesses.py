"""Who cosigns the registry's log: every proxy that the operator admits and that has registered."""

from __future__ import annotations

import asyncio

from services.registry.repository import Repository
from shared.db.engine import Database
from shared.identity import verify_chain
from shared.schemas.common import MAX_PAGE
from shared.wire import Role
from shared.witness_client import Witness


class Witnesses:
    """The witnesses at the moment; `admitted` are the DIDs of the proxies that the operator has named."""

    def __init__(self, database: Database, admitted: frozenset[str]) -> None:
        self._database = database
        self._admitted = admitted
        # Verifying a chain takes milliseconds, and the witnesses are asked for with every checkpoint.
        self._verified: dict[str, tuple[tuple[str, ...], Witness]] = {}

    async def now(self) -> list[Witness]:
        """Raises `DatabaseUnavailable`."""
        found: list[Witness] = []
        after = None
        while True:
            async with self._database.transaction() as session:
                repository = Repository(session)
                entries = await repository.directory(Role.PROXY, None, self._admitted, after, MAX_PAGE)
                cards = await repository.cards([entry.did for entry in entries])
            for entry in entries:
                found.append(await self._witness(entry.did, cards[entry.did].entries))
            if len(entries) < MAX_PAGE:
                return found
            after = entries[-1].did

    async def _witness(self, did: str, chain: tuple[str, ...]) -> Witness:
        known = self._verified.get(did)
        if known is None or known[0] != chain:
            known = chain, Witness.of(await asyncio.to_thread(verify_chain, did, list(chain)))
            self._verified[did] = known
        return known[1]
