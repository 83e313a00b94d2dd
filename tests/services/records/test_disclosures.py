"""`POST /v1/disclosures`: who gets what, from how many proxies, and what is written down before."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from pydantic import ValidationError

from shared.crypto.record import RecordKey
from shared.crypto.umbral import Capsule, CapsuleFrag
from shared.db.locks import lock_key
from shared.encoding import b64url, from_b64url
from shared.identity import verify_chain
from shared.statements import Receipt, verify_stored
from shared.wire import Action, Role
from tests.services.records.network import Lie
from tests.services.records.world import PATIENCE, World, refused
from tests.services.signing_parties import DAY, SealedRecord, TestParty, id_of, random_hash


def opened(world: World, record: SealedRecord, disclosed: dict[str, Any]) -> bytes:
    """What the recipient reads, after every check that it can make on the cfrags."""
    delegating = world.patient.delegating_key(_scope_of(world, record), record.context.epoch).public_key()
    capsule = Capsule.from_bytes(from_b64url(disclosed["record"]["capsule"]))
    cfrags = [
        CapsuleFrag.from_bytes(from_b64url(item["cfrag"])).verify(
            capsule, world.patient.signer().verifying_key(), delegating, world.doctor.receiving_key().public_key()
        )
        for item in disclosed["cfrags"]
    ]
    key = RecordKey.unwrap_reencrypted(
        world.doctor.receiving_key(),
        delegating,
        capsule,
        cfrags,
        from_b64url(disclosed["record"]["wrapped_key"]),
        record.context,
    )
    header = key.decrypt_header(from_b64url(disclosed["record"]["header"]), record.context)
    return b"".join(key.decrypt_body([from_b64url(disclosed["record"]["body"])], header["length"], record.context))


def _scope_of(world: World, record: SealedRecord) -> str:
    return next(name for name in ("allergies", "medication") if world.patient.scope_id(name) == record.context.scope)


async def disclosed_count(world: World, grant: str) -> int:
    return (await world.grant_of(grant))["disclosed"]


async def test_the_recipient_reads_what_was_granted(world: World) -> None:
    first, second = await world.written(content=b"one"), await world.written("medication", content=b"two")
    grant = await world.granted(["allergies", "medication"])
    request = world.doctor.reencryption_request(grant.id, [(1, second.capsule_hash), (0, first.capsule_hash)])
    response = await world.disclose(request)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["grant"] == grant.id
    # In the order of the request.
    assert [item["record"]["manifest"] for item in answer["records"]] == [second.manifest, first.manifest]
    assert opened(world, second, answer["records"][0]) == b"two"
    assert opened(world, first, answer["records"][1]) == b"one"
    assert len(answer["receipts"]) == 2
    for item in answer["receipts"]:
        party = verify_chain(item["proxy"], world.registry.parties[item["proxy"]].entries)
        receipt = verify_stored(item["receipt"], Receipt, party).payload
        assert (receipt.aud, receipt.statement, receipt.grant) == (world.doctor.did, id_of(request), grant.id)
    assert await disclosed_count(world, grant.id) == 2
    assert ("disclosed", "done") in await world.audit()


async def test_earlier_versions_can_be_disclosed_too(world: World) -> None:
    first = await world.written(content=b"one")
    second = world.patient.record(world.patient, "allergies", b"two", after=first)
    await world.write(world.patient, second)
    grant = await world.granted()
    answer = (await world.disclose(world.wanting(grant, first, second))).json()
    assert [opened(world, r, d) for r, d in zip((first, second), answer["records"], strict=True)] == [b"one", b"two"]


async def test_the_same_request_twice_counts_once(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    request = world.wanting(grant, record)
    for _ in range(2):
        assert (await world.disclose(request)).status_code == 200
    assert await disclosed_count(world, grant.id) == 1
    assert (await world.audit()).count(("disclosed", "done")) == 1


async def test_disclosed_counts_distinct_versions(world: World) -> None:
    records = [await world.written() for _ in range(3)]
    grant = await world.granted()
    for wanted in (records[:2], records[1:], records):
        assert (await world.disclose(world.wanting(grant, *wanted))).status_code == 200
    assert await disclosed_count(world, grant.id) == 3


async def test_authority_comes_with_a_record_of_another_author(world: World) -> None:
    append = await world.may_write(Action.APPEND)
    record = world.doctor.record(world.patient, "allergies", grant=append.id)
    await world.write(world.doctor, record)
    grant = await world.granted()
    [item] = (await world.disclose(world.wanting(grant, record))).json()["records"]
    assert item["record"]["authority"] == append.token


# Refusals, as a proxy would give them


async def test_unknown_grant(world: World) -> None:
    record = await world.written()
    refused(await world.disclose(world.wanting(random_hash(), record)), 404, "unknown_grant")


async def test_not_granted_to_somebody_else(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    other = world.registry.party(Role.RECIPIENT)
    request = world.wanting(grant, record, recipient=other)
    refused(await world.post("/v1/disclosures", other, {"request": request}), 403, "not_granted")


async def test_not_granted_without_read(world: World) -> None:
    record = await world.written()
    grant = await world.may_write(Action.AMEND)
    refused(await world.disclose(world.wanting(grant, record)), 403, "not_granted")


async def test_grant_not_yet_valid(world: World) -> None:
    record = await world.written()
    grant = await world.granted(nbf=world.clock() + 1)
    refused(await world.disclose(world.wanting(grant, record)), 403, "grant_not_yet_valid")
    world.clock.advance(1)
    assert (await world.disclose(world.wanting(grant, record))).status_code == 200


async def test_grant_expired(world: World) -> None:
    record = await world.written()
    grant = await world.granted(lifetime=DAY)
    world.clock.advance(DAY)
    refused(await world.disclose(world.wanting(grant, record)), 403, "grant_expired")


async def test_grant_revoked(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    await world.revoke(grant.id)
    refused(await world.disclose(world.wanting(grant, record)), 403, "grant_revoked")
    assert ("disclosed", "grant_revoked") in await world.audit()
    assert sum(proxy.calls["/v1/reencryptions"] for proxy in world.proxies) == 0


async def test_capsule_not_granted(world: World) -> None:
    mine, other = await world.written(), await world.written()
    grant = await world.granted([("allergies", 0, [mine.capsule_hash])])
    refused(await world.disclose(world.wanting(grant, other)), 403, "capsule_not_granted")
    refused(await world.disclose(world.wanting(grant, mine, other)), 403, "capsule_not_granted")
    refused(await world.disclose(world.wanting(grant, mine, entry=1)), 403, "capsule_not_granted")
    assert (await world.disclose(world.wanting(grant, mine))).status_code == 200


async def test_not_found_for_a_record_of_another_scope_epoch_or_patient(world: World) -> None:
    other = world.registry.party(Role.PATIENT)
    foreign = other.record(other, "allergies")
    await world.write(other, foreign)
    good = await world.written()
    grant = await world.granted()
    for record in (await world.written("medication"), await world.written(epoch=1), foreign):
        refused(await world.disclose(world.wanting(grant, record)), 404, "not_found")
        refused(await world.disclose(world.wanting(grant, good, record)), 404, "not_found")
    never = world.patient.record(world.patient, "allergies")
    refused(await world.disclose(world.wanting(grant, never)), 404, "not_found")
    assert await disclosed_count(world, grant.id) == 0


async def test_statement_expired(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    request = world.wanting(grant, record)
    world.clock.advance(300 + 60)
    refused(await world.disclose(request), 422, "statement_expired")


async def test_wrong_signer_when_the_patient_posts_the_request(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    response = await world.post("/v1/disclosures", world.patient, {"request": world.wanting(grant, record)})
    refused(response, 403, "wrong_signer")


async def test_forbidden_for_a_patient_to_have_records_disclosed(world: World) -> None:
    request = world.patient.reencryption_request(random_hash(), [(0, random_hash())])
    refused(await world.post("/v1/disclosures", world.patient, {"request": request}), 403, "forbidden")


async def test_jti_reused(world: World) -> None:
    records = [await world.written() for _ in range(2)]
    grant = await world.granted()
    first, second = (world.wanting(grant, record, jti=b64url(bytes(16))) for record in records)
    assert (await world.disclose(first)).status_code == 200
    calls = [proxy.calls["/v1/reencryptions"] for proxy in world.proxies]
    refused(await world.disclose(second), 409, "jti_reused")
    assert [proxy.calls["/v1/reencryptions"] for proxy in world.proxies] == calls


# Proxies


async def test_only_as_many_proxies_as_needed_are_asked(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    await world.disclose(world.wanting(grant, record))
    assert sum(proxy.calls["/v1/reencryptions"] for proxy in world.proxies) == 2


async def test_a_proxy_that_is_down_is_replaced(world: World) -> None:
    record = await world.written(content=b"one")
    grant = await world.granted()
    world.proxies[0].down = True
    answer = (await world.disclose(world.wanting(grant, record))).json()
    assert {item["proxy"] for item in answer["receipts"]} == {proxy.did for proxy in world.proxies[1:]}
    assert opened(world, record, answer["records"][0]) == b"one"


async def test_a_slow_proxy_is_not_waited_for(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    world.proxies[0].delay = 30
    started = time.monotonic()
    answer = (await world.disclose(world.wanting(grant, record))).json()
    # Well below the time-out for a proxy: another one was asked after `hedge_seconds`.
    assert time.monotonic() - started < 2.5
    assert {item["proxy"] for item in answer["receipts"]} == {proxy.did for proxy in world.proxies[1:]}


async def test_a_slow_proxy_is_asked_last_from_then_on(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    world.proxies[0].delay = 30
    await world.disclose(world.wanting(grant, record))
    await world.disclose(world.wanting(grant, record))
    assert world.proxies[0].calls["/v1/reencryptions"] == 1


@pytest.mark.parametrize("lie", [lie for lie in Lie if lie is not Lie.OTHER_CFRAG])
async def test_a_proxy_whose_answer_does_not_hold_is_replaced(world: World, lie: Lie) -> None:
    records = [await world.written() for _ in range(2)]
    grant = await world.granted()
    world.proxies[0].lie = lie
    answer = (await world.disclose(world.wanting(grant, *records))).json()
    assert {item["proxy"] for item in answer["receipts"]} == {proxy.did for proxy in world.proxies[1:]}


@pytest.mark.parametrize("lie", [Lie.BAD_TEXT, Lie.UNEXPECTED, Lie.NOT_JSON])
async def test_a_proxy_whose_answer_does_not_hold_is_asked_last_from_then_on(world: World, lie: Lie) -> None:
    record = await world.written()
    grant = await world.granted()
    world.proxies[0].lie = lie
    for _ in range(3):
        assert (await world.disclose(world.wanting(grant, record))).status_code == 200
    assert world.proxies[0].calls["/v1/reencryptions"] == 1


async def test_what_a_proxy_brings_about_is_not_logged_in_its_words(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    record = await world.written()
    grant = await world.granted()
    world.proxies[0].lie = Lie.UNEXPECTED
    await world.disclose(world.wanting(grant, record))
    assert "OverflowError" in caplog.text
    assert "a secret" not in caplog.text


@pytest.mark.parametrize(
    "endpoint", ["http://proxy.invalid:65536", "http://proxy.invalid:0", "http://:80", "http://:", "http://[/"]
)
def test_an_endpoint_that_nobody_can_connect_to_is_refused(endpoint: str) -> None:
    with pytest.raises(ValidationError):
        TestParty(Role.PROXY, endpoint=endpoint)


@pytest.mark.parametrize("endpoint", ["http://proxy.invalid:65535/v", "https://[::1]:8443", "http://127.0.0.1:80"])
def test_an_endpoint_with_a_host_and_a_port_is_taken(endpoint: str) -> None:
    assert TestParty(Role.PROXY, endpoint=endpoint).endpoint == endpoint


async def test_a_proxy_whose_receipt_lists_other_cfrags_is_replaced(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    world.proxies[1].lie = Lie.OTHER_CFRAG
    answer = (await world.disclose(world.wanting(grant, record))).json()
    assert {item["proxy"] for item in answer["receipts"]} == {world.proxies[0].did, world.proxies[2].did}


async def test_proxies_that_the_recipient_excludes_are_not_asked(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    answer = (await world.disclose(world.wanting(grant, record), exclude=[world.proxies[0].did])).json()
    assert {item["proxy"] for item in answer["receipts"]} == {proxy.did for proxy in world.proxies[1:]}
    assert world.proxies[0].calls["/v1/reencryptions"] == 0


async def test_not_enough_proxies(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    world.proxies[0].down, world.proxies[2].lie = True, Lie.FOREIGN_SIGNATURE
    response = await world.disclose(world.wanting(grant, record))
    refused(response, 503, "not_enough_proxies")
    assert int(response.headers["retry-after"]) > 0
    assert "cfrag" not in response.text
    assert await disclosed_count(world, grant.id) == 0
    assert ("disclosed", "not_enough_proxies") in await world.audit()
    world.proxies[0].down = False
    assert (await world.disclose(world.wanting(grant, record))).status_code == 200


async def test_not_enough_proxies_when_too_many_are_excluded(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    exclude = [proxy.did for proxy in world.proxies[:2]]
    refused(await world.disclose(world.wanting(grant, record), exclude=exclude), 503, "not_enough_proxies")


async def test_not_enough_proxies_while_the_grant_is_pending(world: World) -> None:
    record = await world.written()
    world.proxies[0].down = world.proxies[1].down = True
    grant = await world.give(world.signed_grant())
    await world.until(grant.id, lambda found: found["proxies"][2]["stored"] is not None)
    refused(await world.disclose(world.wanting(grant, record)), 503, "not_enough_proxies")


async def test_an_answer_kept_from_before_serves_again(world: World) -> None:
    record = await world.written()
    grant = await world.granted(threshold=3)
    request = world.wanting(grant, record)
    first = (await world.disclose(request)).json()
    second = (await world.disclose(request)).json()
    assert {item["proxy"] for item in first["receipts"]} == {item["proxy"] for item in second["receipts"]}


async def test_whoever_waits_for_slow_proxies_keeps_nobody_else_waiting(
    idle_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a place for one disclosure: it is given back while the proxies are slow, and the next one is worked at."""
    monkeypatch.setattr("services.records.service.disclosures.AT_ONCE", 1)
    world = idle_world
    go_on, slow = asyncio.Event(), True

    async def wait() -> None:
        if slow:
            await go_on.wait()

    async with world.running():
        first, second = await world.written(), await world.written()
        grant = await world.granted()
        for proxy in world.proxies:
            proxy.before_answer = wait
        before = sum(proxy.calls["/v1/reencryptions"] for proxy in world.proxies)
        waiting = asyncio.create_task(world.disclose(world.wanting(grant, first)))
        async with asyncio.timeout(PATIENCE):
            while sum(proxy.calls["/v1/reencryptions"] for proxy in world.proxies) < before + 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        slow = False
        assert (await world.disclose(world.wanting(grant, second))).status_code == 200
        assert not waiting.done()
        go_on.set()
        assert (await waiting).status_code == 200


