"""Loads the modules that it is told of, and forks programs. What is asked, and what came of it, is a line of JSON each.

A line on standard input asks for a process (`_Nursery.fork`). A line on standard output is `[pid, null]` when it has
been forked and `[pid, status]` when it has ended. All that was forked ends with this process, however that ends.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import runpy
import signal
import sys
from typing import Any

from client.embedded.die_with_parent import PR_SET_PDEATHSIG


def main(modules: list[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    # What is loaded is there for good; a collection that looked at it would copy all of it into each process.
    gc.freeze()
    signal.signal(signal.SIGCHLD, lambda *_: _tell_of_ends())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nursery = os.getpid()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become(json.loads(line), nursery)
            return
        _tell(pid, None)


def _tell(pid: int, status: int | None) -> None:
    os.write(1, json.dumps([pid, status]).encode() + b"\n")


def _tell_of_ends() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _tell(pid, os.waitstatus_to_exitcode(status))


def _become(wanted: dict[str, Any], nursery: int) -> None:
    """What `client.embedded.process` and its shim see to, and then the program."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)
    if os.getppid() != nursery:
        return
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, place in ((1, wanted["out"]), (2, wanted["err"])):
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    sys.argv = wanted["argv"]
    runpy.run_module(wanted["argv"][0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
