"""Logs with real trees, keys and cosignatures, held in memory, and a patient whose records went through them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from client.audit.chain import RECORDS, CheckedLog, Inclusion, Proven, check_log
from client.audit.story import Material, OwnGrant
from shared import statements as st
from shared import wire
from shared.crypto.signing import SigningKey
from shared.encoding import b64url, sha256
from shared.statements import Receipt, Verified
from shared.transparency.checkpoints import (
    Kind,
    VerifiedCheckpoint,
    cosign,
    origin_of,
    sign_checkpoint,
    verify_checkpoint,
    with_cosignatures,
)
from shared.transparency.entries import Event, commitment
from shared.transparency.merkle import Frontier, leaf_hash, prove_consistency, prove_inclusion
from shared.wire import Role
from tests.unit.client.parties import NOW, Party, grant_to, id_of

HOUR = 3_600


def hashed(text: str) -> str:
    """Some hash: a capsule, or a statement nobody looks at."""
    return b64url(sha256(text.encode()))


@dataclass(frozen=True)
class Shown:
    """An event as a service shows it."""

    n: int
    commitment: str
    event: str | None
    salt: str | None


class MemoryLog:
    """One service's log: a tree, and a chain of events for each subject."""

    def __init__(self, kind: Kind, witnesses: Sequence[Party] = ()) -> None:
        self.kind, self.witnesses = kind, list(witnesses)
        self.key = SigningKey.generate()
        self.origin = origin_of(kind, self.key.verify_key)
        self.chains: dict[str, list[Shown]] = {}
        self.places: dict[str, int] = {}
        self._salts = 0
        self.frontier = Frontier()
        self.nodes: dict[tuple[int, int], bytes] = {}

    def append(self, subject: str, **members: Any) -> Shown:
        """Write an event down and give it its place."""
        chain = self.chains.setdefault(subject, [])
        claims: dict[str, Any] = {"at": NOW, "outcome": "done"} | members
        before = chain[-1].commitment if chain else None
        event = Event(subject=subject, n=len(chain) + 1, prev=before, **claims)
        self._salts += 1
        salt = sha256(f"{self.origin} {self._salts}".encode())
        hidden = commitment(salt, event.canonical())
        shown = Shown(event.n, b64url(hidden), event.canonical().decode(), b64url(salt))
        chain.append(shown)
        self.add_leaf(shown.commitment, leaf_hash(hidden))
        return shown

    def add_leaf(self, name: str, leaf: bytes) -> None:
        self.places[name] = self.frontier.size
        self.nodes[0, self.frontier.size] = leaf
        for level, index, node in self.frontier.append(leaf):
            self.nodes[level, index] = node

    def shown(self, subject: str) -> list[Shown]:
        """The subject's events, newest first."""
        return self.chains.get(subject, [])[::-1]

    def note(self, *, at: int = NOW, cosigners: Iterable[Party] | None = None) -> str:
        """The checkpoint of now, with the witnesses' cosignatures."""
        text = sign_checkpoint(self.key, self.kind, self.frontier.size, self.frontier.root())
        checkpoint = verify_checkpoint(text, self.origin)
        who = self.witnesses if cosigners is None else cosigners
        lines = [cosign(checkpoint, one.did, one.keyring.identity(0), at) for one in who]
        return with_cosignatures(text, lines) if lines else text

    def checkpoint(self, **how: Any) -> VerifiedCheckpoint:
        return verify_checkpoint(self.note(**how), self.origin)

    def inclusion(self, name: str) -> Inclusion:
        index = self.places[name]
        return Inclusion(index, prove_inclusion(index, self.frontier.size, lambda level, at: self.nodes[level, at]))

    def consistency(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        to = self.frontier.size if new is None else new
        return prove_consistency(old, to, lambda level, at: self.nodes[level, at])

    def proven(self, subject: str, numbers: Iterable[int] | None = None, **how: Any) -> Proven:
        """Proofs of a subject's events, or of some of them, under the checkpoint of now."""
        wanted = set(range(1, len(self.chains.get(subject, [])) + 1) if numbers is None else numbers)
        items = {one.n: self.inclusion(one.commitment) for one in self.chains.get(subject, []) if one.n in wanted}
        return Proven(self.checkpoint(**how), items)

    def checked(self, service: str, subject: str, **how: Any) -> CheckedLog:
        return check_log(service, subject, self.shown(subject), [self.proven(subject)], **how)


@dataclass
class Case:
    """A patient, a recipient, three proxies with two needed, and what their logs say; everything is in order.

    The grant is given, its shares are stored, and one disclosure of two records is served by the first two proxies.
    """

    now: int = NOW + HOUR
    patient: Party = field(default_factory=lambda: Party(Role.PATIENT))
    recipient: Party = field(default_factory=lambda: Party(Role.RECIPIENT))
    proxies: list[Party] = field(default_factory=lambda: [Party(Role.PROXY) for _ in range(3)])
    threshold: int = 2
    records: MemoryLog = field(init=False)
    logs: dict[str, MemoryLog] = field(init=False)
    grants: dict[str, OwnGrant] = field(default_factory=dict)
    capsules: tuple[str, ...] = field(default_factory=lambda: (hashed("capsule one"), hashed("capsule two")))
    statement: str = field(default_factory=lambda: hashed("re-encryption request"))

    def __post_init__(self) -> None:
        self.records = MemoryLog("records", self.proxies)
        self.logs = {proxy.did: MemoryLog("proxy") for proxy in self.proxies}
        self.grant = self.give()
        self.disclose(self.proxies[:2])

    # --- what happens ---------------------------------------------------------------------------------------------

    def make_grant(self, **members: Any) -> Verified[st.Grant]:
        shares = st.GrantShares(
            threshold=self.threshold,
            proxies=tuple(st.GrantProxy(did=one.did, kfrags=(hashed(one.did),)) for one in self.proxies),
        )
        claims: dict[str, Any] = {"actions": (wire.Action.READ,), "shares": shares, "exp": NOW + 90 * 86_400}
        return st.verify_stored(
            grant_to(self.patient, self.recipient, **(claims | members)), st.Grant, self.patient.party
        )

    def give(self, **members: Any) -> Verified[st.Grant]:
        """A grant, logged, with every proxy's share stored and a receipt of each."""
        grant = self.make_grant(**members)
        self.say("granted", grant=grant.id, statement=grant.id, actor=self.patient.did)
        receipts = []
        for proxy in self.proxies:
            event = self.say("stored", proxy, grant=grant.id, statement=grant.id, actor=self.patient.did)
            receipts.append(self.receipt(proxy, "stored", grant.id, grant.id, event.n))
            self.say("stored", grant=grant.id, statement=grant.id, actor=proxy.did)
        self.grants[grant.id] = OwnGrant(grant, receipts=tuple(receipts))
        return grant

    def say(self, event: str, proxy: Party | None = None, **members: Any) -> Shown:
        """An event of the records service, or of a proxy, in the patient's log."""
        log = self.records if proxy is None else self.logs[proxy.did]
        return log.append(self.patient.did, event=event, **members)

    def release(self, proxy: Party, **members: Any) -> Shown:
        return self.say("reencrypted", proxy, **(self._terms() | members))

    def disclose(self, proxies: Iterable[Party], **members: Any) -> Shown:
        for proxy in proxies:
            self.release(proxy, **{name: value for name, value in members.items() if name != "outcome"})
        return self.say("disclosed", **(self._terms() | members))

    def revoke(self, *, at: int = NOW + 600, silent: Sequence[Party] = ()) -> Verified[st.Revocation]:
        """The grant's end, heard of by all proxies but the silent ones."""
        revocation = self.patient.verified(st.Revocation, self.recipient.did, grant=self.grant.id, epochs=(), iat=at)
        terms = {"grant": self.grant.id, "statement": revocation.id, "at": at}
        self.say("revoked", actor=self.patient.did, **terms)
        receipts = list(self.grants[self.grant.id].receipts)
        for proxy in self.proxies:
            if proxy not in silent:
                event = self.say("erased", proxy, actor=self.patient.did, **terms)
                receipts.append(self.receipt(proxy, "erased", revocation.id, self.grant.id, event.n, iat=at))
                self.say("erased", actor=proxy.did, **terms)
        self.grants[self.grant.id] = replace(
            self.grants[self.grant.id], revocation=revocation, receipts=tuple(receipts)
        )
        return revocation

    def receipt(
        self, proxy: Party, act: wire.ReceiptAct, statement: str, grant: str, seq: int, **members: Any
    ) -> Verified[Receipt]:
        return proxy.verified(Receipt, self.patient.did, statement=statement, grant=grant, act=act, seq=seq, **members)

    # --- what is made of it ---------------------------------------------------------------------------------------

    def material(self, *, without: Sequence[Party] = (), without_records: bool = False) -> Material:
        """Everything checked, but the logs of those that are away."""
        subject = self.patient.did
        return Material(
            patient=subject,
            began=self.now,
            now=self.now,
            records=None if without_records else self.records.checked(RECORDS, subject),
            proxies={
                did: log.checked(did, subject)
                for did, log in self.logs.items()
                if did not in {one.did for one in without}
            },
            grants=self.grants,
        )

    def _terms(self) -> dict[str, Any]:
        return {
            "grant": self.grant.id,
            "statement": self.statement,
            "capsules": self.capsules,
            "actor": self.recipient.did,
        }


__all__ = ["HOUR", "NOW", "Case", "MemoryLog", "Party", "Shown", "hashed", "id_of"]
