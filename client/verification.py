"""What a client checks before it believes a service: pure functions over values, no network, no clock, no state.

    check_record        signature of the author, addressed to the patient, hashes of all parts          (spec §5)
    check_parts         the same of the hashes alone, where the manifest has been checked before           (spec §5)
    check_authority     the grant under which somebody other than the patient wrote                      (spec §5)
    check_chain         the versions of one record link to each other                                    (spec §5)
    check_history       they do, and each was its author's to write over the one before                  (spec §5)
    check_scope_key     a patient's delegating key of one scope and epoch                                (spec §4)
    check_grant         a grant, its two parties and the key-entries it names                            (spec §4)
    check_request       a disclosure request, its two parties and the key-entries it names               (spec §4)
    check_receipt       a proxy did what it was asked, and this is the statement it answers              (spec §4)

Each returns a verified value or raises a `VerificationFailed` that names what fails. Re-encryptions are checked in
`client.envelopes` (spec §9); what goes back in time is found in `client.state`, which remembers.
"""

from __future__ import annotations

import contextlib
import hmac
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from client.errors import (
    ClientError,
    ContextMismatch,
    ReceiptInvalid,
    RecordRolledBack,
    RecordSwapped,
    UnauthorisedAuthor,
    VerificationFailed,
    WrongAnswer,
)
from shared.crypto.record import RecordContext
from shared.crypto.umbral import PublicKey
from shared.encoding import b64url, from_b64url, sha256
from shared.errors import PcehrError
from shared.identity import VerifiedParty
from shared.schemas.records import RecordOut
from shared.statements import (
    DisclosureRequest,
    Grant,
    GrantScope,
    KeyEntry,
    Manifest,
    Receipt,
    ScopeKey,
    Verified,
    verify_stored,
)
from shared.wire import SKEW_SECONDS, Action, ReceiptAct, Role

_NONE_ENDED: Mapping[str, int] = MappingProxyType({})


@contextlib.contextmanager
def verifying() -> Iterator[None]:
    """Turn a refusal by the shared code into the `VerificationFailed` of the same code."""
    try:
        yield
    except ClientError:
        raise
    except PcehrError as refusal:
        raise VerificationFailed.from_refusal(refusal) from refusal


@dataclass(frozen=True)
class VerifiedVersion:
    """One version of a record, as its author signed it, with the grant it was written under (spec §5).

    Whether the author was allowed to write over the version before is for `check_history` to say.
    """

    manifest: Verified[Manifest]
    authority: Verified[Grant] | None
    """None where the patient is the author."""


@dataclass(frozen=True)
class VerifiedRecord:
    """One version of a record whose manifest holds and whose parts are the ones it names. Nothing is decrypted yet."""

    manifest: Verified[Manifest]
    authority: Verified[Grant] | None = field(repr=False)
    context: RecordContext
    capsule: bytes = field(repr=False)
    wrapped_key: bytes = field(repr=False)
    header: bytes = field(repr=False)
    body: bytes | None = field(repr=False)
    """The ciphertext, or None where it did not come along."""

    def with_body(self, ciphertext: bytes) -> VerifiedRecord:
        """The same record with its body; raises `RecordSwapped` unless it is the one the manifest names."""
        payload = self.manifest.payload
        if b64url(sha256(ciphertext)) != payload.body or len(ciphertext) != payload.size:
            raise RecordSwapped("The body of the record is not the one its author signed for.")
        return replace(self, body=ciphertext)

    @property
    def as_version(self) -> VerifiedVersion:
        """What a chain of versions is made of."""
        return VerifiedVersion(self.manifest, self.authority)

    @property
    def scope_entry(self) -> tuple[str, int]:
        """Scope id and epoch: which delegating key the envelope was made for."""
        return self.manifest.payload.scope, self.manifest.payload.epoch


def check_record(
    unverified: RecordOut, *, patient: VerifiedParty, author: VerifiedParty, ended: Mapping[str, int] = _NONE_ENDED
) -> VerifiedRecord:
    """Check the author's signature, the patient, the author's authority, and that every part is the one signed for.

    `ended` says when grants were revoked, as far as the reader knows, by grant id in seconds since the epoch. Raises
    `StatementForged`, `RecordSwapped`, `UnauthorisedAuthor`, or another `VerificationFailed`.
    """
    version = check_version(unverified.manifest, unverified.authority, patient=patient, author=author, ended=ended)
    return check_parts(unverified, version)


