"""A whole platform in memory, behind httpx's transport: what the client's tests talk to instead of a network.

It stores and forwards and checks next to nothing, because what is under test is the client, which must not rely on
anything a service says. Umbral is real. `tamper` and the flags of the proxies make the services dishonest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import httpx

from client.keyring import Keyring
from client.patient import Patient
from client.recipient import Recipient
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from shared import statements as st
from shared import wire
from shared.crypto import umbral
from shared.crypto.derivation import Seed
from shared.crypto.sealing import SealingKey
from shared.crypto.signing import SigningKey
from shared.crypto.umbral import Capsule, VerifiedKeyFrag
from shared.did import did_from_key
from shared.encoding import b64url, from_b64url, sha256
from shared.jose import parse
from shared.transparency.checkpoints import origin_of
from shared.transparency.entries import key_entry_data, key_label, scope_label
from tests.unit.client.memory_log import LeafUnknown, MemoryLog, MemoryWitness, NotPublished

NOW = 1_800_000_000
DAY = 86_400
REGISTRY = "http://registry.test"
RECORDS = "http://records.test"

Answer = dict[str, Any]


class Clock:
    """Time stands still unless a test moves it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


def id_of(token: str) -> str:
    return b64url(sha256(token.rpartition(".")[0].encode()))


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(from_b64url(token.split(".")[1]))
    return claims


class MemoryProxy:
    """A proxy that re-encrypts with real kfrags."""

    def __init__(self, number: int, clock: Clock) -> None:
        self.clock = clock
        self.seed = Seed.generate()
        self.identity = SigningKey(self.seed.derive("identity/0", 32))
        self.did = did_from_key(bytes(self.identity.verify_key))
        self.sealing = SealingKey(self.seed.derive("sealing/0", 32))
        self.endpoint = f"http://proxy-{number}.test"
        self.witness = MemoryWitness(self.did, self.identity, clock)
        self.kfrags: dict[str, list[bytes]] = {}
        self.tombstones: set[str] = set()
        self.seq = 0
        self.away = False
        self.silent_to_records = False
        self.lies = False
        self.forges_receipts = False
        self.foreign_kfrags: dict[str, list[bytes]] = {}
        self.asked = 0

    def key_entry(self) -> str:
        entry = st.KeyEntry(
            iss=self.did,
            aud="urn:pcehr:registry",
            iat=NOW - DAY,
            jti=st.new_jti(),
            role=wire.Role.PROXY,
            seq=0,
            identity_key=self.identity.verify_key.b64,
            sealing_key=self.sealing.public_key.b64,
            endpoint=self.endpoint,
        )
        return st.sign(entry, self.identity)

    def receipt(self, audience: str, statement: str, grant: str, act: wire.ReceiptAct, **members: Any) -> str:
        self.seq += 1
        payload = st.Receipt(
            iss=self.did,
            aud=audience,
            iat=self.clock(),
            jti=st.new_jti(),
            statement=statement,
            grant=grant,
            act=act,
            seq=self.seq,
            **members,
        )
        return st.sign(payload, SigningKey.generate() if self.forges_receipts else self.identity)

    def store(self, grant: str, sealed: str) -> str:
        data = self.sealing.open(from_b64url(sealed))
        size = umbral.KFRAG_SIZE
        kfrags = [data[start : start + size] for start in range(0, len(data), size)]
        promised = next(share for share in claims_of(grant)["shares"]["proxies"] if share["did"] == self.did)
        assert [b64url(sha256(kfrag)) for kfrag in kfrags] == promised["kfrags"]
        self.kfrags[id_of(grant)] = kfrags
        return self.receipt(claims_of(grant)["iss"], id_of(grant), id_of(grant), "stored")

    def erase(self, revocation: str) -> str:
        grant = claims_of(revocation)["grant"]
        self.tombstones.add(grant)
        self.kfrags.pop(grant, None)
        return self.receipt(claims_of(revocation)["iss"], id_of(revocation), grant, "erased")

    def reencrypt(self, request: str, capsules: list[str]) -> tuple[list[str], str]:
        self.asked += 1
        claims = claims_of(request)
        kfrags = self.foreign_kfrags.get(claims["grant"]) or self.kfrags[claims["grant"]]
        cfrags = []
        for wanted, text in zip(claims["capsules"], capsules, strict=True):
            kfrag = VerifiedKeyFrag.from_verified_bytes(kfrags[wanted["entry"]])
            capsule = Capsule.from_bytes(from_b64url(text))
            if self.lies:
                capsule, _ = umbral.encrypt(umbral.SecretKey.generate().public_key(), b"another capsule")
            cfrags.append(umbral.reencrypt(capsule, kfrag).b64)
        hashes = tuple(b64url(sha256(from_b64url(cfrag))) for cfrag in cfrags)
        receipt = self.receipt(claims["iss"], id_of(request), claims["grant"], "reencrypted", cfrags=hashes)
        return cfrags, receipt


