"""One party at work: its keys, the platform, and what it remembers of others.

A session finds parties and believes none of them before its whole chain of keys has been verified and found to
extend what was seen before. It signs statements with the newest identity key.
"""

from __future__ import annotations

from typing import Any, TypeVar

from client.errors import NotSignedUp, ServiceRefused, VerificationFailed, WrongRole
from client.fingerprint import fingerprint
from client.keyring import Keyring
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
from shared.wire import REGISTRY_AUDIENCE, Role

P = TypeVar("P", bound=Payload)


class Session:
    """What the roles (`Patient`, `Recipient`, `Author`) are built on."""

    def __init__(self, keyring: Keyring, platform: Platform, state: ClientState, clock: Clock = system_clock) -> None:
        self.keyring = keyring
        self.platform = platform
        self.state = state
        self.clock = clock
        self._parties: dict[str, VerifiedParty] = {}
        self._me: VerifiedParty | None = None

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
                party = await self._fetch(self.did)
            except ServiceRefused as refused:
                if refused.code == "unknown_party":
                    raise NotSignedUp from None
                raise
            self._check_own(party)
            self._me = party
        return self._me

    async def seq(self) -> int:
        """The number of this party's newest key-entry."""
        return (await self.me()).current.payload.seq

    async def party(self, did: str, *, fresh: bool = False) -> VerifiedParty:
        """Another party, verified; asked of the registry once in a session unless `fresh`.

        Raises `KeyChainRolledBack` where the registry shows less than was seen before.
        """
        if did == self.did:
            return await self.me(fresh=fresh)
        known = self._parties.get(did)
        if known is None or fresh:
            known = await self._fetch(did)
            self._parties[did] = known
        return known

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
        """Recipients of the directory by name or organisation, verified. One that does not verify is left out."""
        found = []
        async for card in self.platform.recipients(query):
            try:
                found.append(self._accept(card.did, card.entries))
            except VerificationFailed:
                continue
        self.state.save_if_changed()
        return found

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

    async def _fetch(self, did: str) -> VerifiedParty:
        card = await self.platform.party(did)
        party = self._accept(did, card.entries)
        self.state.save_if_changed()
        return party

    def _accept(self, did: str, entries: list[str]) -> VerifiedParty:
        with verifying():
            party = verify_chain(did, entries)
        self.state.note_chain(party)
        return party

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
