"""One call of every route of the three services, ready to be sent again and again.

What a call needs is made before it is timed: statements signed, grants given, parties signed up. Every call does what
the route is for, none is refused or repeats an earlier one.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from bench.caller import DOCTOR, Caller, now
from shared.encoding import b64url, from_b64url, sha256
from shared.transparency.entries import key_entry_data, key_label
from shared.transparency.merkle import leaf_hash
from shared.wire import RECORDS_AUDIENCE, Role
from tests.services.signing_parties import TestParty, id_of

Prepare = Callable[[Caller], Awaitable[httpx.Request]]
Finish = Callable[[Caller, httpx.Request], Awaitable[None]]


@dataclass(frozen=True)
class Operation:
    """A call of a route, named as its OpenAPI document does; `variant` tells apart what one route does in two ways.

    `finish` puts things back, and waits for what the service still does afterwards. Of a `stream` the first piece
    counts, since it has no end.
    """

    service: str
    route: str
    prepare: Prepare
    variant: str = ""
    finish: Finish | None = None
    stream: bool = False

    @property
    def name(self) -> str:
        return f"{self.service} {self.route}{self.variant and f' ({self.variant})'}"


NOT_CALLED = {
    "GET /healthz": "Says that the process is alive.",
    "GET /readyz": "Reads the one row that says which form the tables have.",
    "GET /metrics": "Asked by the operator, not by a party; at the records service it counts what waits in the outbox.",
    "GET /.well-known/jwks.json": "Answered from settings.",
    "GET /.well-known/oauth-authorization-server": "Answered from settings.",
    "GET /.well-known/pcehr": "Answered from settings.",
}
"""Routes that are not called, and why."""


def forgotten(documents: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Routes of the OpenAPI documents, by service, that are neither called nor named above."""
    offered = {
        f"{service} {method.upper()} {path}"
        for service, document in documents.items()
        for path, methods in document["paths"].items()
        for method in methods
        if f"{method.upper()} {path}" not in NOT_CALLED
    }
    return offered - {f"{operation.service} {operation.route}" for operation in OPERATIONS}


def _base(caller: Caller, service: str) -> str:
    return {"registry": caller.registry, "records": caller.store, "proxy": caller.proxy}[service]


def _get(
    service: str, route: str, path: Callable[[Caller], str], *, of: str | None = None, variant: str = ""
) -> Operation:
    """A GET as the patient, as the doctor, or as nobody."""

    async def prepare(caller: Caller) -> httpx.Request:
        party = None if of is None else getattr(caller, of)
        return await caller.request("GET", _base(caller, service), path(caller), party)

    return Operation(service, f"GET {route}", prepare, variant)


def _post(
    service: str,
    path: str,
    body: Callable[[Caller], Awaitable[Any]],
    *,
    of: str | None = None,
    finish: Finish | None = None,
) -> Operation:
    async def prepare(caller: Caller) -> httpx.Request:
        content = await body(caller)
        party = None if of is None else getattr(caller, of)
        return await caller.request("POST", _base(caller, service), path, party, json=content)

    return Operation(service, f"POST {path}", prepare, finish=finish)


# The registry


def _entry(role: Role) -> Callable[[Caller], Awaitable[Any]]:
    async def body(_: Caller) -> Any:
        return {"key_entry": TestParty(role, seed=secrets.randbits(250), issued=now()).entries[0]}

    return body


async def _proxy_again(caller: Caller) -> Any:
    # Who may sign up as a proxy the operator decides at the start; each of them posts its entry at every start.
    listed = await caller.done(await caller.request("GET", caller.registry, "/v1/proxies"))
    return {"key_entry": listed.json()["items"][0]["entries"][0]}


async def _rotation(caller: Caller) -> httpx.Request:
    party = await caller.party(Role.RECIPIENT)
    body = {"key_entry": party.rotate(now())}
    return await caller.request("POST", caller.registry, f"/v1/parties/{party.did}/keys", json=body)


async def _scope_key(caller: Caller) -> httpx.Request:
    caller.scopes += 1
    body = {"scope_keys": [caller.patient.scope_key(f"scope {caller.scopes}", now=now())]}
    path = f"/v1/patients/{caller.patient.did}/scope-keys"
    return await caller.request("PUT", caller.registry, path, caller.patient, json=body)


async def _token(caller: Caller) -> httpx.Request:
    return await caller.request("POST", caller.registry, "/v1/oauth/token", data=caller.assertion(caller.patient))


# The records service


async def _record(caller: Caller) -> Any:
    return {"records": [caller.sealed().as_json()]}


async def _blob(caller: Caller) -> httpx.Request:
    body = secrets.token_bytes(100_000)
    path = f"/v1/blobs/{b64url(sha256(body))}"
    return await caller.request("PUT", caller.store, path, caller.patient, content=body)


