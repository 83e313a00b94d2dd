"""The control of the whole arrangement: a Postgres that acknowledges what is not on disk is found out.

The services are the real ones, and so are the processes that are killed; the one thing that is wrong is planted from
outside, in the settings of the database roles. If the ledger's comparison said nothing here, its silence elsewhere
would be worth nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import pytest

from client.embedded.platform import EmbeddedPlatform
from client.embedded.postgres import EmbeddedPostgres
from client.keyring import Keyring
from client.patient import Patient
from client.records import NewRecord
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from tests.chaos.account import settled_account, watched
from tests.chaos.campaign import descendants
from tests.chaos.ledger import Observed

pytestmark = pytest.mark.timeout(600)


async def test_a_commit_that_was_acknowledged_and_not_flushed_is_found_to_be_lost(
    platform: EmbeddedPlatform, chaos_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.embedded.platform.WATCH_SECONDS", 0.1)
    database = platform._database
    assert isinstance(database, EmbeddedPostgres)
    async with watched(platform):
        assert await _lost(platform, database, chaos_home / "as-it-is") == []
        await _plant(platform, database)
        problems = await _lost(platform, database, chaos_home / "planted")
    assert any(problem.startswith("lost: version") for problem in problems)


async def _lost(platform: EmbeddedPlatform, database: EmbeddedPostgres, place: Path) -> list[str]:
    """What is wrong after some records have been acknowledged and Postgres has been killed as a whole."""
    path, state = place.with_suffix(".jsonl"), place.with_suffix(".db")
    async with Platform(platform.registry_url, transport=Observed(path)) as http:
        session = Session(Keyring.generate(), http, ClientState.load(state))
        patient = Patient(session, known_scopes=("allergies",))
        await patient.sign_up()
        for number in range(3):
            text = f"acknowledged {number}".encode()
            await patient.add_records([NewRecord(body=text, media_type="text/plain", scope="allergies")])
        # All at once, as when a machine loses its power: what was only in the server's memory is gone.
        for pid in [database.pid, *descendants(database.pid)]:
            os.kill(pid, signal.SIGKILL)
        return (await settled_account(platform, [path]))[0]


async def _plant(platform: EmbeddedPlatform, database: EmbeddedPostgres) -> None:
    """No commit of any service waits for the disk, and nobody writes behind it for ten seconds."""
    connection = await asyncpg.connect(database.superuser_url)
    try:
        await connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        await connection.execute("SELECT pg_reload_conf()")
        for name in platform.urls:
            await connection.execute(f'ALTER ROLE "{name.replace("-", "_")}" SET synchronous_commit = off')
        # The settings of a role are for new connections.
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
    finally:
        await connection.close()
    # The writer may be in the middle of a pause of the old length.
    await asyncio.sleep(0.5)
