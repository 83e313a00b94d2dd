"""The rules of a proxy, without I/O. docs/spec.md section 8 is normative; each rule raises what it says there.

Taking a share:
  1. The grant names this proxy (`share_for`).
  2. The grant has not ended (`check_not_ended`).
  3. The patient has not revoked it, before or since (`check_not_revoked`).
  4. The key-entries it names are in the chains of a patient and of a recipient (`entry_of`).
  5. The sealed box holds exactly one kfrag for each scope entry, with the hash that the grant says (`split_share`).

Using a share (`check_use`), before the arithmetic and again when the answer is about to be released, since a grant
can end, and a request lapse, while it waits:
  6. The grant was given to the issuer of the request.
  7. It has begun and has not ended.
  8. The patient has not revoked it.
  9. Each entry exists, and a capsule stands on the entry's list where it has one.
 10. The capsules sent are those named, in order (`check_capsules`).

Which scope a capsule was made for needs no rule: a kfrag turns a capsule made for another key into nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.proxy.errors import (
    CapsuleMismatch,
    CapsuleNotGranted,
    GrantEnded,
    GrantExpired,
    GrantNotYetValid,
    GrantRevoked,
    GrantTakenBack,
    NotForThisProxy,
    NotGranted,
)
from shared.crypto.errors import KeyFragRejected
from shared.crypto.umbral import KFRAG_SIZE
from shared.encoding import b64url, from_b64url, sha256
from shared.errors import Malformed, Refused
from shared.identity import VerifiedParty
from shared.statements import Grant, GrantProxy, KeyEntry, ReencryptionRequest, StatementExpired, Verified
from shared.wire import SKEW_SECONDS, Role

_CURSOR_BYTES = 8


@dataclass(frozen=True)
class StoredGrant:
    """What the proxy keeps of a grant that it verified when it took its share.

    `limits` has one element for each scope entry: the hashes of the capsules it is limited to, or None for all.
    Times are seconds since the epoch.
    """

    patient: str
    id: str
    recipient: str
    nbf: int
    exp: int
    limits: tuple[frozenset[str] | None, ...]


def share_for(grant: Grant, proxy: str) -> GrantProxy:
    """The grant's line about this proxy (rule 1); raises `NotForThisProxy`."""
    for line in grant.shares.proxies if grant.shares is not None else ():
        if line.did == proxy:
            return line
    raise NotForThisProxy


def check_not_ended(grant: Grant, now: int) -> None:
    """Rule 2; raises `GrantExpired`."""
    if now >= grant.exp:
        raise GrantExpired


def check_not_revoked(*, revoked: bool) -> None:
    """Rule 3; raises `GrantRevoked`."""
    if revoked:
        raise GrantRevoked


def entry_of(party: VerifiedParty, entry_id: str, role: Role) -> Verified[KeyEntry]:
    """The key-entry that a grant names (rule 4); raises `Refused`."""
    entry = party.entry(entry_id)
    if entry is None:
        raise Refused(f"The key-entry that the grant names is not in the chain of its {role.value}.")
    if party.role is not role:
        raise Refused(f"Where the grant names a {role.value} stands a party of another role.")
    return entry


def split_share(opened: bytes, hashes: Sequence[str]) -> list[bytes]:
    """The kfrags in an opened box, 260 bytes each (rule 5); raises `KeyFragRejected`."""
    if len(opened) != KFRAG_SIZE * len(hashes):
        raise KeyFragRejected
    kfrags = [opened[start : start + KFRAG_SIZE] for start in range(0, len(opened), KFRAG_SIZE)]
    if [fingerprint(kfrag) for kfrag in kfrags] != list(hashes):
        raise KeyFragRejected
    return kfrags


def limits_of(grant: Grant) -> tuple[frozenset[str] | None, ...]:
    """The lists of capsules of a grant, one for each scope entry."""
    return tuple(None if entry.capsules is None else frozenset(entry.capsules) for entry in grant.scopes)


def check_use(grant: StoredGrant, request: ReencryptionRequest, *, now: int, revoked: bool) -> None:
    """Rules 6 to 9; raises `NotGranted`, `GrantNotYetValid`, `GrantEnded`, `GrantTakenBack` or `CapsuleNotGranted`."""
    if request.iss != grant.recipient:
        raise NotGranted
    if now < grant.nbf:
        raise GrantNotYetValid
    if now >= grant.exp:
        raise GrantEnded
    if revoked:
        raise GrantTakenBack
    for wanted in request.capsules:
        if wanted.entry >= len(grant.limits):
            raise CapsuleNotGranted
        limit = grant.limits[wanted.entry]
        if limit is not None and wanted.capsule not in limit:
            raise CapsuleNotGranted


def lapses_at(request: ReencryptionRequest) -> int:
    """From when on (seconds) the request is refused, the grace for clocks included."""
    return request.exp + SKEW_SECONDS


def check_not_lapsed(request: ReencryptionRequest, now: int) -> None:
    """The request still stands when its answer is about to be released; raises `StatementExpired`."""
    if now >= lapses_at(request):
        raise StatementExpired


def check_capsules(request: ReencryptionRequest, capsules: Sequence[bytes]) -> None:
    """Rule 10; raises `CapsuleMismatch`."""
    if [wanted.capsule for wanted in request.capsules] != [fingerprint(capsule) for capsule in capsules]:
        raise CapsuleMismatch


def fingerprint(data: bytes) -> str:
    """SHA-256 in base64url, as statements name kfrags, capsules and cfrags."""
    return b64url(sha256(data))


def cursor_of(number: int) -> str:
    """The opaque cursor of a place in a chain of events."""
    return b64url(number.to_bytes(_CURSOR_BYTES, "big"))


def number_of(cursor: str) -> int:
    """The inverse of `cursor_of`; raises `Malformed` for a cursor that this service did not give."""
    number = int.from_bytes(from_b64url(cursor, _CURSOR_BYTES), "big")
    if number >= 2**63:
        raise Malformed("The cursor is none that this service gave.")
    return number
