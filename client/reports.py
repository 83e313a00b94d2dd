"""Plain values that the client's roles return: frozen, without keys, ready to be shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from client.header import RecordHeader
from shared.identity import VerifiedParty
from shared.schemas.records import GrantState, RequestState
from shared.statements import Grant, KeyEntry, Manifest, Revocation, Verified
from shared.wire import Action, DenialReason, Purpose


@dataclass(frozen=True)
class Problem:
    """Something that was left out of an answer because it does not hold, and why."""

    code: str
    detail: str
    record_id: str | None = None
    grant_id: str | None = None
    proxy: str | None = None


@dataclass(frozen=True)
class ScopeInfo:
    """One scope of the patient; `records` counts those whose newest version is filed under it."""

    name: str
    title: str
    scope_id: str
    epoch: int
    records: int
    custom: bool
    """Whether the name is the patient's own, kept in the settings record."""


@dataclass(frozen=True)
class StoredRecord:
    """One version of a record as it was accepted. `scope` is the scope's name, or its id where that is not known."""

    record_id: str
    version: int
    scope: str
    epoch: int
    manifest_id: str


@dataclass(frozen=True)
class RecordSummary:
    """One record of a list. Where `problem` is set it did not verify or did not open, and there is no header."""

    record_id: str
    version: int
    scope: str | None
    scope_id: str
    epoch: int
    author: str
    written_at: int
    size: int
    """Bytes of ciphertext, padding included; `header.length` is the true length."""
    manifest_id: str
    header: RecordHeader | None
    problem: Problem | None = None
    capsule: str = ""
    """The hash of its capsule, by which the logs name it; not verified where there is a `problem` without a header."""

    @property
    def title(self) -> str | None:
        return self.header.title if self.header else None


@dataclass(frozen=True)
class OpenedRecord:
    """One version of a record, verified and decrypted."""

    record_id: str
    version: int
    scope: str
    """The scope's name, or its id where the reader was not told the name."""
    epoch: int
    author: str
    """DID of whoever wrote this version."""
    header: RecordHeader
    body: bytes = field(repr=False)
    """The body; empty where it was written to `path` instead."""
    manifest: Verified[Manifest] = field(repr=False)
    path: Path | None = None

    @property
    def patient(self) -> str:
        """DID of the patient whose record it is."""
        return self.manifest.payload.aud

    @property
    def written_at(self) -> int:
        """Seconds since the epoch, as the author says."""
        return self.manifest.payload.iat

    @property
    def media_type(self) -> str:
        return self.header.media_type


@dataclass(frozen=True)
class IncomingRequest:
    """A recipient asks for disclosure. Where `problem` is set the request could not be opened: deny it."""

    id: str
    recipient: VerifiedParty
    fingerprint: list[str]
    """Eight words to compare with the recipient over another channel."""
    scopes: list[str]
    reason: str
    actions: tuple[Action, ...]
    purpose: Purpose
    expires: int
    state: RequestState
    received_at: int
    grants: list[str]
    problem: Problem | None = None


@dataclass(frozen=True)
class SentRequest:
    """A request that a recipient sent, and what became of it."""

    id: str
    patient: str
    actions: tuple[Action, ...]
    purpose: Purpose
    expires: int
    state: RequestState
    received_at: int
    grants: list[str]
    denial: DenialReason | None


@dataclass(frozen=True)
class GrantEntry:
    """One (scope, epoch) that a grant covers; `limited_to` counts its capsules where it is limited to some."""

    scope: str | None
    scope_id: str
    epoch: int
    limited_to: int | None


@dataclass(frozen=True)
class ProxyReport:
    """How far one proxy of a grant is, by receipts that were verified."""

    did: str
    stored: bool
    erased: bool
    problem: str | None
    """Code of what went wrong last, as the records service or the proxy itself says."""
    name: str | None = None
    endpoint: str | None = None
    """What the proxy calls itself, and where it is, by its own key-entry; None where it could not be found."""


