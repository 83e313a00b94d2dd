"""What lies in the proxy's database: no kfrag, and nothing that another seed, or another row, could use."""

from __future__ import annotations

import copy
import pickle

import pytest

from services.proxy.identity import identity_from_seed
from services.proxy.service import KEPT_AFTER_END
from shared.crypto.errors import DecryptionFailed
from shared.db import migrate
from shared.encoding import b64url
from tests.services.proxy.world import World, refused
from tests.services.signing_parties import DAY

TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"


async def _dump(world: World) -> str:
    """Every row of every table as text; binary columns are in hexadecimal."""
    rows = []
    for table in await world.rows(TABLES):
        rows += [row["line"] for row in await world.rows(f'SELECT t::text AS line FROM "{table["table_name"]}" t')]
    return "\n".join(rows)


async def test_a_dump_of_the_database_holds_no_kfrag(world: World) -> None:
    grant = await world.stored(["allergies", "medication"])
    await world.reencrypt(grant, (0, world.envelope()))
    dump = await _dump(world)
    assert grant.id in dump
    for kfrag in grant.kfrags[world.proxy.did]:
        data = bytes(kfrag)
        # The id of a share stands in every cfrag; its secret is the scalar behind it.
        for form in (data, data[32:64]):
            assert form.hex() not in dump
            assert b64url(form) not in dump


async def test_a_dump_of_the_database_holds_no_key_of_the_proxy(world: World) -> None:
    await world.stored()
    dump = await _dump(world)
    for secret in (
        world.proxy.seed.reveal(),
        world.proxy.seed.derive("identity/0", 32),
        world.proxy.seed.derive("sealing/0", 32),
        world.proxy.seed.derive("storage/0", 32),
    ):
        assert secret.hex() not in dump
        assert b64url(secret) not in dump


async def test_a_dump_after_the_revocation_holds_no_share_at_all(world: World) -> None:
    grant = await world.stored()
    sealed = (await world.rows("SELECT sealed FROM kfrags"))[0]["sealed"]
    await world.revoke(grant)
    assert sealed.hex() not in await _dump(world)


async def test_a_kfrag_moved_to_another_grant_is_not_used(world: World) -> None:
    one, other = await world.stored(), await world.stored()
    sealed = "(SELECT sealed FROM kfrags WHERE grant_id = $1)"
    await world.rows(f"UPDATE kfrags SET sealed = {sealed} WHERE grant_id = $2", one.id, other.id)
    refused(await world.reencrypt(other, (0, world.envelope())), 503, "unavailable")
    assert (await world.reencrypt(one, (0, world.envelope()))).status_code == 200


async def test_a_kfrag_moved_to_another_entry_is_not_used(world: World) -> None:
    grant = await world.stored(["allergies", "medication"])
    await world.rows("UPDATE kfrags SET sealed = (SELECT sealed FROM kfrags WHERE entry = 0) WHERE entry = 1")
    refused(await world.reencrypt(grant, (1, world.envelope("medication"))), 503, "unavailable")


async def test_a_kfrag_that_is_missing_is_a_fault_and_releases_nothing(world: World) -> None:
    grant = await world.stored()
    await world.rows("DELETE FROM kfrags")
    refused(await world.reencrypt(grant, (0, world.envelope())), 503, "unavailable")
    assert await world.count("log_events") == 1


async def test_another_seed_is_not_ready_and_opens_nothing(world: World) -> None:
    grant = await world.stored()
    async with world.running(seed=b64url(bytes(31) + b"\x77")):
        refused(await world.http.get("/readyz"), 503, "unavailable")
        refused(await world.http.get("/v1/identity"), 503, "unavailable")
        refused(await world.reencrypt(grant, (0, world.envelope())), 503, "unavailable")


async def test_kfrags_of_a_grant_that_ended_a_day_ago_are_erased(world: World) -> None:
    grant = await world.stored(lifetime=DAY)
    await world.stored(lifetime=30 * DAY)
    world.clock.advance(DAY + KEPT_AFTER_END - 1)
    await world.app.state.service.prune()
    assert await world.count("kfrags") == 2
    world.clock.advance(1)
    await world.app.state.service.prune()
    assert await world.count("kfrags") == 1
    refused(await world.reencrypt(grant, (0, world.envelope())), 403, "grant_expired")


async def test_postgres_clears_up_after_every_erased_kfrag(world: World) -> None:
    """A vacuum that waits for fifty dead rows, as is usual, never comes to a proxy with few grants."""
    [row] = await world.rows("SELECT reloptions FROM pg_class WHERE relname = 'kfrags'")
    assert sorted(row["reloptions"]) == ["autovacuum_vacuum_scale_factor=0", "autovacuum_vacuum_threshold=0"]


def test_the_identity_shows_no_secret_and_cannot_be_carried_away() -> None:
    identity = identity_from_seed(bytes(32))
    assert repr(identity) == str(identity) == "<ProxyIdentity: secret>"
    for carry in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            carry(identity)


def test_a_kfrag_at_rest_is_bound_to_its_place_and_proxy() -> None:
    one, other = identity_from_seed(bytes(32)), identity_from_seed(bytes(31) + b"\x01")
    sealed = one.encrypt_kfrag(b"k" * 260, grant="g", entry=0)
    assert len(sealed) == 300
    assert one.decrypt_kfrag(sealed, grant="g", entry=0) == b"k" * 260
    for identity, grant, entry in ((one, "g", 1), (one, "h", 0), (other, "g", 0)):
        with pytest.raises(DecryptionFailed):
            identity.decrypt_kfrag(sealed, grant=grant, entry=entry)


async def test_the_migrations_make_what_the_models_say(idle_world: World) -> None:
    await migrate.check_models("proxy", idle_world.url)
    assert await migrate.is_at_head("proxy", idle_world.url)
