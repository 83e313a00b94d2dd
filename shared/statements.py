"""Signed statements: what the parties say to each other, who may say it, and how it is checked.

A statement is a compact JWS (`shared.jose`) whose `typ` names its kind and whose `kid` names one identity key
of its issuer. `verify` returns a `Verified` statement or raises; there is no way to a payload that has not been
verified. The exact string is what is stored and forwarded; the statement's id is the SHA-256 of its signing
input. docs/spec.md section 3 is normative for the members.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from shared import did, jose, wire
from shared.crypto.signing import SigningKey, VerifyKey
from shared.encoding import b64url, canonical_json
from shared.errors import Forbidden, Malformed, Refused
from shared.wire import SKEW_SECONDS, Action, DenialReason, Hash, Purpose, Role, WireModel


class StatementExpired(Refused):
    code = "statement_expired"
    title = "The statement has lapsed; sign a new one."


class StatementFromTheFuture(Refused):
    code = "statement_from_the_future"
    title = "The statement is dated in the future; check the clock of the machine that signed it."


class WrongAudience(Refused):
    code = "wrong_audience"
    title = "The statement is addressed to somebody else."


class WrongSigner(Forbidden):
    code = "wrong_signer"
    title = "The statement is not signed by a current key of its issuer."


class Payload(WireModel):
    """Claims common to all kinds: issuer, audience, time of issue (seconds), and an id unique to the issuer."""

    typ: ClassVar[str]
    max_size: ClassVar[int] = 16_384
    """Longest accepted compact form, in characters."""

    iss: wire.Did
    aud: str = Field(min_length=1, max_length=64)
    iat: wire.Time
    jti: wire.Jti

    @property
    def lapses_at(self) -> int | None:
        """When the statement lapses, or None where its kind never does."""
        expiry: int | None = getattr(self, "exp", None)
        return expiry


def _host_and_port(endpoint: str) -> str:
    """Refuse what no client could connect to: an empty host, or a port that is none."""
    try:
        parts = urlsplit(endpoint)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("an endpoint has a host and, if any, a port from 1 to 65535")
    return endpoint


Endpoint = Annotated[
    str,
    StringConstraints(max_length=200, pattern=r"^https?://[A-Za-z0-9.\[\]:_-]+(/[A-Za-z0-9._/-]*)?$"),
    AfterValidator(_host_and_port),
]
"""The base URL of a proxy: scheme, host, port and path, without credentials, query or fragment."""


class KeyEntry(Payload):
    """One link of a party's chain of keys. Entry 0 is signed by the key that *is* the id; every later entry is
    signed by the identity key of the entry before it, and carries a proof that the new key's holder agrees."""

    typ = "pcehr-key-entry+jwt"
    max_size = 4_096

    aud: Literal["urn:pcehr:registry"]
    role: Role
    seq: Annotated[int, Field(ge=0, le=wire.MAX_EPOCH)]
    prev: Hash | None = None
    identity_key: wire.Key32
    verifying_key: wire.Key33 | None = None
    receiving_key: wire.Key33 | None = None
    sealing_key: wire.Key32 | None = None
    possession: wire.Signature | None = None
    name: wire.Label | None = None
    organisation: wire.Label | None = None
    endpoint: Endpoint | None = None

    @model_validator(mode="after")
    def _members_fit_the_role(self) -> Self:
        if (self.seq == 0) != (self.prev is None) or (self.seq == 0) != (self.possession is None):
            raise ValueError("prev and possession stand in every entry but the first")
        proxy = self.role is Role.PROXY
        if proxy != (self.sealing_key is not None) or proxy != (self.endpoint is not None):
            raise ValueError("a proxy, and only a proxy, has a sealing key and an endpoint")
        if proxy != (self.verifying_key is None) or proxy != (self.receiving_key is None):
            raise ValueError("a patient and a recipient, and no proxy, have a verifying and a receiving key")
        if self.role is Role.PATIENT and (self.name is not None or self.organisation is not None):
            raise ValueError("a patient's key-entry carries no name")
        if self.role is Role.RECIPIENT and self.name is None:
            raise ValueError("a recipient has a name")
        return self

    def possession_message(self) -> bytes:
        """What the new identity key signs to show that its holder agrees to stand in this chain."""
        claims = self.model_dump(mode="json", exclude_none=True, exclude={"possession"})
        return b"pcehr/v1/possession\0" + canonical_json(claims)