@dataclass
class StoredGrant:
    token: str
    proxies: dict[str, dict[str, Any]] = field(default_factory=dict)
    revocation: str | None = None
    disclosed: set[str] = field(default_factory=set)


class Problem(Exception):
    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.code, self.status = code, status


class World:
    """The services' state, the clock, and what tests may switch."""

    def __init__(self, proxies: int = 3, threshold: int = 2) -> None:
        self.clock = Clock()
        self.threshold = threshold
        self.parties: dict[str, list[str]] = {}
        self.scope_keys: dict[str, list[str]] = {}
        self.records: dict[str, list[Answer]] = {}
        self.requests: dict[str, Answer] = {}
        self.grants: dict[str, StoredGrant] = {}
        self.floors: dict[str, int] = {}
        self.blobs: dict[str, bytes] = {}
        self.accepted: list[str] = []
        self.tamper: Callable[[str, Answer], Answer] = lambda _, answer: answer
        self.fail: Callable[[httpx.Request], None] = lambda _: None
        self.log: list[str] = []
        self.proxies = [MemoryProxy(number, self.clock) for number in range(proxies)]
        self.key_log = MemoryLog("registry", [proxy.witness for proxy in self.proxies], self.clock)
        self.records_origin = origin_of("records", SigningKey.generate().verify_key)
        self.witness_faults = 0
        for proxy in self.proxies:
            self.parties[proxy.did] = [proxy.key_entry()]
            self.log_key(proxy.did, self.parties[proxy.did][0])

    def log_key(self, did: str, token: str) -> None:
        """Write a key-entry or a scope-key into the registry's log, as an honest registry does."""
        claims = claims_of(token)
        label = scope_label(did, claims["scope"]) if "scope" in claims else key_label(did)
        self.key_log.append(key_entry_data(label, id_of(token)))

    # --- clients ------------------------------------------------------------------------------------------------

    def session(self, keyring: Keyring | None = None, state: ClientState | None = None) -> Session:
        platform = Platform(REGISTRY, clock=self.clock, transport=httpx.MockTransport(self.answer))
        return Session(keyring or Keyring.generate(), platform, state or ClientState(), self.clock)

    async def patient(self, **options: Any) -> Patient:
        patient = Patient(self.session(), known_scopes=["allergies", "medications"], **options)
        await patient.sign_up()
        return patient

    async def recipient(self, name: str = "Demo Practice") -> Recipient:
        recipient = Recipient(self.session())
        await recipient.sign_up(name, "Demo Hospital")
        return recipient

    def proxy(self, did: str) -> MemoryProxy:
        return next(proxy for proxy in self.proxies if proxy.did == did)

    # --- HTTP ---------------------------------------------------------------------------------------------------

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.log.append(f"{request.method} {path}")
        self.fail(request)
        try:
            body = self._route(request)
        except Problem as problem:
            detail = {"type": "urn:x", "title": "x", "status": problem.status, "detail": "x", "code": problem.code}
            return httpx.Response(problem.status, json=detail)
        if isinstance(body, bytes):
            return httpx.Response(200, content=body)
        return httpx.Response(200, json=self.tamper(f"{request.method} {path}", body))

    def _route(self, request: httpx.Request) -> Answer | bytes:
        host, parts = request.url.host, request.url.path.strip("/").split("/")
        query = {name: values[0] for name, values in parse_qs(request.url.query.decode()).items()}
        body = {}
        if request.headers.get("content-type") == "application/json":
            body = json.loads(request.content)
        if host == "registry.test":
            return self._registry(request.method, parts, query, body, request)
        if host == "records.test":
            caller = request.headers["authorization"].removeprefix("Bearer ").partition("|")[0]
            return self._records(request, parts, query, body, caller)
        return self._proxy(host, parts, body)

    def _registry(
        self, method: str, parts: list[str], query: dict[str, str], body: Answer, request: httpx.Request
    ) -> Answer | bytes:
        match method, parts:
            case "GET", [".well-known", "pcehr"]:
                return {
                    "issuer": REGISTRY,
                    "token_endpoint": f"{REGISTRY}/v1/oauth/token",
                    "jwks_uri": f"{REGISTRY}/jwks",
                    "records_url": RECORDS,
                    "threshold": self.threshold,
                    "registry_log": self.key_log.origin,
                    "records_log": self.records_origin,
                    "witness_faults": self.witness_faults,
                }
            case "POST", ["v1", "oauth", "token"]:
                form = parse_qs(request.content.decode())
                issuer = claims_of(form["client_assertion"][0])["iss"]
                return {"access_token": f"{issuer}|{form['resource'][0]}", "token_type": "Bearer", "expires_in": 300}
            case "POST", ["v1", "patients" | "recipients" | "proxies"]:
                did = claims_of(body["key_entry"])["iss"]
                self.parties.setdefault(did, [body["key_entry"]])
                self.log_key(did, self.parties[did][0])
                return self._party(did)
            case "POST", ["v1", "parties", did, "keys"]:
                self.parties[did].append(body["key_entry"])
                self.log_key(did, body["key_entry"])
                return self._party(did)
            case "GET", ["v1", "parties", did]:
                return self._party(did)
            case "GET", ["v1", "recipients" | "proxies" as kind]:
                role = kind.removesuffix("s").replace("proxie", "proxy")
                cards = [self._party(did) for did in self.parties]
                named = [card for card in cards if query.get("q", "") in (card["name"] or "").lower()]
                return {"items": [card for card in named if card["role"] == role]}
            case "PUT", ["v1", "patients", did, "scope-keys"]:
                published = self.scope_keys.setdefault(did, [])
                known = {(claims_of(token)["scope"], claims_of(token)["epoch"]) for token in published}
                for token in body["scope_keys"]:
                    claims = claims_of(token)
                    if (claims["scope"], claims["epoch"]) not in known:
                        published.append(token)
                        self.log_key(did, token)
                return {"items": body["scope_keys"]}
            case "GET", ["v1", "patients", did, "scope-keys"]:
                tokens = self.scope_keys.get(did, [])
                return {"items": [one for one in tokens if query.get("scope") in (None, claims_of(one)["scope"])]}
            case _, ["v1", "log", what]:
                return self._of_log(what, query, body)
        raise Problem("no_such_route", 404)

    def _of_log(self, what: str, query: dict[str, str], body: Answer) -> Answer | bytes:
        self.key_log.publish()
        try:
            if what == "checkpoint":
                return self.key_log.note.encode()
            if what == "inclusion":
                return self.key_log.inclusion([from_b64url(leaf) for leaf in body["leaves"]], body["size"])
            if what == "consistency":
                path = self.key_log.consistency(int(query["from"]), int(query["to"]))
                return {"path": [b64url(step) for step in path]}
            return self.key_log.entries(int(query["start"]), int(query["limit"]))
        except LeafUnknown:
            raise Problem("not_found", 404) from None
        except NotPublished:
            raise Problem("not_in_log_yet", 503) from None

    def _party(self, did: str) -> Answer:
        if did not in self.parties:
            raise Problem("unknown_party", 404)
        entries = self.parties[did]
        newest = claims_of(entries[-1])
        return {
            "did": did,
            "role": newest["role"],
            "seq": newest["seq"],
            "name": newest.get("name"),
            "organisation": newest.get("organisation"),
            "endpoint": newest.get("endpoint"),
            "entries": entries,
        }

    def _records(
        self, request: httpx.Request, parts: list[str], query: dict[str, str], body: Answer, caller: str
    ) -> Answer | bytes:
        match request.method, parts[1:]:
            case "POST", ["records"]:
                return self._write(body["records"])
            case "GET", ["me", "records"]:
                own = [
                    versions[-1]
                    for versions in self.records.values()
                    if claims_of(versions[-1]["manifest"])["aud"] == caller
                ]
                return self._page(own, query, content=query.get("content") == "true")
            case "GET", ["records"]:
                return self._page(self._covered(query["grant"]), query, content=False)
            case "GET", ["records", record_id]:
                if record_id not in self.records:
                    raise Problem("not_found", 404)
                return self._page(self.records[record_id], query, content=True)
            case "GET", ["records", record_id, "history"]:
                earlier = self.records[record_id][: int(query["version"]) - 1]
                return {"items": [{name: one.get(name) for name in ("manifest", "authority")} for one in earlier]}
            case "PUT", ["blobs", digest]:
                self.blobs[digest] = request.content
                return {"sha256": digest, "size": len(request.content)}
            case "GET", ["blobs", digest]:
                if digest not in self.blobs:
                    raise Problem("not_found", 404)
                return self.blobs[digest]
            case "POST", ["disclosure-requests"]:
                token = body["statement"]
                self.requests[id_of(token)] = {"id": id_of(token), "statement": token, "denial": None, "grants": []}
                return self._accepted(token)
            case "GET", ["disclosure-requests"]:
                member = "aud" if query["box"] == "inbox" else "iss"
                mine = [one for one in self.requests.values() if claims_of(one["statement"])[member] == caller]
                return {"items": [self._request(one) for one in reversed(mine)]}
            case "POST", ["denials"]:
                self.requests[claims_of(body["statement"])["request"]]["denial"] = body["statement"]
                return self._accepted(body["statement"])
            case "POST", ["grants"]:
                return self._give(body)
            case "GET", ["grants"]:
                member = "iss" if query["box"] == "given" else "aud"
                mine_too = [one for one in self.grants.values() if claims_of(one.token)[member] == caller]
                return {"items": [self._grant(one) for one in reversed(mine_too)]}
            case "GET", ["grants", grant_id]:
                if grant_id not in self.grants:
                    raise Problem("not_found", 404)
                return self._grant(self.grants[grant_id])
            case "POST", ["revocations"]:
                return self._revoke(body["statement"])
            case "POST", ["disclosures"]:
                return self._disclose(body["request"], body["exclude"])
        raise Problem("no_such_route", 404)

    def _proxy(self, host: str, parts: list[str], body: Answer) -> Answer:
        proxy = next(one for one in self.proxies if one.endpoint == f"http://{host}")
        if proxy.away:
            raise httpx.ConnectError("away")
        if parts[-1] == "checkpoints":
            return proxy.witness.shown()
        if parts[-1] == "revocations":
            return {"receipt": proxy.erase(body["revocation"])}
        if claims_of(body["request"])["grant"] in proxy.tombstones:
            raise Problem("grant_revoked", 403)
        cfrags, receipt = proxy.reencrypt(body["request"], body["capsules"])
        return {"cfrags": cfrags, "receipt": receipt}

    # --- the records service ------------------------------------------------------------------------------------

    def _write(self, batch: list[Answer]) -> Answer:
        fresh = [record for record in batch if id_of(record["manifest"]) not in self.accepted]
        for record in fresh:
            claims = claims_of(record["manifest"])
            if claims["epoch"] < self.floors.get(claims["scope"], 0):
                raise Problem("stale_epoch", 409)
            if claims["version"] != len(self.records.get(claims["record"], [])) + 1:
                raise Problem("version_conflict", 409)
        for record in fresh:
            claims = claims_of(record["manifest"])
            grant = claims.get("grant")
            shown = {**record, "body": record.get("body"), "authority": self.grants[grant].token if grant else None}
            self.records.setdefault(claims["record"], []).append(shown)
        return {"items": [self._accepted(record["manifest"]) for record in batch]}

    def _accepted(self, token: str) -> Answer:
        self.accepted.append(id_of(token))
        return {"id": id_of(token), "kind": parse_typ(token), "received_at": self.clock()}

    def _page(self, records: list[Answer], query: dict[str, str], *, content: bool) -> Answer:
        start, limit = int(query.get("cursor", "0")), int(query.get("limit", "100"))
        items = [record if content else {**record, "body": None} for record in records[start : start + limit]]
        return {"items": items, "next": str(start + limit) if start + limit < len(records) else None}

    def _request(self, request: Answer) -> Answer:
        state = "denied" if request["denial"] else "approved" if request["grants"] else "pending"
        return {**request, "state": state, "received_at": self.clock()}

    def _give(self, body: Answer) -> Answer:
        token = body["grant"]
        grant = self.grants.setdefault(id_of(token), StoredGrant(token))
        for share in body["shares"]:
            proxy = self.proxy(share["proxy"])
            card = grant.proxies.setdefault(proxy.did, {"did": proxy.did})
            if not (proxy.away or proxy.silent_to_records):
                card["stored"] = proxy.store(token, share["sealed"])
        request = claims_of(token).get("request")
        if request is not None:
            self.requests[request]["grants"].append(id_of(token))
        return self._accepted(token)

    def _grant(self, grant: StoredGrant) -> Answer:
        return {
            "id": id_of(grant.token),
            "grant": grant.token,
            "state": "pending",
            "received_at": self.clock(),
            "proxies": list(grant.proxies.values()),
            "revocation": grant.revocation,
            "disclosed": len(grant.disclosed),
        }

    def _revoke(self, token: str) -> Answer:
        claims = claims_of(token)
        for floor in claims["epochs"]:
            self.floors[floor["scope"]] = max(floor["epoch"], self.floors.get(floor["scope"], 0))
        grant = self.grants.get(claims["grant"])
        if grant is None:
            return self._accepted(token)
        grant.revocation = token
        for did, card in grant.proxies.items():
            proxy = self.proxy(did)
            if not (proxy.away or proxy.silent_to_records):
                card["erased"] = proxy.erase(grant.revocation)
        return self._accepted(token)

    def _covered(self, grant_id: str) -> list[Answer]:
        if grant_id not in self.grants or self.grants[grant_id].revocation:
            raise Problem("not_found", 404)
        claims = claims_of(self.grants[grant_id].token)
        stored = sum("stored" in card for card in self.grants[grant_id].proxies.values())
        if claims["exp"] <= self.clock() or stored < claims.get("shares", {"threshold": 0})["threshold"]:
            raise Problem("not_found", 404)
        found = []
        for versions in self.records.values():
            for record in reversed(versions):
                manifest = claims_of(record["manifest"])
                entries = [
                    entry
                    for entry in claims["scopes"]
                    if (entry["scope"], entry["epoch"]) == (manifest["scope"], manifest["epoch"])
                    and manifest["capsule"] in entry.get("capsules", [manifest["capsule"]])
                ]
                if entries and manifest["aud"] == claims["iss"]:
                    found.append(record)
                    break
        return found

    def _disclose(self, token: str, exclude: list[str]) -> Answer:
        claims = claims_of(token)
        grant = self.grants[claims["grant"]]
        if grant.revocation:
            raise Problem("grant_revoked", 403)
        by_capsule = {
            claims_of(record["manifest"])["capsule"]: record
            for versions in self.records.values()
            for record in versions
        }
        records = [by_capsule[wanted["capsule"]] for wanted in claims["capsules"]]
        capsules = [record["capsule"] for record in records]
        usable = [
            self.proxy(did)
            for did in grant.proxies
            if did not in exclude and not self.proxy(did).away and claims["grant"] in self.proxy(did).kfrags
        ]
        threshold = claims_of(grant.token)["shares"]["threshold"]
        if len(usable) < threshold:
            raise Problem("not_enough_proxies", 503)
        answers = {proxy.did: proxy.reencrypt(token, capsules) for proxy in usable[:threshold]}
        grant.disclosed |= {id_of(record["manifest"]) for record in records}
        return {
            "grant": claims["grant"],
            "records": [
                {
                    "record": record,
                    "cfrags": [{"proxy": did, "cfrag": cfrags[index]} for did, (cfrags, _) in answers.items()],
                }
                for index, record in enumerate(records)
            ],
            "receipts": [{"proxy": did, "receipt": receipt} for did, (_, receipt) in answers.items()],
        }


def parse_typ(token: str) -> str:
    typ: str = json.loads(from_b64url(token.split(".", maxsplit=1)[0]))["typ"]
    parse(token, typ=typ, max_size=300_000)
    return typ