# Against revocation


async def test_nothing_is_disclosed_when_the_grant_is_revoked_while_proxies_work(world: World) -> None:
    """The proxies have answered already; the last look at the grant is what keeps the answer back."""
    record = await world.written()
    grant = await world.granted()
    revoked: list[str] = []

    async def revoke_meanwhile() -> None:
        if not revoked:
            revoked.append(await world.revoke(grant.id))

    for proxy in world.proxies:
        proxy.before_answer = revoke_meanwhile
    refused(await world.disclose(world.wanting(grant, record)), 403, "grant_revoked")
    assert await disclosed_count(world, grant.id) == 0


async def test_grant_revoked_when_so_many_proxies_say_so_that_too_few_are_left(world: World) -> None:
    """The patient has told the proxies directly, and this service has not heard of it yet."""
    record = await world.written()
    grant = await world.granted()
    for proxy in world.proxies[:2]:
        proxy.status = 403
    refused(await world.disclose(world.wanting(grant, record)), 403, "grant_revoked")
    assert await disclosed_count(world, grant.id) == 0


async def test_not_enough_proxies_when_one_says_revoked_and_another_is_down(world: World) -> None:
    """One proxy could lie: that the grant has ended is believed only to so many that it makes no difference."""
    record = await world.written()
    grant = await world.granted()
    world.proxies[0].status = 403
    world.proxies[1].down = True
    refused(await world.disclose(world.wanting(grant, record)), 503, "not_enough_proxies")


