"""How a proxy becomes known to the registry, and what it does until then."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from pydantic import ValidationError

from services.proxy.settings import ProxySettings
from shared import statements as st
from shared.db import migrate
from shared.encoding import b64url
from tests.conftest import FreshDatabases
from tests.services.proxy.fake_registry import problem
from tests.services.proxy.world import World, refused
from tests.services.signing_parties import NOW


async def _until_ready(world: World) -> None:
    for _ in range(1_000):
        if (await world.http.get("/readyz")).status_code == 204:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the proxy does not become ready")


async def _until_posted(world: World, times: int) -> None:
    for _ in range(1_000):
        if len(world.registry.enrolments) >= times:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the proxy does not post its key-entry")


async def test_the_proxy_posts_its_key_entry_and_is_ready(idle_world: World) -> None:
    async with idle_world.running() as http:
        await _until_ready(idle_world)
        card = (await http.get("/v1/identity")).json()
    assert card["did"] == idle_world.proxy.did
    assert card["entries"] == idle_world.registry.enrolments
    entry = st.verify_under(
        card["entries"][0], st.KeyEntry, card["did"], [bytes(idle_world.proxy.identity_key().verify_key)]
    ).payload
    assert (entry.seq, entry.role, entry.iat, entry.name) == (0, "proxy", NOW, "Demo proxy")
    assert entry.endpoint == "http://proxy.test"
    assert entry.sealing_key == idle_world.proxy.sealing_key().public_key.b64


async def test_every_start_posts_the_very_same_statement(idle_world: World) -> None:
    for _ in range(2):
        async with idle_world.running():
            await _until_ready(idle_world)
        idle_world.clock.advance(1_000)
    first, second = idle_world.registry.enrolments
    assert first == second


async def test_it_serves_but_is_not_ready_while_the_registry_is_away(idle_world: World) -> None:
    idle_world.registry.away = True
    async with idle_world.running() as http:
        assert (await http.get("/healthz")).status_code == 204
        refused(await http.get("/readyz"), 503, "unavailable")
        assert (await http.get("/v1/identity")).status_code == 200
        idle_world.registry.away = False
        await _until_ready(idle_world)


async def test_it_is_not_ready_while_the_registry_does_not_admit_it(idle_world: World) -> None:
    idle_world.registry.answer_to_enrolment = problem(403, "proxy_not_admitted")
    async with idle_world.running() as http:
        await _until_posted(idle_world, 1)
        refused(await http.get("/readyz"), 503, "unavailable")
        idle_world.registry.answer_to_enrolment = httpx.Response(201, json={})
        await _until_ready(idle_world)


async def test_already_registered_with_its_own_keys_is_fine(idle_world: World) -> None:
    """The database was lost and the seed was not: the registry's entry is taken over."""
    idle_world.registry.answer_to_enrolment = problem(409, "already_registered")
    async with idle_world.running() as http:
        await _until_ready(idle_world)
        assert (await http.get("/v1/identity")).json()["entries"] == idle_world.proxy.entries
    async with idle_world.running():
        await _until_ready(idle_world)
    assert idle_world.registry.enrolments[-1] == idle_world.proxy.entries[0]


async def test_already_registered_with_other_keys_is_not(idle_world: World) -> None:
    entry = idle_world.proxy.next_entry(
        seq=0,
        prev=None,
        possession=None,
        identity_key=idle_world.proxy.identity_key(0).verify_key.b64,
        sealing_key=idle_world.second.sealing_key().public_key.b64,
    )
    idle_world.registry.chains[idle_world.proxy.did] = [entry]
    idle_world.registry.answer_to_enrolment = problem(409, "already_registered")
    async with idle_world.running() as http:
        await _until_posted(idle_world, 2)
        refused(await http.get("/readyz"), 503, "unavailable")


async def test_it_is_not_ready_and_says_so_while_the_database_is_away() -> None:
    world = World("postgresql://127.0.0.1:1/none")
    async with world.running() as http:
        refused(await http.get("/readyz"), 503, "unavailable")
        assert (await http.get("/healthz")).status_code == 204
        grant = world.grant()
        refused(await world.post_share(grant), 503, "database_unavailable")
        refused(await world.revoke(grant), 503, "database_unavailable")


async def test_a_database_that_is_not_migrated_does_not_end_the_enrolment(fresh_database: FreshDatabases) -> None:
    world = World(await fresh_database())
    async with world.running() as http:
        await asyncio.sleep(0.1)
        refused(await http.get("/readyz"), 503, "unavailable")
        await migrate.upgrade("proxy", world.url)
        await _until_ready(world)


@pytest.mark.parametrize("seed", ["", "AAAA", b64url(bytes(31)), b64url(bytes(33)), b64url(bytes(32)) + "="])
def test_a_seed_of_another_size_is_refused_and_not_shown(seed: str) -> None:
    with pytest.raises(ValidationError) as error:
        World("postgresql://127.0.0.1/none").settings(seed=seed)
    assert "43 characters" in str(error.value)
    assert not seed or seed not in str(error.value).replace("(43 characters)", "")


def test_the_seed_has_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PCEHR_SEED", raising=False)
    with pytest.raises(ValidationError, match="seed"):
        ProxySettings(database_url="postgresql://127.0.0.1/none", endpoint="http://proxy.test")  # type: ignore[call-arg]


@pytest.mark.parametrize("change", [{"workers": 0}, {"endpoint": "proxy.test"}, {"endpoint": "http://u:p@proxy.test"}])
def test_settings_that_make_no_sense(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        World("postgresql://127.0.0.1/none").settings(**change)
