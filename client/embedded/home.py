"""The folder a platform lives in: its lock, its secrets, and what must stay as it was at the first run.

```
<home>/
  platform.lock      held as long as the platform runs
  platform.json      where it is reached and its process ids; there while it runs
  layout.json        ports, number of proxies, kind of database: fixed, because proxies sign their address
  secrets/<name>/    0700; one file for each secret of one service, 0600
  postgres/          the embedded Postgres
  blobs/             large ciphertexts of the records service
  logs/<name>.log
```
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from client.embedded.errors import AlreadyRunning, BrokenHome, HomeMismatch
from shared.encoding import b64url, from_b64url
from shared.errors import Malformed

HOST = "127.0.0.1"
FIRST_PROXY_OFFSET = 11
"""Proxies listen from the base port plus this on; the registry on the base port, records on the next one."""

MAX_PROXIES = 16
"""A grant has at most sixteen shares (docs/spec.md, section 4)."""


@dataclass(frozen=True)
class Layout:
    """What stays the same over the life of a home, apart from `proxy_ports`, which may grow at its end."""

    base_port: int | None
    registry_port: int
    records_port: int
    proxy_ports: tuple[int, ...]
    external_database: bool
    database_prefix: str

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.registry_port, self.records_port, *self.proxy_ports)


_LAYOUT = TypeAdapter(Layout)


class Home:
    """One folder; `lock` before anything else is read or written."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.state_path = self.path / "platform.json"
        self.logs = self.path / "logs"
        self.blobs = self.path / "blobs"
        self._layout_path = self.path / "layout.json"
        self._lock: int | None = None

    def lock(self) -> None:
        """Take the folder. Raises `AlreadyRunning` when another process has it, `BrokenHome` if it cannot be made."""
        try:
            # Root's embedded Postgres runs as another user, who has to pass through and needs to see nothing.
            self.path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
            for folder in (self.logs, self.blobs, self.path / "secrets"):
                folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self.path / "platform.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BrokenHome(
                f"The folder {self.path} cannot be used ({error.strerror}). Choose another one with --home."
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise AlreadyRunning(self._who_runs()) from None
        self._lock = descriptor
        # Whoever wrote it is gone, since the lock was free.
        self.state_path.unlink(missing_ok=True)

    def unlock(self) -> None:
        self.state_path.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _who_runs(self) -> str:
        try:
            state = json.loads(self.state_path.read_text())
            where = f" (process {state['pid']}, registry at {state['registry_url']})"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            where = ""
        return (
            f"A platform already runs in {self.path}{where}. Use it as it is, stop it with Ctrl-C where it was started,"
            " or run another one beside it with --home FOLDER --port PORT."
        )

    def write_state(self, state: dict[str, Any]) -> None:
        """Say where the platform is reached, for other programs on this machine."""
        _write(self.state_path, json.dumps(state, indent=2) + "\n")

    @property
    def is_new(self) -> bool:
        return not self._layout_path.exists()

    def layout(self, *, proxies: int | None, base_port: int | None, external_database: bool) -> Layout:
        """The layout as it is, with more proxies if wanted; made from the arguments at the first run.

        Raises `HomeMismatch` when the arguments contradict what is there.
        """
        if proxies is not None and not 1 <= proxies <= MAX_PROXIES:
            raise HomeMismatch(f"A platform has from 1 to {MAX_PROXIES} proxies.")
        if self.is_new:
            layout = _new_layout(proxies or 3, base_port, external_database)
        else:
            layout = self._read_layout()
            self._check(layout, proxies, base_port, external_database)
            layout = _with_proxies(layout, proxies or len(layout.proxy_ports))
        _write(self._layout_path, json.dumps(asdict(layout), indent=2) + "\n")
        return layout

    def _check(self, layout: Layout, proxies: int | None, base_port: int | None, external_database: bool) -> None:
        if base_port is not None and base_port != layout.base_port:
            raise HomeMismatch(
                f"The platform in {self.path} was made with the registry on port {layout.registry_port}, and its"
                " proxies have signed their addresses. Leave --port out, or choose another folder with --home."
            )
        if proxies is not None and proxies < len(layout.proxy_ports):
            raise HomeMismatch(
                f"The platform in {self.path} has {len(layout.proxy_ports)} proxies, which hold shares of grants;"
                " their number may grow and not shrink."
            )
        if external_database != layout.external_database:
            kind = "an external Postgres" if layout.external_database else "the embedded Postgres"
            raise HomeMismatch(f"The data of the platform in {self.path} are in {kind}. Start it with that one.")

    def _read_layout(self) -> Layout:
        try:
            return _LAYOUT.validate_json(self._layout_path.read_bytes(), strict=True)
        except (OSError, ValidationError):
            raise BrokenHome(
                f"{self._layout_path} cannot be read. Put it back from a copy, or choose another folder with --home."
            ) from None

    def secrets_dir(self, service: str) -> Path:
        """The folder with the secrets of one service, readable by its owner only."""
        folder = self.path / "secrets" / service
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def secret(self, service: str, name: str) -> bytes:
        """32 random bytes, made at the first call and kept in a file of mode 0600 as base64url."""
        path = self.secrets_dir(service) / name
        try:
            return from_b64url(path.read_text("ascii").strip(), 32)
        except FileNotFoundError:
            value = secrets.token_bytes(32)
            self.put_secret(service, name, b64url(value))
            return value
        except (Malformed, ValueError):
            raise BrokenHome(f"{path} does not hold a secret of 32 bytes. Put it back from a copy.") from None

    def put_secret(self, service: str, name: str, text: str) -> None:
        _write(self.secrets_dir(service) / name, text)


def _write(path: Path, text: str) -> None:
    """Replace a file durably and at once; only its owner may read it."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _new_layout(proxies: int, base_port: int | None, external_database: bool) -> Layout:
    if base_port is None:
        registry, records, *rest = free_ports(2 + proxies)
    else:
        _check_range(base_port)
        registry, records = base_port, base_port + 1
        rest = [base_port + FIRST_PROXY_OFFSET + number for number in range(proxies)]
    # Two platforms may share an external server, and must not share a database.
    prefix = f"pcehr_{secrets.token_hex(4)}_" if external_database else ""
    return Layout(base_port, registry, records, tuple(rest), external_database, prefix)


def _with_proxies(layout: Layout, count: int) -> Layout:
    missing = count - len(layout.proxy_ports)
    if layout.base_port is None:
        added = free_ports(missing)
    else:
        first = layout.base_port + FIRST_PROXY_OFFSET
        added = [first + number for number in range(len(layout.proxy_ports), count)]
    return replace(layout, proxy_ports=(*layout.proxy_ports, *added))


def _check_range(base_port: int) -> None:
    if not 1024 <= base_port <= 65_000:
        raise HomeMismatch("The first port lies between 1024 and 65000.")


def free_ports(count: int) -> list[int]:
    """Ports on the loopback interface that nobody listened on a moment ago, each another one."""
    probes = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the services do it: a connection of an earlier run that is still winding down is not in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
