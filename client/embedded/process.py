"""A service as a child process that cannot outlive this one.

On Linux the kernel ends the child when its parent dies, however that happens (`die_with_parent.py`). That request is
bound to the *thread* that forked, so each child is started by a thread of its own, which lives exactly as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from client.embedded.errors import ServiceNotStarted

_SHIM = Path(__file__).with_name("die_with_parent.py")

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PCEHR_UMBRAL_ENGINE")
"""What a child gets of this process's environment. The rest stays behind: a passphrase, a proxy for HTTP, or a
database's address in it would reach services that must not have them."""


class SupervisedProcess:
    """A running program, its log, the group of processes that it leads, and the thread that started it.

    Linux sends the parent's death signal when the *thread* that forked ends, not the process. So the fork happens in
    a thread of its own, which lives exactly as long as the program: whoever made this object may end without harm.
    Raises OSError where the program cannot be started.
    """

    def __init__(self, command: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str]) -> None:
        self._command = list(command)
        self._log = log
        self._cwd = cwd
        self._env = dict(env)
        self._started = threading.Event()
        self._failure: OSError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=f"child-{log.stem}", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "ab") as log:
                self._process = subprocess.Popen(  # noqa: S603  The command holds no input of anybody's.
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._cwd,
                    env=self._env,
                    # A session of its own, so that Ctrl-C reaches the supervisor only, which then stops the
                    # services before their database.
                    start_new_session=True,
                )
        except OSError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative if a signal ended it."""
        assert self._process is not None
        return self._process.returncode

    async def ended_within(self, seconds: float) -> bool:
        """Whether it has ended, waiting for it at most so long."""
        await asyncio.to_thread(self._thread.join, seconds)
        return not self.running

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        assert self._process is not None
        if self.running:
            self._process.send_signal(number)


class ChildProcess(SupervisedProcess):
    """A service, with an environment of its own and the wish to end when this process does."""

    def __init__(self, command: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str]) -> None:
        shim = [sys.executable, "-I", "-S", str(_SHIM), str(os.getpid()), "-1", "-1"]
        try:
            super().__init__([*shim, *command], log=log, cwd=cwd, env=environment(env))
        except OSError as error:
            raise ServiceNotStarted(f"A process could not be started: {error.strerror}.") from None

    def terminate(self) -> None:
        """Ask it to finish what it is doing and to end."""
        self.signal(signal.SIGTERM)

    def kill_group(self) -> None:
        """End it and all its children without a chance to object; also those that outlived it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: a few variables of this process's, where the packages are, and `extra`."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONUNBUFFERED": "1",
        **extra,
    }


def last_lines(path: Path, count: int = 20) -> str:
    """The end of a log, for a message to the person who started it; empty if there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.strip().splitlines()[-count:])
