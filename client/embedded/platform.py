"""The whole platform on one machine: a Postgres, the registry, the records service and the proxies.

Each service is a process of its own, with a database, a role and secrets of its own, exactly as it would be on a
machine of its own; what they share is only the folder that holds them (`client.embedded.home`). Nothing here imports
a service: they are started as programs. What this supervisor keeps to:

- secrets are made at the first run, kept in files of mode 0600, and handed over as files, not in the environment;
- no process outlives this one, even if it is killed (Linux);
- all data survive a restart, and the number of proxies may grow from one run to the next;
- whatever goes wrong at a start is said together with the end of that service's log, and everything that had been
  started is stopped again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import httpx

from client.embedded.errors import PortTaken, ServiceNotStarted, UnknownService
from client.embedded.home import HOST, Home, Layout, port_is_free
from client.embedded.postgres import EmbeddedPostgres, EmbeddedPostgresError, create_role_and_database
from client.embedded.process import ChildProcess, last_lines
from shared.crypto.derivation import Seed
from shared.crypto.signing import SigningKey
from shared.did import did_from_key
from shared.encoding import b64url
from shared.transparency.checkpoints import origin_of

READY_SECONDS = 90.0
"""How long a service may take until it is ready; seconds on an idle machine, much longer on a busy small one."""

STOP_SECONDS = 5.0
"""How long a service may finish what it is doing before it is killed."""

LOG_BYTES = 8 * 1024 * 1024
"""A log is put aside at a start when it is larger than this; one older log is kept."""

WATCH_SECONDS = 1.0
"""How often `watch` looks."""

MAX_PAUSE_SECONDS = 15.0
"""The longest pause of `watch` between two attempts to start something again."""

_POLL_SECONDS = 0.05


class Database(Protocol):
    """A Postgres server in which each service gets a database and a role of its own."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def create_role_and_database(self, name: str, password: str) -> None: ...

    def url_for(self, name: str, password: str) -> str: ...


