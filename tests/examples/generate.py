"""Writes `shared/schemas/examples.json`: one consistent set of real statements for the OpenAPI documents.

Run with `python -m tests.examples.generate`. The seeds are public test values, so nobody must ever use these parties
for real. Key-entries and scope-keys never lapse and can be posted from Swagger UI as they are; the others show the
form.
Umbral is randomised, so every run writes other capsules and kfrags.
"""

from __future__ import annotations

import json
from pathlib import Path

from shared import statements as st
from shared import wire
from shared.crypto.derivation import Seed
from shared.crypto.record import RecordContext, RecordKey, body_ciphertext_size
from shared.crypto.sealing import SealingKey, seal
from shared.crypto.signing import SigningKey
from shared.crypto.umbral import KfragSigner, encrypt, generate_kfrags
from shared.did import did_from_key
from shared.encoding import b64url, canonical_json, sha256

TARGET = Path("shared/schemas/examples.json")
ISSUED = 1_790_000_000
"""Some second in September 2026: a key-entry may be old, but not from the future."""


class ExampleParty:
    """A party with a seed that everybody knows."""

    def __init__(self, number: int, role: wire.Role) -> None:
        self.seed = Seed.from_bytes(bytes([number]) * 32)
        self.role = role
        self.did = did_from_key(bytes(self.identity(0).verify_key))

    def identity(self, seq: int) -> SigningKey:
        return SigningKey(self.seed.derive(f"identity/{seq}", 32))

    def jti(self, label: str) -> str:
        return b64url(self.seed.derive(f"example-jti/{label}", 16))

    def sign(self, payload: st.Payload) -> str:
        return st.sign(payload, self.identity(0))

    def key_entry(self, seq: int = 0, prev: str | None = None) -> str:
        identity = self.identity(seq)
        claims: dict[str, object] = {
            "iss": self.did,
            "aud": wire.REGISTRY_AUDIENCE,
            "iat": ISSUED + seq,
            "jti": self.jti(f"key-entry-{seq}"),
            "role": self.role,
            "seq": seq,
            "prev": prev,
            "identity_key": b64url(bytes(identity.verify_key)),
        }
        if self.role is wire.Role.PROXY:
            sealing = SealingKey(self.seed.derive(f"sealing/{seq}", 32))
            claims |= {
                "sealing_key": b64url(bytes(sealing.public_key)),
                "endpoint": "http://127.0.0.1:8411",
                "name": "Demo proxy",
            }
        else:
            claims |= {
                "verifying_key": self.seed.umbral_key(f"signer/{seq}").public_key().b64,
                "receiving_key": self.seed.umbral_key(f"receiving/{seq}").public_key().b64,
            }
        if self.role is wire.Role.RECIPIENT:
            claims |= {"name": "Demo Practice", "organisation": "Demo Hospital"}
        if seq:
            unproven = st.KeyEntry.model_construct(**claims)  # type: ignore[arg-type]
            claims["possession"] = b64url(identity.sign(unproven.possession_message()))
        return st.sign(st.KeyEntry(**claims), self.identity(max(seq - 1, 0)))  # type: ignore[arg-type]


def id_of(token: str) -> str:
    """The id of a statement: SHA-256 of its signing input."""
    return b64url(sha256(token.rpartition(".")[0].encode("ascii")))