async def _asked(caller: Caller) -> Any:
    statement = caller.doctor.disclosure_request(caller.patient, ["allergies"], now=now())
    caller.request_to_deny = id_of(statement)
    return {"statement": statement}


async def _answered(caller: Caller, _: httpx.Request) -> None:
    # A recipient may have but a few requests waiting.
    await caller.done(await caller.request("POST", caller.store, "/v1/denials", caller.patient, json=_denial(caller)))


def _denial(caller: Caller) -> Any:
    assert caller.request_to_deny is not None
    return {"statement": caller.patient.denial(caller.doctor, caller.request_to_deny, now=now())}


async def _denied(caller: Caller) -> Any:
    body = await _asked(caller)
    await caller.done(await caller.request("POST", caller.store, "/v1/disclosure-requests", caller.doctor, json=body))
    return _denial(caller)


async def _given(caller: Caller) -> Any:
    caller.last_grant = caller.signed_grant()
    return caller.last_grant.as_json()


async def _complete(caller: Caller, _: httpx.Request) -> None:
    await caller.until_complete(caller.last_grant.id)


async def _revoked(caller: Caller) -> Any:
    caller.last_grant = await caller.granted()
    return {"statement": caller.patient.revocation(caller.doctor, caller.last_grant.id, now=now())}


async def _erased(caller: Caller, _: httpx.Request) -> None:
    await caller.until_erased(caller.last_grant.id)


async def _disclosed(caller: Caller) -> Any:
    return {"request": caller.wanting(caller.grant, caller.records[2]), "exclude": []}


async def _erasure_of_records(caller: Caller) -> Any:
    return {"statement": caller.patient.log_erasure(RECORDS_AUDIENCE, 1, now=now())}


async def _events(caller: Caller) -> httpx.Request:
    return await caller.request("GET", caller.store, "/v1/me/events", caller.patient)


# A proxy


async def _share(caller: Caller) -> Any:
    grant = caller.signed_grant()
    return {"grant": grant.token, "sealed": grant.shares[caller.platform.proxies[0].did]}


async def _reencrypted(caller: Caller) -> Any:
    record = caller.records[3]
    return {"request": caller.wanting(caller.grant, record), "capsules": [b64url(record.capsule)]}


async def _revoked_at_proxy(caller: Caller) -> Any:
    grant = caller.signed_grant()
    body = {"grant": grant.token, "sealed": grant.shares[caller.platform.proxies[0].did]}
    await caller.done(await caller.request("POST", caller.proxy, "/v1/kfrags", json=body))
    return {"revocation": caller.patient.revocation(caller.doctor, grant.id, now=now())}


async def _erasure_at_proxy(caller: Caller) -> Any:
    return {"statement": caller.patient.log_erasure(caller.platform.proxies[0].did, 1, now=now())}


async def _checkpoint(caller: Caller) -> httpx.Request:
    # What it has cosigned last, once more: the log itself hands it new ones meanwhile.
    shown = await caller.done(await caller.request("GET", caller.proxy, "/v1/witness/checkpoints"))
    note = shown.json()["items"][0]["checkpoint"]
    content = f"old {_size(note)}\n\n{note}"
    headers = {"content-type": "text/plain; charset=utf-8"}
    request = await caller.request("POST", caller.proxy, "/v1/witness/add-checkpoint", content=content)
    request.headers.update(headers)
    return request


# The logs


def _size(note: str) -> int:
    return int(note.split("\n")[1])


async def _tree(caller: Caller, base: str) -> int:
    return _size((await caller.done(await caller.request("GET", base, "/v1/log/checkpoint"))).text)


async def _leaf(caller: Caller, service: str) -> bytes:
    """The hash of a leaf of the caller's own."""
    if service == "registry":
        return leaf_hash(key_entry_data(key_label(caller.patient.did), id_of(caller.patient.entries[0])))
    path = "/v1/me/audit" if service == "records" else "/v1/audit"
    request = await caller.request("GET", _base(caller, service), path, caller.patient, params={"limit": 3})
    # The newest one is this reading, which has no place yet.
    return leaf_hash(from_b64url((await caller.done(request)).json()["items"][-1]["commitment"], 32))


def _log(service: str) -> Iterable[Operation]:
    async def consistency(caller: Caller) -> httpx.Request:
        size = await _tree(caller, _base(caller, service))
        params = {"from": size - 5, "to": size}
        return await caller.request("GET", _base(caller, service), "/v1/log/consistency", params=params)

    async def inclusion(caller: Caller) -> httpx.Request:
        base = _base(caller, service)
        body = {"leaves": [b64url(await _leaf(caller, service))], "size": await _tree(caller, base)}
        return await caller.request("POST", base, "/v1/log/inclusion", json=body)

    yield _get(service, "/v1/log/checkpoint", lambda _: "/v1/log/checkpoint")
    yield Operation(service, "GET /v1/log/consistency", consistency)
    yield Operation(service, "POST /v1/log/inclusion", inclusion)


