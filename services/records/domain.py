"""The rules of the records service, as functions over values; docs/spec.md sections 7 and 9 are normative.

Writing
  1. The parts of a record are those its manifest names, and the capsule is a well-made one (`check_parts`).
  2. An author other than the patient names a grant to itself, by this patient, that is in its window and not revoked,
     and that allows `append` for version 1 or `amend` for a later one on the manifest's scope; for `amend` also on
     the scope of the version before and, where that entry is limited, on a record that it lists (`check_author`).
  3. A version follows the newest one and names its manifest (`check_succession`).
  4. No record falls below its scope's floor (`check_floor`).
Consent
  5. A request lasts 90 days at most (`check_request`), and no more than 20 of one recipient wait for the same patient's
     answer (`check_pending`).
  6. A grant that answers a request is by the one asked to the one who asked, before the request lapses, asks for the
     same purpose and for no action more (`check_answer`), and comes with one sealed share for each proxy it names and
     none else (`check_shares`).
  7. A request is denied once a denial is there, else approved once a grant is, else expired after its end
     (`request_state`).
  8. A grant is revoked, else expired, else complete when all its proxies hold their shares, else active when
     `threshold` of them do, else pending; without shares it is complete at once (`grant_state`).
Disclosure
  9. Only the recipient of a grant to read may use it, within its window, until it is revoked, and only for scope
     entries it has and, where an entry is limited, for capsules the entry lists (`check_disclosure`).
 10. Proxies that hold their share are asked first, the fastest before the others, never one that is excluded
     (`order_of_asking`).
Delivery
 11. A share that a proxy refuses with a 4xx is not offered again, unless the status itself asks for another try, the
     answer is no problem document, or it is about a chain of keys that the registry does not show (whole)
     (`refused_for_good`); pauses between tries double up to a cap, with jitter (`pause`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from services.records.errors import (
    CapsuleNotGranted,
    GrantExpired,
    GrantNotYetValid,
    GrantRevoked,
    NotGranted,
    RecordSwapped,
    SharesMismatch,
    StaleEpoch,
    VersionConflict,
    WiderThanRequested,
)
from shared.crypto.umbral import Capsule
from shared.encoding import b64url, from_b64url, sha256
from shared.errors import NotFound, QuotaExceeded, Refused
from shared.schemas.records import GrantState, RequestState
from shared.statements import DisclosureRequest, Grant, Manifest, StatementExpired, WantedCapsule
from shared.wire import SKEW_SECONDS, Action

REQUEST_LIFETIME = 90 * 86_400
"""Seconds that a disclosure request may last."""

MAX_PENDING_REQUESTS = 20
"""Requests of one recipient that may wait for the answer of one patient."""

_CAPSULES_OF_PATIENCE = 25
_TRY_AGAIN = (408, 425, 429)
_PASSING = ((404, "unknown_party"), (409, "key_chain_rolled_back"))
"""What a proxy says of the registry's answers, which is over when the registry shows everything again."""


@dataclass(frozen=True)
class Parts:
    """What is uploaded beside a manifest, in base64url. `body` is absent where the blob store has it."""

    capsule: str
    wrapped_key: str
    header: str
    body: str | None


@dataclass(frozen=True)
class ScopeEntry:
    """One scope entry of a grant; `limited` when it covers listed capsules only."""

    index: int
    scope: str
    epoch: int
    limited: bool


@dataclass(frozen=True)
class Terms:
    """What a stored grant says, and whether it has been revoked. Times are seconds since the epoch."""

    id: str
    patient: str
    recipient: str
    actions: frozenset[Action]
    not_before: int
    expires_at: int
    threshold: int
    stored: int
    """How many of its proxies have sent a receipt for their share."""
    revoked: bool
    scopes: tuple[ScopeEntry, ...]

    @property
    def active(self) -> bool:
        """Whether enough proxies hold their shares; `threshold` is 0 for a grant that does not allow reading."""
        return self.stored >= self.threshold

    def holds(self, now: int) -> bool:
        """Whether it is in its window and not revoked."""
        return not self.revoked and self.not_before <= now < self.expires_at


