"""One round through everything that each service does, so that each statement it can issue is issued."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import httpx

from services.records.service.notices import Housekeeping
from shared.encoding import b64url, from_b64url, sha256
from shared.tokens import Caller
from shared.transparency.checkpoints import origin_of, verify_checkpoint
from shared.transparency.entries import key_entry_data, key_label
from shared.transparency.merkle import leaf_hash
from shared.wire import RECORDS_AUDIENCE, Action, Role
from tests.services.proxy.test_witness import KEYS, SmallLog, knowing, submit
from tests.services.proxy.world import World as ProxyWorld
from tests.services.records.world import World as RecordsWorld
from tests.services.registry.running import LOG_ORIGIN, RunningRegistry
from tests.services.signing_parties import DAY, SealedRecord, TestParty, id_of

ORIGINS = {kind: origin_of(kind, key.verify_key) for kind, key in KEYS.items()}
"""The logs that the proxy of the round witnesses."""


async def round_of_registry(registry: RunningRegistry, proxy: TestParty) -> None:
    """Sign up, rotate, publish, look up, get tokens, and read the log; `proxy` is admitted and not registered."""
    patient, recipient = await registry.registered(Role.PATIENT), await registry.registered(Role.RECIPIENT)
    # Before there is a proxy, whose word the log would need from then on, and which is nowhere to be asked.
    await _read_log(registry.http, key_entry_data(key_label(patient.did), id_of(patient.entries[0])))
    assert (await registry.sign_up(proxy)).status_code == 201
    # Known already: that costs other statements.
    assert (await registry.sign_up(patient)).status_code == 201
    assert (await registry.rotate(recipient, recipient.rotate(registry.clock.now))).status_code == 201
    keys = [patient.scope_key("allergies"), patient.scope_key("medications"), patient.scope_key("allergies", 1)]
    assert (await registry.publish(patient, *keys)).status_code == 200
    own = await registry.headers(patient)
    route = f"/v1/patients/{patient.did}/scope-keys"
    page = await registry.http.get(route, params={"limit": 1}, headers=own)
    following = {"limit": 1, "cursor": page.json()["next"]}
    assert (await registry.http.get(route, params=following, headers=own)).status_code == 200
    named = {"scope": patient.scope_id("allergies")}
    held = await registry.headers(recipient)
    assert len((await registry.http.get(route, params=named, headers=held)).json()["items"]) == 2
    assert (await registry.http.get(f"/v1/parties/{patient.did}")).status_code == 200
    for params in ({}, {"q": recipient.name}, {"q": "nobody is called this"}, {"limit": 2}):
        assert (await registry.http.get("/v1/recipients", params=params)).status_code == 200
    cursor = (await registry.http.get("/v1/recipients", params={"limit": 2})).json()["next"]
    assert (await registry.http.get("/v1/recipients", params={"limit": 2, "cursor": cursor})).status_code == 200
    assert (await registry.http.get("/v1/proxies")).json()["items"]
    assert (await registry.post_token("no assertion")).status_code == 401
    assert (await registry.post_token(registry.assertion(patient), resource=proxy.did)).status_code == 200
    size = verify_checkpoint((await registry.http.get("/v1/log/checkpoint")).text, LOG_ORIGIN).size
    assert (await registry.http.get("/v1/log/entries", params={"start": size - 1})).json()["items"]


async def round_of_records(world: RecordsWorld) -> None:
    """A chart with several authors, consent of each kind, disclosure, revocation, and everybody's reading of it."""
    patient, doctor = world.patient, world.doctor
    author = world.registry.party(Role.RECIPIENT)
    first = await world.written()
    second = patient.record(patient, "allergies", after=first)
    await world.write(patient, second)
    amend = await world.may_write(Action.AMEND, recipient=author, scopes=[("allergies", 0, [second.capsule_hash])])
    third = author.record(patient, "allergies", after=second, grant=amend.id)
    await world.write(author, third)
    append = await world.may_write(Action.APPEND, recipient=author, scopes=["imaging"])
    image = await _with_large_body(world, author, append.id)

    request = doctor.disclosure_request(patient, ["allergies", "imaging"], now=world.clock())
    for statement in (request, doctor.disclosure_request(patient, now=world.clock())):
        await _accepted(world, "/v1/disclosure-requests", doctor, {"statement": statement})
    denied = id_of(statement)
    await _accepted(world, "/v1/denials", patient, {"statement": patient.denial(doctor, denied, now=world.clock())})
    grant = await world.granted(["allergies", "imaging"], request=id_of(request))
    wanted = [(0, third.capsule_hash), (1, image.capsule_hash)]
    asked = doctor.reencryption_request(grant.id, wanted, now=world.clock())
    for _ in range(2):
        assert (await world.disclose(asked)).status_code == 200
    limited = await world.granted([("allergies", 0, [third.capsule_hash])])
    assert (await world.disclose(world.wanting(limited, third))).status_code == 200

    await _read_everything(world, author, image, (first, third), (grant.id, amend.id))
    await _deliver_badly(world)
    await world.revoke(grant.id, [(patient.scope_id("allergies"), 1)])
    await world.until(grant.id, lambda found: all(proxy["erased"] for proxy in found["proxies"]))
    await _follow_notices(world)
    assert (await world.erase(patient, patient.log_erasure(RECORDS_AUDIENCE, 3, now=world.clock()))).status_code == 204
    assert (await world.http.get("/metrics")).status_code == 200
    world.clock.advance(60 * DAY)
    # The housekeeping of the app itself does the same, and perhaps first, in its own time.
    await Housekeeping(world.app.state.service.notices._store, world.clock).tell_of_ends()