class ScopeKey(Payload):
    """The delegating key of one scope in one epoch."""

    typ = "pcehr-scope-key+jwt"
    max_size = 2_048

    aud: Literal["urn:pcehr:registry"]
    scope: wire.ScopeId
    epoch: wire.Epoch
    delegating_key: wire.Key33


class Manifest(Payload):
    """What an author says of one version of a record; `aud` is the patient."""

    typ = "pcehr-manifest+jwt"
    max_size = 4_096

    aud: wire.Did
    record: wire.RecordId
    version: Annotated[int, Field(ge=1, le=1_000_000)]
    prev: Hash | None = None
    scope: wire.ScopeId
    epoch: wire.Epoch
    capsule: Hash
    wrapped_key: Hash
    header: Hash
    body: Hash
    size: Annotated[int, Field(ge=0, le=2**40)]
    commitment: wire.Key32
    grant: Hash | None = None

    @model_validator(mode="after")
    def _chain_and_authority(self) -> Self:
        if (self.version == 1) != (self.prev is None):
            raise ValueError("prev stands in every version but the first")
        if (self.iss == self.aud) != (self.grant is None):
            raise ValueError("an author other than the patient names the grant it writes under")
        return self


class DisclosureRequest(Payload):
    """A recipient asks a patient (`aud`) for scopes; names and reason are sealed to the patient."""

    typ = "pcehr-disclosure-request+jwt"
    max_size = 16_384

    aud: wire.Did
    exp: wire.Time
    actions: Annotated[tuple[Action, ...], Field(min_length=1, max_length=3)]
    purpose: Purpose
    recipient_entry: Hash
    patient_entry: Hash
    sealed: Annotated[wire.B64, Field(max_length=12_000)]

    @model_validator(mode="after")
    def _actions(self) -> Self:
        _check_actions(self.actions)
        return self


class GrantScope(WireModel):
    """One delegating key that a grant covers, optionally limited to some capsules made for it."""

    scope: wire.ScopeId
    epoch: wire.Epoch
    delegating_key: wire.Key33
    capsules: Annotated[tuple[Hash, ...], Field(min_length=1, max_length=wire.MAX_CAPSULE_LIST)] | None = None


class GrantProxy(WireModel):
    """One proxy of a grant, with the SHA-256 of its kfrag for each scope entry, in the grant's order."""

    did: wire.Did
    kfrags: Annotated[tuple[Hash, ...], Field(min_length=1, max_length=wire.MAX_SCOPES)]


class GrantShares(WireModel):
    """How reading is shared out: any `threshold` of the proxies suffice."""

    threshold: Annotated[int, Field(ge=1, le=wire.MAX_SHARES)]
    proxies: Annotated[tuple[GrantProxy, ...], Field(min_length=1, max_length=wire.MAX_SHARES)]


