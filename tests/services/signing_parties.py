"""Parties of tests, who hold real keys and sign real statements; only their seeds are public.

Everything here goes through `shared`, so that what a service gets in a test is what a client would send it. Times are
seconds since the epoch; `NOW` is where the clocks of tests stand at first.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from uuid6 import uuid7

from shared import statements as st
from shared import wire
from shared.crypto.derivation import Seed
from shared.crypto.record import RecordContext, RecordKey
from shared.crypto.sealing import SealingKey, seal
from shared.crypto.signing import SigningKey
from shared.crypto.umbral import KfragSigner, PublicKey, SecretKey, VerifiedKeyFrag, encrypt, generate_kfrags
from shared.did import did_from_key, key_id
from shared.encoding import b64url, canonical_json, sha256
from shared.wire import Action, DenialReason, Purpose, Role

NOW = 1_790_000_000
DAY = 86_400

_seeds = itertools.count(1)


def id_of(token: str) -> str:
    """The id of a statement: SHA-256 of its signing input."""
    return b64url(sha256(token.rpartition(".")[0].encode("ascii")))


@dataclass
class TestClock:
    """A clock that stands still until a test moves it."""

    __test__ = False

    now: int = NOW

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: int) -> None:
        self.now += seconds


@dataclass(frozen=True)
class SealedRecord:
    """One version of a record, as its author uploads it, and the key that only the author should know."""

    manifest: str
    capsule: bytes
    wrapped_key: bytes
    header: bytes
    body: bytes
    record: str
    version: int
    context: RecordContext
    key: RecordKey

    @property
    def id(self) -> str:
        return id_of(self.manifest)

    @property
    def capsule_hash(self) -> str:
        return b64url(sha256(self.capsule))

    def as_json(self, *, inline: bool = True) -> dict[str, Any]:
        """The member of `POST /v1/records`."""
        parts = {
            "manifest": self.manifest,
            "capsule": b64url(self.capsule),
            "wrapped_key": b64url(self.wrapped_key),
            "header": b64url(self.header),
        }
        return parts | ({"body": b64url(self.body)} if inline else {})


@dataclass(frozen=True)
class SignedGrant:
    """A grant, with the kfrags and the sealed share of each proxy it names (empty when it does not allow reading)."""

    token: str
    kfrags: dict[str, list[VerifiedKeyFrag]] = field(default_factory=dict)
    shares: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return id_of(self.token)

    def as_json(self) -> dict[str, Any]:
        """The body of `POST /v1/grants`."""
        return {
            "grant": self.token,
            "shares": [{"proxy": did, "sealed": sealed} for did, sealed in self.shares.items()],
        }


class TestParty:
    """A patient, a recipient or a proxy with a chain of keys; `entries` is that chain, oldest first."""

    __test__ = False

    def __init__(
        self,
        role: Role,
        *,
        seed: int | None = None,
        name: str | None = "Demo Practice",
        organisation: str | None = "Demo Hospital",
        endpoint: str | None = None,
        issued: int = NOW - DAY,
    ) -> None:
        self.seed = Seed.from_bytes((seed if seed is not None else next(_seeds)).to_bytes(32, "big"))
        self.role = role
        self.name, self.organisation = (name, organisation) if role is Role.RECIPIENT else (None, None)
        self.endpoint = endpoint or "http://proxy.invalid" if role is Role.PROXY else None
        self.did = did_from_key(bytes(self.identity_key(0).verify_key))
        self.entries: list[str] = []
        self.rotate(issued)

    # Keys

    @property
    def seq(self) -> int:
        """The number of the newest key-entry."""
        return len(self.entries) - 1

    @property
    def entry_id(self) -> str:
        """The id of the newest key-entry."""
        return id_of(self.entries[-1])

    def identity_key(self, seq: int | None = None) -> SigningKey:
        return SigningKey(self.seed.derive(f"identity/{self.seq if seq is None else seq}", 32))

    def receiving_key(self, seq: int | None = None) -> SecretKey:
        return self.seed.umbral_key(f"receiving/{self.seq if seq is None else seq}")

    def signer(self, seq: int | None = None) -> KfragSigner:
        return KfragSigner(self.seed.umbral_key(f"signer/{self.seq if seq is None else seq}"))

    def sealing_key(self, seq: int | None = None) -> SealingKey:
        return SealingKey(self.seed.derive(f"sealing/{self.seq if seq is None else seq}", 32))

    def delegating_key(self, scope: str, epoch: int = 0) -> SecretKey:
        return self.seed.umbral_key(f"scope/{scope}/{epoch}")

    def scope_id(self, scope: str) -> str:
        return b64url(self.seed.derive(f"scope-id/{scope}", 16))

    def next_entry(self, issued: int = NOW, **changes: Any) -> str:
        """The next key-entry of the chain, not yet appended; `changes` replace members before it is signed."""
        seq = len(self.entries)
        claims: dict[str, Any] = self.common(wire.REGISTRY_AUDIENCE, issued) | {
            "role": self.role,
            "seq": seq,
            "prev": self.entry_id if seq else None,
            "identity_key": b64url(bytes(self.identity_key(seq).verify_key)),
            "name": self.name,
            "organisation": self.organisation,
        }
        if self.role is Role.PROXY:
            claims |= {"sealing_key": self.sealing_key(seq).public_key.b64, "endpoint": self.endpoint}
        else:
            claims |= {
                "verifying_key": self.signer(seq).verifying_key().b64,
                "receiving_key": self.receiving_key(seq).public_key().b64,
            }
        claims |= changes
        if seq and "possession" not in changes:
            unproven = st.KeyEntry.model_construct(**claims)
            claims["possession"] = b64url(self.identity_key(seq).sign(unproven.possession_message()))
        return st.sign(st.KeyEntry(**claims), self.identity_key(max(seq - 1, 0)))

    def rotate(self, issued: int = NOW) -> str:
        """Append the next key-entry and return it."""
        entry = self.next_entry(issued)
        self.entries.append(entry)
        return entry

    # Statements

    def common(self, audience: str, now: int = NOW) -> dict[str, Any]:
        """The members common to all statements, with a new `jti`."""
        return {"iss": self.did, "aud": audience, "iat": now, "jti": st.new_jti()}

    def sign(self, payload: st.Payload, *, seq: int | None = None) -> str:
        """Sign with the newest identity key, or with that of entry `seq`."""
        return st.sign(payload, self.identity_key(seq))

    def kid(self) -> str:
        return key_id(self.did, bytes(self.identity_key().verify_key))

    def scope_key(self, scope: str, epoch: int = 0, *, now: int = NOW, **changes: Any) -> str:
        claims = self.common(wire.REGISTRY_AUDIENCE, now) | {
            "scope": self.scope_id(scope),
            "epoch": epoch,
            "delegating_key": self.delegating_key(scope, epoch).public_key().b64,
        }
        return self.sign(st.ScopeKey(**claims | changes))

    def record(
        self,
        patient: TestParty,
        scope: str,
        content: bytes = b'{"resourceType":"AllergyIntolerance"}',
        *,
        epoch: int = 0,
        after: SealedRecord | None = None,
        record: str | None = None,
        grant: str | None = None,
        title: str = "A title",
        now: int = NOW,
        **changes: Any,
    ) -> SealedRecord:
        """Seal a record of `patient` by this author; `after` is the version before, `changes` go to the manifest."""
        record = record or (after.record if after is not None else str(uuid7()))
        version = after.version + 1 if after is not None else 1
        context = RecordContext(
            patient=patient.did,
            record=record,
            version=version,
            scope=patient.scope_id(scope),
            epoch=epoch,
            author=self.did,
        )
        key = RecordKey.generate()
        capsule, wrapped = key.wrap(patient.delegating_key(scope, epoch).public_key(), context)
        header = key.encrypt_header(
            {"length": len(content), "media_type": "application/fhir+json", "title": title}, context
        )
        body = b"".join(key.encrypt_body([content], len(content), context))
        claims: dict[str, Any] = self.common(patient.did, now) | {
            "record": record,
            "version": version,
            "prev": after.id if after is not None else None,
            "scope": context.scope,
            "epoch": epoch,
            "capsule": b64url(capsule.hash),
            "wrapped_key": b64url(sha256(wrapped)),
            "header": b64url(sha256(header)),
            "body": b64url(sha256(body)),
            "size": len(body),
            "commitment": b64url(key.commitment),
            "grant": grant,
        }
        manifest = self.sign(st.Manifest(**claims | changes))
        return SealedRecord(manifest, bytes(capsule), wrapped, header, body, record, version, context, key)

    def disclosure_request(
        self,
        patient: TestParty,
        scopes: Sequence[str] = ("allergies",),
        *,
        actions: Iterable[Action] = (Action.READ,),
        purpose: Purpose = Purpose.TREAT,
        lifetime: int = 30 * DAY,
        reason: str = "Planned treatment",
        now: int = NOW,
        **changes: Any,
    ) -> str:
        claims = self.common(patient.did, now)
        claims["sealed"] = _sealed(
            patient.receiving_key().public_key(), claims, {"scopes": list(scopes), "reason": reason}
        )
        claims |= {
            "exp": now + lifetime,
            "actions": tuple(sorted(actions)),
            "purpose": purpose,
            "recipient_entry": self.entry_id,
            "patient_entry": patient.entry_id,
        }
        return self.sign(st.DisclosureRequest(**claims | changes))

    def grant(
        self,
        recipient: TestParty,
        scopes: Sequence[str | tuple[str, int] | tuple[str, int, Sequence[str]]] = ("allergies",),
        *,
        proxies: Sequence[TestParty] = (),
        threshold: int = 1,
        actions: Iterable[Action] = (Action.READ,),
        purpose: Purpose = Purpose.TREAT,
        request: str | None = None,
        nbf: int | None = None,
        lifetime: int = 30 * DAY,
        now: int = NOW,
        **changes: Any,
    ) -> SignedGrant:
        """A grant with real kfrags. A scope is a name, (name, epoch), or (name, epoch, hashes of capsules)."""
        entries: list[tuple[str, int, Sequence[str] | None]] = []
        for scope in scopes:
            name, epoch, *limit = (scope, 0) if isinstance(scope, str) else scope
            entries.append((str(name), int(epoch), limit[0] if limit else None))  # type: ignore[arg-type]
        actions = tuple(sorted(actions))
        kfrags: dict[str, list[VerifiedKeyFrag]] = {}
        if Action.READ in actions:
            sets = [
                generate_kfrags(
                    self.delegating_key(name, epoch),
                    recipient.receiving_key().public_key(),
                    self.signer(),
                    threshold,
                    len(proxies),
                )
                for name, epoch, _ in entries
            ]
            kfrags = {proxy.did: [kfrags[index] for kfrags in sets] for index, proxy in enumerate(proxies)}
        claims = self.common(recipient.did, now)
        claims["sealed"] = _sealed(
            recipient.receiving_key().public_key(), claims, {"scopes": [name for name, _, _ in entries]}
        )
        claims |= {
            "nbf": now if nbf is None else nbf,
            "exp": now + lifetime,
            "request": request,
            "patient_entry": self.entry_id,
            "recipient_entry": recipient.entry_id,
            "actions": actions,
            "purpose": purpose,
            "scopes": tuple(
                st.GrantScope(
                    scope=self.scope_id(name),
                    epoch=epoch,
                    delegating_key=self.delegating_key(name, epoch).public_key().b64,
                    capsules=None if limit is None else tuple(limit),
                )
                for name, epoch, limit in entries
            ),
            "shares": None
            if not kfrags
            else st.GrantShares(
                threshold=threshold,
                proxies=tuple(
                    st.GrantProxy(did=did, kfrags=tuple(b64url(kfrag.hash) for kfrag in own))
                    for did, own in kfrags.items()
                ),
            ),
        }
        shares = {
            proxy.did: b64url(
                seal(proxy.sealing_key().public_key, b"".join(bytes(kfrag) for kfrag in kfrags[proxy.did]))
            )
            for proxy in proxies
            if kfrags
        }
        return SignedGrant(self.sign(st.Grant(**claims | changes)), kfrags, shares)

    def denial(
        self,
        recipient: TestParty,
        request: str,
        reason: DenialReason = DenialReason.UNSPECIFIED,
        *,
        now: int = NOW,
        **changes: Any,
    ) -> str:
        claims = self.common(recipient.did, now) | {"request": request, "reason": reason}
        return self.sign(st.Denial(**claims | changes))

    def reencryption_request(
        self,
        grant: str,
        wanted: Sequence[tuple[int, str]],
        *,
        lifetime: int = wire.REENCRYPTION_LIFETIME,
        now: int = NOW,
        **changes: Any,
    ) -> str:
        """Ask for capsules, each named by the index of the grant's scope entry and the capsule's hash."""
        claims = self.common(wire.PROXIES_AUDIENCE, now) | {
            "exp": now + lifetime,
            "grant": grant,
            "capsules": tuple(st.WantedCapsule(entry=entry, capsule=capsule) for entry, capsule in wanted),
        }
        return self.sign(st.ReencryptionRequest(**claims | changes))

    def receipt(
        self,
        audience: str,
        *,
        statement: str,
        grant: str,
        act: wire.ReceiptAct,
        cfrags: Sequence[bytes] | None = None,
        seq: int = 1,
        now: int = NOW,
        **changes: Any,
    ) -> str:
        claims = self.common(audience, now) | {
            "statement": statement,
            "grant": grant,
            "act": act,
            "seq": seq,
            "cfrags": None if cfrags is None else tuple(b64url(sha256(cfrag)) for cfrag in cfrags),
        }
        return self.sign(st.Receipt(**claims | changes))

    def log_erasure(self, audience: str, upto: int, *, now: int = NOW) -> str:
        """Have the texts of this party's events erased up to a number."""
        return self.sign(st.LogErasure(**self.common(audience, now), upto=upto))

    def revocation(
        self,
        recipient: TestParty,
        grant: str,
        floors: Sequence[tuple[str, int]] = (),
        *,
        now: int = NOW,
        **changes: Any,
    ) -> str:
        """Revoke; `floors` are names of scopes with the least epoch of their records from now on."""
        claims = self.common(recipient.did, now) | {
            "grant": grant,
            "epochs": tuple(st.EpochFloor(scope=self.scope_id(name), epoch=epoch) for name, epoch in floors),
        }
        return self.sign(st.Revocation(**claims | changes))


def random_hash() -> str:
    """A hash of nothing in particular."""
    return b64url(secrets.token_bytes(32))


def _sealed(key: PublicKey, claims: dict[str, Any], content: dict[str, Any]) -> str:
    around = {name: claims[name] for name in ("iss", "aud", "jti")}
    capsule, ciphertext = encrypt(key, canonical_json(around | content))
    return b64url(bytes(capsule) + ciphertext)
