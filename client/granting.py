"""Making a grant: one set of kfrags for each scope entry, sealed to the proxies, and the statement that says so.

Every call makes new kfrags. One set opens every capsule made for its delegating key, hence one delegating key for each
scope and epoch; and `t` kfrags with the receiving key give that delegating key away, hence one set for each proxy
group and never a share sent twice to different proxies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from client.errors import InvalidGrant, TooFewProxies, TooManyScopeEntries, WrongAnswer, WrongRole
from client.keyring import Keyring
from client.sealed import GrantContent, seal_content
from client.session import Session
from shared import wire
from shared.crypto import umbral
from shared.crypto.sealing import SealingPublicKey, seal
from shared.crypto.umbral import PublicKey
from shared.encoding import b64url, sha256
from shared.identity import VerifiedParty, receiving_key, sealing_key
from shared.schemas.records import SealedShare
from shared.statements import Grant, GrantProxy, GrantScope, GrantShares, Verified, new_jti
from shared.wire import SKEW_SECONDS, Action, Purpose, Role


@dataclass(frozen=True)
class PlannedEntry:
    """One (scope, epoch) to grant, with the hashes of the capsules it is limited to, if it is."""

    name: str
    epoch: int
    capsules: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """What a grant is to say. `threshold` and `proxies` matter only where it allows reading."""

    recipient: VerifiedParty
    actions: tuple[Action, ...]
    purpose: Purpose
    expires: int
    entries: tuple[PlannedEntry, ...]
    threshold: int
    proxies: tuple[VerifiedParty, ...]
    request: str | None = None


def check_plan(plan: Plan, now: int) -> None:
    """Refuse what no service would take, with a sentence that says why, before any key is made."""
    if plan.recipient.role is not Role.RECIPIENT:
        raise WrongRole("Records can be disclosed to a recipient only, and this party is none.")
    if not plan.actions:
        raise InvalidGrant("A grant allows at least one action.")
    if plan.expires <= now:
        raise InvalidGrant("A grant ends in the future.")
    if not plan.entries:
        raise InvalidGrant("A grant names at least one scope.")
    if len(plan.entries) > wire.MAX_SCOPES:
        raise TooManyScopeEntries(
            f"One grant covers at most {wire.MAX_SCOPES} pairs of scope and epoch; these are {len(plan.entries)}."
        )
    if sum(len(entry.capsules or ()) for entry in plan.entries) > wire.MAX_CAPSULE_LIST:
        raise InvalidGrant(f"A grant can be limited to at most {wire.MAX_CAPSULE_LIST} records.")
    if Action.READ in plan.actions and not 1 <= plan.threshold <= len(plan.proxies):
        raise TooFewProxies(f"The threshold is {plan.threshold}, and there are {len(plan.proxies)} proxies.")


async def make_grant(session: Session, plan: Plan) -> tuple[Verified[Grant], list[SealedShare]]:
    """Sign the grant and seal the shares; nothing is sent. Raises as `check_plan` does.

    Everybody who has to do with the grant is kept, so that it can be ended whatever the registry shows later.
    """
    check_plan(plan, session.clock())
    me = await session.me()
    for party in (me, plan.recipient, *plan.proxies):
        session.state.keep_party(party)
    keyring = session.keyring
    receiving = receiving_key(plan.recipient.current)
    kfrags: list[list[bytes]] = []
    if Action.READ in plan.actions:
        kfrags = await asyncio.to_thread(_kfrags, keyring, me.current.payload.seq, receiving, plan)
    shares = None
    if kfrags:
        hashes = [[b64url(sha256(kfrag)) for kfrag in of_entry] for of_entry in kfrags]
        shares = GrantShares(
            threshold=plan.threshold,
            proxies=tuple(
                GrantProxy(did=proxy.did, kfrags=tuple(of_entry[index] for of_entry in hashes))
                for index, proxy in enumerate(plan.proxies)
            ),
        )
    jti = new_jti()
    content = GrantContent(
        iss=session.did,
        aud=plan.recipient.did,
        jti=jti,
        scopes=list(dict.fromkeys(entry.name for entry in plan.entries)),
    )
    now = session.clock()
    statement = await session.sign(
        Grant,
        plan.recipient.did,
        iat=now,
        jti=jti,
        # Begins a little earlier, so that a proxy whose clock is behind does not turn the recipient away.
        nbf=max(0, now - SKEW_SECONDS),
        exp=plan.expires,
        request=plan.request,
        patient_entry=me.current.id,
        recipient_entry=plan.recipient.current.id,
        actions=plan.actions,
        purpose=plan.purpose,
        scopes=tuple(
            GrantScope(
                scope=keyring.scope_id(entry.name),
                epoch=entry.epoch,
                delegating_key=keyring.delegating(entry.name, entry.epoch).public_key().b64,
                capsules=entry.capsules,
            )
            for entry in plan.entries
        ),
        shares=shares,
        sealed=seal_content(content, receiving),
    )
    sealed = [
        SealedShare(proxy=proxy.did, sealed=b64url(_sealed(sealing_key(proxy.current), kfrags, index)))
        for index, proxy in enumerate(plan.proxies if kfrags else ())
    ]
    return statement, sealed


async def file_grant(session: Session, statement: Verified[Grant], shares: list[SealedShare]) -> None:
    """Send a grant to the records service, which relays the shares.

    It is remembered on disk before: whatever becomes of the answer, a grant that may have arrived is known here and
    can be ended.
    """
    memory = session.state.consents
    memory.remember_grant(statement, acknowledged=False)
    session.state.save_if_changed()
    accepted = await session.platform.give(await session.credentials(), statement.token, shares)
    if accepted.id != statement.id:
        raise WrongAnswer("The records service acknowledged another grant.")
    memory.remember_grant(statement, acknowledged=True)
    session.state.save_if_changed()


async def proxies_for_grants(session: Session) -> tuple[VerifiedParty, ...]:
    """The pinned proxies, verified; the directory's are pinned when there are none yet. Raises `TooFewProxies`."""
    if not session.state.proxies:
        await pin_proxies(session, None, first=True)
    return await pinned_proxies(session)


