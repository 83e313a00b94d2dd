"""The registry's log: every key that was accepted is in it, or was not accepted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import services.registry
from shared.encoding import b64url, from_b64url
from shared.transparency.checkpoints import verify_checkpoint
from shared.transparency.entries import key_entry_data, key_label, scope_label
from shared.transparency.merkle import leaf_hash, verify_consistency, verify_inclusion
from shared.wire import Role
from tests.services.registry.running import LOG_ORIGIN, RunningRegistry, assert_problem
from tests.services.signing_parties import TestParty, id_of

MIGRATIONS = Path(services.registry.__file__).parent / "migrations" / "versions"


async def proven(registry: RunningRegistry, *datas: bytes, size: int = 0) -> dict[str, Any]:
    """The registry's proof that these are in its log, once it is there."""
    body = {"leaves": [b64url(leaf_hash(data)) for data in datas], "size": size}
    async with asyncio.timeout(10):
        while (response := await registry.http.post("/v1/log/inclusion", json=body)).status_code == 503:
            assert_problem(response, 503, "not_in_log_yet")
            await asyncio.sleep(0.02)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    checkpoint = verify_checkpoint(answer["checkpoint"], LOG_ORIGIN)
    for data, item in zip(datas, answer["items"], strict=True):
        path = [from_b64url(step, 32) for step in item["path"]]
        verify_inclusion(leaf_hash(data), item["index"], checkpoint.size, path, checkpoint.root)
    return answer


def entry_data(party: TestParty, seq: int) -> bytes:
    return key_entry_data(key_label(party.did), id_of(party.entries[seq]))


async def test_a_key_entry_is_in_the_log(registry: RunningRegistry) -> None:
    parties = [await registry.registered(role) for role in (Role.PATIENT, Role.RECIPIENT)]
    await proven(registry, *(entry_data(party, 0) for party in parties))


async def test_a_rotation_is_in_the_log_and_the_log_has_only_grown(
    registry: RunningRegistry, patient: TestParty
) -> None:
    before = verify_checkpoint((await proven(registry, entry_data(patient, 0)))["checkpoint"], LOG_ORIGIN)
    assert (await registry.rotate(patient, patient.rotate(registry.clock.now))).status_code == 201
    answer = await proven(registry, entry_data(patient, 1), size=before.size)
    after = verify_checkpoint(answer["checkpoint"], LOG_ORIGIN)
    path = [from_b64url(step, 32) for step in answer["consistency"]]
    verify_consistency(before.size, before.root, after.size, after.root, path)
    assert after.size > before.size


async def test_a_scope_key_is_in_the_log(registry: RunningRegistry, patient: TestParty) -> None:
    token = patient.scope_key("allergies", now=registry.clock.now)
    assert (await registry.publish(patient, token)).status_code == 200
    await proven(registry, key_entry_data(scope_label(patient.did, patient.scope_id("allergies")), id_of(token)))


async def test_the_same_entry_twice_is_in_the_log_once(registry: RunningRegistry, patient: TestParty) -> None:
    assert (await registry.sign_up(patient)).status_code == 201
    token = patient.scope_key("allergies", now=registry.clock.now)
    for _ in range(2):
        assert (await registry.publish(patient, token)).status_code == 200
    [row] = await registry.rows("SELECT count(*) AS n FROM log_entries")
    assert row["n"] == 2


async def test_whoever_watches_finds_its_entries_among_all(registry: RunningRegistry, patient: TestParty) -> None:
    await registry.registered(Role.RECIPIENT)
    await proven(registry, entry_data(patient, 0))
    answer = (await registry.http.get("/v1/log/entries", params={"start": 0, "limit": 1000})).json()
    datas = [from_b64url(item) for item in answer["items"]]
    assert [data[32:] for data in datas if data[:32] == key_label(patient.did)] == [
        from_b64url(id_of(patient.entries[0]), 32)
    ]


async def test_a_leaf_that_nobody_logged_is_not_found(registry: RunningRegistry, patient: TestParty) -> None:
    await proven(registry, entry_data(patient, 0))
    response = await registry.http.post("/v1/log/inclusion", json={"leaves": [b64url(bytes(32))], "size": 0})
    assert_problem(response, 404, "not_found")


@pytest.mark.parametrize("act", ["sign up", "rotate", "publish"])
async def test_what_cannot_be_logged_is_not_done(registry: RunningRegistry, patient: TestParty, act: str) -> None:
    await registry.rows(
        "CREATE OR REPLACE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION ''; END $$"
    )
    await registry.rows("CREATE TRIGGER broken BEFORE INSERT ON log_entries FOR EACH ROW EXECUTE FUNCTION broken()")
    other = TestParty(Role.RECIPIENT)
    entry = patient.next_entry(registry.clock.now)
    token = patient.scope_key("allergies", now=registry.clock.now)
    headers = await registry.headers(patient)
    try:
        response = await {
            "sign up": lambda: registry.sign_up(other),
            "rotate": lambda: registry.rotate(patient, entry),
            "publish": lambda: registry.publish(patient, token, headers=headers),
        }[act]()
        assert_problem(response, 500, "internal_error")
    finally:
        await registry.rows("DROP TRIGGER broken ON log_entries")
    assert (await registry.http.get(f"/v1/parties/{other.did}")).status_code == 404
    assert len((await registry.http.get(f"/v1/parties/{patient.did}")).json()["entries"]) == 1
    page = await registry.http.get(f"/v1/patients/{patient.did}/scope-keys", headers=headers)
    assert page.json()["items"] == []


async def test_what_was_accepted_before_there_was_a_log_is_taken_over(
    registry: RunningRegistry, patient: TestParty
) -> None:
    """The migration says in SQL what the code says in Python."""
    scopes = ["allergies", "laboratory", "medications", "mental-health"]
    tokens = [patient.scope_key(scope, now=registry.clock.now) for scope in scopes]
    assert (await registry.publish(patient, *tokens)).status_code == 200
    made = {bytes(row["leaf"]) for row in await registry.rows("SELECT leaf FROM log_entries")}
    assert len(made) == 1 + len(scopes)
    source = (MIGRATIONS / "0002_log.py").read_text("utf-8")
    select = source.partition("INSERT INTO log_entries (data, leaf)")[2].partition('"""')[0]
    connection = await asyncpg.connect(registry.url)
    try:
        assert {bytes(row[1]) for row in await connection.fetch(select)} == made
    finally:
        await connection.close()
