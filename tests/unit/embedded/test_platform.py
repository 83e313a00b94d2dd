"""The platform on one machine, for real: its processes, its faults, and what is left when it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from client.embedded.errors import (
    AlreadyRunning,
    HomeMismatch,
    PortTaken,
    ServiceNotStarted,
    UnknownService,
)
from client.embedded.platform import EmbeddedPlatform
from client.embedded.postgres import EmbeddedPostgres
from client.embedded.process import ChildProcess, environment, last_lines
from client.keyring import Keyring
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from shared.wire import Role
from tests.conftest import PostgresServer, temporary_folder

SERVICES = ["registry", "records", "proxy-1", "proxy-2", "proxy-3"]

RUN_UNTIL_KILLED = """
import asyncio, signal, sys
from pathlib import Path
from client.embedded.platform import EmbeddedPlatform

async def main():
    async with EmbeddedPlatform(Path(sys.argv[1]), proxies=1, threshold=1, base_port=None):
        print("up", flush=True)
        await asyncio.sleep(600)

# As a shell without job control leaves it to what it starts in the background.
signal.signal(signal.SIGQUIT, signal.SIG_IGN)
asyncio.run(main())
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
async def platform() -> AsyncIterator[EmbeddedPlatform]:
    """One platform for all tests that leave it as they found it."""
    with temporary_folder() as folder:
        async with EmbeddedPlatform(folder, base_port=None) as running:
            yield running


def processes_below(pid: int) -> set[int]:
    """All descendants of a process (Linux)."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found, wanted = set(), {pid}
    while wanted:
        wanted = {child for child, parent in parents.items() if parent in wanted}
        found |= wanted
    return found


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}/status").exists() and "\nState:\tZ" not in _status(pid)}


async def becomes(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Whether it holds within so many seconds."""
    for _ in range(int(seconds * 10)):
        if condition():
            return True
        await asyncio.sleep(0.1)
    return condition()


def _seen_from_outside(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text() + Path(f"/proc/{pid}/cmdline").read_text()


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "\nState:\tZ"


async def test_every_service_is_ready_and_says_where_it_is(platform: EmbeddedPlatform) -> None:
    assert list(platform.urls) == SERVICES
    async with httpx.AsyncClient(trust_env=False) as http:
        for url in platform.urls.values():
            assert (await http.get(f"{url}/readyz")).status_code == 204
        discovery = (await http.get(f"{platform.registry_url}/.well-known/pcehr")).json()
    assert discovery["records_url"] == platform.urls["records"]
    assert discovery["threshold"] == 2
    state = json.loads((platform.home / "platform.json").read_text())
    assert state["registry_url"] == platform.registry_url
    assert state["pid"] == os.getpid()
    assert state["pids"] == platform.pids
    assert [proxy["did"] for proxy in state["proxies"]] == list(platform.proxy_dids.values())


async def test_the_registry_knows_the_proxies_and_no_others(platform: EmbeddedPlatform) -> None:
    async with Platform(platform.registry_url) as client:
        assert {proxy.did async for proxy in client.proxies()} == set(platform.proxy_dids.values())


async def test_no_secret_stands_in_an_environment_or_on_a_command_line(platform: EmbeddedPlatform) -> None:
    secrets = [path.read_text() for path in platform.home.glob("secrets/*/*")]
    # Two for the database of each; keys of tokens and of two logs; a seed for each proxy.
    assert len(secrets) == 5 * 2 + 3 + 3
    for pid in platform.pids.values():
        assert not any(secret in _seen_from_outside(pid) for secret in secrets)


async def test_a_second_platform_in_the_same_home_is_refused(platform: EmbeddedPlatform) -> None:
    with pytest.raises(AlreadyRunning, match="already runs"):
        async with EmbeddedPlatform(platform.home, base_port=None):
            pass
    # The one that runs is not disturbed.
    assert json.loads((platform.home / "platform.json").read_text())["pid"] == os.getpid()


async def test_a_killed_service_is_away_and_can_be_started_again(platform: EmbeddedPlatform) -> None:
    address = platform.urls["proxy-2"]
    before = platform.pids["proxy-2"]
    await platform.kill("proxy-2")
    assert "proxy-2" not in platform.pids
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(f"{address}/healthz")
        await platform.start("proxy-2")
        assert (await http.get(f"{address}/readyz")).status_code == 204
    assert platform.pids["proxy-2"] != before


async def test_a_service_that_cannot_start_shows_its_log(platform: EmbeddedPlatform) -> None:
    port = int(platform.urls["proxy-3"].rpartition(":")[2])
    await platform.kill("proxy-3")
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ServiceNotStarted, match="in use") as refusal:
        await platform.start("proxy-3")
    assert "proxy-3.log" in refusal.value.detail
    await platform.start("proxy-3")


async def test_a_service_that_ends_by_itself_is_started_again(platform: EmbeddedPlatform) -> None:
    said: list[str] = []
    platform._say = said.append
    before = platform.pids["records"]
    watching = asyncio.create_task(platform.watch())
    os.kill(before, signal.SIGKILL)
    assert await becomes(lambda: platform.pids.get("records", before) != before, seconds=60)
    assert await becomes(lambda: said[-1:] == ["records is ready."], seconds=60)
    watching.cancel()
    assert platform.ended == []


async def test_a_postgres_that_ends_by_itself_is_started_again(platform: EmbeddedPlatform) -> None:
    database = platform._database
    assert isinstance(database, EmbeddedPostgres)
    services, before = dict(platform.pids), database.pid
    watching = asyncio.create_task(platform.watch())
    os.kill(before, signal.SIGKILL)
    try:
        assert await becomes(lambda: database.running and database.pid != before, seconds=60)
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            for url in platform.urls.values():
                assert (await http.get(f"{url}/readyz")).status_code in (204, 503)
    finally:
        watching.cancel()
    assert platform.pids == services, "no service had to be restarted"


