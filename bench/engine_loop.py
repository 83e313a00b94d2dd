"""One engine in a loop: for each line `OPERATION TIMES` on standard input one line with the processor time it took.

In seconds. The engine is the one that PCEHR_UMBRAL_ENGINE names. Operations go through `shared.crypto.umbral`, as
everywhere in this project, so that the checks of the wire form are part of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from shared.crypto import umbral
from shared.crypto.umbral import Capsule, CapsuleFrag, KeyFrag, KfragSigner, SecretKey, VerifiedCapsuleFrag

PLAINTEXT = bytes(64)


def operations() -> dict[str, Callable[[], object]]:
    """Each on the same keys and the same envelope, 2 of 3."""
    delegating, receiving, signer = SecretKey.generate(), SecretKey.generate(), KfragSigner(SecretKey.generate())
    key, to, by = delegating.public_key(), receiving.public_key(), signer.verifying_key()
    capsule, ciphertext = umbral.encrypt(key, PLAINTEXT)
    kfrags = umbral.generate_kfrags(delegating, to, signer, 2, 3)
    cfrags = [umbral.reencrypt(capsule, kfrag) for kfrag in kfrags[:2]]
    trusted = [VerifiedCapsuleFrag.from_verified_bytes(bytes(cfrag)) for cfrag in cfrags]
    some = {"capsule": bytes(capsule), "kfrag": bytes(kfrags[0]), "cfrag": bytes(cfrags[0])}
    return {
        "encrypt": lambda: umbral.encrypt(key, PLAINTEXT),
        "kfrags": lambda: umbral.generate_kfrags(delegating, to, signer, 2, 3),
        "verify_kfrag": lambda: KeyFrag.from_bytes(some["kfrag"]).verify(by, key, to),
        "accept": lambda: umbral.accept_kfrag(KeyFrag.from_bytes(some["kfrag"]), by, key, to),
        "parse_capsule": lambda: Capsule.from_bytes(some["capsule"]),
        "reencrypt": lambda: bytes(umbral.reencrypt(capsule, kfrags[0])),
        "verify_cfrag": lambda: CapsuleFrag.from_bytes(some["cfrag"]).verify(capsule, by, key, to),
        "decrypt": lambda: umbral.decrypt_reencrypted(receiving, key, capsule, trusted, ciphertext),
    }


def main() -> None:
    known = operations()
    for line in sys.stdin:
        name, times = line.split()
        operation = known[name]
        started = time.process_time()
        for _ in range(int(times)):
            operation()
        print(time.process_time() - started, flush=True)


if __name__ == "__main__":
    main()