@dataclass(frozen=True)
class Before:
    """The version before the one being written, as far as authority depends on it."""

    scope: str
    listed_in: frozenset[int]
    """Indexes of the entries of the author's grant that list a capsule of one of the record's versions."""


@dataclass(frozen=True)
class Head:
    """The newest version of a record."""

    patient: str
    version: int
    manifest_id: str


@dataclass(frozen=True)
class Asked:
    """What a grant has to keep to of the request it answers."""

    patient: str
    recipient: str
    actions: frozenset[Action]
    purpose: str
    expires_at: int


@dataclass(frozen=True)
class ProxyOfGrant:
    """One proxy of a grant, and whether it has sent a receipt for its share."""

    did: str
    stored: bool


def check_parts(manifest: Manifest, parts: Parts) -> None:
    """Raise `RecordSwapped` unless every part has the hash and size that the manifest names, and
    `MalformedKeyMaterial` for a capsule that no proxy would take."""
    capsule = from_b64url(parts.capsule)
    named = [(manifest.capsule, capsule)]
    named += [
        (manifest.wrapped_key, from_b64url(parts.wrapped_key)),
        (manifest.header, from_b64url(parts.header)),
    ]
    if parts.body is not None:
        body = from_b64url(parts.body)
        named.append((manifest.body, body))
        if len(body) != manifest.size:
            raise RecordSwapped
    if any(b64url(sha256(data)) != expected for expected, data in named):
        raise RecordSwapped
    # One bad capsule would make every disclosure fail that names it beside good ones.
    Capsule.from_bytes(capsule)


def check_author(manifest: Manifest, grant: Terms | None, before: Before | None, now: int) -> None:
    """Raise `NotGranted` unless an author other than the patient may write this version now.

    What exists and is not covered is refused like what does not exist, so that nothing can be found out by trying.
    """
    action = Action.APPEND if manifest.version == 1 else Action.AMEND
    if grant is None or grant.recipient != manifest.iss or grant.patient != manifest.aud:
        raise NotGranted
    if not grant.holds(now) or action not in grant.actions:
        raise NotGranted
    if all(entry.scope != manifest.scope for entry in grant.scopes):
        raise NotGranted
    if action is Action.AMEND and (before is None or not _covers_before(grant.scopes, before)):
        raise NotGranted


def check_succession(manifest: Manifest, head: Head | None) -> None:
    """Raise `VersionConflict` unless the manifest starts a new record or follows the newest version of its own."""
    if head is None:
        if manifest.version != 1:
            raise VersionConflict
        return
    follows = manifest.version == head.version + 1 and manifest.prev == head.manifest_id
    if head.patient != manifest.aud or not follows:
        raise VersionConflict


def check_floor(manifest: Manifest, floor: int) -> None:
    """Raise `StaleEpoch` for a record below its scope's floor."""
    if manifest.epoch < floor:
        raise StaleEpoch


def check_request(request: DisclosureRequest) -> None:
    """Raise `Refused` for a request that lasts longer than 90 days."""
    if request.exp - request.iat > REQUEST_LIFETIME:
        raise Refused("A disclosure request lasts 90 days at most.")


def check_pending(waiting: int) -> None:
    """Raise `QuotaExceeded` when so many requests of a recipient to one patient wait that there is no room left."""
    if waiting >= MAX_PENDING_REQUESTS:
        raise QuotaExceeded(
            "Too many requests of yours to this patient wait for an answer; ask again when some have been answered."
        )


def check_answer(grant: Grant, asked: Asked | None, now: int) -> None:
    """Raise `NotFound`, `StatementExpired` or `WiderThanRequested` unless the grant answers the request it names."""
    if asked is None or asked.patient != grant.iss or asked.recipient != grant.aud:
        raise NotFound
    if asked.expires_at + SKEW_SECONDS <= now:
        raise StatementExpired("The disclosure request has lapsed.")
    if grant.purpose != asked.purpose or not asked.actions.issuperset(grant.actions):
        raise WiderThanRequested


