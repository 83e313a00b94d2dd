"""Rules of the registry, over values and without I/O.

Statements
    1. A jti of an issuer stands for one statement. The same one again is a replay, which changes nothing and gets the
       first answer, whatever has happened to the issuer's keys since; another one is refused (`jti_reused`).
Sign-up
    2. A key-entry is registered by the route of its role (`wrong_role`).
    3. A proxy registers only where the operator has put it on the list (`proxy_not_admitted`).
Chains of keys
    4. A place in a chain is taken once (`stale_key_entry`). That an entry links to the one before is for
       `shared.identity.verify_chain` to say.
Scope-keys
    5. Only a patient publishes scope-keys, and only its own (`forbidden`).
    6. A scope begins with epoch 0, and each later epoch follows the one before (`epoch_gap`).
    7. A published epoch keeps its key (`scope_key_exists`); the same key said again changes nothing.
    8. A patient sees all its scope-keys; whoever else asks names the scope id (`forbidden`), which is told to those
       only whom the patient wants to know it.
Access tokens
    9. Tokens are for the registry, the records service, or a proxy that is admitted now (`invalid_target`).
   10. Why an assertion was refused is kept for the audit log, and only where a key of that party's chain signed it:
       anybody can send an assertion that nobody signed.
Directory
   11. Names are compared without regard to case or compatibility forms of characters.
   12. A page holds whole chains and at most `MAX_PAGE_ENTRIES` key-entries, yet never no party at all.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.registry.errors import (
    EpochGap,
    InvalidTarget,
    JtiReused,
    ProxyNotAdmitted,
    ScopeKeyExists,
    StaleKeyEntry,
    WrongRole,
)
from shared.crypto.errors import BadSignature
from shared.crypto.signing import VerifyKey
from shared.errors import Forbidden
from shared.identity import MAX_CHAIN
from shared.statements import KeyEntry, ScopeKey, Verified
from shared.tokens import Caller, UnverifiedAssertion
from shared.wire import RECORDS_AUDIENCE, REGISTRY_AUDIENCE, Role

MAX_PAGE_ENTRIES = MAX_CHAIN
"""Key-entries on one page of the directory: as many as one party alone may have."""

MAX_SORT_NAME = 120
"""Characters by which the directory is sorted; folding can make a name longer than an index entry may be."""


@dataclass(frozen=True)
class PartyKeys:
    """The identity keys (32 bytes each) of a registered party, as its accepted key-entries say."""

    did: str
    role: Role
    current_identity_key: bytes
    all_identity_keys: frozenset[bytes]


@dataclass(frozen=True)
class PartyCard:
    """What is shown of a party: its newest key-entry's members, and its whole chain, oldest entry first."""

    did: str
    role: Role
    seq: int
    name: str | None
    organisation: str | None
    endpoint: str | None
    entries: tuple[str, ...]

    @classmethod
    def as_of(cls, entry: Verified[KeyEntry], chain: Sequence[str]) -> PartyCard:
        """The party as it was when `entry` was its newest one; `chain` may go on beyond it."""
        payload = entry.payload
        return cls(
            did=payload.iss,
            role=payload.role,
            seq=payload.seq,
            name=payload.name,
            organisation=payload.organisation,
            endpoint=payload.endpoint,
            entries=tuple(chain[: payload.seq + 1]),
        )


@dataclass(frozen=True)
class ScopeKeys:
    """A patient's scope-keys as far as a batch needs them, by scope id and (scope id, epoch), in base64url."""

    newest: Mapping[str, int]
    published: Mapping[tuple[str, int], tuple[str, str]]
    """Delegating key and statement."""


@dataclass(frozen=True)
class ScopeKeyPlan:
    """What a batch comes to: statements not seen before, those among them that add a key, and the answer."""

    new: tuple[Verified[ScopeKey], ...]
    added: tuple[Verified[ScopeKey], ...]
    answer: tuple[str, ...]


def is_replay(known: str | None, statement: Verified[Any]) -> bool:
    """Rule 1: whether the statement was accepted before; `known` is the id that its issuer's jti stands for.

    Raises `JtiReused`.
    """
    if known is not None and known != statement.id:
        raise JtiReused
    return known is not None