async def test_nothing_is_disclosed_when_the_grant_ends_while_proxies_work(world: World) -> None:
    record = await world.written()
    grant = await world.granted(lifetime=DAY)

    async def a_day_later() -> None:
        world.clock.advance(DAY)

    world.proxies[0].before_answer = a_day_later
    refused(await world.disclose(world.wanting(grant, record)), 403, "grant_expired")


async def test_disclosing_against_revoking_on_real_connections(world: World) -> None:
    """No disclosure is written down after the revocation, and what was answered is what was written down."""
    records = [await world.written() for _ in range(8)]
    grant = await world.granted()
    asks = [asyncio.create_task(world.disclose(world.wanting(grant, record))) for record in records]
    await asyncio.sleep(0.03)
    await world.revoke(grant.id)
    answers = await asyncio.gather(*asks)
    codes = {answer.json()["code"] for answer in answers if answer.status_code != 200}
    # Proxies that have heard of the revocation first refuse by themselves.
    assert codes <= {"grant_revoked", "not_enough_proxies"}
    log = [entry for entry in await world.audit() if entry in (("disclosed", "done"), ("revoked", "done"))]
    assert ("disclosed", "done") not in log[log.index(("revoked", "done")) :]
    assert await disclosed_count(world, grant.id) == sum(answer.status_code == 200 for answer in answers)


async def test_a_revocation_that_waits_is_before_disclosures_that_come_after_it(world: World) -> None:
    """However many ask, and go on asking, a revocation waits for those only who were there before it."""
    record = await world.written()
    grant = await world.granted()
    async with world.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock_shared($1)", lock_key(f"grant {grant.id}"))
        revoking = asyncio.create_task(world.revoke(grant.id))
        await world.waiting_for_locks(1)
        asks = [asyncio.create_task(world.disclose(world.wanting(grant, record))) for _ in range(3)]
        await world.waiting_for_locks(4)
        assert not any(task.done() for task in [revoking, *asks])
    await revoking
    for answer in await asyncio.gather(*asks):
        refused(answer, 403, "grant_revoked")
    assert await disclosed_count(world, grant.id) == 0


async def test_nothing_is_disclosed_that_cannot_be_written_down(world: World) -> None:
    record = await world.written()
    grant = await world.granted()
    await world.without_log()
    response = await world.disclose(world.wanting(grant, record))
    refused(response, 500, "internal_error")
    assert "cfrag" not in response.text
    assert await disclosed_count(world, grant.id) == 0