async def pinned_proxies(session: Session) -> tuple[VerifiedParty, ...]:
    """The pinned proxies, verified, in their order; none while none are pinned. Raises `WrongRole`."""
    proxies = await session.parties(session.state.proxies)
    for proxy in proxies:
        if proxy.role is not Role.PROXY:
            raise WrongRole(f"{proxy.did} is pinned as a proxy, and the registry knows it as something else.")
    return tuple(proxies)


async def pin_proxies(session: Session, dids: Sequence[str] | None, *, first: bool = False) -> list[str]:
    """Pin these proxies, or those of the directory (up to 16): shares of later grants go to them and no others.

    With `first`, those that another command of this profile has pinned meanwhile stay. Returns the pinned ones.
    """
    if dids is None:
        dids = sorted({card.did async for card in session.platform.proxies()})[: wire.MAX_SHARES]
    if not 1 <= len(dids) <= wire.MAX_SHARES:
        raise TooFewProxies(f"From 1 to {wire.MAX_SHARES} proxies can be pinned; these are {len(dids)}.")
    for party in await session.parties(dids, fresh=True):
        if party.role is not Role.PROXY:
            raise WrongRole(f"{party.did} is not a proxy.")
        # They are the witnesses from now on, also while the registry does not show them.
        session.state.keep_party(party)
    session.state.save_if_changed()
    return session.state.pin(dids, first=first)


def limited_entries(manifests: Mapping[str, tuple[str, int, str]]) -> tuple[PlannedEntry, ...]:
    """Entries that admit exactly these records, given as (scope name, epoch, capsule hash) by record id."""
    by_entry: dict[tuple[str, int], list[str]] = {}
    for name, epoch, capsule in manifests.values():
        by_entry.setdefault((name, epoch), []).append(capsule)
    return tuple(
        PlannedEntry(name=name, epoch=epoch, capsules=tuple(dict.fromkeys(capsules)))
        for (name, epoch), capsules in sorted(by_entry.items())
    )


def _kfrags(keyring: Keyring, seq: int, receiving: PublicKey, plan: Plan) -> list[list[bytes]]:
    """For each entry, one kfrag for each proxy."""
    signer = keyring.signer(seq)
    return [
        [
            bytes(kfrag)
            for kfrag in umbral.generate_kfrags(
                keyring.delegating(entry.name, entry.epoch), receiving, signer, plan.threshold, len(plan.proxies)
            )
        ]
        for entry in plan.entries
    ]


def _sealed(key: SealingPublicKey, kfrags: list[list[bytes]], index: int) -> bytes:
    return seal(key, b"".join(of_entry[index] for of_entry in kfrags))
