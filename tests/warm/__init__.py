"""Programs that start in a fraction of the time, since they have been loaded before.

Loading a service takes almost two seconds of a processor, and a platform has five; loading the client takes one. Tests
that start programs again and again would do little else. A process of its own (`tests.warm.__main__`) loads the
programs once and forks each one from itself; from there on it is a process like any other, with an environment and a
group of its own. How programs start otherwise is for `tests/unit/embedded`, `tests/canaries` and others to show.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from client.embedded.platform import EmbeddedPlatform
from client.embedded.process import ChildProcess, environment

ROOT = Path(__file__).parents[2]
SERVICES = (
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
    "services.registry.main",
    "services.records.main",
    "services.proxy.main",
    "alembic.command",
)
CLIENT = ("client.cli",)
RUN_SECONDS = 240.0
"""What a program of the client's may take on the busiest machine."""
_PYTHON = [sys.executable, "-P", "-m"]


class _Nursery:
    """The process that forks those which want these modules loaded. It ends with this one, and they with it."""

    def __init__(self, programs: Sequence[str]) -> None:
        self._turn = threading.Lock()
        self._news = threading.Condition()
        self._forked: list[int] = []
        self._statuses: dict[int, int] = {}
        self._process = subprocess.Popen(
            [*_PYTHON, "tests.warm", *programs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment({}),
            text=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def fork(
        self, module: str, arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, out: Path, err: Path
    ) -> int:
        """The process id of `python -m module`; what it writes is appended to `out` and `err`."""
        assert self._process.stdin is not None
        wanted = {"argv": [module, *arguments], "env": dict(env), "cwd": str(cwd), "out": str(out), "err": str(err)}
        with self._turn:
            self._process.stdin.write(json.dumps(wanted) + "\n")
            self._process.stdin.flush()
            with self._news:
                assert self._news.wait_for(lambda: self._forked, 120), "nothing was forked"
                return self._forked.pop()

    def status(self, pid: int, seconds: float = 0) -> int | None:
        """How it ended, which is waited for so long; None while it runs, negative if a signal ended it."""
        with self._news:
            self._news.wait_for(lambda: pid in self._statuses, seconds)
            return self._statuses.get(pid)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            pid, status = json.loads(line)
            with self._news:
                if status is None:
                    self._statuses.pop(pid, None)
                    self._forked.append(pid)
                else:
                    self._statuses[pid] = status
                self._news.notify_all()


@cache
def _nursery(programs: Sequence[str]) -> _Nursery:
    nursery = _Nursery(programs)
    atexit.register(nursery.close)
    return nursery


class WarmChild(ChildProcess):
    """A service's program in a process forked from one that has loaded it."""

    def __init__(self, command: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str]) -> None:
        assert list(command[:3]) == _PYTHON
        module, *arguments = command[3:]
        self._nursery = _nursery(SERVICES)
        self._pid = self._nursery.fork(module, arguments, env=environment(env), cwd=cwd, out=log, err=log)

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def running(self) -> bool:
        return self.exit_status is None

    @property
    def exit_status(self) -> int | None:
        return self._nursery.status(self._pid)

    async def ended_within(self, seconds: float) -> bool:
        return await asyncio.to_thread(self._nursery.status, self._pid, seconds) is not None

    def signal(self, number: signal.Signals) -> None:
        if self.running:
            os.kill(self._pid, number)


class WarmPlatform(EmbeddedPlatform):
    """The platform, started in a third of the time."""

    process = WarmChild


async def run(module: str, *arguments: str, env: Mapping[str, str]) -> tuple[int | None, bytes, bytes]:
    """Run one of the client's programs with these variables too: its status, and what it wrote to both ends."""
    nursery = _nursery(CLIENT)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        pid = nursery.fork(module, arguments, env={**os.environ, **env}, cwd=ROOT, out=out, err=err)
        status = await asyncio.to_thread(nursery.status, pid, RUN_SECONDS)
        if status is None:
            os.killpg(pid, signal.SIGKILL)
        return status, *await asyncio.to_thread(lambda: (out.read_bytes(), err.read_bytes()))