class ExternalPostgres:
    """A server that somebody else runs; the URL is that of a role that may create roles and databases."""

    def __init__(self, superuser_url: str) -> None:
        self._superuser_url = superuser_url

    async def start(self) -> None:
        """Nothing to start; raises `ServiceNotStarted` when the server does not answer."""
        try:
            connection = await asyncpg.connect(self._superuser_url, timeout=10)
        except (OSError, ValueError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise ServiceNotStarted(
                f"The Postgres server given does not let us in ({type(error).__name__}). Check its address, role and"
                " password, or leave it out and use the embedded one."
            ) from None
        await connection.close()

    async def stop(self) -> None:
        """Nothing to stop."""

    async def create_role_and_database(self, name: str, password: str) -> None:
        await create_role_and_database(self._superuser_url, name, password)

    def url_for(self, name: str, password: str) -> str:
        parts = urlsplit(self._superuser_url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{name}:{quote(password, safe='')}@{host}", path=f"/{name}"))


@dataclass(frozen=True)
class _Service:
    """One process of the platform. `kind` is the package under `services`; `settings` hold no secret."""

    name: str
    kind: str
    port: int
    settings: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


class EmbeddedPlatform:
    """Start with `async with`; ends everything it started when the block is left, whatever the reason.

    `base_port` is the registry's; records listen on the next one, proxies from `base_port + 11` on. None takes free
    ports at the first run and the same ones afterwards. `proxies=None` keeps their number (three at first). Each proxy
    re-encrypts in `workers` processes. `settings` are further ones, none of them secret, by the kind of service.
    """

    process: type[ChildProcess] = ChildProcess
    """What a program is started as."""

    def __init__(
        self,
        home: Path,
        *,
        proxies: int | None = 3,
        threshold: int = 2,
        workers: int = 1,
        base_port: int | None = 8400,
        postgres_url: str | None = None,
        progress: Callable[[str], None] | None = None,
        settings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._home = Home(home)
        self._wanted = (proxies, threshold, base_port)
        self._workers = workers
        self._postgres_url = postgres_url
        self._say = progress or (lambda _: None)
        self._settings = dict(settings or {})
        self._database: Database | None = None
        self._services: dict[str, _Service] = {}
        self._children: dict[str, ChildProcess] = {}
        self._passing: list[ChildProcess] = []
        self.proxy_dids: dict[str, str] = {}
        """The DID of each proxy by its name, `proxy-1` and so on."""

    @property
    def home(self) -> Path:
        return self._home.path

    @property
    def registry_url(self) -> str:
        return self._services["registry"].url

    @property
    def urls(self) -> dict[str, str]:
        """The address of each service by its name."""
        return {service.name: service.url for service in self._services.values()}

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the services that run, by name."""
        return {name: child.pid for name, child in self._children.items() if child.running}

    @property
    def ended(self) -> list[str]:
        """Services that were started and have ended by themselves."""
        return [name for name, child in self._children.items() if not child.running]

    async def __aenter__(self) -> Self:
        """Raises the errors of `client.embedded.errors`, and `EmbeddedPostgresError`."""
        self._home.lock()
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def kill(self, name: str) -> None:
        """End a service at once, as a crash would; it stays away until `start`."""
        child = self._children.pop(self._known(name).name, None)
        if child is not None:
            child.kill_group()
            await child.ended_within(STOP_SECONDS)
            self._write_state()

    async def start(self, name: str) -> None:
        """Start a service that does not run, and wait until it is ready; does nothing if it runs."""
        service = self._known(name)
        child = self._children.get(name)
        if child is not None and child.running:
            return
        self._launch(service)
        await self._wait_ready([service])
        self._write_state()

    async def watch(self) -> None:
        """Start again whatever ends by itself, Postgres too; returns never.

        Each part is brought back beside the others, since a service cannot be ready before Postgres is. What fails to
        start is tried again after a pause that grows up to `MAX_PAUSE_SECONDS`, and `progress` hears why: a disk that
        is full gets room from a person, and until then the services that run say 503.
        """
        async with asyncio.TaskGroup() as group:
            database = self._database
            if isinstance(database, EmbeddedPostgres):
                group.create_task(
                    self._keep_up("Postgres", lambda: not database.running, database.start, database.log_path)
                )
            for name in self._services:
                group.create_task(
                    self._keep_up(name, partial(self._has_ended, name), partial(self.start, name), self.log_of(name))
                )

    async def _keep_up(
        self, name: str, has_ended: Callable[[], bool], start: Callable[[], Awaitable[None]], log: Path
    ) -> None:
        pause = WATCH_SECONDS
        while True:
            await asyncio.sleep(pause)
            if not has_ended():
                pause = WATCH_SECONDS
                continue
            self._say(f"{name} has ended and is started again; its log is {log}.")
            try:
                await start()
            except (ServiceNotStarted, EmbeddedPostgresError) as error:
                self._say(error.detail)
                pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def _has_ended(self, name: str) -> bool:
        return name in self.ended

    def log_of(self, name: str) -> Path:
        """The file that the service's messages go to."""
        return self._home.logs / f"{self._known(name).name}.log"

    def _known(self, name: str) -> _Service:
        service = self._services.get(name)
        if service is None:
            raise UnknownService(f"There is no service '{name}'; there are {', '.join(self._services)}.")
        return service

    async def _open(self) -> None:
        proxies, threshold, base_port = self._wanted
        layout = self._home.layout(
            proxies=proxies, base_port=base_port, external_database=self._postgres_url is not None
        )
        if not 1 <= threshold <= len(layout.proxy_ports):
            raise ServiceNotStarted(
                f"The threshold lies between 1 and the number of proxies, which is {len(layout.proxy_ports)} here."
            )
        self._check_ports(layout)
        self._plan(layout, threshold)
        self._say("Starting Postgres.")
        if self._postgres_url is None:
            self._database = EmbeddedPostgres(self.home / "postgres")
        else:
            self._database = ExternalPostgres(self._postgres_url)
        await self._database.start()
        for service in self._services.values():
            await self._prepare_secrets(service, layout)
        self._say("Bringing the databases up to date and starting the services.")
        await self._migrate()
        for service in self._services.values():
            self._launch(service)
        await self._wait_ready(list(self._services.values()))
        self._write_state()

    def _check_ports(self, layout: Layout) -> None:
        taken = [port for port in layout.ports if not port_is_free(port)]
        if taken:
            raise PortTaken(
                f"Port {', '.join(map(str, taken))} on {HOST} is taken by another program. Stop that program, or run"
                " this platform in a new folder on other ports: --home FOLDER --port PORT."
            )

    def _plan(self, layout: Layout, threshold: int) -> None:
        registry_url = f"http://{HOST}:{layout.registry_port}"
        records_url = f"http://{HOST}:{layout.records_port}"
        names = [f"proxy-{number}" for number in range(1, len(layout.proxy_ports) + 1)]
        self.proxy_dids = {name: _did_of(self._home.secret(name, "pcehr_seed")) for name in names}
        records_key = SigningKey.from_bytes(self._home.secret("records", "pcehr_log_signing_key"))
        common = {"PCEHR_REGISTRY_URL": registry_url, "PCEHR_TOKEN_ISSUER": registry_url}
        services = [
            _Service(
                "registry",
                "registry",
                layout.registry_port,
                common
                | {
                    "PCEHR_PUBLIC_URL": registry_url,
                    "PCEHR_RECORDS_URL": records_url,
                    "PCEHR_THRESHOLD": str(threshold),
                    "PCEHR_ADMITTED_PROXIES": ",".join(self.proxy_dids.values()),
                    "PCEHR_RECORDS_LOG": origin_of("records", records_key.verify_key),
                },
            ),
            _Service("records", "records", layout.records_port, common | {"PCEHR_BLOB_DIR": str(self._home.blobs)}),
        ]
        for name, port in zip(names, layout.proxy_ports, strict=True):
            own = {"PCEHR_ENDPOINT": f"http://{HOST}:{port}", "PCEHR_NAME": name}
            own["PCEHR_WORKERS"] = str(self._workers)
            services.append(_Service(name, "proxy", port, common | own))
        self._services = {service.name: service for service in services}

    async def _prepare_secrets(self, service: _Service, layout: Layout) -> None:
        assert self._database is not None
        if service.kind == "registry":
            self._home.secret(service.name, "pcehr_token_signing_key")
            self._home.secret(service.name, "pcehr_log_signing_key")
        if service.kind == "records":
            self._home.secret(service.name, "pcehr_log_signing_key")
        password = b64url(self._home.secret(service.name, "database_password"))
        database = layout.database_prefix + service.name.replace("-", "_")
        await self._database.create_role_and_database(database, password)
        # Written anew at each start, since the server's port may be another one.
        self._home.put_secret(service.name, "pcehr_database_url", self._database.url_for(database, password))

    async def _migrate(self) -> None:
        """One program brings all databases up to date, one after the other: starting it takes longer than its work."""
        log = self._home.logs / "migrations.log"
        _rotate(log)
        databases = [
            f"{service.kind}={self._home.secrets_dir(service.name) / 'pcehr_database_url'}"
            for service in self._services.values()
        ]
        migration = self.process(
            [sys.executable, "-P", "-m", "shared.db.migrate", *databases], log=log, cwd=self.home, env={}
        )
        self._passing.append(migration)
        if not await migration.ended_within(READY_SECONDS):
            migration.kill_group()
            raise ServiceNotStarted(_why("The migration", f"took longer than {READY_SECONDS:.0f} s", log))
        if migration.exit_status != 0:
            raise ServiceNotStarted(_why("The migration", "could not bring the databases up to date", log))

    def _launch(self, service: _Service) -> None:
        log = self._home.logs / f"{service.name}.log"
        _rotate(log)
        command = [
            *(sys.executable, "-P", "-m", "uvicorn", "--factory", f"services.{service.kind}.main:create"),
            *("--host", HOST, "--port", str(service.port), "--no-access-log", "--log-level", "warning"),
            *("--loop", "uvloop", "--http", "httptools", "--timeout-graceful-shutdown", "3"),
            # uvicorn would believe what any program on this machine says of where a request comes from.
            "--no-proxy-headers",
        ]
        self._children[service.name] = self.process(
            command,
            log=log,
            cwd=self.home,
            env={
                **_logs(),
                **service.settings,
                **self._settings.get(service.kind, {}),
                "PCEHR_SECRETS_DIR": str(self._home.secrets_dir(service.name)),
            },
        )

    async def _wait_ready(self, services: list[_Service]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        waiting = list(services)
        # The services are on this machine: an HTTP proxy that the environment may name has no business here.
        async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
            while waiting:
                for service in list(waiting):
                    if await _is_ready(http, service):
                        waiting.remove(service)
                        self._say(f"{service.name} is ready.")
                    elif not self._children[service.name].running:
                        raise ServiceNotStarted(self._why(service, "ended while it started"))
                    elif time.monotonic() >= deadline:
                        raise ServiceNotStarted(self._why(service, f"was not ready within {READY_SECONDS:.0f} s"))
                if waiting:
                    await asyncio.sleep(_POLL_SECONDS)

    def _why(self, service: _Service, what: str) -> str:
        return _why(f"The service {service.name}", what, self._home.logs / f"{service.name}.log")

    def _write_state(self) -> None:
        self._home.write_state(
            {
                "pid": os.getpid(),
                "registry_url": self.registry_url,
                "records_url": self._services["records"].url,
                "proxies": [
                    {"name": name, "did": did, "url": self._services[name].url} for name, did in self.proxy_dids.items()
                ],
                "pids": self.pids,
            }
        )

    async def _close(self) -> None:
        # A second signal must not leave half of it running.
        stopping = asyncio.ensure_future(self._stop_all())
        interrupted: asyncio.CancelledError | None = None
        while not stopping.done():
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted
        await stopping

    async def _stop_all(self) -> None:
        try:
            children = [*self._children.values(), *self._passing]
            for child in children:
                child.terminate()
            await asyncio.gather(*(child.ended_within(STOP_SECONDS) for child in children))
            for child in children:
                if child.running or child in self._children.values():
                    # Also sweeps up workers that a service may have left behind.
                    child.kill_group()
            self._children.clear()
            self._passing.clear()
            if self._database is not None:
                await self._database.stop()
                self._database = None
        finally:
            self._home.unlock()


def _rotate(log: Path) -> None:
    """Put a log that has grown large aside, in the place of the one before."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))


def _why(who: str, what: str, log: Path) -> str:
    said = last_lines(log) or "(nothing)"
    return f"{who} {what}. Its log, {log}, ends with:\n{said}"


def _logs() -> dict[str, str]:
    """How the services log: for people, and only what goes wrong, unless this process was told otherwise."""
    given = {"PCEHR_LOG_FORMAT": "text", "PCEHR_LOG_LEVEL": "warning"}
    return given | {name: os.environ[name] for name in given if name in os.environ}


async def _is_ready(http: httpx.AsyncClient, service: _Service) -> bool:
    try:
        response = await http.get(f"{service.url}/readyz")
    except httpx.HTTPError:
        return False
    return response.is_success


def _did_of(seed: bytes) -> str:
    """The id of the party whose seed this is (docs/spec.md, section 3)."""
    identity = SigningKey.from_bytes(Seed.from_bytes(seed).derive("identity/0", 32))
    return did_from_key(bytes(identity.verify_key))