def check_role(entry: Verified[KeyEntry], role: Role) -> None:
    """Rule 2; raises `WrongRole`."""
    if entry.payload.role is not role:
        raise WrongRole(f"This route registers a {role}; the key-entry is of a {entry.payload.role}.")


def check_admission(entry: Verified[KeyEntry], admitted: Collection[str]) -> None:
    """Rule 3; raises `ProxyNotAdmitted`."""
    if entry.payload.role is Role.PROXY and entry.payload.iss not in admitted:
        raise ProxyNotAdmitted


def check_place(entry: Verified[KeyEntry], length: int) -> None:
    """Rule 4, for a chain of `length` entries; raises `StaleKeyEntry`."""
    if entry.payload.seq < length:
        raise StaleKeyEntry(f"The chain of keys has {length} entries already; sign the one that follows its newest.")


def check_may_publish(caller: Caller, patient: str) -> None:
    """Rule 5; raises `Forbidden`."""
    if caller.did != patient or caller.role is not Role.PATIENT:
        raise Forbidden("Scope-keys are published by the patient itself.")


def plan_scope_keys(batch: Sequence[Verified[ScopeKey]], seen: Mapping[str, str], keys: ScopeKeys) -> ScopeKeyPlan:
    """Rules 1, 6 and 7 for a whole batch, in its order; `seen` are the ids that jtis of the patient stand for.

    Raises `JtiReused`, `EpochGap` or `ScopeKeyExists`.
    """
    ids, newest, published = dict(seen), dict(keys.newest), dict(keys.published)
    new, added, answer = [], [], []
    for statement in batch:
        payload = statement.payload
        place = (payload.scope, payload.epoch)
        if not is_replay(ids.get(payload.jti), statement):
            ids[payload.jti] = statement.id
            new.append(statement)
            if payload.epoch > newest.get(payload.scope, -1) + 1:
                raise EpochGap
            if place not in published:
                newest[payload.scope] = payload.epoch
                published[place] = (payload.delegating_key, statement.token)
                added.append(statement)
            elif published[place][0] != payload.delegating_key:
                raise ScopeKeyExists
        answer.append(published[place][1])
    return ScopeKeyPlan(new=tuple(new), added=tuple(added), answer=tuple(answer))


def check_may_read_scope_keys(caller: Caller, patient: str, scope: str | None) -> None:
    """Rule 8; raises `Forbidden`."""
    if scope is None and caller.did != patient:
        raise Forbidden("Only the patient sees all scope-keys; name the scope id that the patient told you.")


def audience_for(resource: str | None, admitted: Collection[str]) -> str:
    """Rule 9: the audience of the token wanted, the registry where nothing is named; raises `InvalidTarget`."""
    audience = resource or REGISTRY_AUDIENCE
    if audience not in {REGISTRY_AUDIENCE, RECORDS_AUDIENCE} and audience not in admitted:
        raise InvalidTarget
    return audience


def cause_of_refusal(assertion: UnverifiedAssertion, keys: PartyKeys) -> str | None:
    """Rule 10: why an assertion does not hold, or None where no key of the party's chain signed it."""
    if assertion.key not in keys.all_identity_keys:
        return None
    try:
        VerifyKey.from_bytes(assertion.key).verify(assertion.signature, assertion.signing_input)
    except BadSignature:
        return None
    return "claims" if assertion.key == keys.current_identity_key else "rotated_key"


def folded(text: str) -> str:
    """Rule 11: the form in which names are compared (Unicode 3.13, compatibility caseless matching)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def sort_name(name: str | None) -> str:
    """What the directory is sorted by, before the DID."""
    return folded(name or "")[:MAX_SORT_NAME]


def search_text(name: str | None, organisation: str | None) -> str:
    """What the directory is searched in. A query has no line break, so it matches within one of the two."""
    return f"{folded(name or '')}\n{folded(organisation or '')}"


def parties_on_page(lengths: Sequence[int], limit: int) -> int:
    """Rule 12: how many of the next parties, whose chains have these lengths, make up a page of at most `limit`."""
    total = 0
    for count, length in enumerate(lengths[:limit]):
        total += length
        if count and total > MAX_PAGE_ENTRIES:
            return count
    return min(len(lengths), limit)