async def test_what_cannot_be_started_again_is_tried_until_it_can(platform: EmbeddedPlatform) -> None:
    port, before = int(platform.urls["proxy-3"].rpartition(":")[2]), platform.pids["proxy-3"]
    said: list[str] = []
    platform._say = said.append
    os.kill(before, signal.SIGKILL)
    assert await becomes(lambda: platform.ended == ["proxy-3"], seconds=30)
    with socket.create_server(("127.0.0.1", port), reuse_port=False):
        watching = asyncio.create_task(platform.watch())
        assert await becomes(lambda: any("in use" in line for line in said), seconds=60)
    try:
        assert await becomes(lambda: "proxy-3 is ready." in said, seconds=60)
    finally:
        watching.cancel()


async def test_an_unknown_service_is_named(platform: EmbeddedPlatform) -> None:
    with pytest.raises(UnknownService, match="proxy-9"):
        await platform.kill("proxy-9")


async def test_data_survive_a_restart_and_proxies_may_be_added(home: Path) -> None:
    keyring = Keyring.generate()
    alone = EmbeddedPlatform(home, proxies=1, threshold=1, base_port=None)
    async with alone as first, Platform(first.registry_url) as client:
        await Session(keyring, client, ClientState()).sign_up(Role.PATIENT)
        pids = set(first.pids.values())
        dids = first.proxy_dids
    assert not alive(pids)
    assert not (home / "platform.json").exists()
    async with EmbeddedPlatform(home, proxies=2, base_port=None) as second, Platform(second.registry_url) as client:
        assert (await Session(keyring, client, ClientState()).me()).did == keyring.did
        assert second.registry_url == first.registry_url
        assert list(second.proxy_dids.items())[:1] == list(dids.items())
        assert len([proxy async for proxy in client.proxies()]) == 2
    with pytest.raises(HomeMismatch):
        async with EmbeddedPlatform(home, proxies=1, threshold=1, base_port=None):
            pass


async def test_a_port_that_is_taken_is_named_before_anything_starts(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)) as refusal:
            async with EmbeddedPlatform(home, base_port=port):
                pass
    assert "--port" in refusal.value.detail
    assert not (home / "postgres").exists()


async def test_a_threshold_beyond_the_proxies_is_refused(home: Path) -> None:
    with pytest.raises(ServiceNotStarted, match="threshold"):
        async with EmbeddedPlatform(home, proxies=2, threshold=3, base_port=None):
            pass


async def test_an_external_postgres_that_is_away_is_said(home: Path) -> None:
    with pytest.raises(ServiceNotStarted, match="Postgres"):
        async with EmbeddedPlatform(home, base_port=None, postgres_url="postgresql://nobody@127.0.0.1:1/postgres"):
            pass


async def test_another_postgres_may_be_used_instead(home: Path, postgres: PostgresServer) -> None:
    try:
        async with EmbeddedPlatform(home, proxies=1, threshold=1, base_port=None, postgres_url=postgres.superuser_url):
            assert not (home / "postgres").exists()
        with pytest.raises(HomeMismatch, match="external Postgres"):
            async with EmbeddedPlatform(home, proxies=1, threshold=1, base_port=None):
                pass
    finally:
        prefix = json.loads((home / "layout.json").read_text())["database_prefix"]
        connection = await asyncpg.connect(postgres.superuser_url)
        for name in ("registry", "records", "proxy_1"):
            await connection.execute(f'DROP DATABASE "{prefix}{name}" WITH (FORCE)')
            await connection.execute(f'DROP ROLE "{prefix}{name}"')
        await connection.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
async def test_a_killed_platform_leaves_no_process_behind(home: Path) -> None:
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN_UNTIL_KILLED, str(home), stdout=subprocess.PIPE, env=environment({})
    )
    assert supervisor.stdout is not None
    assert await supervisor.stdout.readline() == b"up\n"
    below = processes_below(supervisor.pid)
    # Three services, a worker process of the proxy, and Postgres with its own.
    assert len(below) >= 3 + 1 + 2
    supervisor.kill()
    await supervisor.wait()
    assert await becomes(lambda: not alive(below), seconds=15), alive(below)
    # What was killed can be started again, and finds its data.
    async with EmbeddedPlatform(home, proxies=1, threshold=1, base_port=None) as again:
        assert list(again.urls) == ["registry", "records", "proxy-1"]


async def test_a_child_gets_nothing_of_the_environment_that_it_should_not_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PCEHR_PASSPHRASE", "secret")
    monkeypatch.setenv("PCEHR_DATABASE_URL", "postgresql://elsewhere")
    monkeypatch.setenv("HTTP_PROXY", "http://elsewhere")
    given = environment({"PCEHR_NAME": "x"})
    assert given["PCEHR_NAME"] == "x"
    assert not {"PCEHR_PASSPHRASE", "PCEHR_DATABASE_URL", "HTTP_PROXY"} & given.keys()


async def test_a_program_that_ends_is_seen_and_its_words_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    child = ChildProcess(
        [sys.executable, "-c", "print('its last words'); raise SystemExit(3)"], log=log, cwd=tmp_path, env={}
    )
    assert await child.ended_within(30)
    assert child.exit_status == 3
    assert last_lines(log) == "its last words"
    assert last_lines(tmp_path / "none.log") == ""
