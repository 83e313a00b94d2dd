"""The figures of each service, one by one: what makes them count, and that an outage takes none of the others away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from client.embedded.postgres import EmbeddedPostgres
from services.proxy.arithmetic import BATCH, BATCHES_PER_WORKER, Arithmetic
from services.proxy.figures import Figures
from services.proxy.service import KEPT_AFTER_END
from shared import trace
from shared.crypto.derivation import Seed
from shared.crypto.umbral import KfragSigner, encrypt, generate_kfrags
from shared.db import migrate
from shared.db.engine import Database
from shared.errors import DatabaseUnavailable
from shared.web import metrics
from tests.conftest import FreshDatabases
from tests.services.proxy.world import World as ProxyWorld
from tests.services.records.network import Lie
from tests.services.records.world import PATIENCE, World

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(autouse=True)
def read_at_every_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "KEPT_SECONDS", 0.0)


@pytest.fixture
def patient_scrapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is, what can be read is shown."""
    monkeypatch.setattr(metrics, "READ_SECONDS", PATIENCE)


@pytest.fixture
async def world(fresh_database: FreshDatabases, tmp_path: Path) -> World:
    return World(await fresh_database("records"), tmp_path / "blobs")


@asynccontextmanager
async def still(world: World) -> AsyncIterator[World]:
    """The outbox delivers only when it is told to."""
    async with world.running(own_time=True, outbox_enabled=False):
        yield world


