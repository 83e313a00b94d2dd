"""`python -m client.cfrag_worker`: checks re-encryptions that come in on standard input until it ends.

For each frame (`client.cfrags.CfragTask`) it writes one byte for each re-encryption: 1 if it holds, 0 if not.
"""

from __future__ import annotations

import sys

from client.cfrags import CfragTask, check_cfrags


def main() -> None:
    """Answer frame by frame. Nothing secret ever comes in, and nothing is kept."""
    while (task := CfragTask.read(sys.stdin.buffer)) is not None:
        sys.stdout.buffer.write(bytes(check_cfrags(task)))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