async def round_of_proxy(world: ProxyWorld) -> None:
    """Shares kept, used, asked for again and erased; logs witnessed; the proxy's own log read."""
    await knowing(world)
    envelope = world.envelope()
    grant = await world.stored()
    assert (await world.post_share(grant)).status_code == 200
    request = world.request(grant, (0, envelope))
    for _ in range(2):
        assert (await world.http.post("/v1/reencryptions", json=request)).status_code == 200
    revocation = world.patient.revocation(world.recipient, grant.id, now=world.clock.now)
    for _ in range(2):
        assert (await world.http.post("/v1/revocations", json={"revocation": revocation})).status_code == 200
    assert (await world.audit(world.patient, limit=2)).json()["next"]
    assert (await world.erase(world.patient, upto=1)).status_code == 204
    for kind in KEYS:
        assert (await submit(world, SmallLog(kind).grow(3).submission(0))).status_code == 200
    assert (await world.http.get("/v1/witness/checkpoints")).json()["items"]
    assert (await world.http.get("/v1/identity")).status_code == 200
    await world.app.state.service.prune()
    commitment = (await world.rows("SELECT data FROM log_entries ORDER BY id DESC LIMIT 1"))[0]["data"]
    await _read_log(world.http, bytes(commitment))


async def _accepted(world: RecordsWorld, path: str, party: TestParty, body: Any) -> None:
    response = await world.post(path, party, body)
    assert response.status_code == 201, response.text


async def _with_large_body(world: RecordsWorld, author: TestParty, grant: str) -> SealedRecord:
    record = author.record(world.patient, "imaging", os.urandom(1_000), grant=grant)
    assert (await world.put(f"/v1/blobs/{b64url(sha256(record.body))}", author, record.body)).status_code == 201
    await _accepted(world, "/v1/records", author, {"records": [record.as_json(inline=False)]})
    return record


async def _read_everything(
    world: RecordsWorld,
    author: TestParty,
    image: SealedRecord,
    versions: tuple[SealedRecord, SealedRecord],
    grants: tuple[str, str],
) -> None:
    patient, doctor, stranger = world.patient, world.doctor, world.registry.party(Role.RECIPIENT)
    first, newest = versions
    for party in (patient, doctor, author):
        assert (await world.get(f"/v1/records/{first.record}", party)).status_code == 200
        history = await world.get(f"/v1/records/{first.record}/history", party, version=newest.version)
        assert history.status_code == 200, history.text
    page = await world.get("/v1/me/records", patient, limit=1, content=True)
    assert (await world.get("/v1/me/records", patient, cursor=page.json()["next"])).json()["items"]
    for party, grant in ((doctor, grants[0]), (author, grants[1])):
        assert (await world.get("/v1/records", party, grant=grant)).json()["items"]
        assert (await world.get("/v1/records", stranger, grant=grant)).status_code == 404
        assert (await world.get(f"/v1/grants/{grant}", party)).status_code == 200
    path = f"/v1/blobs/{b64url(sha256(image.body))}"
    assert [(await world.get(path, party)).status_code for party in (patient, author, doctor)] == [200] * 3
    assert (await world.get(path, stranger)).status_code == 404
    # Small bodies live in the table; their bytes are found by the same hash.
    assert (await world.get(f"/v1/blobs/{b64url(sha256(newest.body))}", doctor)).status_code == 200
    for path, boxes in (("/v1/disclosure-requests", ("inbox", "sent")), ("/v1/grants", ("given", "held"))):
        for party, box in zip((patient, doctor), boxes, strict=True):
            page = await world.get(path, party, box=box, limit=1)
            assert (await world.get(path, party, box=box, cursor=page.json()["next"])).json()["items"]
    page = await world.get("/v1/me/audit", patient, limit=1)
    assert (await world.get("/v1/me/audit", patient, cursor=page.json()["next"])).json()["items"]
    await _read_log(world.http, from_b64url(page.json()["items"][0]["commitment"], 32))


async def _deliver_badly(world: RecordsWorld) -> None:
    """A proxy that refuses for good, and one that fails once."""
    refusing, failing, _ = world.proxies
    refusing.status, failing.down = 403, True
    grant = await world.give(world.signed_grant())
    await world.until(grant.id, lambda found: all(proxy["problem"] for proxy in found["proxies"][:2]))
    refusing.status, failing.down = None, False


async def _follow_notices(world: RecordsWorld) -> None:
    notices = world.app.state.service.notices
    caller = Caller(did=world.doctor.did, role=Role.RECIPIENT)
    start = await notices.start_of(caller, 0)
    async with asyncio.timeout(10):
        async for notice in notices.follow(caller, start):
            if notice is not None:
                break


async def _read_log(http: httpx.AsyncClient, data: bytes) -> None:
    """Wait until the data are in the log; take proofs for them, and from an earlier tree."""
    question = {"leaves": [b64url(leaf_hash(data))], "size": 1}
    async with asyncio.timeout(20):
        while (answer := await http.post("/v1/log/inclusion", json=question)).status_code == 503:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert answer.status_code == 200, answer.text
    size = int(answer.json()["checkpoint"].split("\n")[1])
    assert (await http.get("/v1/log/consistency", params={"from": size - 1, "to": size})).status_code == 200
