"""One party at work: its keys, the platform, and what it remembers of others.

A session finds parties and believes none of them before its whole chain of keys has been verified, found to extend
what was seen before, and proven to be in the registry's log. It signs statements with the newest identity key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, TypeVar

from client.errors import REFUSALS, NotSignedUp, ServiceRefused, VerificationFailed, WrongRole
from client.fingerprint import fingerprint
from client.key_watch import WatchReport, watch_keys
from client.keyring import Keyring
from client.logs import Logs
from client.state import ClientState
from client.transport import Credentials, Platform
from client.verification import verifying
from shared import statements
from shared.clock import Clock, system_clock
from shared.did import split_key_id
from shared.encoding import b64url
from shared.identity import VerifiedParty, verify_chain
from shared.jose import parse
from shared.statements import KeyEntry, Payload, Verified, new_jti
from shared.tokens import make_client_assertion
from shared.transparency.entries import key_entry_data, key_label
from shared.transparency.merkle import leaf_hash
from shared.wire import REGISTRY_AUDIENCE, Role

P = TypeVar("P", bound=Payload)


class Session:
    """What the roles (`Patient`, `Recipient`, `Author`) are built on."""

    def __init__(
        self,
        keyring: Keyring,
        platform: Platform,
        state: ClientState,
        clock: Clock = system_clock,
    ) -> None:
        self.keyring = keyring
        self.platform = platform
        self.state = state
        self.clock = clock
        self._parties: dict[str, VerifiedParty] = {}
        self._me: VerifiedParty | None = None
        self.logs = Logs(self)

    @property
    def did(self) -> str:
        return self.keyring.did

    async def credentials(self) -> Credentials:
        """What the platform needs to get access tokens for this party; raises `NotSignedUp`."""
        await self.me()
        return Credentials(self.did, self._assertion)

    async def me(self, *, fresh: bool = False) -> VerifiedParty:
        """This party as the registry knows it; raises `NotSignedUp`.

        Raises `VerificationFailed` for an entry with keys that are not derived from this seed.
        """
        if self._me is None or fresh:
            try:
                card = await self.platform.party(self.did)
            except ServiceRefused as refused:
                if refused.code == "unknown_party":
                    raise NotSignedUp from None
                raise
            party = self._verified(self.did, card.entries)
            self._check_own(party)
            await self.logs.prove_own_keys(key_leaves(party))
            self._note(party)
            self._me = party
        return self._me

    async def seq(self) -> int:
        """The number of this party's newest key-entry."""
        return (await self.me()).current.payload.seq

    async def party(self, did: str, *, fresh: bool = False) -> VerifiedParty:
        """Another party, verified; asked of the registry once in a session unless `fresh`.

        Raises `KeyChainRolledBack` where the registry shows less than was seen before, and `NotInLog` where it shows
        keys that its log does not hold.
        """
        return (await self.parties([did], fresh=fresh))[0]

    async def parties(self, dids: Iterable[str], *, fresh: bool = False) -> list[VerifiedParty]:
        """Several parties at once, in order; their keys are proven to be in the registry's log by one request.

        Raises what `party` raises, also if only one of them cannot be had or does not verify.
        """
        wanted = list(dids)
        asked = [did for did in dict.fromkeys(wanted) if did != self.did and (fresh or did not in self._parties)]
        cards = await asyncio.gather(*map(self.platform.party, asked))
        found = [self._verified(did, card.entries) for did, card in zip(asked, cards, strict=True)]
        await self.logs.prove_keys({leaf: party.did for party in found for leaf in key_leaves(party)})
        # Nothing is remembered of keys that are not in the log: the true chain would look rolled back beside them.
        for party in found:
            self._note(party)
            self._parties[party.did] = party
        return [await self.me(fresh=fresh) if did == self.did else self._parties[did] for did in wanted]

    async def party_for_less(self, did: str) -> VerifiedParty:
        """Another party, for taking access away: as it was when it was last kept, where the registry hides it.

        A registry that is away, or lies, could otherwise keep a grant alive.
        """
        try:
            return await self.party(did)
        except REFUSALS:
            kept = self.state.kept_party(did)
            if kept is None:
                raise
            with verifying():
                return verify_chain(did, kept)

    async def me_for_less(self) -> VerifiedParty:
        """The same for this party; the session goes on with it. Raises what `me` raises where nothing has been kept."""
        try:
            party = await self.me()
        except (NotSignedUp, *REFUSALS):
            kept = self.state.kept_party(self.did)
            if kept is None:
                raise
            with verifying():
                party = verify_chain(self.did, kept)
            self._check_own(party)
            self._me = party
        return party

    async def issuer_of(self, token: str, kind: type[Payload]) -> VerifiedParty:
        """The party that a statement claims to come from; asked for anew if it names a key not seen yet."""
        with verifying():
            did, key = split_key_id(parse(token, typ=kind.typ, max_size=kind.max_size).kid)
        party = await self.party(did)
        if key not in party.all_identity_keys:
            party = await self.party(did, fresh=True)
        return party

    def fingerprint(self, party: VerifiedParty) -> list[str]:
        """Eight words to compare over another channel (see `client.fingerprint`)."""
        return fingerprint(party)

    async def search(self, query: str) -> list[VerifiedParty]:
        """Recipients of the directory by name or organisation, verified. One that does not verify is left out.

        A list of names to choose from proves nothing of anybody's keys, and most of them are never used. That they are
        in the registry's log is looked at when they are: `party` fetches them anew.
        """
        found = []
        async for card in self.platform.recipients(query):
            try:
                found.append(self._verified(card.did, card.entries))
            except VerificationFailed:
                continue
        return found

    async def watch(self, names: Iterable[str] = ()) -> WatchReport:
        """What has come into the registry's log since the last visit, in one's own name and in that of parties one
        knows, and what the witnesses say; `names` are those of own scopes. See `client.key_watch.watch_keys`."""
        return await watch_keys(self, names)

    async def sign_up(self, role: Role, *, name: str | None = None, organisation: str | None = None) -> VerifiedParty:
        """Register this party; doing it again has no effect. Raises `WrongRole` if it is there in another role."""
        try:
            party = await self.me(fresh=True)
        except NotSignedUp:
            entry = self._entry(role, 0, None, name=name, organisation=organisation)
            await self.platform.sign_up(role, statements.sign(entry, self.keyring.identity(0)))
            party = await self.me(fresh=True)
        if party.role is not role:
            raise WrongRole(f"This party is known to the registry as a {party.role.value}.")
        self.state.role = role
        self.state.registry_url = self.platform.registry_url
        self.state.display_name = party.name
        self.state.save()
        return party

    async def rotate_keys(self, *, name: str | None = None, organisation: str | None = None) -> VerifiedParty:
        """Publish the next key-entry, with new identity, signer and receiving keys; grants of before go on.

        A recipient may change its name with it. Repeating it after a lost answer rotates once more, which is harmless.
        """
        me = await self.me(fresh=True)
        current = me.current.payload
        entry = self._entry(
            me.role,
            current.seq + 1,
            me.current.id,
            name=name or current.name,
            organisation=organisation or current.organisation,
            # An entry must not be older than the one before, whatever this machine's clock says today.
            not_before=current.iat,
        )
        proof = self.keyring.identity(entry.seq).sign(entry.possession_message())
        proven = KeyEntry(**{**statements.claims_of(entry), "role": entry.role, "possession": b64url(proof)})
        token = statements.sign(proven, self.keyring.identity(current.seq))
        await self.platform.add_key_entry(self.did, token)
        self.platform.forget_tokens(self.did)
        party = await self.me(fresh=True)
        self.state.display_name = party.name
        self.state.save()
        return party

    async def sign(self, kind: type[P], audience: str, **members: Any) -> Verified[P]:
        """Sign a statement of this party with its newest identity key; `iss`, `aud`, `iat` and `jti` are added."""
        me = await self.me()
        claims: dict[str, Any] = {"jti": new_jti(), "iat": self.clock(), **members, "iss": self.did, "aud": audience}
        payload = kind(**claims)
        token = statements.sign(payload, self.keyring.identity(me.current.payload.seq))
        return statements.verify_stored(token, kind, me)

    def _assertion(self, token_endpoint: str) -> str:
        seq = self._me.current.payload.seq if self._me else 0
        return make_client_assertion(
            did=self.did, key=self.keyring.identity(seq), token_endpoint=token_endpoint, now=self.clock()
        )

    def _verified(self, did: str, entries: list[str]) -> VerifiedParty:
        with verifying():
            party = verify_chain(did, entries)
        self.state.check_chain(party)
        return party

    def _note(self, party: VerifiedParty) -> None:
        self.state.note_chain(party)
        self.state.save_if_changed()

    def _check_own(self, party: VerifiedParty) -> None:
        """Nobody else can add to the chain, but another program with the same seed could do it wrongly."""
        for entry in party.entries:
            if entry.payload.identity_key != self.keyring.identity(entry.payload.seq).verify_key.b64:
                raise VerificationFailed("The registry shows a key of this party that its recovery words do not give.")

    def _entry(
        self,
        role: Role,
        seq: int,
        prev: str | None,
        *,
        name: str | None,
        organisation: str | None,
        not_before: int = 0,
    ) -> KeyEntry:
        members: dict[str, Any] = {
            "iss": self.did,
            "aud": REGISTRY_AUDIENCE,
            "iat": max(self.clock(), not_before),
            "jti": new_jti(),
            "role": role,
            "seq": seq,
            "prev": prev,
            "identity_key": self.keyring.identity(seq).verify_key.b64,
            "verifying_key": self.keyring.signer(seq).verifying_key().b64,
            "receiving_key": self.keyring.receiving(seq).public_key().b64,
            "name": name,
            "organisation": organisation,
        }
        if seq == 0:
            return KeyEntry(**members)
        # The proof of possession covers the other members, so they have to be there before it can be made.
        return KeyEntry.model_construct(**members)


def key_leaves(party: VerifiedParty) -> list[bytes]:
    """The leaves that a party's key-entries have in the registry's log, oldest first."""
    label = key_label(party.did)
    return [leaf_hash(key_entry_data(label, entry.id)) for entry in party.entries]