def check_parts(unverified: RecordOut, version: VerifiedVersion) -> VerifiedRecord:
    """Check that every part shown is the one that a version's author signed for; raises `RecordSwapped`.

    The capsule is looked into when it is opened: whether it is well made takes longer than all else here.
    """
    payload = version.manifest.payload
    with verifying():
        body = None if unverified.body is None else _part(unverified.body, payload.body, "body")
        if body is not None and len(body) != payload.size:
            raise RecordSwapped("The body has another size than the manifest says.")
        return VerifiedRecord(
            manifest=version.manifest,
            authority=version.authority,
            context=context_of(payload),
            capsule=_part(unverified.capsule, payload.capsule, "capsule"),
            wrapped_key=_part(unverified.wrapped_key, payload.wrapped_key, "wrapped key"),
            header=_part(unverified.header, payload.header, "header"),
            body=body,
        )


def check_version(
    token: str,
    authority: str | None,
    *,
    patient: VerifiedParty,
    author: VerifiedParty,
    ended: Mapping[str, int] = _NONE_ENDED,
) -> VerifiedVersion:
    """Check the author's signature under a manifest, the patient it is addressed to, and the author's authority.

    `ended` is that of `check_record`. Raises `StatementForged`, `RecordSwapped`, `UnauthorisedAuthor`, or another
    `VerificationFailed`.
    """
    with verifying():
        manifest = verify_stored(token, Manifest, author)
        if manifest.payload.aud != patient.did:
            raise RecordSwapped("The record is another patient's.")
        return VerifiedVersion(manifest, check_authority(manifest, authority, patient=patient, ended=ended))


def context_of(manifest: Manifest) -> RecordContext:
    """The context that a manifest describes; the envelope must have been made for exactly this one."""
    return RecordContext(
        patient=manifest.aud,
        record=manifest.record,
        version=manifest.version,
        scope=manifest.scope,
        epoch=manifest.epoch,
        author=manifest.iss,
    )


def check_authority(
    manifest: Verified[Manifest],
    authority: str | None,
    *,
    patient: VerifiedParty,
    ended: Mapping[str, int] = _NONE_ENDED,
) -> Verified[Grant] | None:
    """The grant that allowed the author to write, or None where the patient wrote; raises `UnauthorisedAuthor`.

    The grant must be signed by the patient, addressed to the author, be the one the manifest names, allow `append`
    for version 1 and `amend` for later ones on the manifest's scope, and have held when the manifest was issued: in its
    time window, and not `ended` (see `check_record`) before, whatever the service says of that by now.
    """
    payload = manifest.payload
    if payload.iss == payload.aud:
        return None
    if authority is None:
        raise UnauthorisedAuthor("The grant that allowed this author to write was not shown.")
    try:
        grant = verify_stored(authority, Grant, patient)
    except PcehrError as refusal:
        raise UnauthorisedAuthor("The grant shown for this author is not the patient's.") from refusal
    needed = Action.APPEND if payload.version == 1 else Action.AMEND
    if grant.id != payload.grant:
        raise UnauthorisedAuthor("The grant shown is not the one the author wrote under.")
    if grant.payload.aud != payload.iss:
        raise UnauthorisedAuthor("The grant was given to somebody other than the author.")
    if needed not in grant.payload.actions:
        raise UnauthorisedAuthor(f"The grant does not allow the author to {needed}.")
    if payload.scope not in {entry.scope for entry in grant.payload.scopes}:
        raise UnauthorisedAuthor("The grant does not cover the scope of this record.")
    if not grant.payload.nbf - SKEW_SECONDS <= payload.iat < grant.payload.exp + SKEW_SECONDS:
        raise UnauthorisedAuthor("The grant did not hold when the record was written.")
    if payload.iat > ended.get(grant.id, payload.iat) + SKEW_SECONDS:
        raise UnauthorisedAuthor("The patient had ended the grant when the record was written.")
    return grant


