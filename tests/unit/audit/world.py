"""The platform in memory (tests/unit/client/world.py) with transparency logs: what it does it writes down, and proves.

The logs are honest. What a dishonest service would show is set by the tests, in the logs or in the answers.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import httpx

from shared.encoding import b64url, from_b64url
from shared.transparency.checkpoints import cosign, verify_checkpoint, with_cosignatures
from shared.transparency.entries import key_entry_data, key_label, scope_label
from shared.transparency.merkle import leaf_hash
from tests.unit.audit.logs import MemoryLog
from tests.unit.client.world import Answer, MemoryProxy, Problem, World, claims_of, id_of

PAGE = 3
"""Events in one page, so that every test goes through several."""


class LoggingWorld(World):
    """A world whose services keep logs; events are published at once unless `unpublished` says otherwise."""

    def __init__(self, proxies: int = 3, threshold: int = 2) -> None:
        super().__init__(proxies, threshold)
        self.registry_log = MemoryLog("registry")
        self.records_log = MemoryLog("records")
        self.proxy_logs = {proxy.did: MemoryLog("proxy") for proxy in self.proxies}
        self.held_back: set[str] = set()
        """Leaves (base64url) that have no place under the published checkpoint yet."""
        self.closed: set[str] = set()
        """Hosts that do not answer about their logs."""
        self._logged: set[str] = set()

    # --- what is written down ---------------------------------------------------------------------------------------

    def say(self, subject: str, event: str, **members: Any) -> None:
        self.records_log.append(subject, event=event, at=self.clock(), **members)

    def _give(self, body: Answer) -> Answer:
        token = body["grant"]
        patient = claims_of(token)["iss"]
        new = id_of(token) not in self.grants
        if new:
            self.say(patient, "granted", grant=id_of(token), statement=id_of(token), actor=patient)
        answer = super()._give(body)
        for did, card in self.grants[id_of(token)].proxies.items() if new else ():
            if "stored" in card:
                self.say(patient, "stored", grant=id_of(token), statement=id_of(token), actor=did)
        return answer

    def _revoke(self, token: str) -> Answer:
        claims = claims_of(token)
        self.say(claims["iss"], "revoked", grant=claims["grant"], statement=id_of(token), actor=claims["iss"])
        answer = super()._revoke(token)
        for did, card in self.grants[claims["grant"]].proxies.items():
            if "erased" in card:
                self.say(claims["iss"], "erased", grant=claims["grant"], statement=id_of(token), actor=did)
        return answer

    def _disclose(self, token: str, exclude: list[str]) -> Answer:
        claims = claims_of(token)
        answer = super()._disclose(token, exclude)
        self.say(
            claims_of(self.grants[claims["grant"]].token)["iss"],
            "disclosed",
            grant=claims["grant"],
            statement=id_of(token),
            actor=claims["iss"],
            capsules=tuple(wanted["capsule"] for wanted in claims["capsules"]),
        )
        return answer

    def number_of(self, proxy: MemoryProxy, grant: str, act: str, statement: str, audience: str) -> int:
        """Write down what a proxy does; the number of the event is the receipt's."""
        patient = claims_of(self.grants[grant].token)["iss"] if grant in self.grants else audience
        members: dict[str, Any] = {}
        if act == "reencrypted":
            members["capsules"] = self._capsules
        shown = self.proxy_logs[proxy.did].append(
            patient, event=act, at=self.clock(), grant=grant, statement=statement, actor=audience, **members
        )
        return shown.n

    # --- HTTP -------------------------------------------------------------------------------------------------------

    def _route(self, request: httpx.Request) -> Answer | bytes:
        host, path = request.url.host, request.url.path
        if path.startswith("/v1/log/") or path in ("/v1/me/audit", "/v1/audit"):
            if host in self.closed:
                raise Problem("unavailable", 503)
            return self._of_log(request, self._log_at(host))
        if path == "/.well-known/pcehr":
            answer = super()._route(request)
            assert isinstance(answer, dict)
            return answer | {
                "registry_log": self.registry_log.origin,
                "records_log": self.records_log.origin,
                "witness_faults": 0,
            }
        if path in ("/v1/disclosures", "/v1/reencryptions"):
            token = json.loads(request.content)["request"]
            self._capsules = tuple(wanted["capsule"] for wanted in claims_of(token)["capsules"])
        return super()._route(request)

    def _log_at(self, host: str) -> MemoryLog:
        if host == "registry.test":
            self._register()
            return self.registry_log
        if host == "records.test":
            return self.records_log
        return self.proxy_logs[next(one.did for one in self.proxies if one.endpoint == f"http://{host}")]

    def _register(self) -> None:
        """All keys that were published since the last time, in the registry's log."""
        for did, tokens in self.parties.items():
            for token in tokens:
                self._log_key(key_label(did), id_of(token))
        for did, tokens in self.scope_keys.items():
            for token in tokens:
                self._log_key(scope_label(did, claims_of(token)["scope"]), id_of(token))

    def _log_key(self, label: bytes, statement: str) -> None:
        leaf = leaf_hash(key_entry_data(label, statement))
        if b64url(leaf) not in self._logged:
            self._logged.add(b64url(leaf))
            self.registry_log.add_leaf(b64url(leaf), leaf)

    def _of_log(self, request: httpx.Request, log: MemoryLog) -> Answer:
        query = {name: values[0] for name, values in parse_qs(request.url.query.decode()).items()}
        if request.url.path.endswith("/consistency"):
            return {"path": [b64url(step) for step in log.consistency(int(query["from"]), int(query["to"]))]}
        if request.url.path.endswith("/inclusion"):
            return self._inclusion(log, json.loads(request.content))
        subject = request.headers["authorization"].removeprefix("Bearer ").partition("|")[0]
        shown = [one for one in log.shown(subject) if one.n < int(query.get("cursor", 2**53))]
        page = shown[:PAGE]
        return {
            "items": [{name: value for name, value in vars(one).items() if value is not None} for one in page],
            "next": str(page[-1].n) if len(shown) > PAGE else None,
        }

    def _inclusion(self, log: MemoryLog, body: Answer) -> Answer:
        places = self._places(log)
        if any(leaf not in places for leaf in body["leaves"]):
            raise Problem("not_found", 404)
        if any(leaf in self.held_back for leaf in body["leaves"]):
            raise Problem("not_in_log_yet", 503)
        inclusions = [log.inclusion(places[leaf]) for leaf in body["leaves"]]
        return {
            "checkpoint": self._note(log),
            "consistency": [] if not body["size"] else [b64url(step) for step in log.consistency(body["size"])],
            "items": [{"index": one.index, "path": [b64url(step) for step in one.path]} for one in inclusions],
        }

    def _places(self, log: MemoryLog) -> dict[str, str]:
        """The name of each leaf, by its hash."""
        return {b64url(log.nodes[0, index]): name for name, index in log.places.items()}

    def _note(self, log: MemoryLog) -> str:
        text = log.note(at=self.clock())
        if log.kind == "proxy":
            return text
        checkpoint = verify_checkpoint(text, log.origin)
        lines = [cosign(checkpoint, one.did, one.identity, self.clock()) for one in self.proxies if not one.away]
        return with_cosignatures(text, lines)

    def leaf_of(self, log: MemoryLog, subject: str, n: int) -> str:
        """The leaf of an event, to be held back."""
        return b64url(leaf_hash(from_b64url(log.chains[subject][n - 1].commitment)))


def logging_world(proxies: int = 3, threshold: int = 2) -> LoggingWorld:
    """A world in which every receipt bears the number of the event that its proxy has written."""
    world = LoggingWorld(proxies, threshold)
    for proxy in world.proxies:
        _number_receipts(world, proxy)
    return world


def _number_receipts(world: LoggingWorld, proxy: MemoryProxy) -> None:
    sign = proxy.receipt

    def receipt(audience: str, statement: str, grant: str, act: Any, **members: Any) -> str:
        proxy.seq = world.number_of(proxy, grant, act, statement, audience) - 1
        return sign(audience, statement, grant, act, **members)

    proxy.receipt = receipt  # type: ignore[method-assign]