def make() -> dict[str, object]:
    """One consistent set: a patient, a recipient, a proxy, a record, a request, a grant, and what follows from it."""
    patient, recipient = ExampleParty(0xA1, wire.Role.PATIENT), ExampleParty(0xA2, wire.Role.RECIPIENT)
    proxy = ExampleParty(0xA3, wire.Role.PROXY)
    patient_entry, recipient_entry, proxy_entry = patient.key_entry(), recipient.key_entry(), proxy.key_entry()
    scope = b64url(patient.seed.derive("scope-id/allergies", 16))
    delegating = patient.seed.umbral_key("scope/allergies/0")
    receiving = recipient.seed.umbral_key("receiving/0").public_key()

    def common(issuer: ExampleParty, audience: str, label: str) -> dict[str, object]:
        return {"iss": issuer.did, "aud": audience, "iat": ISSUED, "jti": issuer.jti(label)}

    def sealed_to(key: object, claims: dict[str, object], content: dict[str, object]) -> str:
        around = {name: claims[name] for name in ("iss", "aud", "jti")}
        capsule, ciphertext = encrypt(key, canonical_json(around | content))  # type: ignore[arg-type]
        return b64url(bytes(capsule) + ciphertext)

    body = b'{"resourceType":"AllergyIntolerance","id":"example"}'
    record_id = "0198f000-0000-7000-8000-000000000001"
    context = RecordContext(patient=patient.did, record=record_id, version=1, scope=scope, epoch=0, author=patient.did)
    key = RecordKey.generate()
    capsule, wrapped = key.wrap(delegating.public_key(), context)
    header = key.encrypt_header({"length": len(body), "media_type": "application/fhir+json"}, context)
    ciphertext = b"".join(key.encrypt_body([body], len(body), context))
    if len(ciphertext) != body_ciphertext_size(len(body)):
        raise ValueError("the size of the ciphertext is not what was foretold")
    manifest = patient.sign(
        st.Manifest(
            **common(patient, patient.did, "manifest"),  # type: ignore[arg-type]
            record=record_id,
            version=1,
            scope=scope,
            epoch=0,
            capsule=b64url(capsule.hash),
            wrapped_key=b64url(sha256(wrapped)),
            header=b64url(sha256(header)),
            body=b64url(sha256(ciphertext)),
            size=len(ciphertext),
            commitment=b64url(key.commitment),
        )
    )
    request_claims = common(recipient, patient.did, "request")
    request = recipient.sign(
        st.DisclosureRequest(
            **request_claims,  # type: ignore[arg-type]
            exp=ISSUED + 30 * 86_400,
            actions=(wire.Action.READ,),
            purpose=wire.Purpose.TREAT,
            recipient_entry=id_of(recipient_entry),
            patient_entry=id_of(patient_entry),
            sealed=sealed_to(
                patient.seed.umbral_key("receiving/0").public_key(),
                request_claims,
                {"scopes": ["allergies"], "reason": "Planned treatment"},
            ),
        )
    )
    signer = KfragSigner(patient.seed.umbral_key("signer/0"))
    kfrag = generate_kfrags(delegating, receiving, signer, 1, 1)[0]
    grant_claims = common(patient, recipient.did, "grant")
    grant = patient.sign(
        st.Grant(
            **grant_claims,  # type: ignore[arg-type]
            nbf=ISSUED,
            exp=ISSUED + 30 * 86_400,
            request=id_of(request),
            patient_entry=id_of(patient_entry),
            recipient_entry=id_of(recipient_entry),
            actions=(wire.Action.READ,),
            purpose=wire.Purpose.TREAT,
            scopes=(st.GrantScope(scope=scope, epoch=0, delegating_key=delegating.public_key().b64),),
            shares=st.GrantShares(
                threshold=1, proxies=(st.GrantProxy(did=proxy.did, kfrags=(b64url(sha256(bytes(kfrag))),)),)
            ),
            sealed=sealed_to(receiving, grant_claims, {"scopes": ["allergies"]}),
        )
    )
    sealing = SealingKey(proxy.seed.derive("sealing/0", 32))
    return {
        "patient_did": patient.did,
        "recipient_did": recipient.did,
        "proxy_did": proxy.did,
        "patient_key_entry": patient_entry,
        "recipient_key_entry": recipient_entry,
        "proxy_key_entry": proxy_entry,
        "recipient_rotation": recipient.key_entry(1, id_of(recipient_entry)),
        "scope_key": patient.sign(
            st.ScopeKey(
                **common(patient, wire.REGISTRY_AUDIENCE, "scope-key"),  # type: ignore[arg-type]
                scope=scope,
                epoch=0,
                delegating_key=delegating.public_key().b64,
            )
        ),
        "record": {
            "manifest": manifest,
            "capsule": b64url(bytes(capsule)),
            "wrapped_key": b64url(wrapped),
            "header": b64url(header),
            "body": b64url(ciphertext),
        },
        "capsule": b64url(bytes(capsule)),
        "disclosure_request": request,
        "denial": patient.sign(
            st.Denial(
                **common(patient, recipient.did, "denial"),  # type: ignore[arg-type]
                request=id_of(request),
                reason=wire.DenialReason.TOO_BROAD,
            )
        ),
        "grant": grant,
        "grant_id": id_of(grant),
        "sealed_share": b64url(seal(sealing.public_key, bytes(kfrag))),
        "reencryption_request": recipient.sign(
            st.ReencryptionRequest(
                **common(recipient, wire.PROXIES_AUDIENCE, "reencryption"),  # type: ignore[arg-type]
                exp=ISSUED + 300,
                grant=id_of(grant),
                capsules=(st.WantedCapsule(entry=0, capsule=b64url(capsule.hash)),),
            )
        ),
        "revocation": patient.sign(
            st.Revocation(
                **common(patient, recipient.did, "revocation"),  # type: ignore[arg-type]
                grant=id_of(grant),
                epochs=(st.EpochFloor(scope=scope, epoch=1),),
            )
        ),
        "log_erasure": patient.sign(
            st.LogErasure(**common(patient, wire.RECORDS_AUDIENCE, "log-erasure"), upto=1)  # type: ignore[arg-type]
        ),
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(make(), indent=1) + "\n", "utf-8")