async def _entries(caller: Caller) -> httpx.Request:
    size = await _tree(caller, caller.registry)
    params = {"start": size - 20, "limit": 20}
    return await caller.request("GET", caller.registry, "/v1/log/entries", params=params)


OPERATIONS: tuple[Operation, ...] = (
    _post("registry", "/v1/patients", _entry(Role.PATIENT)),
    _post("registry", "/v1/recipients", _entry(Role.RECIPIENT)),
    _post("registry", "/v1/proxies", _proxy_again),
    Operation("registry", "POST /v1/parties/{did}/keys", _rotation),
    _get("registry", "/v1/parties/{did}", lambda caller: f"/v1/parties/{caller.patient.did}"),
    _get("registry", "/v1/recipients", lambda _: f"/v1/recipients?q={DOCTOR}", variant="found by name"),
    _get("registry", "/v1/recipients", lambda _: "/v1/recipients?q=qwxz", variant="not found"),
    _get("registry", "/v1/recipients", lambda _: "/v1/recipients?limit=20", variant="a page"),
    _get("registry", "/v1/proxies", lambda _: "/v1/proxies"),
    Operation("registry", "PUT /v1/patients/{did}/scope-keys", _scope_key),
    _get(
        "registry",
        "/v1/patients/{did}/scope-keys",
        lambda caller: f"/v1/patients/{caller.patient.did}/scope-keys?limit=1",
        of="patient",
    ),
    Operation("registry", "POST /v1/oauth/token", _token),
    Operation("registry", "GET /v1/log/entries", _entries),
    *_log("registry"),
    _post("records", "/v1/records", _record, of="patient"),
    _get("records", "/v1/me/records", lambda _: "/v1/me/records?limit=20&content=true", of="patient"),
    _get("records", "/v1/records", lambda caller: f"/v1/records?grant={caller.grant.id}&limit=20", of="doctor"),
    _get(
        "records",
        "/v1/records/{record}",
        lambda caller: f"/v1/records/{caller.amended.record}",
        of="patient",
        variant="its patient",
    ),
    _get(
        "records",
        "/v1/records/{record}",
        lambda caller: f"/v1/records/{caller.amended.record}",
        of="doctor",
        variant="under a grant",
    ),
    _get(
        "records",
        "/v1/records/{record}/history",
        lambda caller: f"/v1/records/{caller.amended.record}/history?version=2",
        of="doctor",
    ),
    Operation("records", "PUT /v1/blobs/{sha256}", _blob),
    _get(
        "records",
        "/v1/blobs/{sha256}",
        lambda caller: f"/v1/blobs/{b64url(sha256(caller.records[1].body))}",
        of="doctor",
    ),
    _post("records", "/v1/disclosure-requests", _asked, of="doctor", finish=_answered),
    _get("records", "/v1/disclosure-requests", lambda _: "/v1/disclosure-requests?box=inbox&limit=20", of="patient"),
    _post("records", "/v1/denials", _denied, of="patient"),
    _post("records", "/v1/grants", _given, of="patient", finish=_complete),
    _get("records", "/v1/grants", lambda _: "/v1/grants?box=held&limit=10", of="doctor"),
    _get("records", "/v1/grants/{grant}", lambda caller: f"/v1/grants/{caller.grant.id}", of="patient"),
    _post("records", "/v1/revocations", _revoked, of="patient", finish=_erased),
    _post("records", "/v1/disclosures", _disclosed, of="doctor"),
    _get("records", "/v1/me/audit", lambda _: "/v1/me/audit?limit=20", of="patient"),
    _post("records", "/v1/me/audit/erasures", _erasure_of_records, of="patient"),
    Operation("records", "GET /v1/me/events", _events, stream=True),
    *_log("records"),
    _post("proxy", "/v1/kfrags", _share),
    _post("proxy", "/v1/reencryptions", _reencrypted),
    _post("proxy", "/v1/revocations", _revoked_at_proxy),
    Operation("proxy", "POST /v1/witness/add-checkpoint", _checkpoint),
    _get("proxy", "/v1/witness/checkpoints", lambda _: "/v1/witness/checkpoints"),
    _get("proxy", "/v1/identity", lambda _: "/v1/identity"),
    _get("proxy", "/v1/audit", lambda _: "/v1/audit?limit=20", of="patient"),
    _post("proxy", "/v1/audit/erasures", _erasure_at_proxy, of="patient"),
    *_log("proxy"),
)
