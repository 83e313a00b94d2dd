"""`python -m client.envelope_worker`: opens envelopes that come in on standard input until it ends.

A job is the keys of a grant, the number of its envelopes (2 bytes, big-endian) and the envelopes, in the frames of
`client.envelopes`; the answer to each goes to standard output.

A receiving key comes in, and content keys go out, by the two pipes that the client made for this process alone: never
by argument, environment or file. Nothing is kept beyond a job but what Python has not yet freed. The process holds no
other secret, cannot be traced or read by others of the same user and leaves no image of its memory behind when it
crashes (`PR_SET_DUMPABLE`, prctl(2), and `RLIMIT_CORE` where there is none of that). Memory that the system swaps out
is on disk, as the client's own may be.
"""

from __future__ import annotations

import ctypes
import resource
import sys

from client.envelopes import Envelope, OpeningKeys, open_envelope

PR_SET_DUMPABLE = 4
"""From linux/prctl.h."""


def main() -> None:
    """Answer envelope by envelope, so that the client goes on with the first while the next are opened."""
    _leave_no_image()
    jobs, answers = sys.stdin.buffer, sys.stdout.buffer
    while (keys := OpeningKeys.read(jobs)) is not None:
        for _ in range(int.from_bytes(jobs.read(2), "big")):
            envelope = Envelope.read(jobs)
            if envelope is None:
                return
            answers.write(open_envelope(keys, envelope).frame())
        answers.flush()


def _leave_no_image() -> None:
    """Raises OSError where the kernel refuses, so that no secret is read then."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError("the kernel refused PR_SET_DUMPABLE")


if __name__ == "__main__":
    main()