@dataclass(frozen=True)
class GrantReport:
    """A grant the patient gave, as far as its receipts prove it."""

    id: str
    recipient: VerifiedParty
    scopes: list[str]
    """Names, each once; an id where the name is not known."""
    entries: list[GrantEntry]
    actions: tuple[Action, ...]
    purpose: Purpose
    begins: int
    expires: int
    state: GrantState
    """Computed from the receipts, the end and the revocation, and not taken from the service."""
    request: str | None
    threshold: int
    """0 for a grant that does not allow reading."""
    proxies: list[ProxyReport]
    disclosed: int
    """Record versions disclosed so far, as the records service counts them; 0 where it does not show the grant."""
    statement: Verified[Grant] = field(repr=False)
    revocation: Verified[Revocation] | None = field(repr=False, default=None)
    continues: str | None = None
    """Id of the grant that this one only carries on to newer epochs; both end together."""
    problem: Problem | None = None
    """What the records service hides of it, or what the first proxy that has a problem has."""
    shown: bool = True
    """Whether the records service shows it; otherwise it is known from this client's memory alone."""
    revocation_shown: bool = True
    """False where the records service shows the grant as if it had not been revoked."""
    first_choice: bool = False
    """Whether its proxies were chosen with it, because none were pinned before; later grants go to the same."""

    @property
    def shares(self) -> int:
        """`n`: how many proxies have a share."""
        return len(self.proxies)

    @property
    def stored(self) -> int:
        """How many proxies have proved that they stored their share."""
        return sum(proxy.stored for proxy in self.proxies)

    @property
    def erased(self) -> int:
        """How many proxies have proved that they erased their share."""
        return sum(proxy.erased for proxy in self.proxies)

    @property
    def live(self) -> bool:
        """Whether it has neither ended nor been revoked."""
        return self.state not in (GrantState.EXPIRED, GrantState.REVOKED)


RevocationState = Literal["sealed", "pending"]


@dataclass(frozen=True)
class GrantRevocation:
    """How far the revocation of one grant is: `sealed` from `needed` verified receipts on."""

    grant_id: str
    state: RevocationState
    receipts: int
    needed: int
    shares: int
    threshold: int
    already_disclosed: int
    proxies: list[ProxyReport]


@dataclass(frozen=True)
class RevocationReport:
    """How far a revocation is, with the grants that continued the one named and ended with it.

    `state`, `receipts`, `needed`, `shares` and `proxies` are those of the grant that is furthest from being sealed;
    `already_disclosed` is the sum over all, because nothing can undo it.
    """

    grant_id: str
    state: RevocationState
    receipts: int
    needed: int
    shares: int
    already_disclosed: int
    new_epochs: dict[str, int]
    """By the scope's name (or its id): the epoch that records written from now on carry."""
    continued_grants: list[str]
    """Ids of the grants made so that other recipients can read what is written from now on."""
    grants: list[GrantRevocation]
    proxies: list[ProxyReport]
    problems: list[Problem] = field(default_factory=list)
    """What the records service hid of these grants, or why it could not be asked."""


@dataclass(frozen=True)
class HeldGrant:
    """A grant that this recipient holds; verified, its scope names unsealed."""

    id: str
    patient: VerifiedParty
    scopes: list[str]
    entries: list[GrantEntry]
    actions: tuple[Action, ...]
    purpose: Purpose
    begins: int
    expires: int
    state: GrantState
    request: str | None
    threshold: int
    proxies: list[ProxyReport]
    statement: Verified[Grant] = field(repr=False)
    patient_entry: Verified[KeyEntry] = field(repr=False)
    """The patient's key-entry that the grant names; its verifying key is what kfrags are signed with."""
    recipient_entry: Verified[KeyEntry] = field(repr=False)
    """This recipient's key-entry that the grant names; capsules are re-encrypted to its receiving key."""

    @property
    def live(self) -> bool:
        """Whether it is in its time window and not revoked, and enough proxies have their share."""
        return self.state in (GrantState.ACTIVE, GrantState.COMPLETE)


@dataclass(frozen=True)
class ListedRecord:
    """A record that a grant covers, as its manifest describes it; nothing has been decrypted."""

    grant_id: str
    record_id: str
    version: int
    scope: str
    epoch: int
    author: str
    written_at: int
    size: int
    entry: int
    """Index into the grant's scopes."""
    capsule: bytes = field(repr=False)
    manifest: Verified[Manifest] = field(repr=False)
    authority: Verified[Grant] | None = field(repr=False)
    """The grant it was written under; None where the patient wrote it."""


@dataclass(frozen=True)
class FetchReport:
    """What a recipient could open, what did not hold, and which proxies' answers did not verify."""

    opened: list[OpenedRecord]
    problems: list[Problem]
    lying_proxies: list[str]


@dataclass(frozen=True)
class Override:
    """A filing rule of the patient's own; goes before the common ones (client/fhir/scopes.py)."""

    scope: str
    resource_type: str | None = None
    system: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Settings:
    """What the patient's settings record holds."""

    scopes: dict[str, str] = field(default_factory=dict)
    """Scopes of the patient's own making: title by name."""
    overrides: tuple[Override, ...] = ()


@dataclass(frozen=True)
class RestoreReport:
    """What the seed alone brought back: what the services show of it, which verifies and may not be all.

    A grant or a revocation that records service and registry hide together from somebody with nothing but the words is
    not missed. From now on this machine remembers.
    """

    scopes: list[ScopeInfo]
    unknown_scopes: list[str]
    """Ids of published scopes whose names neither the caller nor the settings record know."""
    records: int
    grants: int
    pending_requests: int
