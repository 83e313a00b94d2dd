"""Use cases of the registry. Each write is one transaction, committed before it returns; nothing here knows HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.registry import domain
from services.registry.domain import PartyCard
from services.registry.errors import (
    AlreadyRegistered,
    InvalidTarget,
    JtiReused,
    ScopeKeyExists,
    StaleKeyEntry,
    UnsupportedGrantType,
    UsedAssertion,
)
from services.registry.repository import Repository
from shared.clock import Clock
from shared.crypto.signing import SigningKey
from shared.crypto.umbral import PublicKey
from shared.db.engine import Database
from shared.did import did_from_key, key_from_did
from shared.encoding import b64url, from_b64url, sha256
from shared.errors import PcehrError, TooManyRequests, Unavailable
from shared.identity import verify_chain
from shared.registry_client import UnknownParty
from shared.statements import KeyEntry, ScopeKey, Verified, unverified_issuer, verify_fresh, verify_stored
from shared.tokens import (
    ASSERTION_TYPE_URN,
    Caller,
    InvalidClient,
    mint_access_token,
    parse_client_assertion,
    verify_client_assertion,
)
from shared.wire import SKEW_SECONDS, Role

GRANT_TYPE = "client_credentials"


@dataclass(frozen=True)
class Page:
    """Parties of the directory, and where the next page begins, if there is one."""

    items: list[PartyCard]
    next: str | None


@dataclass(frozen=True)
class ScopeKeysPage:
    """Scope-key statements, and where the next page begins, if there is one."""

    items: list[str]
    next: str | None


@dataclass(frozen=True)
class Issuing:
    """What access tokens are made with: the key, `iss`, and the names that assertions may call this endpoint by."""

    key: SigningKey
    issuer: str
    audiences: frozenset[str]


class Registry:
    """The registry over its database. `admitted` are the DIDs of the proxies that the operator has named,
    `max_scope_keys` the most that one patient may publish; `kick` is
    called after every commit that put something into the log. `charge` and `charge_sign_up` hold back whoever asks too
    often (`shared.web.rates`): a party whose signature has been verified, and what would make another party."""

    def __init__(
        self,
        database: Database,
        *,
        issuing: Issuing,
        admitted: frozenset[str],
        clock: Clock,
        kick: Callable[[], None],
        max_scope_keys: int,
        charge: Callable[[str], None],
        charge_sign_up: Callable[[], None],
    ) -> None:
        self._max_scope_keys = max_scope_keys
        self._charge = charge
        self._charge_sign_up = charge_sign_up
        self._database = database
        self._kick = kick
        self._issuing = issuing
        self._admitted = admitted
        self._clock = clock

    async def check(self) -> None:
        """Raise `DatabaseUnavailable` while the registry cannot do its work."""
        await self._database.check()

    # Parties

    async def sign_up(self, token: str, role: Role) -> PartyCard:
        """Register a party by its first key-entry; the answer shows the party as it was then.

        Raises what `verify_chain` and `verify_fresh` raise, `WrongRole`, `ProxyNotAdmitted`, `AlreadyRegistered`,
        `JtiReused`, `TooManyRequests` or `DatabaseUnavailable`.
        """
        self._charge_sign_up()
        now = self._clock()
        did = unverified_issuer(token, KeyEntry)
        entry = verify_fresh(token, KeyEntry, verify_chain(did, [token]), now=now)
        async with self._refusals_on_record(did, "sign-up", entry.id):
            domain.check_role(entry, role)
            async with self._database.transaction() as session:
                repository = Repository(session)
                if await self._is_replay(repository, entry):
                    return PartyCard.as_of(entry, await repository.chain(did))
                domain.check_admission(entry, self._admitted)
                if not await repository.add_party(entry, now):
                    # The very same statement may have come in at the same time, by another connection.
                    if await self._is_replay(repository, entry):
                        return PartyCard.as_of(entry, await repository.chain(did))
                    raise AlreadyRegistered
                if not await repository.note_statements([entry], "sign-up", now):
                    raise JtiReused
                await repository.log_key_entry(entry)
        self._kick()
        return PartyCard.as_of(entry, [token])

    async def rotate(self, did: str, token: str) -> PartyCard:
        """Add the next key-entry of a party; the answer shows the party as it was then.

        Raises `UnknownParty`, what `verify_chain` and `verify_fresh` raise, `StaleKeyEntry`, `JtiReused`,
        `TooManyRequests` or `DatabaseUnavailable`.
        """
        now = self._clock()
        # What is no key-entry costs no query.
        unverified_issuer(token, KeyEntry)
        async with self._database.transaction() as session:
            keys = await Repository(session).keys(did)
        if keys is None:
            raise UnknownParty
        # Any key of the chain for now: a replay, and the loser of a race, are signed with a key that is past.
        entry = verify_stored(token, KeyEntry, keys)
        async with self._refusals_on_record(did, "rotate", entry.id), self._database.transaction() as session:
            repository = Repository(session)
            await repository.lock_party(did)
            chain = await repository.chain(did)
            if await self._is_replay(repository, entry):
                return PartyCard.as_of(entry, chain)
            # Key-entries are public; one that anybody repeats is not charged to the party.
            self._charge(did)
            domain.check_place(entry, len(chain))
            keys = await repository.keys(did)
            if keys is None:
                raise UnknownParty
            verify_fresh(token, KeyEntry, keys, now=now)
            # A long chain takes a quarter of a second to verify, for which nobody else should have to wait.
            await asyncio.to_thread(verify_chain, did, [*chain, token])
            if not await repository.extend_chain(entry, now):
                raise StaleKeyEntry
            if not await repository.note_statements([entry], "rotate", now):
                raise JtiReused
            await repository.log_key_entry(entry)
        self._kick()
        return PartyCard.as_of(entry, [*chain, token])

    async def party(self, did: str) -> PartyCard:
        """A party with its whole chain of keys; raises `UnknownParty` or `DatabaseUnavailable`."""
        async with self._database.reading() as session:
            card = (await Repository(session).cards([did])).get(did)
        if card is None:
            raise UnknownParty
        return card

    async def recipients(self, query: str | None, cursor: str | None, limit: int) -> Page:
        """Recipients by name, those whose name or organisation has `query` in it; raises `Malformed` for a cursor
        that is none, or `DatabaseUnavailable`."""
        return await self._directory(Role.RECIPIENT, query, None, cursor, limit)

    async def proxies(self, cursor: str | None, limit: int) -> Page:
        """Proxies by name; one that the operator has struck off the list is no longer shown. Raises as above."""
        return await self._directory(Role.PROXY, None, self._admitted, cursor, limit)

    async def _directory(
        self, role: Role, query: str | None, among: frozenset[str] | None, cursor: str | None, limit: int
    ) -> Page:
        after = None if cursor is None else did_from_key(from_b64url(cursor, 32))
        needle = None if query is None else domain.folded(query)
        async with self._database.reading() as session:
            repository = Repository(session)
            found = await repository.directory(role, needle, among, after, limit + 1)
            shown = found[: domain.parties_on_page([entry.length for entry in found], limit)]
            cards = await repository.cards([entry.did for entry in shown])
        more = len(found) > len(shown)
        return Page(
            items=[cards[entry.did] for entry in shown],
            next=b64url(key_from_did(shown[-1].did)) if more else None,
        )

    # Scope-keys

    async def publish_scope_keys(self, caller: Caller, patient: str, tokens: list[str]) -> list[str]:
        """Publish a batch of scope-keys, all or none; returns the statement that stands for each.

        Raises `Forbidden`, what `verify_fresh` raises, `MalformedKeyMaterial`, `JtiReused`, `EpochGap`,
        `ScopeKeyExists`, `QuotaExceeded` or `DatabaseUnavailable`.
        """
        now = self._clock()
        async with self._refusals_on_record(caller.did, "publish-scope-keys"):
            domain.check_may_publish(caller, patient)
            async with self._database.transaction() as session:
                repository = Repository(session)
                await repository.lock_party(patient)
                keys = await repository.keys(patient)
                if keys is None:
                    raise UnknownParty
                batch = [verify_stored(token, ScopeKey, keys) for token in tokens]
                seen = await repository.statement_ids(patient, {statement.payload.jti for statement in batch})
                around = await repository.scope_keys_around(patient, batch)
                plan = domain.plan_scope_keys(batch, seen, around)
                for statement in plan.new:
                    verify_fresh(statement.token, ScopeKey, keys, now=now)
                    PublicKey.from_bytes(from_b64url(statement.payload.delegating_key, 33))
                await repository.count_scope_keys(patient, len(plan.added), self._max_scope_keys)
                if not await repository.add_scope_keys(plan.added):
                    raise ScopeKeyExists
                if not await repository.note_statements(plan.new, "publish-scope-keys", now):
                    raise JtiReused
                await repository.log_scope_keys(plan.added)
        self._kick()
        return list(plan.answer)

    async def scope_keys(
        self, caller: Caller, patient: str, scope: str | None, cursor: str | None, limit: int
    ) -> ScopeKeysPage:
        """Scope-keys of a patient by scope and epoch; all but the patient name the scope.

        Raises `Forbidden`, `UnknownParty`, `Malformed` for a cursor that is none, or `DatabaseUnavailable`.
        """
        domain.check_may_read_scope_keys(caller, patient, scope)
        after = None
        if cursor is not None:
            place = from_b64url(cursor, 20)
            after = (place[:16], min(int.from_bytes(place[16:], "big"), 2**31 - 1))
        async with self._database.reading() as session:
            repository = Repository(session)
            if await repository.role(patient) is not Role.PATIENT:
                raise UnknownParty
            wanted = None if scope is None else from_b64url(scope, 16)
            found = await repository.scope_keys(patient, wanted, after, limit + 1)
        shown = found[:limit]
        more = len(found) > limit
        return ScopeKeysPage(
            items=[token for _, _, token in shown],
            next=b64url(shown[-1][0] + shown[-1][1].to_bytes(4, "big")) if more else None,
        )

    # Access tokens

    async def issue_token(
        self,
        *,
        grant_type: str,
        assertion_type: str,
        unverified_assertion: str,
        client_id: str | None,
        resource: str | None,
    ) -> str:
        """An access token for `resource`, for whom the assertion speaks; the assertion is then used.

        Raises `UnsupportedGrantType`, `InvalidClient`, `InvalidTarget`, `TooManyRequests` or `DatabaseUnavailable`.
        """
        if grant_type != GRANT_TYPE:
            raise UnsupportedGrantType
        if assertion_type != ASSERTION_TYPE_URN:
            raise InvalidClient
        now = self._clock()
        assertion = parse_client_assertion(unverified_assertion)
        if client_id is not None and client_id != assertion.client:
            raise InvalidClient
        async with self._database.transaction() as session:
            keys = await Repository(session).keys(assertion.client)
        if keys is None:
            raise InvalidClient
        try:
            claims = verify_client_assertion(
                assertion, current_key=keys.current_identity_key, audiences=self._issuing.audiences, now=now
            )
        except InvalidClient:
            cause = domain.cause_of_refusal(assertion, keys)
            if cause is not None:
                await self._record_refusal(keys.did, "token", InvalidClient, cause=cause)
            raise
        self._charge(keys.did)
        async with self._refusals_on_record(keys.did, "token"), self._database.transaction() as session:
            repository = Repository(session)
            audience = domain.audience_for(resource, self._admitted)
            if audience in self._admitted and await repository.role(audience) is not Role.PROXY:
                raise InvalidTarget
            await repository.prune_assertions(now)
            # Kept for longer than the assertion is good, so that clocks of replicas may differ by the usual skew.
            expires = claims.exp + 2 * SKEW_SECONDS
            if not await repository.use_assertion(keys.did, sha256(claims.jti.encode()), expires):
                raise UsedAssertion
            await repository.audit(keys.did, "token", "accepted", now)
        return mint_access_token(
            key=self._issuing.key,
            issuer=self._issuing.issuer,
            subject=keys.did,
            role=keys.role,
            audience=audience,
            now=now,
        )

    # What the use cases have in common

    async def _is_replay(self, repository: Repository, entry: Verified[KeyEntry]) -> bool:
        jti = entry.payload.jti
        return domain.is_replay((await repository.statement_ids(entry.payload.iss, [jti])).get(jti), entry)

    @asynccontextmanager
    async def _refusals_on_record(self, did: str, act: str, statement: str | None = None) -> AsyncIterator[None]:
        """Audit a refusal that comes out of the block, in a transaction of its own: the block's was rolled back."""
        try:
            yield
        except (Unavailable, TooManyRequests):
            raise
        except PcehrError as refusal:
            cause = "replayed" if isinstance(refusal, UsedAssertion) else None
            await self._record_refusal(did, act, type(refusal), statement=statement, cause=cause)
            raise

    async def _record_refusal(
        self,
        did: str,
        act: str,
        refusal: type[PcehrError],
        *,
        statement: str | None = None,
        cause: str | None = None,
    ) -> None:
        async with self._database.transaction() as session:
            await Repository(session).audit(did, act, refusal.code, self._clock(), statement=statement, cause=cause)