def check_shares(grant: Grant, sealed_for: Sequence[str]) -> None:
    """Raise `SharesMismatch` unless there is one sealed share for each proxy of the grant and none else."""
    named = [proxy.did for proxy in grant.shares.proxies] if grant.shares is not None else []
    if sorted(sealed_for) != sorted(named):
        raise SharesMismatch


def request_state(*, denied: bool, granted: bool, expires_at: int, now: int) -> RequestState:
    """What became of a disclosure request."""
    if denied:
        return RequestState.DENIED
    if granted:
        return RequestState.APPROVED
    return RequestState.EXPIRED if expires_at <= now else RequestState.PENDING


def grant_state(*, revoked: bool, expires_at: int, threshold: int, proxies: int, stored: int, now: int) -> GrantState:
    """What became of a grant; `proxies` of them were to store a share and `stored` of them have."""
    if revoked:
        return GrantState.REVOKED
    if expires_at <= now:
        return GrantState.EXPIRED
    if stored >= proxies:
        return GrantState.COMPLETE
    return GrantState.ACTIVE if stored >= threshold else GrantState.PENDING


def check_disclosure(
    grant: Terms, issuer: str, wanted: Iterable[WantedCapsule], listed: Collection[tuple[int, str]], now: int
) -> None:
    """Refuse as a proxy would; `listed` holds those of the wanted capsules that the grant's limited entries list.

    Raises `NotGranted`, `GrantNotYetValid`, `GrantExpired`, `GrantRevoked` or `CapsuleNotGranted`.
    """
    if grant.recipient != issuer or Action.READ not in grant.actions:
        raise NotGranted
    if now < grant.not_before:
        raise GrantNotYetValid
    if now >= grant.expires_at:
        raise GrantExpired
    if grant.revoked:
        raise GrantRevoked
    entries = {entry.index: entry for entry in grant.scopes}
    for one in wanted:
        entry = entries.get(one.entry)
        if entry is None or (entry.limited and (one.entry, one.capsule) not in listed):
            raise CapsuleNotGranted


def order_of_asking(
    proxies: Sequence[ProxyOfGrant], exclude: Collection[str], seconds: Mapping[str, float]
) -> list[str]:
    """Whom to ask, in which order. `seconds` says how long each has taken lately; one not tried yet counts as fast,
    so that it gets tried."""
    usable = [proxy for proxy in proxies if proxy.did not in exclude]
    usable.sort(key=lambda proxy: (not proxy.stored, seconds.get(proxy.did, 0.0)))
    return [proxy.did for proxy in usable]


def patience_with(first: float, capsules: int) -> float:
    """Seconds to wait for an answer before another proxy is asked beside those that were: `first` for one capsule, and
    as much again for every 25, since whoever asks for a hundred gives a proxy a hundred times the work."""
    return first * (1 + (capsules - 1) / _CAPSULES_OF_PATIENCE)


def refused_for_good(status: int, code: str | None) -> bool:
    """Whether an answer says that repeating the same message is of no use; `code` is that of the problem document, or
    None where the answer was none, and then it need not come from the proxy at all but from something before it."""
    if code is None or (status, code) in _PASSING:
        return False
    return 400 <= status < 500 and status not in _TRY_AGAIN


def pause(attempts: int, *, first: float, cap: float, chance: float) -> float:
    """Seconds until the next try after `attempts` failed ones; `chance`, from 0 to 1, picks a point in the upper half
    of the interval, so that many deliveries to one proxy do not come back all at once."""
    whole = min(cap, first * 2.0 ** min(attempts - 1, 32))
    return whole * (0.5 + chance / 2)


def _covers_before(scopes: Iterable[ScopeEntry], before: Before) -> bool:
    return any(
        entry.scope == before.scope and (not entry.limited or entry.index in before.listed_in) for entry in scopes
    )
