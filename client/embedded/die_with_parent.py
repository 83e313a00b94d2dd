"""Run as a script: give up root, ask the kernel to be told of the parent's death, then become another program.

    python -I -S die_with_parent.py PARENT_PID UID GID PROGRAM [ARGUMENT ...]

A UID of -1 keeps the user. This is a program of its own, and not a `preexec_fn`, because Python code between fork
and exec can deadlock in a process that has threads. The user is changed here, and not by the caller, because the
interpreter may lie where the unprivileged user cannot reach it, and because Linux forgets the request for the
parent's death whenever the user changes: the request must come after.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def main(arguments: list[str]) -> None:
    """Never returns: it becomes the program, or exits with a message on stderr."""
    parent, uid, gid = (int(argument) for argument in arguments[:3])
    command = arguments[3:]
    os.umask(0o077)
    # SIGQUIT would leave an image of the memory behind, and in it keys and what patients own.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # A shell without job control lets what it starts in the background ignore SIGQUIT, and children inherit that.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    # SIGQUIT, since nobody is left who could insist: it ends Postgres at once and without waiting for its clients.
    # What had been committed is in the write-ahead log and is replayed at the next start.
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0) != 0:
        sys.exit("the kernel refused PR_SET_PDEATHSIG")
    # The parent may have died before the request, and then the signal will never come.
    if os.getppid() != parent:
        sys.exit("the parent is gone")
    os.execv(command[0], command)  # noqa: S606  No shell; the caller names the program in full.


if __name__ == "__main__":
    main(sys.argv[1:])
