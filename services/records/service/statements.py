"""What all use cases that take a statement have in common: verifying it, and noting refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from services.records.errors import StaleKeyEntry
from services.records.repository import Store
from shared.clock import Clock
from shared.db.log import NewEvent
from shared.errors import DatabaseUnavailable, Forbidden, PcehrError, Refused, RegistryUnavailable
from shared.identity import VerifiedParty
from shared.registry_client import PartyDirectory
from shared.schemas.common import Accepted
from shared.statements import Payload, Verified, WrongSigner, unverified_issuer, verify_fresh
from shared.tokens import Caller
from shared.wire import Role

P = TypeVar("P", bound=Payload)


class Statements:
    """Verifies what callers submit, and keeps a record of what is refused."""

    def __init__(self, store: Store, directory: PartyDirectory, clock: Clock) -> None:
        self.store = store
        self.directory = directory
        self.clock = clock

    async def verified(
        self, caller: Caller, token: str, kind: type[P], *, role: Role | None = None
    ) -> tuple[Verified[P], VerifiedParty]:
        """The statement as submitted by the caller itself, and the caller's chain of keys.

        Raises `WrongSigner` where the caller is not the issuer, `Forbidden` where it does not have the `role`, and
        whatever `verify_fresh` and the directory raise.
        """
        _check_own(caller, token, kind)
        party = await self.directory.issuer_of(token, kind)
        return self._fresh(token, kind, party, role), party

    async def verified_for_less(self, caller: Caller, token: str, kind: type[P], *, role: Role) -> Verified[P]:
        """As `verified`, but with the chain seen last if the registry is away; for taking access away only."""
        _check_own(caller, token, kind)
        return self._fresh(token, kind, await self.directory.issuer_of_for_less(token, kind), role)

    async def check_known(self, did: str) -> None:
        """Check that the registry knows a party; raises `UnknownParty`."""
        await self.directory.resolve(did)

    async def check_counterpart(self, did: str, role: Role, entry: str) -> None:
        """Check the party that a statement is addressed to, and that the entry it names is that party's newest.

        Raises `Refused` for a party of another role and `StaleKeyEntry` for any entry but the newest.
        """
        party = await self.directory.resolve_holding(did, entry)
        if party.role is not role:
            raise Refused(f"The party that is addressed is not a {role.value}.")
        if party.current.id != entry:
            raise StaleKeyEntry

    async def earlier_answer(self, statement: Verified[Any]) -> Accepted | None:
        """The answer this statement got before, if it did: what has changed since then does not change the answer.

        Raises `JtiReused` if its `jti` belongs to another statement of the issuer.
        """
        async with self.store.reading() as repository:
            received_at = await repository.journal.received_at(statement)
        return None if received_at is None else accepted(statement, received_at)

    @asynccontextmanager
    async def noting_refusals(self, entry: NewEvent) -> AsyncIterator[None]:
        """Write a refusal inside the block into the patient's log, in a transaction that the refusal cannot undo.

        What a stranger is refused, who holds no grant of the patient's and never did, is not written: anybody could
        fill anybody's log otherwise, or make one for whoever has never signed up.
        """
        try:
            yield
        except (DatabaseUnavailable, RegistryUnavailable):
            raise
        except PcehrError as refusal:
            async with self.store.transaction() as repository:
                if entry.actor == entry.subject or await repository.grants.is_between(entry.subject, entry.actor):
                    await repository.journal.log([replace(entry, outcome=refusal.code)])
            raise

    def _fresh(self, token: str, kind: type[P], party: VerifiedParty, role: Role | None) -> Verified[P]:
        if role is not None and party.role is not role:
            raise Forbidden(f"Only a {role.value} may do this.")
        return verify_fresh(token, kind, party, now=self.clock())


def _check_own(caller: Caller, token: str, kind: type[Payload]) -> None:
    if unverified_issuer(token, kind) != caller.did:
        raise WrongSigner("The statement is not signed by whom the access token speaks for.")


def accepted(statement: Verified[Any], received_at: int) -> Accepted:
    """The answer to a statement that has been accepted, now or at some time before."""
    return Accepted(id=statement.id, kind=statement.payload.typ, received_at=received_at)