class Grant(Payload):
    """The patient's consent to one recipient (`aud`); a FHIR Consent in substance."""

    typ = "pcehr-grant+jwt"
    max_size = 262_144

    aud: wire.Did
    nbf: wire.Time
    exp: wire.Time
    request: Hash | None = None
    patient_entry: Hash
    recipient_entry: Hash
    actions: Annotated[tuple[Action, ...], Field(min_length=1, max_length=3)]
    purpose: Purpose
    scopes: Annotated[tuple[GrantScope, ...], Field(min_length=1, max_length=wire.MAX_SCOPES)]
    shares: GrantShares | None = None
    sealed: Annotated[wire.B64, Field(max_length=12_000)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_actions(self.actions)
        if self.nbf >= self.exp:
            raise ValueError("a grant ends after it begins")
        entries = [(entry.scope, entry.epoch) for entry in self.scopes]
        if len(set(entries)) != len(entries):
            raise ValueError("a scope and epoch stands in a grant once")
        if sum(len(entry.capsules or ()) for entry in self.scopes) > wire.MAX_CAPSULE_LIST:
            raise ValueError("the lists of capsules are too long together")
        if (Action.READ in self.actions) != (self.shares is not None):
            raise ValueError("a grant to read, and only such a grant, has shares")
        if self.shares is not None:
            dids = [proxy.did for proxy in self.shares.proxies]
            if len(set(dids)) != len(dids):
                raise ValueError("a proxy stands in a grant once")
            if self.shares.threshold > len(dids):
                raise ValueError("the threshold is at most the number of proxies")
            if any(len(proxy.kfrags) != len(self.scopes) for proxy in self.shares.proxies):
                raise ValueError("each proxy has one kfrag for each scope entry")
        return self


class Denial(Payload):
    """The patient refuses a request of `aud`."""

    typ = "pcehr-denial+jwt"
    max_size = 2_048

    aud: wire.Did
    request: Hash
    reason: DenialReason


class WantedCapsule(WireModel):
    """One capsule to re-encrypt: the index of the grant's scope entry it was made for, and its SHA-256."""

    entry: Annotated[int, Field(ge=0, lt=wire.MAX_SCOPES)]
    capsule: Hash


class ReencryptionRequest(Payload):
    """The recipient asks the proxies of a grant to re-encrypt capsules; lives five minutes at most."""

    typ = "pcehr-reencryption-request+jwt"
    max_size = 65_536

    aud: Literal["urn:pcehr:proxies"]
    exp: wire.Time
    grant: Hash
    capsules: Annotated[tuple[WantedCapsule, ...], Field(min_length=1, max_length=wire.MAX_CAPSULES)]

    @model_validator(mode="after")
    def _short_and_distinct(self) -> Self:
        if not 0 < self.exp - self.iat <= wire.REENCRYPTION_LIFETIME:
            raise ValueError("a re-encryption request lives five minutes at most")
        if len({wanted.capsule for wanted in self.capsules}) != len(self.capsules):
            raise ValueError("a capsule stands in a request once")
        return self


class Receipt(Payload):
    """A proxy says what it did with the statement it answers; `aud` issued that statement."""

    typ = "pcehr-receipt+jwt"
    max_size = 32_768

    aud: wire.Did
    statement: Hash
    grant: Hash
    act: wire.ReceiptAct
    seq: Annotated[int, Field(ge=1, le=2**53 - 1)]
    cfrags: Annotated[tuple[Hash, ...], Field(min_length=1, max_length=wire.MAX_CAPSULES)] | None = None

    @model_validator(mode="after")
    def _cfrags_where_they_belong(self) -> Self:
        if (self.act == "reencrypted") != (self.cfrags is not None):
            raise ValueError("a receipt for a re-encryption, and no other, lists cfrags")
        return self


class EpochFloor(WireModel):
    """From now on records of this scope carry at least this epoch."""

    scope: wire.ScopeId
    epoch: wire.Epoch


class Revocation(Payload):
    """The patient ends a grant to `aud`. It never lapses, and holds even when it arrives before the grant."""

    typ = "pcehr-revocation+jwt"
    max_size = 8_192

    aud: wire.Did
    grant: Hash
    epochs: Annotated[tuple[EpochFloor, ...], Field(max_length=wire.MAX_SCOPES)]


class LogErasure(Payload):
    """A party has the texts of the events in its log at `aud` erased: at the records service or at a proxy."""

    typ = "pcehr-log-erasure+jwt"
    max_size = 2_048

    aud: Literal["urn:pcehr:records"] | wire.Did
    upto: Annotated[int, Field(ge=1, le=2**53 - 1)]
    """The number of the last event to be erased."""


P = TypeVar("P", bound=Payload)

KINDS: tuple[type[Payload], ...] = (
    KeyEntry,
    ScopeKey,
    Manifest,
    DisclosureRequest,
    Grant,
    Denial,
    ReencryptionRequest,
    Receipt,
    Revocation,
    LogErasure,
)


@dataclass(frozen=True)
class Verified(Generic[P]):
    """A statement whose signature, form and issuer have been checked. Only `verify` and its kin make one."""

    payload: P
    token: str
    id: str
    signed_with: bytes


class KnowsKeys(Protocol):
    """What `verify` needs to know of a party (see `shared.identity.VerifiedParty`)."""

    @property
    def did(self) -> str: ...

    @property
    def current_identity_key(self) -> bytes: ...

    @property
    def all_identity_keys(self) -> frozenset[bytes]: ...


def new_jti() -> str:
    """16 random bytes in base64url."""
    return b64url(secrets.token_bytes(16))


def sign(payload: Payload, key: SigningKey) -> str:
    """Return the compact form of `payload`, signed with `key`, an identity key of its issuer."""
    kid = did.key_id(payload.iss, bytes(key.verify_key))
    return jose.sign(claims_of(payload), key=key, kid=kid, typ=payload.typ)


def claims_of(payload: Payload) -> dict[str, Any]:
    """The members as they are signed: absent ones are left out, never null."""
    return payload.model_dump(mode="json", exclude_none=True)


def unverified_issuer(token: str, kind: type[Payload]) -> str:
    """The DID a statement claims to come from, for finding that party's keys; nothing has been checked."""
    jws = jose.parse(token, typ=kind.typ, max_size=kind.max_size)
    return did.split_key_id(jws.kid)[0]


def verify_fresh(token: str, kind: type[P], party: KnowsKeys, *, now: int) -> Verified[P]:
    """Verify a statement that is being submitted now.

    It must be signed with the party's *current* identity key, must not be dated more than `SKEW_SECONDS` in the
    future, and must not have lapsed. Raises `Malformed`, `BadSignature`, `WrongSigner`, `StatementExpired` or
    `StatementFromTheFuture`.
    """
    statement = _verify(token, kind, party.did, frozenset({party.current_identity_key}))
    _check_time(statement.payload, now)
    return statement


def verify_delayed(token: str, kind: type[P], party: KnowsKeys, *, now: int) -> Verified[P]:
    """As `verify_fresh`, but any identity key of the party's chain will do.

    Only for statements that take access away and may have waited for their reader while the party changed its keys:
    were the old key refused, the access would stay. Whoever stole an old key can end access with it, not gain any.
    """
    statement = _verify(token, kind, party.did, party.all_identity_keys)
    _check_time(statement.payload, now)
    return statement


def verify_stored(token: str, kind: type[P], party: KnowsKeys) -> Verified[P]:
    """Verify a statement that was accepted at some time before: any identity key of the party's chain will do,
    and time is the caller's affair. Raises `Malformed`, `BadSignature` or `WrongSigner`."""
    return _verify(token, kind, party.did, party.all_identity_keys)


def verify_under(token: str, kind: type[P], issuer: str, keys: Iterable[bytes]) -> Verified[P]:
    """Verify under explicit identity keys of `issuer`; for building up a party's chain of keys."""
    return _verify(token, kind, issuer, frozenset(keys))


def expect_audience(statement: Verified[Any], audience: str) -> None:
    """Raise `WrongAudience` unless the statement is addressed to `audience`."""
    if statement.payload.aud != audience:
        raise WrongAudience


def _verify(token: str, kind: type[P], issuer: str, keys: frozenset[bytes]) -> Verified[P]:
    jws = jose.parse(token, typ=kind.typ, max_size=kind.max_size)
    signer, key = did.split_key_id(jws.kid)
    if signer != issuer or key not in keys:
        raise WrongSigner
    claims = jws.verify(VerifyKey.from_bytes(key))
    try:
        payload = kind.model_validate_json(jws.unverified_payload)
    except ValidationError as error:
        if any(item["loc"] == ("aud",) and item["type"] == "literal_error" for item in error.errors()):
            raise WrongAudience from None
        raise Malformed(f"The statement is not a valid {kind.typ}: {_first_reason(error)}.") from None
    if claims_of(payload) != claims:
        raise Malformed("The statement has members that are null or spelled in another than the canonical way.")
    if payload.iss != issuer:
        raise WrongSigner
    return Verified(payload=payload, token=token, id=jws.id, signed_with=key)


def _check_time(payload: Payload, now: int) -> None:
    if payload.iat > now + SKEW_SECONDS:
        raise StatementFromTheFuture
    if payload.lapses_at is not None and payload.lapses_at + SKEW_SECONDS <= now:
        raise StatementExpired


def _first_reason(error: ValidationError) -> str:
    """Where and why, without the input itself, which may be anything."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "members"
    return f"{place}: {first['msg']}"


def _check_actions(actions: tuple[Action, ...]) -> None:
    if list(actions) != sorted(set(actions)):
        raise ValueError("actions are sorted and stand once each")
