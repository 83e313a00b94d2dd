"""The proxies as witnesses of the services' logs, as a client takes them (docs/spec.md, section 12).

A witness's own keys are in the registry's log too. That is no circle: a proxy's id is its first key, and its chain
proves itself; what the log adds is that everybody is shown the same chain.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from client import config
from client.errors import ServiceRefused, VerificationFailed
from client.verification import verifying
from shared.crypto.signing import VerifyKey
from shared.did import key_from_did
from shared.errors import PcehrError
from shared.identity import VerifiedParty, verify_chain
from shared.transparency.checkpoints import verify_cosignatures
from shared.transparency.errors import CheckpointStale, NotEnoughCosignatures
from shared.wire import SKEW_SECONDS, Role

if TYPE_CHECKING:
    from client.session import Session

FRESH_SECONDS = 86_400
"""Cosignatures older than a day vouch for nothing that a client could not have been shown yesterday."""

MAX_WITNESSES = 63
"""A note has 64 signatures, of which one is the log's."""


class Witnesses:
    """Who vouches for the logs, and whether enough of them do. Works for `client.logs.Logs`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[str, VerifiedParty | None] = {}

    async def all(self, *, fresh: bool = False) -> dict[str, VerifiedParty | None]:
        """The pinned proxies, or those that the directory listed at the first use, with their keys as the registry
        shows them; None for one whose keys it does not show.

        Raises `VerificationFailed` for a chain of keys that does not verify or is shorter than before.
        """
        pinned = self._session.state.proxies or self._session.state.logs.witnesses
        if not pinned:
            listed = await self._directory()
            # Without proxies there is nobody to vouch, and nothing can be granted either.
            pinned = self._session.state.logs.pin_witnesses(listed) if listed else []
        found = {} if fresh else {did: self._known[did] for did in pinned if did in self._known}
        missing = [did for did in pinned if did not in found]
        found |= zip(missing, await asyncio.gather(*map(self._look, missing)), strict=True)
        self._known |= found
        return {did: found[did] for did in pinned}

    async def faults(self) -> int:
        """How many of them may lie: what the registry said first, or this machine's own setting where that is more."""
        said = (await self._session.platform.discovery()).witness_faults
        return max(self._session.state.logs.witness_faults(said), config.witness_faults())

    async def needed(self) -> int:
        """How many must have cosigned: more than `(n + k) / 2`, so that two checkpoints that are accepted have an
        honest witness in common, who has seen that one extends the other. 0 while there are no witnesses."""
        count = len(await self.all())
        return (count + await self.faults()) // 2 + 1 if count else 0

    async def check(self, note: str) -> None:
        """Return if enough witnesses have cosigned this checkpoint lately.

        Raises `not_enough_cosignatures`, `checkpoint_stale`, or `bad_checkpoint_signature` where a line in a witness's
        name is not its signature.
        """
        needed = await self.needed()
        try:
            self._check(note, await self.all(), needed)
        except VerificationFailed:
            # A witness may have changed its keys since its chain was looked at.
            self._check(note, await self.all(fresh=True), needed)

    def _check(self, note: str, witnesses: dict[str, VerifiedParty | None], needed: int) -> None:
        now = self._session.clock()
        with verifying():
            stamps = verify_cosignatures(note, {did: frozenset({_key(did, one)}) for did, one in witnesses.items()})
            if len(stamps) < needed:
                raise NotEnoughCosignatures(
                    f"{len(stamps)} of {len(witnesses)} witnesses have cosigned this state of the log; {needed} must."
                )
            if sum(now - FRESH_SECONDS <= stamp <= now + SKEW_SECONDS for stamp in stamps.values()) < needed:
                raise CheckpointStale

    async def _look(self, did: str) -> VerifiedParty | None:
        session = self._session
        try:
            tokens: list[str] | None = (await session.platform.party(did)).entries
        except ServiceRefused:
            # Hiding a witness must not take its word away: without any chain, its id is its key.
            tokens = session.state.kept_party(did)
        if tokens is None:
            return None
        with verifying():
            party = verify_chain(did, tokens)
        session.state.note_chain(party)
        if party.role is not Role.PROXY:
            raise VerificationFailed(f"{did} is pinned as a proxy, and its keys are those of another role.")
        session.state.keep_party(party)
        return party

    async def _directory(self) -> list[str]:
        """The proxies that the directory lists, without those whose keys do not verify: pinned, such a one would be in
        the way for ever."""
        listed = []
        async for card in self._session.platform.proxies():
            try:
                party = verify_chain(card.did, card.entries)
            except PcehrError:
                continue
            if party.role is Role.PROXY:
                listed.append(party.did)
        return sorted(set(listed))[:MAX_WITNESSES]


def _key(did: str, party: VerifiedParty | None) -> VerifyKey:
    """The key that a witness cosigns with: that of its newest entry, since one that was replaced may be stolen."""
    return VerifyKey.from_bytes(party.current_identity_key if party is not None else key_from_did(did))