def check_chain(manifests: Sequence[Verified[Manifest]], *, complete: bool) -> None:
    """The versions of one record, oldest first, follow each other; raises `RecordRolledBack` or `WrongAnswer`.

    `complete` says that all versions from the first on must be there, as they are for the patient.
    """
    for before, after in itertools.pairwise(manifests):
        if after.payload.record != before.payload.record or after.payload.aud != before.payload.aud:
            raise WrongAnswer("The versions are not all of one record.")
        if after.payload.version <= before.payload.version:
            raise WrongAnswer("The versions are not in order.")
        adjacent = after.payload.version == before.payload.version + 1
        if adjacent and after.payload.prev != before.id:
            raise RecordRolledBack("A version of the record does not follow the one before it.")
        if complete and not adjacent:
            raise RecordRolledBack("A version of the record is missing.")
    if complete and manifests and manifests[0].payload.version != 1:
        raise RecordRolledBack("The first version of the record is missing.")


def check_history(versions: Sequence[VerifiedVersion], *, complete: bool) -> None:
    """The versions of one record up to the one to be read, oldest first: each follows the one before, and was its
    author's to write over it. Raises `RecordRolledBack`, `UnauthorisedAuthor` or `WrongAnswer`.

    An author other than the patient needs a grant that allows `amend` on the scope of the version before too (that it
    does on the version's own is checked by `check_authority`) and, where that entry is limited to capsules, one that
    lists the capsule of an earlier version of the record. Otherwise a grant on one scope would reach into all others.

    With `complete` all versions from the first on must be there, as they are for the patient. Somebody else may be
    shown them from a version of the patient's on, which vouches for everything before it: the patient's client reads
    the whole of a record before it adds to it.
    """
    manifests = [version.manifest for version in versions]
    check_chain(manifests, complete=complete)
    if any(after.payload.version != before.payload.version + 1 for before, after in itertools.pairwise(manifests)):
        raise RecordRolledBack("A version of the record is missing.")
    root = 0
    if not complete:
        by_patient = [at for at, one in enumerate(manifests) if one.payload.iss == one.payload.aud]
        root = max(by_patient, default=0)
        if not by_patient and manifests and manifests[0].payload.version != 1:
            raise RecordRolledBack("Earlier versions of the record are missing.")
    capsules: set[str] = set()
    for at, (before, after) in enumerate(itertools.pairwise(versions)):
        capsules.add(before.manifest.payload.capsule)
        if at >= root:
            _check_amendment(after, before.manifest.payload.scope, capsules)


def _check_amendment(version: VerifiedVersion, scope: str, capsules: set[str]) -> None:
    """`scope` is that of the version before, `capsules` are the hashes of those of all earlier versions."""
    if version.authority is None:
        return
    entries = [entry for entry in version.authority.payload.scopes if entry.scope == scope]
    if not entries:
        raise UnauthorisedAuthor("The grant does not cover the version that the author wrote over.")
    if not any(entry.capsules is None or not capsules.isdisjoint(entry.capsules) for entry in entries):
        raise UnauthorisedAuthor("The grant is limited to other records than the one the author wrote over.")


def check_scope_key(token: str, patient: VerifiedParty) -> Verified[ScopeKey]:
    """A scope-key signed by the patient, with a delegating key that is a point of the curve."""
    with verifying():
        statement = verify_stored(token, ScopeKey, patient)
        PublicKey.from_bytes(from_b64url(statement.payload.delegating_key, 33))
        return statement


@dataclass(frozen=True)
class CheckedGrant:
    """A grant whose signature, parties and key-entries have been checked."""

    statement: Verified[Grant]
    patient_entry: Verified[KeyEntry]
    recipient_entry: Verified[KeyEntry]


def check_grant(token: str, *, grant_id: str, patient: VerifiedParty, recipient: VerifiedParty) -> CheckedGrant:
    """A grant of this id by this patient to this recipient; the entries it names are in the parties' chains."""
    with verifying():
        statement = verify_stored(token, Grant, patient)
        if statement.id != grant_id:
            raise WrongAnswer("The grant shown has another id than the one asked for.")
        if statement.payload.aud != recipient.did:
            raise WrongAnswer("The grant was given to somebody else.")
        for entry in statement.payload.scopes:
            PublicKey.from_bytes(from_b64url(entry.delegating_key, 33))
        return CheckedGrant(
            statement=statement,
            patient_entry=_entry(patient, statement.payload.patient_entry, Role.PATIENT),
            recipient_entry=_entry(recipient, statement.payload.recipient_entry, Role.RECIPIENT),
        )


