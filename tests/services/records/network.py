"""The network's edge, as far as the records service can see: a registry that knows the parties of a test, and proxies
that really re-encrypt, each of which can be told to be slow, to fail, or to lie."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import unquote

import httpx

from shared import statements as st
from shared.crypto.signing import SigningKey
from shared.crypto.umbral import KFRAG_SIZE, Capsule, KeyFrag, PublicKey, VerifiedKeyFrag, accept_kfrag, reencrypt
from shared.encoding import b64url, from_b64url
from shared.identity import verify_chain
from shared.tokens import jwk, mint_access_token
from shared.transparency.checkpoints import cosign
from shared.transparency.errors import StaleSize
from shared.transparency.witnessing import AddCheckpoint, Known, judge
from shared.wire import RECORDS_AUDIENCE, Role
from shared.witness_client import SIZE_TYPE
from tests.services.signing_parties import TestClock, TestParty

REGISTRY = "http://registry.invalid"


class FakeRegistry:
    """Knows parties and signs access tokens."""

    def __init__(self, clock: TestClock) -> None:
        self._clock = clock
        self._key = SigningKey(bytes(31) + b"\x07")
        self.parties: dict[str, TestParty] = {}
        self.listed: list[TestParty] = []
        """The directory of proxies; while nobody is in it, the service publishes its log by itself."""
        self.away = False

    def party(self, role: Role, **details: Any) -> TestParty:
        """A new party that has signed up."""
        party = TestParty(role, **details)
        self.parties[party.did] = party
        return party

    def token(self, party: TestParty, *, audience: str = RECORDS_AUDIENCE) -> str:
        return mint_access_token(
            key=self._key,
            issuer=REGISTRY,
            subject=party.did,
            role=party.role,
            audience=audience,
            now=self._clock(),
        )

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("away")
        if request.url.path == "/v1/proxies":
            items = [
                {"did": party.did, "role": party.role, "seq": party.seq, "entries": party.entries}
                for party in self.listed
            ]
            return httpx.Response(200, json={"items": items})
        if request.url.path == "/.well-known/jwks.json":
            return httpx.Response(200, json={"keys": [jwk(self._key.verify_key)]})
        party = self.parties.get(unquote(request.url.path).removeprefix("/v1/parties/"))
        if party is None:
            return httpx.Response(404, json={})
        return httpx.Response(200, json={"entries": party.entries})


class Lie(StrEnum):
    """Ways in which a proxy's answer to a re-encryption request can be wrong."""

    OTHER_CFRAG = "other cfrag"
    TOO_FEW_CFRAGS = "too few cfrags"
    FOREIGN_SIGNATURE = "foreign signature"
    WRONG_AUDIENCE = "wrong audience"
    WRONG_STATEMENT = "wrong statement"
    WRONG_GRANT = "wrong grant"
    WRONG_ACT = "wrong act"
    NOT_JSON = "not JSON"
    TOO_LARGE = "too large"
    COMPRESSED = "compressed"
    DRIPPING = "dripping"
    BAD_TEXT = "bad text"
    UNEXPECTED = "unexpected"


