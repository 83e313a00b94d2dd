"""Parties with fixed seeds for tests of statements, chains and tokens."""

from __future__ import annotations

from typing import Any

from shared import statements as st
from shared import wire
from shared.crypto.derivation import Seed
from shared.crypto.sealing import SealingKey
from shared.crypto.signing import SigningKey
from shared.did import did_from_key
from shared.encoding import b64url

NOW = 1_800_000_000


class SeededParty:
    """Makes statements; every claim may be overridden, so that one thing at a time can be made wrong."""

    def __init__(self, number: int, role: wire.Role = wire.Role.PATIENT) -> None:
        self.seed = Seed.from_bytes(bytes([number]) * 32)
        self.role = role
        self.did = did_from_key(bytes(self.identity(0).verify_key))

    def identity(self, seq: int = 0) -> SigningKey:
        return SigningKey(self.seed.derive(f"identity/{seq}", 32))

    def key_entry_claims(self, seq: int = 0, prev: str | None = None, **overrides: Any) -> dict[str, Any]:
        claims: dict[str, Any] = {
            "iss": self.did,
            "aud": wire.REGISTRY_AUDIENCE,
            "iat": NOW + seq,
            "jti": st.new_jti(),
            "role": self.role,
            "seq": seq,
            "identity_key": b64url(bytes(self.identity(seq).verify_key)),
        }
        if prev is not None:
            claims["prev"] = prev
        if self.role is wire.Role.PROXY:
            public = SealingKey(self.seed.derive(f"sealing/{seq}", 32)).public_key
            claims |= {"sealing_key": b64url(bytes(public)), "endpoint": "http://127.0.0.1:8411"}
        else:
            claims["verifying_key"] = self.seed.umbral_key(f"signer/{seq}").public_key().b64
            claims["receiving_key"] = self.seed.umbral_key(f"receiving/{seq}").public_key().b64
        if self.role is wire.Role.RECIPIENT:
            claims["name"] = "Demo Practice"
        return claims | overrides

    def key_entry(self, seq: int = 0, prev: str | None = None, **overrides: Any) -> str:
        claims = self.key_entry_claims(seq, prev, **overrides)
        if seq and "possession" not in overrides:
            unproven = st.KeyEntry.model_construct(**claims)
            claims["possession"] = b64url(self.identity(seq).sign(unproven.possession_message()))
        return st.sign(st.KeyEntry(**claims), self.identity(max(seq - 1, 0)))

    def chain(self, length: int = 1) -> list[str]:
        tokens: list[str] = []
        for seq in range(length):
            tokens.append(self.key_entry(seq, id_of(tokens[-1]) if tokens else None))
        return tokens

    def denial(self, **overrides: Any) -> st.Denial:
        claims: dict[str, Any] = {
            "iss": self.did,
            "aud": SeededParty(2).did,
            "iat": NOW,
            "jti": st.new_jti(),
            "request": b64url(bytes(32)),
            "reason": wire.DenialReason.TOO_BROAD,
        }
        return st.Denial(**claims | overrides)

    def reencryption_request(self, **overrides: Any) -> st.ReencryptionRequest:
        claims: dict[str, Any] = {
            "iss": self.did,
            "aud": wire.PROXIES_AUDIENCE,
            "iat": NOW,
            "exp": NOW + 300,
            "jti": st.new_jti(),
            "grant": b64url(bytes(32)),
            "capsules": (st.WantedCapsule(entry=0, capsule=b64url(bytes(32))),),
        }
        return st.ReencryptionRequest(**claims | overrides)


def id_of(token: str) -> str:
    from shared.encoding import sha256

    return b64url(sha256(token.rpartition(".")[0].encode("ascii")))
