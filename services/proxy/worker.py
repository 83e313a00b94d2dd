"""What runs in the worker processes: Umbral on bytes, and nothing else.

This module imports only `shared.crypto`, so that a worker starts quickly and holds neither a seed, nor a connection,
nor a setting of the service. Bytes go in and come out, because objects of Umbral are not pickled.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from multiprocessing import parent_process
from multiprocessing.connection import wait

from shared.crypto.errors import KeyFragRejected, MalformedKeyMaterial
from shared.crypto.umbral import Capsule, KeyFrag, PublicKey, VerifiedKeyFrag, accept_kfrag, engine_name, reencrypt

ShareToAccept = tuple[bytes, bytes]
"""A kfrag (260 bytes) and the delegating key it is said to be for (33 bytes)."""


def initialise() -> None:
    """Prepare a worker: the engine is loaded, Ctrl-C is left to the parent, and a killed parent leaves no orphan."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    engine_name()


def ready() -> str:
    """The name of the engine this worker runs; calling it starts a worker."""
    return engine_name()


def reencrypt_batch(kfrag: bytes, capsules: Sequence[bytes]) -> list[bytes]:
    """Re-encrypt capsules (98 bytes each) with one stored kfrag: cfrags of 359 bytes, in order.

    Raises `MalformedKeyMaterial` for a capsule that is none, and then gives nothing at all.
    """
    share = VerifiedKeyFrag.from_verified_bytes(kfrag)
    return [bytes(reencrypt(Capsule.from_bytes(capsule), share)) for capsule in capsules]


def timed_batch(kfrag: bytes, capsules: Sequence[bytes]) -> tuple[list[bytes], float]:
    """As `reencrypt_batch`, with the seconds it took here, without the time that the batch waited for its worker."""
    started = time.perf_counter()
    cfrags = reencrypt_batch(kfrag, capsules)
    return cfrags, time.perf_counter() - started


def accept_shares(shares: Sequence[ShareToAccept], verifying_key: bytes, receiving_key: bytes) -> None:
    """Verify and try each kfrag, as `accept_kfrag` does; all are good or it raises.

    Raises `KeyFragRejected`, and `MalformedKeyMaterial` for a key of the grant or of a party that is none.
    """
    verifying, receiving = PublicKey.from_bytes(verifying_key), PublicKey.from_bytes(receiving_key)
    delegating = [PublicKey.from_bytes(key) for _, key in shares]
    for (kfrag, _), key in zip(shares, delegating, strict=True):
        try:
            share = KeyFrag.from_bytes(kfrag)
        except MalformedKeyMaterial:
            raise KeyFragRejected from None
        accept_kfrag(share, verifying, key, receiving)


def _end_with(parent: int) -> None:
    wait([parent])
    os._exit(0)