@dataclass
class FakeProxy:
    """An honest proxy, unless told otherwise; answers are kept by statement, as the protocol asks."""

    party: TestParty
    registry: FakeRegistry
    down: bool = False
    status: int | None = None
    code: str = "grant_revoked"
    delay: float = 0
    lie: Lie | None = None
    before_answer: Callable[[], Any] | None = None
    calls: Counter[str] = field(default_factory=Counter)
    kfrags: dict[str, tuple[st.Grant, list[VerifiedKeyFrag]]] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    kept: dict[str, httpx.Response] = field(default_factory=dict)
    witnessed: Known | None = None

    @property
    def did(self) -> str:
        return self.party.did

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/witness/add-checkpoint":
            return self._witness(await request.aread())
        self.calls[request.url.path] += 1
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.down:
            raise httpx.ConnectError("down")
        if self.status is not None:
            return httpx.Response(self.status, json=_problem(self.status, self.code))
        body = json.loads(await request.aread())
        act = {
            "/v1/kfrags": self._store,
            "/v1/revocations": self._erase,
            "/v1/reencryptions": self._reencrypt,
        }[request.url.path]
        response = act(body)
        if self.before_answer is not None:
            await self.before_answer()
        return response

    def _witness(self, body: bytes) -> httpx.Response:
        submission = AddCheckpoint.parse(body)
        try:
            checkpoint = judge(self.witnessed, submission, submission.origin)
        except StaleSize as stale:
            return httpx.Response(409, headers={"content-type": SIZE_TYPE}, content=f"{stale.size}\n".encode())
        self.witnessed = Known(checkpoint.size, checkpoint.root)
        line = cosign(checkpoint, self.did, self.party.identity_key(), int(time.time()))
        return httpx.Response(200, headers={"content-type": "text/plain; charset=utf-8"}, content=line.encode())

    def _store(self, body: dict[str, Any]) -> httpx.Response:
        grant = st.verify_stored(body["grant"], st.Grant, self._issuer(body["grant"], st.Grant))
        if grant.id in self.erased:
            return httpx.Response(409, json=_problem(409, "grant_revoked"))
        data = self.party.sealing_key().open(from_b64url(body["sealed"]))
        patient, recipient = (self.registry.parties[did] for did in (grant.payload.iss, grant.payload.aud))
        kfrags = [
            accept_kfrag(
                KeyFrag.from_bytes(data[index * KFRAG_SIZE : (index + 1) * KFRAG_SIZE]),
                patient.signer().verifying_key(),
                PublicKey.from_bytes(from_b64url(entry.delegating_key)),
                recipient.receiving_key().public_key(),
            )
            for index, entry in enumerate(grant.payload.scopes)
        ]
        self.kfrags[grant.id] = (grant.payload, kfrags)
        return self._receipt(grant.payload.iss, statement=grant.id, grant=grant.id, act="stored")

    def _erase(self, body: dict[str, Any]) -> httpx.Response:
        revocation = st.verify_stored(
            body["revocation"], st.Revocation, self._issuer(body["revocation"], st.Revocation)
        )
        self.kfrags.pop(revocation.payload.grant, None)
        self.erased.add(revocation.payload.grant)
        return self._receipt(
            revocation.payload.iss, statement=revocation.id, grant=revocation.payload.grant, act="erased"
        )

    def _reencrypt(self, body: dict[str, Any]) -> httpx.Response:
        request = st.verify_stored(
            body["request"], st.ReencryptionRequest, self._issuer(body["request"], st.ReencryptionRequest)
        )
        payload = request.payload
        if payload.grant not in self.kfrags:
            return httpx.Response(404, json=_problem(404, "unknown_grant"))
        _, kfrags = self.kfrags[payload.grant]
        capsules = [Capsule.from_bytes(from_b64url(capsule)) for capsule in body["capsules"]]
        assert [b64url(capsule.hash) for capsule in capsules] == [wanted.capsule for wanted in payload.capsules]
        cfrags = [
            bytes(reencrypt(capsule, kfrags[wanted.entry]))
            for capsule, wanted in zip(capsules, payload.capsules, strict=True)
        ]
        claims: dict[str, Any] = {"statement": request.id, "grant": payload.grant, "act": "reencrypted"}
        audience, signer, listed = payload.iss, self.party, list(cfrags)
        match self.lie:
            case Lie.OTHER_CFRAG:
                cfrags[0] = bytes(reencrypt(capsules[0], kfrags[0]))
            case Lie.TOO_FEW_CFRAGS:
                cfrags = listed = cfrags[:-1] if len(cfrags) > 1 else cfrags * 2
            case Lie.FOREIGN_SIGNATURE:
                signer = TestParty(Role.PROXY)
            case Lie.WRONG_AUDIENCE:
                audience = self.registry.party(Role.RECIPIENT).did
            case Lie.WRONG_STATEMENT:
                claims["statement"] = payload.grant
            case Lie.WRONG_GRANT:
                claims["grant"] = request.id
            case Lie.WRONG_ACT:
                claims["act"], listed = "stored", None
            case Lie.NOT_JSON:
                return httpx.Response(200, content=b"<html>")
            case Lie.TOO_LARGE:
                return httpx.Response(200, content=b" " * 300_000)
            case Lie.COMPRESSED:
                return httpx.Response(200, headers={"content-encoding": "gzip"}, content=_raw(b"\x1f\x8b"))
            case Lie.DRIPPING:
                return httpx.Response(200, content=_drip())
            case Lie.BAD_TEXT:
                receipt = signer.receipt(audience, cfrags=listed, **claims)
                return httpx.Response(200, json={"receipt": receipt, "cfrags": ["!" * 479 for _ in cfrags]})
            case Lie.UNEXPECTED:
                # What connecting raises for an address that can be none.
                raise OverflowError("a secret")
        receipt = signer.receipt(audience, cfrags=listed, **claims)
        return httpx.Response(200, json={"receipt": receipt, "cfrags": [b64url(cfrag) for cfrag in cfrags]})

    def _receipt(self, audience: str, *, statement: str, grant: str, act: Any) -> httpx.Response:
        if statement not in self.kept or self.lie is not None:
            signer = TestParty(Role.PROXY) if self.lie is Lie.FOREIGN_SIGNATURE else self.party
            receipt = signer.receipt(audience, statement=statement, grant=grant, act=act, seq=1 + len(self.kept))
            self.kept[statement] = httpx.Response(201, json={"receipt": receipt})
        return httpx.Response(201, content=self.kept[statement].content)

    def _issuer(self, token: str, kind: type[st.Payload]) -> Any:
        did = st.unverified_issuer(token, kind)
        return verify_chain(did, self.registry.parties[did].entries)


class Network(httpx.AsyncBaseTransport):
    """Brings requests to the registry and the proxies, by host."""

    def __init__(self, registry: FakeRegistry) -> None:
        self._registry = registry
        self.proxies: dict[str, FakeProxy] = {}

    def proxy(self) -> FakeProxy:
        """One more proxy that has signed up."""
        host = f"proxy-{len(self.proxies) + 1}.invalid"
        party = self._registry.party(Role.PROXY, endpoint=f"http://{host}")
        proxy = self.proxies[host] = FakeProxy(party, self._registry)
        return proxy

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "registry.invalid":
            return await self._registry.answer(request)
        response = await self.proxies[request.url.host].answer(request)
        if not isinstance(response.stream, httpx.ByteStream):
            return response
        # As from a real connection: read once, piece by piece.
        return httpx.Response(response.status_code, headers=response.headers, stream=_Stream(response.content))


class _Stream(httpx.AsyncByteStream):
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> Any:
        yield self._data


def _problem(status: int, code: str) -> dict[str, Any]:
    return {"type": f"urn:pcehr:problem:{code}", "title": "T", "status": status, "detail": "D", "code": code}


async def _raw(data: bytes) -> Any:
    yield data


async def _drip() -> Any:
    while True:
        yield b" "
        await asyncio.sleep(0.05)