def samples(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def figures(http: httpx.AsyncClient) -> dict[str, float]:
    response = await http.get("/metrics")
    assert response.status_code == 200
    return samples(response.text)


# The outbox


@pytest.mark.usefixtures("patient_scrapes")
async def test_what_waits_in_the_outbox_is_shown_with_the_age_of_the_oldest(world: World) -> None:
    async with still(world):
        await world.give(world.signed_grant())
        world.clock.now += 40
        await world.give(world.signed_grant())
        world.clock.now += 2
        shown = await figures(world.http)
        assert shown["pcehr_outbox_readable"] == 1
        assert (shown["pcehr_outbox_waiting shares"], shown["pcehr_outbox_oldest_seconds shares"]) == (6, 42)
        assert (shown["pcehr_outbox_waiting revocation"], shown["pcehr_outbox_oldest_seconds revocation"]) == (0, 0)
        assert await world.app.state.outbox.run_once() == 6
        shown = await figures(world.http)
        assert (shown["pcehr_outbox_waiting shares"], shown["pcehr_outbox_oldest_seconds shares"]) == (0, 0)


@pytest.mark.usefixtures("patient_scrapes")
async def test_a_revocation_that_waits_counts_from_when_it_came(world: World) -> None:
    async with still(world):
        grant = await world.give(world.signed_grant())
        world.clock.now += 1_000
        await world.revoke(grant.id)
        world.clock.now += 7
        shown = await figures(world.http)
        assert (shown["pcehr_outbox_waiting revocation"], shown["pcehr_outbox_oldest_seconds revocation"]) == (3, 7)
        assert shown["pcehr_outbox_waiting shares"] == 0


@pytest.mark.usefixtures("patient_scrapes")
async def test_deliveries_are_counted_by_how_they_ended(world: World) -> None:
    async with still(world):
        world.proxies[0].down = True
        world.proxies[1].status, world.proxies[1].code = 422, "kfrag_rejected"
        await world.give(world.signed_grant())
        await world.app.state.outbox.run_once()
        shown = await figures(world.http)
        assert {name: value for name, value in shown.items() if name.startswith("pcehr_outbox_deliveries_total")} == {
            "pcehr_outbox_deliveries_total shares done": 1,
            "pcehr_outbox_deliveries_total shares refused": 1,
            "pcehr_outbox_deliveries_total shares failed": 1,
            "pcehr_outbox_deliveries_total revocation done": 0,
            "pcehr_outbox_deliveries_total revocation refused": 0,
            "pcehr_outbox_deliveries_total revocation failed": 0,
        }


# Proxies in disclosures


@pytest.mark.parametrize(
    ("trouble", "outcome"),
    [
        ({"down": True}, "failed"),
        ({"status": 503, "code": "unavailable"}, "failed"),
        ({"status": 403, "code": "grant_revoked"}, "refused"),
        ({"delay": 30}, "slow"),
        ({"lie": Lie.NOT_JSON}, "malformed"),
        ({"lie": Lie.TOO_FEW_CFRAGS}, "malformed"),
        ({"lie": Lie.FOREIGN_SIGNATURE}, "malformed"),
        ({"lie": Lie.UNEXPECTED}, "malformed"),
        ({"lie": Lie.DRIPPING}, "slow"),
    ],
    ids=["away", "503", "403", "too-slow", "no-json", "too-few", "forged-receipt", "unexpected", "dripping"],
)
@pytest.mark.usefixtures("patient_scrapes")
async def test_proxies_asked_are_counted_by_how_it_ended(world: World, trouble: dict[str, Any], outcome: str) -> None:
    async with world.running():
        record = await world.written()
        grant = await world.granted()
        for name, value in trouble.items():
            setattr(world.proxies[0], name, value)
        response = await world.disclose(world.wanting(grant, record))
        assert response.status_code == 200, response.text
        shown = await figures(world.http)
    asked = {
        name.rpartition(" ")[2]: value for name, value in shown.items() if name.startswith("pcehr_proxies_asked_total")
    }
    expected = dict.fromkeys(("ok", "slow", "refused", "failed", "malformed"), 0.0)
    assert asked == expected | {"ok": 2, outcome: 1}


async def test_no_figure_names_a_party(world: World) -> None:
    async with world.running():
        record = await world.written()
        grant = await world.granted()
        await world.disclose(world.wanting(grant, record))
        text = (await world.http.get("/metrics")).text
    parties = [world.patient.did, world.doctor.did, *[proxy.did for proxy in world.proxies]]
    assert [party for party in [*parties, "did:", grant.id, record.record] if party in text] == []


# Look-ups


async def test_lookups_are_counted_as_hits_misses_and_failures(world: World) -> None:
    async with world.running(party_cache_seconds=3600, outbox_enabled=False):
        for _ in range(2):
            await world.written()
        before = await figures(world.http)
        assert before["pcehr_party_lookups_total miss"] == 1
        assert before["pcehr_party_lookups_total hit"] >= 1
        assert before["pcehr_party_lookups_total failed"] == 0
        world.registry.away = True
        stranger = world.doctor.disclosure_request(world.patient, ["allergies"])
        response = await world.post("/v1/disclosure-requests", world.doctor, {"statement": stranger})
        assert response.json()["code"] == "registry_unavailable"
        assert (await figures(world.http))["pcehr_party_lookups_total failed"] == 1


# The database


@pytest.mark.usefixtures("patient_scrapes")
async def test_a_database_that_is_away_takes_its_own_figures_only(postgres_dir: Path, tmp_path: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        await server.create_role_and_database("records", "a-password")
        url = server.url_for("records", "a-password")
        await migrate.upgrade("records", url)
        world = World(url, tmp_path / "blobs")
        async with still(world):
            await world.give(world.signed_grant())
            assert (await figures(world.http))["pcehr_outbox_waiting shares"] == 3
            await server.stop()
            shown = await figures(world.http)
            assert shown["pcehr_outbox_readable"] == 0
            assert not [name for name in shown if name.startswith(("pcehr_outbox_waiting", "pcehr_outbox_oldest"))]
            assert shown["pcehr_database_connections_max"] == 10
            assert [name for name in shown if name.startswith("pcehr_http_requests_total")]
            await server.start()
            shown = await figures(world.http)
            assert (shown["pcehr_outbox_readable"], shown["pcehr_outbox_waiting shares"]) == (1, 3)


async def test_a_table_that_is_locked_does_not_hold_up_a_scrape(world: World) -> None:
    """The lock is given back only after the scrape has been answered, so that one which waited would never end."""
    async with still(world):
        await world.give(world.signed_grant())
        locker = Database(world.database_url, application_name="test")
        async with locker.transaction() as session:
            connection = await session.connection()
            await connection.exec_driver_sql("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
            assert (await figures(world.http))["pcehr_outbox_readable"] == 0
        await locker.dispose()
        async with asyncio.timeout(PATIENCE):
            while (await figures(world.http))["pcehr_outbox_readable"] != 1:  # noqa: ASYNC110  As a scraper would.
                await asyncio.sleep(0.01)


async def test_the_use_of_the_pool_is_counted(fresh_database: FreshDatabases) -> None:
    database = Database(await fresh_database(), application_name="test", pool_size=2, pool_timeout=0.2)
    assert database.pool_use.open == 0
    async with database.transaction():
        use = database.pool_use
        assert (use.size, use.open, use.in_use, use.waiting, use.waits, use.timeouts) == (2, 1, 1, 0, 0, 0)
        async with database.transaction():
            waiting = asyncio.create_task(_transaction(database))
            await asyncio.sleep(0)
            use = database.pool_use
            assert (use.in_use, use.waiting, use.waits) == (2, 1, 1)
            with pytest.raises(DatabaseUnavailable):
                await waiting
    use = database.pool_use
    assert (use.open, use.in_use, use.waiting, use.waits, use.timeouts) == (2, 0, 0, 1, 1)
    await database.dispose()


async def _transaction(database: Database) -> None:
    async with database.transaction():
        pass


# A proxy


async def test_kfrags_are_counted_when_stored_and_when_erased(fresh_database: FreshDatabases) -> None:
    world = ProxyWorld(await fresh_database("proxy"))
    async with world.running() as http:
        revoked = await world.stored(("allergies", "laboratory"))
        ended = await world.stored(("medications",))
        # Repeated, it has no second effect.
        await world.post_share(revoked)
        assert (await figures(http))["pcehr_kfrags_stored_total"] == 3
        for _ in range(2):
            await world.revoke(revoked)
        # A tombstone by anybody but the patient erases nothing.
        await world.revoke(ended, by=world.other_patient)
        shown = await figures(http)
        assert (shown["pcehr_kfrags_erased_total revoked"], shown["pcehr_kfrags_erased_total ended"]) == (2, 0)
        world.clock.now += 400 * 86_400 + KEPT_AFTER_END
        await world.app.state.service.prune()
        shown = await figures(http)
        assert (shown["pcehr_kfrags_erased_total revoked"], shown["pcehr_kfrags_erased_total ended"]) == (2, 1)


async def test_arithmetic_is_counted_in_capsules_batches_and_workers() -> None:
    delegating = Seed.from_bytes(bytes(31) + b"\x01").umbral_key("scope/x/0")
    receiving = Seed.from_bytes(bytes(31) + b"\x02").umbral_key("receiving/0").public_key()
    signer = KfragSigner(Seed.from_bytes(bytes(31) + b"\x01").umbral_key("signer/0"))
    kfrag = bytes(generate_kfrags(delegating, receiving, signer, 1, 1)[0])
    capsules = [bytes(encrypt(delegating.public_key(), b"")[0]) for _ in range(BATCH + 1)] * 3
    registry = CollectorRegistry()
    arithmetic = Arithmetic(1, Figures(registry))

    def value(name: str) -> float | None:
        return registry.get_sample_value(name)

    await arithmetic.start()
    try:
        working = asyncio.create_task(arithmetic.reencrypt([(kfrag, capsules)]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        batches = -(-len(capsules) // BATCH)
        assert batches > BATCHES_PER_WORKER
        assert (value("pcehr_workers"), value("pcehr_workers_busy")) == (1, 1)
        assert value("pcehr_worker_batches_queued") == batches - 1
        await working
        assert (value("pcehr_workers_busy"), value("pcehr_worker_batches_queued")) == (0, 0)
        assert value("pcehr_capsules_reencrypted_total") == len(capsules)
        assert value("pcehr_reencryption_batch_seconds_count") == batches
        assert (value("pcehr_reencryption_batch_seconds_sum") or 0) > 0
    finally:
        await arithmetic.close()


# Traces, as they leave a service


async def test_records_hands_the_trace_on_to_the_registry_and_to_every_proxy_it_asks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.running():
        record = await world.written()
        grant = await world.granted()
        sent: list[tuple[str, str]] = []
        bring = world.network.handle_async_request

        async def noting(request: httpx.Request) -> httpx.Response:
            # What the publisher of the log asks the registry meanwhile has a trace of its own.
            header = request.headers["traceparent"]
            if TRACE in header or request.url.path == "/v1/reencryptions":
                sent.append((request.url.host, header))
            return await bring(request)

        monkeypatch.setattr(world.network, "handle_async_request", noting)
        response = await world.http.post(
            "/v1/disclosures",
            json={"request": world.wanting(grant, record), "exclude": []},
            headers=world.authorization(world.doctor) | {"traceparent": f"00-{TRACE}-{PARENT}-01"},
        )
    assert response.status_code == 200
    own = response.headers["x-request-id"].partition("-")[2]
    assert {header for _, header in sent} == {f"00-{TRACE}-{own}-01"}
    hosts = {host for host, _ in sent}
    assert "registry.invalid" in hosts
    assert len(hosts & {f"proxy-{number}.invalid" for number in (1, 2, 3)}) == 2


async def test_a_delivery_begins_a_trace_of_its_own_at_each_attempt(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pcehr")
    async with still(world):
        world.proxies[0].down = True
        sent: list[str] = []
        bring = world.network.proxies["proxy-1.invalid"].answer

        async def noting(request: httpx.Request) -> httpx.Response:
            parsed = trace.parse_traceparent(request.headers["traceparent"])
            assert parsed is not None
            sent.append(parsed.trace_id)
            return await bring(request)

        monkeypatch.setattr(world.network.proxies["proxy-1.invalid"], "answer", noting)
        response = await world.http.post(
            "/v1/grants",
            json=world.signed_grant().as_json(),
            headers=world.authorization(world.patient) | {"traceparent": f"00-{TRACE}-{PARENT}-01"},
        )
        assert response.status_code == 201
        for _ in range(3):
            await world.app.state.outbox.run_once()
            world.milliseconds += 10_000
    assert len(set(sent)) == 3
    assert TRACE not in sent
    own = [vars(line) for line in caplog.records if line.name == "pcehr.records.outbox"]
    [queued] = [line["deliveries"] for line in own if "deliveries" in line]
    attempts = [(line["delivery"], line["outcome"], line["attempts"]) for line in own if "delivery" in line]
    assert {delivery for delivery, _, _ in attempts} == set(queued)
    assert sorted(tried for _, outcome, tried in attempts if outcome == "failed") == [1, 2, 3]
    assert len([outcome for _, outcome, _ in attempts if outcome == "done"]) == 2
