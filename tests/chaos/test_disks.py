"""Disks that are full or read-only: clear errors, nothing acknowledged is lost, and all is well when there is room."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import stamina

from client import keystore
from client.embedded.platform import EmbeddedPlatform
from client.embedded.postgres import EmbeddedPostgres
from client.errors import ServiceRefused
from client.keyring import Keyring
from client.patient import Patient
from client.recipient import Recipient
from client.records import NewRecord
from client.reports import StoredRecord
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from shared.encoding import b64url, sha256
from shared.wire import RECORDS_AUDIENCE, Action, Purpose
from tests import warm
from tests.chaos.account import settled_account, watched
from tests.chaos.ledger import Observed
from tests.chaos.small_disk import SmallDisk
from tests.conftest import temporary_folder

ROOT = Path(__file__).parents[2]
POSTGRES_MEGABYTES = 400
BODY = 48_000
"""Bytes of a record that still lies in the database."""
BACK_SECONDS = 120.0

pytestmark = pytest.mark.timeout(600)


@dataclass
class Stage:
    """A platform on small disks, and a patient whose acknowledgements are in a ledger."""

    platform: EmbeddedPlatform
    postgres: SmallDisk
    blobs: SmallDisk
    session: Session
    ledger: Path

    @property
    def patient(self) -> Patient:
        return Patient(self.session, known_scopes=("allergies",))

    async def put_blob(self, body: bytes) -> httpx.Response:
        """Upload once, without repeating it, to see the answer itself."""
        url = self.platform.urls["records"]
        token = await self.session.platform.token(await self.session.credentials(), RECORDS_AUDIENCE)
        headers = {"authorization": f"Bearer {token}", "content-type": "application/octet-stream"}
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            return await http.put(f"{url}/v1/blobs/{b64url(sha256(body))}", content=body, headers=headers)


@pytest.fixture(scope="module")
async def stage() -> AsyncIterator[Stage]:
    """One for all tests here, since each leaves it with room on its disks and all its parts ready."""
    with pytest.MonkeyPatch.context() as patch, temporary_folder() as folder:
        patch.setattr("client.embedded.platform.WATCH_SECONDS", 0.1)
        async with AsyncExitStack() as stack:
            home = folder / "home"
            postgres = SmallDisk(home / "postgres", POSTGRES_MEGABYTES)
            stack.callback(postgres.unmount)
            blobs = SmallDisk(home / "blobs", 2)
            stack.callback(blobs.unmount)
            home.chmod(0o711)
            running = await stack.enter_async_context(warm.WarmPlatform(home, base_port=None))
            await stack.enter_async_context(watched(running))
            ledger = folder / "ledger.jsonl"
            http = await stack.enter_async_context(Platform(running.registry_url, transport=Observed(ledger)))
            session = Session(Keyring.generate(), http, ClientState.load(folder / "state.db"))
            await Patient(session).sign_up()
            yield Stage(running, postgres, blobs, session, ledger)


def large() -> NewRecord:
    return NewRecord(body=os.urandom(BODY), media_type="application/octet-stream", scope="allergies")


async def back(stage: Stage) -> None:
    """Every service is ready again, by the supervisor alone."""
    deadline = time.monotonic() + BACK_SECONDS
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        for name, url in stage.platform.urls.items():
            while (await _status(http, f"{url}/readyz")) != 204:
                assert time.monotonic() < deadline, f"{name} is not back"
                await asyncio.sleep(0.2)


async def _status(http: httpx.AsyncClient, url: str) -> int | None:
    try:
        return (await http.get(url)).status_code
    except httpx.HTTPError:
        return None


# --- the folder of blobs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["full", "read_only"])
async def test_a_folder_of_blobs_that_takes_nothing_says_503_and_keeps_what_it_has(stage: Stage, how: str) -> None:
    kept, body = os.urandom(100_000), os.urandom(300_000)
    assert (await stage.put_blob(kept)).status_code == 201
    with getattr(stage.blobs, how)():
        answer = await stage.put_blob(body)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
    names = {path.name for path in stage.blobs.place.rglob("*") if path.is_file()}
    assert b64url(sha256(kept)) in names
    assert not list((stage.blobs.place / "incoming").iterdir()), "nothing is left of what was refused"
    assert b64url(sha256(body)) not in names
    assert (await stage.put_blob(body)).status_code == 201
    assert (stage.blobs.place / b64url(sha256(body))[:2] / b64url(sha256(body))).read_bytes() == body


# --- the client's own folder ------------------------------------------------------------------------------------------


@pytest.fixture
def client_disk(chaos_home: Path) -> SmallDisk:
    return SmallDisk(chaos_home / "client", 2)


async def pcehr(home: Path, registry_url: str, *arguments: str) -> dict[str, Any]:
    """A real command in a process of its own; what it printed, with its exit status."""
    environment = {
        "PCEHR_HOME": str(home),
        "PCEHR_REGISTRY_URL": registry_url,
        "PCEHR_PASSPHRASE": "a passphrase of the tests",
    }
    status, said, complaint = await warm.run("client", "--json", *arguments, env=environment)
    assert b"Traceback" not in complaint
    found: dict[str, Any] = json.loads(said or complaint)
    return {**found, "status": status}


@pytest.mark.parametrize(("how", "code"), [("full", "no_room"), ("read_only", "read_only")])
async def test_a_client_without_room_says_so_and_goes_on_later(
    stage: Stage, client_disk: SmallDisk, how: str, code: str
) -> None:
    home, url = client_disk.place, stage.platform.registry_url
    try:
        with getattr(client_disk, how)():
            refused = await pcehr(home, url, "init", "patient", "--yes")
        assert (refused["status"], refused["error"]["code"]) == (1, code)
        assert refused["error"]["hint"]
        assert not list(home.rglob("keystore.json")), "no half of a keystore"
        signed_up = await pcehr(home, url, "init", "patient", "--yes")
        assert signed_up["status"] == 0
        with getattr(client_disk, how)():
            refused = await pcehr(home, url, "scopes", "add", "knee-surgery")
        assert (refused["status"], refused["error"]["code"]) == (1, code)
        assert "damaged" not in refused["error"]["detail"]
        assert (await pcehr(home, url, "scopes", "add", "knee-surgery"))["status"] == 0
        listed = await pcehr(home, url, "scopes")
        assert "knee-surgery" in json.dumps(listed)
        [profile] = list(home.rglob("keystore.json"))
        assert keystore.load(profile, "a passphrase of the tests").did == signed_up["did"]
    finally:
        client_disk.unmount()


async def test_a_consent_is_not_sent_that_could_not_be_written_down(stage: Stage, client_disk: SmallDisk) -> None:
    """Otherwise a client that forgets it could not end it."""
    try:
        http = stage.session.platform
        reader = Session(Keyring.generate(), http, ClientState())
        await Recipient(reader).sign_up("Demo Practice")
        session = Session(stage.session.keyring, http, ClientState.load(client_disk.place / "state.db"))
        owner = Patient(session, known_scopes=("allergies",))
        await owner.add_records([large()])
        terms: dict[str, Any] = {
            "scopes": ["allergies"],
            "actions": [Action.READ],
            "purpose": Purpose.TREAT,
            "expires": int(time.time()) + 86_400,
        }
        first = await owner.share(reader.did, **terms)
        with client_disk.full(), pytest.raises(OSError, match="disk is full"):
            await owner.share(reader.did, **terms)
        with client_disk.full(), pytest.raises(OSError, match="disk is full"):
            await owner.revoke(first.id)
        again = Patient(
            Session(stage.session.keyring, http, ClientState.load(client_disk.place / "state.db")),
            known_scopes=("allergies",),
        )
        [grant] = await again.grants()
        assert (grant.id, grant.live) == (first.id, True)
        assert (await again.revoke(first.id, wait_seconds=60)).state == "sealed"
    finally:
        client_disk.unmount()


# --- Postgres ---------------------------------------------------------------------------------------------------------


async def test_a_full_disk_under_postgres_loses_nothing_and_the_supervisor_brings_it_back(stage: Stage) -> None:
    database = stage.platform._database
    assert isinstance(database, EmbeddedPostgres)
    services, before = dict(stage.platform.pids), database.pid
    stored = await stage.patient.add_records([large()])
    with stage.postgres.full(), stamina.set_testing(True, attempts=1):
        with pytest.raises(ServiceRefused) as refused:
            await _store_until_refused(stage, stored)
        assert (refused.value.status, refused.value.code) == (503, "database_unavailable")
        await _write_ahead(database)
        assert "PANIC" in database.log_path.read_text(errors="replace")
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            for url in stage.platform.urls.values():
                readiness = await http.get(f"{url}/readyz")
                assert (readiness.status_code, readiness.json()["code"]) == (503, "database_unavailable")
                assert int(readiness.headers["retry-after"]) > 0
        # It cannot even recover without room, ends altogether, and is tried again and again.
        await _started_anew(database, before)
    await back(stage)
    assert stage.platform.pids == services, "the services themselves have gone on"
    stored += await stage.patient.add_records([large()])
    assert {record.record_id for record in await stage.patient.export()} >= {record.record_id for record in stored}
    problems, _ = await settled_account(stage.platform, [stage.ledger])
    assert problems == []


async def _store_until_refused(stage: Stage, stored: list[StoredRecord]) -> None:
    for _ in range(40):
        stored += await stage.patient.add_records([large() for _ in range(40)])


async def _started_anew(database: EmbeddedPostgres, before: int) -> None:
    deadline = time.monotonic() + BACK_SECONDS
    while database.running and database.pid == before:
        assert time.monotonic() < deadline, "Postgres has found room from somewhere"
        await asyncio.sleep(0.1)


async def _write_ahead(database: EmbeddedPostgres) -> None:
    """Make Postgres need another file of its write-ahead log, without which it ends itself."""
    connection = await asyncpg.connect(database.superuser_url)
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        for _ in range(20):
            await connection.execute("SELECT pg_switch_wal(), pg_logical_emit_message(false, 'x', 'x')")
    connection.terminate()


async def test_a_postgres_that_only_reads_is_said_to_be_away(stage: Stage) -> None:
    database = stage.platform._database
    assert isinstance(database, EmbeddedPostgres)
    [kept] = await stage.patient.add_records([large()])
    await _read_only(database, on=True)
    try:
        with stamina.set_testing(True, attempts=1), pytest.raises(ServiceRefused) as refused:
            await stage.patient.add_records([large()])
        assert (refused.value.status, refused.value.code) == (503, "database_unavailable")
    finally:
        await _read_only(database, on=False)
    [stored] = await stage.patient.add_records([large()])
    assert {record.record_id for record in await stage.patient.export()} >= {kept.record_id, stored.record_id}


async def _read_only(database: EmbeddedPostgres, *, on: bool) -> None:
    """As after a failover; connections that are open take it over with their next statement."""
    connection = await asyncpg.connect(database.superuser_url)
    try:
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}")
        await connection.execute("SELECT pg_reload_conf()")
        await _shows(database, "on" if on else "off")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid()"
        )
    finally:
        await connection.close()


async def _shows(database: EmbeddedPostgres, wanted: str) -> None:
    """Returns when new connections have the setting."""
    for _ in range(600):
        connection = await asyncpg.connect(database.superuser_url)
        try:
            if await connection.fetchval("SHOW default_transaction_read_only") == wanted:
                return
        finally:
            await connection.close()
        await asyncio.sleep(0.05)
    raise AssertionError("the setting was not taken over")
