"""Every statement that the services can issue, and what Postgres would do for it with a million rows of others.

Tables are filled with strangers' rows, each service is taken through everything it does on these tables, and each
statement it issued on the way is explained: for the arguments it had, and for any. `PCEHR_PLAN_RECORDS` is how many
records there are (`make plans` takes a million).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from bench.populate import LEAST, Strangers, fill
from services.proxy.identity import identity_from_seed
from shared.crypto.signing import SigningKey
from shared.db import migrate
from shared.transparency.checkpoints import Kind
from shared.wire import Role
from tests.conftest import FreshDatabases, PostgresServer
from tests.services.plans.explained import Fault, Tables, faults_of
from tests.services.plans.issued import Issued, Place, Recorder, missing, modules_with_sql, places_in
from tests.services.plans.rounds import ORIGINS, round_of_proxy, round_of_records, round_of_registry
from tests.services.proxy.world import World as ProxyWorld
from tests.services.records.world import LOG_SEED as RECORDS_LOG_SEED
from tests.services.records.world import World as RecordsWorld
from tests.services.registry.running import LOG_SEED as REGISTRY_LOG_SEED
from tests.services.registry.running import running, settings_for
from tests.services.signing_parties import TestClock, TestParty

RECORDS = int(os.environ.get("PCEHR_PLAN_RECORDS", "120000"))
FEWEST_ROWS = 1_000
"""In a table that grows; in one with fewer rows Postgres may well read all of them."""

SMALL = {
    "alembic_version": "One row.",
    "log_checkpoints": "The newest checkpoint published and those after it.",
    "log_evidence": "A row stops the log.",
    "own_entries": "The proxy's own chain of keys.",
    "witnessed_logs": "Two logs.",
}
"""Tables that do not grow with patients, records or grants, and why."""

WHOLE_TABLES = {
    "Deliveries.waiting": "Counts for the operator what waits, and the table holds nothing else.",
}
"""Functions that want all rows, and why that is right."""

NOT_ISSUED = {
    "add_evidence": "Comes when a database was set back, and one row stops the log.",
}
"""Functions that the rounds do not get to, and why."""

pytestmark = pytest.mark.timeout(1_800)


@dataclass(frozen=True)
class Observed:
    """A filled database that a service has been on, and what the service asked it for."""

    url: str
    issued: list[Issued]
    small: list[str]


Observe = Callable[[str], Awaitable[Observed]]


async def _on_registry(url: str) -> None:
    proxy = TestParty(Role.PROXY, endpoint="https://proxy.example")
    async with running(settings_for(url, admitted=[proxy.did]), TestClock()) as registry:
        await round_of_registry(registry, proxy)


async def _on_records(url: str, folder: Path) -> None:
    async with RecordsWorld(url, folder / "blobs").running() as world:
        await round_of_records(world)


async def _on_proxy(world: ProxyWorld) -> None:
    async with world.running(witnessed_logs=",".join(ORIGINS.values())):
        await round_of_proxy(world)


@pytest.fixture(scope="module")
async def observe(
    postgres: PostgresServer, fresh_database: FreshDatabases, tmp_path_factory: pytest.TempPathFactory
) -> Observe:
    """Call it for a service with its statements, on tables filled before it started; each service takes its round
    once."""
    folder = tmp_path_factory.mktemp("plans")
    seen: dict[str, Observed] = {}

    async def observe(service: str) -> Observed:
        if service not in seen:
            seen[service] = await _observed(service, postgres, await fresh_database(service), folder)
        return seen[service]

    return observe


async def _observed(service: str, server: PostgresServer, url: str, folder: Path) -> Observed:
    proxy = ProxyWorld(url)
    rounds: dict[str, tuple[Kind, SigningKey, Callable[[], Awaitable[None]]]] = {
        "registry": ("registry", SigningKey(REGISTRY_LOG_SEED), lambda: _on_registry(url)),
        "records": ("records", SigningKey(RECORDS_LOG_SEED), lambda: _on_records(url, folder)),
        "proxy": ("proxy", identity_from_seed(proxy.proxy.seed.reveal()).log_key, lambda: _on_proxy(proxy)),
    }
    kind, key, take_round = rounds[service]
    grants = RECORDS // 10
    size = Strangers(records=RECORDS, grants=grants, records_of_patient=20, waiting=grants // 2, sizes=LEAST)
    await fill(_as_superuser(server, url), kind, size, key)
    recorder = Recorder(_places(service))
    with recorder.listening():
        await take_round()
    return Observed(url, recorder.issued, await _small_tables(url))


def _as_superuser(server: PostgresServer, url: str) -> str:
    return urlunsplit(urlsplit(server.superuser_url)._replace(path=urlsplit(url).path))


def _places(service: str) -> list[Place]:
    return [place for path in modules_with_sql(service) for place in places_in(path)]


async def _small_tables(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return [
            row["tablename"]
            for row in names
            if await connection.fetchval(f"SELECT count(*) FROM {row['tablename']}") < FEWEST_ROWS
        ]
    finally:
        await connection.close()


async def faults(observed: Observed, issued: list[Issued]) -> list[Fault]:
    connection = await asyncpg.connect(observed.url)
    try:
        tables = await Tables.of(connection, SMALL)
        return [fault for one in issued for fault in await faults_of(connection, one, tables)]
    finally:
        await connection.close()


async def test_each_place_in_the_code_that_issues_statements_was_taken(observe: Observe) -> None:
    places = {place for service in migrate.SERVICES for place in _places(service)}
    seen = {issued.place for service in migrate.SERVICES for issued in (await observe(service)).issued}
    assert not missing(sorted(places), NOT_ISSUED, seen), "The rounds leave out a statement: extend them."


@pytest.mark.parametrize("service", migrate.SERVICES)
async def test_each_table_that_grows_was_filled(observe: Observe, service: str) -> None:
    assert set((await observe(service)).small) <= set(SMALL), (
        "bench.populate leaves out a table, or it belongs into SMALL."
    )


@pytest.mark.parametrize("service", migrate.SERVICES)
async def test_no_statement_reads_what_belongs_to_others(observe: Observe, service: str) -> None:
    observed = await observe(service)
    issued = [one for one in observed.issued if one.place.name not in WHOLE_TABLES]
    assert issued
    found = await faults(observed, issued)
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("name", WHOLE_TABLES)
async def test_what_may_read_a_whole_table_does(observe: Observe, name: str) -> None:
    """Otherwise it need not be excepted."""
    observed = await observe("records")
    assert await faults(observed, [one for one in observed.issued if one.place.name == name])


def planted(sql: str, argument: object) -> Issued:
    """A statement as a careless repository might issue it."""
    return Issued(Place("services/records/repository/careless.py", "Careless.read", 1, 1), sql, [argument])


PLANTED = {
    "a column without an index": planted("SELECT id FROM disclosure_requests WHERE purpose = $1", "ETREAT"),
    "a function around the column": planted("SELECT id FROM records WHERE lower(id) = $1::text", "a"),
    "a page by its number": planted("SELECT patient FROM record_versions ORDER BY number OFFSET $1::int LIMIT 5", 5),
    "a count of everything": planted("SELECT count(*) FROM record_versions WHERE epoch >= $1::int", 0),
    "an order that no index has": planted("SELECT id FROM grants WHERE threshold = $1::int ORDER BY id LIMIT 1", 9),
}


@pytest.mark.parametrize("kind", PLANTED)
async def test_a_careless_statement_is_found(observe: Observe, kind: str) -> None:
    assert await faults(await observe("records"), [PLANTED[kind]])


async def test_an_index_that_leads_past_the_rows_of_others_is_found(observe: Observe) -> None:
    """The plan looks well; only running it shows how much it touches."""
    careless = planted("SELECT count(*) FROM log_events WHERE subject >= $1", "did:key:z6Mkhf")
    assert any(fault.why.startswith("when run") for fault in await faults(await observe("records"), [careless]))


async def test_a_place_that_was_not_taken_is_found(observe: Observe) -> None:
    seen = {issued.place for issued in (await observe("registry")).issued}
    forgotten = min(seen)
    assert missing(sorted(seen), {}, seen - {forgotten}) == [forgotten]


@pytest.mark.parametrize("service", migrate.SERVICES)
async def test_what_is_said_not_to_be_issued_is_not(observe: Observe, service: str) -> None:
    assert not {issued.place.name for issued in (await observe(service)).issued} & set(NOT_ISSUED)
