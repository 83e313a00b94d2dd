"""Checking re-encryptions, which takes public values only.

The module imports nothing but the cryptography, because `client.cfrag_worker` is started for the length of one fetch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from shared.crypto.errors import CapsuleFragRejected, MalformedKeyMaterial
from shared.crypto.umbral import CAPSULE_SIZE, CFRAG_SIZE, PUBLIC_KEY_SIZE, Capsule, CapsuleFrag, PublicKey

_HEAD = 1 + CAPSULE_SIZE + 3 * PUBLIC_KEY_SIZE


@dataclass(frozen=True)
class CfragTask:
    """The re-encryptions of one capsule, at most 255, and the public keys to check them under."""

    capsule: bytes
    verifying_key: bytes
    delegating_key: bytes
    receiving_key: bytes
    cfrags: tuple[bytes, ...]

    def frame(self) -> bytes:
        """As it is sent to a worker: the number of re-encryptions (1 byte), capsule, three keys, re-encryptions."""
        head = bytes([len(self.cfrags)]) + self.capsule + self.verifying_key + self.delegating_key + self.receiving_key
        return head + b"".join(self.cfrags)

    @classmethod
    def read(cls, stream: BinaryIO) -> CfragTask | None:
        """The next task of a stream of frames, or None at its end, also in the middle of a frame."""
        head = stream.read(_HEAD)
        if len(head) < _HEAD:
            return None
        body = stream.read(head[0] * CFRAG_SIZE)
        if len(body) < head[0] * CFRAG_SIZE:
            return None
        keys = [head[end - PUBLIC_KEY_SIZE : end] for end in range(_HEAD, 1 + CAPSULE_SIZE, -PUBLIC_KEY_SIZE)]
        return cls(
            capsule=head[1 : 1 + CAPSULE_SIZE],
            verifying_key=keys[2],
            delegating_key=keys[1],
            receiving_key=keys[0],
            cfrags=tuple(body[start : start + CFRAG_SIZE] for start in range(0, len(body), CFRAG_SIZE)),
        )


def check_cfrags(task: CfragTask) -> tuple[bool, ...]:
    """Which of the re-encryptions hold under capsule, verifying, delegating and receiving key, in order.

    Raises `MalformedKeyMaterial` for a capsule or a key that is none; a re-encryption that is none does not hold.
    """
    capsule = Capsule.from_bytes(task.capsule)
    verifying_key = PublicKey.from_bytes(task.verifying_key)
    delegating_key = PublicKey.from_bytes(task.delegating_key)
    receiving_key = PublicKey.from_bytes(task.receiving_key)

    def holds(unverified: bytes) -> bool:
        try:
            CapsuleFrag.from_bytes(unverified).verify(capsule, verifying_key, delegating_key, receiving_key)
        except (CapsuleFragRejected, MalformedKeyMaterial):
            return False
        return True

    return tuple(holds(unverified) for unverified in task.cfrags)


def check_all_cfrags(tasks: list[CfragTask]) -> list[tuple[bool, ...]]:
    """`check_cfrags` for each task."""
    return [check_cfrags(task) for task in tasks]
