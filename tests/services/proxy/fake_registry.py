"""A registry at the network's edge: serves chains of keys, takes enrolments, mints tokens, and can be away."""

from __future__ import annotations

import json
from typing import Any

import httpx

from shared.crypto.derivation import Seed
from shared.crypto.signing import SigningKey
from shared.tokens import jwk, mint_access_token
from shared.wire import Role
from tests.services.signing_parties import NOW, TestParty

URL = "http://registry.test"


class FakeRegistry:
    """Answers over httpx. `away` makes it unreachable; `answer_to_enrolment` is what a proxy's sign-up gets."""

    def __init__(self) -> None:
        self.parties: dict[str, TestParty] = {}
        self.chains: dict[str, list[str]] = {}
        self.away = False
        self.logs: dict[str, str] = {}
        """Origins by kind, as discovery names them; without them there is no discovery."""
        self.lie: httpx.Response | None = None
        """What it answers to everybody who asks for a chain of keys, whatever the truth is."""
        self.answer_to_enrolment = httpx.Response(201, json={})
        self.enrolments: list[str] = []
        self._key = SigningKey(Seed.generate().derive("token", 32))

    def add(self, *parties: TestParty) -> None:
        for party in parties:
            self.parties[party.did] = party

    def token(self, party: TestParty, audience: str, *, now: int = NOW) -> str:
        return mint_access_token(
            key=self._key, issuer=URL, subject=party.did, role=Role(party.role), audience=audience, now=now
        )

    @property
    def transport(self) -> httpx.AsyncBaseTransport:
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("away", request=request)
        path = request.url.path
        if path == "/v1/proxies":
            self.enrolments.append(json.loads(request.content)["key_entry"])
            return httpx.Response(self.answer_to_enrolment.status_code, content=self.answer_to_enrolment.content)
        if path == "/.well-known/pcehr" and self.logs:
            return httpx.Response(200, json=self._discovery())
        if path == "/.well-known/jwks.json":
            return httpx.Response(200, json={"keys": [jwk(self._key.verify_key)]})
        if self.lie is not None:
            return httpx.Response(self.lie.status_code, content=self.lie.content)
        chain = self._chain(path.removeprefix("/v1/parties/"))
        return httpx.Response(404, json={}) if chain is None else httpx.Response(200, json={"entries": chain})

    def _discovery(self) -> dict[str, Any]:
        return {
            "issuer": URL,
            "token_endpoint": f"{URL}/v1/oauth/token",
            "jwks_uri": f"{URL}/.well-known/jwks.json",
            "records_url": "http://records.test",
            "threshold": 2,
            "registry_log": self.logs["registry"],
            "records_log": self.logs["records"],
            "witness_faults": 0,
        }

    def _chain(self, did: str) -> list[str] | None:
        if did in self.chains:
            return self.chains[did]
        return self.parties[did].entries if did in self.parties else None


def problem(status: int, code: str) -> httpx.Response:
    """A problem as the registry answers with; only the code matters."""
    body: dict[str, Any] = {"type": f"urn:pcehr:problem:{code}", "status": status, "code": code}
    return httpx.Response(status, json=body)
