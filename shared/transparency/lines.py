"""The three things that the lines of C2SP's text formats hold: decimals, base64 and hashes, each in its one form."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence

from shared.transparency.errors import CheckpointMalformed
from shared.transparency.merkle import HASH_SIZE, MAX_PATH, MAX_SIZE

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


def from_decimal(text: str) -> int:
    """A number below 2**63 in ASCII digits without leading zeros; raises `CheckpointMalformed` for any other text."""
    if not _DECIMAL.fullmatch(text) or int(text) > MAX_SIZE:
        raise CheckpointMalformed("A number is not a decimal without leading zeros, below 2**63.")
    return int(text)


def b64(data: bytes) -> str:
    """Base64 in the standard alphabet with padding (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


def from_b64(text: str) -> bytes:
    """Decode canonical base64 with padding; raises `CheckpointMalformed` for every other spelling."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise CheckpointMalformed("A value is not base64 with padding.") from None
    if b64(data) != text:
        raise CheckpointMalformed("A value is not the canonical base64 of its bytes.")
    return data


def hash_from_b64(text: str) -> bytes:
    """A hash of 32 bytes in canonical base64; raises `CheckpointMalformed`."""
    data = from_b64(text)
    if len(data) != HASH_SIZE:
        raise CheckpointMalformed("A hash does not have 32 bytes.")
    return data


def path_lines(path: Iterable[bytes]) -> str:
    """The hashes of a proof, each in base64 on a line of its own."""
    return "".join(f"{b64(step)}\n" for step in path)


def path_from_lines(lines: Sequence[str], limit: int = MAX_PATH) -> tuple[bytes, ...]:
    """The reverse of `path_lines`; raises `CheckpointMalformed`, also for more than `limit` lines."""
    if len(lines) > limit:
        raise CheckpointMalformed(f"A proof has more than {limit} hashes.")
    return tuple(hash_from_b64(line) for line in lines)