@dataclass(frozen=True)
class CheckedRequest:
    """A disclosure request whose signature, parties and key-entries have been checked."""

    statement: Verified[DisclosureRequest]
    patient_entry: Verified[KeyEntry]


def check_request(token: str, *, request_id: str, patient: VerifiedParty, recipient: VerifiedParty) -> CheckedRequest:
    """A disclosure request of this id by this recipient to this patient."""
    with verifying():
        statement = verify_stored(token, DisclosureRequest, recipient)
        if statement.id != request_id or statement.payload.aud != patient.did:
            raise WrongAnswer("The request shown is another one, or addressed to somebody else.")
        _entry(recipient, statement.payload.recipient_entry, Role.RECIPIENT)
        return CheckedRequest(
            statement=statement, patient_entry=_entry(patient, statement.payload.patient_entry, Role.PATIENT)
        )


def check_receipt(
    token: str,
    proxy: VerifiedParty,
    *,
    act: ReceiptAct,
    statement: str,
    grant: str,
    audience: str,
    cfrags: Sequence[str] | None = None,
) -> Verified[Receipt]:
    """A receipt by this proxy for this act; raises `ReceiptInvalid`.

    `statement` is the id of the statement answered, `audience` its issuer, and `cfrags` are the hashes (base64url)
    of the re-encryptions that came with it.
    """
    if proxy.role is not Role.PROXY:
        raise ReceiptInvalid("The receipt is signed by a party that is not a proxy.")
    try:
        receipt = verify_stored(token, Receipt, proxy)
    except PcehrError as refusal:
        raise ReceiptInvalid("The proxy's receipt does not verify.") from refusal
    payload = receipt.payload
    if (payload.act, payload.statement, payload.grant, payload.aud) != (act, statement, grant, audience):
        raise ReceiptInvalid
    if cfrags is not None and list(payload.cfrags or ()) != list(cfrags):
        raise ReceiptInvalid("The proxy's receipt lists other re-encryptions than the ones handed over.")
    return receipt


def entry_index(grant: Grant, manifest: Manifest) -> int:
    """The index of the grant's entry that covers a record version; raises `WrongAnswer` where none does.

    A list of capsules says which may be opened. Under a grant that does not allow reading it says which records may
    be amended, by the capsule of any of their versions.
    """
    reads = Action.READ in grant.actions
    for index, entry in enumerate(grant.scopes):
        if (entry.scope, entry.epoch) == (manifest.scope, manifest.epoch) and (not reads or _admits(entry, manifest)):
            return index
    raise WrongAnswer("The service listed a record that the grant does not cover.")


def names_by_id(names: Mapping[str, str], grant: Grant) -> list[str]:
    """The names of a grant's scopes, each once, in order of first occurrence; the id where no name is known."""
    return [names.get(scope_id, scope_id) for scope_id in scope_ids(grant)]


def scope_ids(grant: Grant) -> list[str]:
    """The ids of a grant's scopes, each once, in order of first occurrence."""
    return list(dict.fromkeys(entry.scope for entry in grant.scopes))


def _admits(entry: GrantScope, manifest: Manifest) -> bool:
    return entry.capsules is None or manifest.capsule in entry.capsules


def _part(text: str, expected: str, name: str) -> bytes:
    """Decode one part of a record and compare its hash with the manifest's."""
    data = from_b64url(text)
    if not hmac.compare_digest(b64url(sha256(data)), expected):
        raise RecordSwapped(f"The {name} of the record is not the one its author signed for.")
    return data


def _entry(party: VerifiedParty, entry_id: str, role: Role) -> Verified[KeyEntry]:
    entry = party.entry(entry_id)
    if entry is None or party.role is not role:
        raise ContextMismatch("The statement names a key-entry that is not in the chain of its party.")
    return entry
