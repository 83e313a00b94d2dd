"""Parties with keys, and statements they sign, for the tests of what is pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from client.keyring import Keyring
from client.records import NewRecord, Placement, SealedRecord, seal_record
from shared import statements as st
from shared import wire
from shared.encoding import b64url, sha256
from shared.identity import VerifiedParty, verify_chain
from shared.schemas.records import RecordOut
from shared.wire import Role

NOW = 1_800_000_000
RECORD = "0198f000-0000-7000-8000-000000000001"
PROXY_KEY = "RjOmnKP1ox5-j45xLbBpS2TNZO_k-avSvwgBSUaVGw0"
"""Some X25519 key; nothing is sealed to it."""


class Party:
    """A party with its keyring and its chain of keys."""

    def __init__(self, role: Role, name: str = "Demo Hospital") -> None:
        self.role, self.name = role, name
        self.keyring = Keyring.generate()
        self.did = self.keyring.did
        self.tokens = [self.next_entry(0)]

    def next_entry(self, seq: int) -> str:
        claims: dict[str, Any] = {
            "iss": self.did,
            "aud": wire.REGISTRY_AUDIENCE,
            "iat": NOW - 1000 + seq,
            "jti": st.new_jti(),
            "role": self.role,
            "seq": seq,
            "prev": id_of(self.tokens[seq - 1]) if seq else None,
            "identity_key": self.keyring.identity(seq).verify_key.b64,
            "name": self.name if self.role is Role.RECIPIENT else None,
        }
        if self.role is Role.PROXY:
            claims |= {"sealing_key": PROXY_KEY, "endpoint": "http://proxy.test"}
        else:
            claims["verifying_key"] = self.keyring.signer(seq).verifying_key().b64
            claims["receiving_key"] = self.keyring.receiving(seq).public_key().b64
        if seq:
            message = st.KeyEntry.model_construct(**claims).possession_message()
            claims["possession"] = b64url(self.keyring.identity(seq).sign(message))
        return st.sign(st.KeyEntry(**claims), self.keyring.identity(max(seq - 1, 0)))

    def rotate(self) -> None:
        self.tokens.append(self.next_entry(len(self.tokens)))

    @property
    def party(self) -> VerifiedParty:
        return verify_chain(self.did, self.tokens)

    def sign(self, kind: type[st.P], audience: str, *, signer: Party | None = None, **members: Any) -> str:
        claims: dict[str, Any] = {"iss": self.did, "aud": audience, "iat": NOW, "jti": st.new_jti()} | members
        return st.sign(kind(**claims), (signer or self).keyring.identity(len(self.tokens) - 1))

    def verified(self, kind: type[st.P], audience: str, **members: Any) -> st.Verified[st.P]:
        return st.verify_stored(self.sign(kind, audience, **members), kind, self.party)


def id_of(token: str) -> str:
    return b64url(sha256(token.rpartition(".")[0].encode()))


def manifest_of(patient: Party, *, author: Party | None = None, **members: Any) -> st.Verified[st.Manifest]:
    """A manifest that stands alone, for what looks at versions only."""
    some = b64url(bytes(32))
    claims = {
        "record": RECORD,
        "version": 1,
        "scope": patient.keyring.scope_id("allergies"),
        "epoch": 0,
        "capsule": some,
        "wrapped_key": some,
        "header": some,
        "body": some,
        "size": 272,
        "commitment": some,
    }
    return (author or patient).verified(st.Manifest, patient.did, **(claims | members))


def grant_to(patient: Party, recipient: Party, *, signer: Party | None = None, **members: Any) -> str:
    """A grant without shares, on the scope `allergies` unless told otherwise."""
    entry = st.GrantScope(
        scope=patient.keyring.scope_id("allergies"),
        epoch=0,
        delegating_key=patient.keyring.delegating("allergies", 0).public_key().b64,
    )
    claims: dict[str, Any] = {
        "nbf": NOW - 500,
        "exp": NOW + 500,
        "patient_entry": patient.party.current.id,
        "recipient_entry": recipient.party.current.id,
        "actions": (wire.Action.AMEND, wire.Action.APPEND),
        "purpose": wire.Purpose.TREAT,
        "scopes": (entry,),
        "sealed": b64url(bytes(200)),
    }
    return patient.sign(st.Grant, recipient.did, signer=signer, **(claims | members))


def sealed(
    patient: Party,
    folder: Path,
    *,
    author: Party | None = None,
    body: bytes | Path = b"penicillin",
    epoch: int = 0,
    **placement: Any,
) -> SealedRecord:
    """A record of the patient, by the author or by the patient."""
    writer = author or patient
    members = {"record_id": RECORD} | placement
    return seal_record(
        NewRecord(body=body, media_type="text/plain", scope="allergies", title="A title"),
        Placement(
            patient=patient.did,
            scope_id=patient.keyring.scope_id("allergies"),
            epoch=epoch,
            delegating_key=patient.keyring.delegating("allergies", epoch).public_key(),
            **members,
        ),
        author=writer.did,
        key=writer.keyring.identity(len(writer.tokens) - 1),
        now=NOW,
        folder=folder,
    )


def shown(record: SealedRecord, authority: str | None = None, **changes: Any) -> RecordOut:
    """The record as the service shows it, with whatever the service changes."""
    members = record.upload.model_dump() | {"authority": authority} | changes
    return RecordOut(**members)
