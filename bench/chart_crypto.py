"""The bare cryptography of records in a loop: no HTTP, no JSON, no database, no process but those that work.

What is counted is what the protocol cannot do without (docs/spec.md sections 5, 8 and 9), each object parsed once by
whoever gets it:

    open one record   the request signed, and verified by the records service and 2 proxies; at each of these the
                      capsule and the kfrag parsed, re-encryption, and a receipt signed, which the records service and
                      the client verify; at the client the manifest's signature, the capsule parsed, 2 cfrags parsed and
                      verified, decryption from both, header and body decrypted
    open a chart      of the same what grows with the chart, for each record: parsing the capsule and re-encrypting at
                      2 proxies; at the client the manifest's signature, capsule, 2 cfrags, decryption, header, body
    store a chart     for each record encryption to the delegating key, header and body encrypted, the manifest signed;
                      at the records service the manifest's signature and the capsule's own proof
    approve           for each scope the kfrags of 3 proxies; a box sealed for each proxy and opened by it; at each
                      proxy each kfrag parsed, verified and tried; the grant signed once and verified at 4 places,
                      3 receipts signed and verified
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from shared.crypto import umbral
from shared.crypto.record import RecordContext, RecordKey
from shared.crypto.sealing import SealingKey, seal
from shared.crypto.signing import SigningKey, VerifyKey
from shared.crypto.umbral import Capsule, CapsuleFrag, KeyFrag, KfragSigner, SecretKey, VerifiedKeyFrag

MANIFEST = bytes(1_000)
"""As many bytes as a manifest, a request or a receipt has, to be signed."""
HEADER = {"length": 0, "media_type": "application/fhir+json", "title": "Heart rate", "resource_type": "Observation"}
THRESHOLD, PROXIES = 2, 3


@dataclass(frozen=True)
class Stored:
    """One record as it comes over the wire."""

    capsule: bytes
    wrapped_key: bytes
    header: bytes
    body: bytes
    context: RecordContext
    length: int


class Parties:
    """The keys of one patient, one recipient and the proxies, and one scope; kfrags as they lie at the proxies."""

    def __init__(self) -> None:
        self.delegating, self.receiving = SecretKey.generate(), SecretKey.generate()
        self.signer = KfragSigner(SecretKey.generate())
        self.identity = SigningKey.generate()
        self.verify_key = VerifyKey.from_bytes(bytes(self.identity.verify_key))
        self.proxies = [SealingKey.generate() for _ in range(PROXIES)]
        self.kfrags = [bytes(kfrag) for kfrag in self.make_kfrags()]

    def make_kfrags(self) -> Sequence[VerifiedKeyFrag]:
        return umbral.generate_kfrags(self.delegating, self.receiving.public_key(), self.signer, THRESHOLD, PROXIES)

    def sign(self) -> bytes:
        return self.identity.sign(MANIFEST)

    def verify(self, signature: bytes) -> None:
        self.verify_key.verify(signature, MANIFEST)

    def store(self, number: int, body: bytes) -> Stored:
        """What an author does: encrypt and sign."""
        context = RecordContext("patient", f"record {number}", 1, "scope", 0, "patient")
        key = RecordKey.generate()
        capsule, wrapped = key.wrap(self.delegating.public_key(), context)
        header = key.encrypt_header(HEADER, context)
        ciphertext = b"".join(key.encrypt_body([body], len(body), context))
        return Stored(bytes(capsule), wrapped, header, ciphertext, context, len(body))

    def shares(self) -> list[VerifiedKeyFrag]:
        """The kfrags of so many proxies as are needed, parsed as they come out of a table."""
        return [VerifiedKeyFrag.from_verified_bytes(kfrag) for kfrag in self.kfrags[:THRESHOLD]]

    def open(self, record: Stored, cfrags: Sequence[bytes]) -> bytes:
        """What the recipient does."""
        capsule, delegating = Capsule.from_bytes(record.capsule), self.delegating.public_key()
        verified = [
            CapsuleFrag.from_bytes(cfrag).verify(
                capsule, self.signer.verifying_key(), delegating, self.receiving.public_key()
            )
            for cfrag in cfrags
        ]
        key = RecordKey.unwrap_reencrypted(
            self.receiving, delegating, capsule, verified, record.wrapped_key, record.context
        )
        key.decrypt_header(record.header, record.context)
        return b"".join(key.decrypt_body([record.body], record.length, record.context))


def reencrypt(capsule: bytes, shares: Sequence[VerifiedKeyFrag]) -> list[bytes]:
    """What each of some proxies does with a capsule; they parse it one by one."""
    return [bytes(umbral.reencrypt(Capsule.from_bytes(capsule), share)) for share in shares]


class BareChart:
    """A chart of records with these bodies."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        self._bodies = bodies
        self._parties = Parties()
        self._records = [self._parties.store(number, body) for number, body in enumerate(bodies)]
        self._signature = self._parties.sign()

    def open(self) -> None:
        shares = self._parties.shares()
        for record in self._records:
            self._parties.verify(self._signature)
            self._parties.open(record, reencrypt(record.capsule, shares))

    def store(self) -> None:
        for number, body in enumerate(self._bodies):
            record = self._parties.store(number, body)
            self._parties.verify(self._parties.sign())
            Capsule.from_bytes(record.capsule)

    def open_one(self) -> None:
        """The first record, with all the signatures on the way."""
        parties, record = self._parties, self._records[0]
        request = parties.sign()
        for _ in range(1 + THRESHOLD):
            parties.verify(request)
        cfrags = reencrypt(record.capsule, parties.shares())
        for _ in range(THRESHOLD):
            receipt = parties.sign()
            parties.verify(receipt)
            parties.verify(receipt)
        parties.verify(self._signature)
        parties.open(record, cfrags)


def approve(parties: Parties, scopes: int) -> None:
    """Approve a request over so many scopes, with all three proxies."""
    made = [[bytes(kfrag) for kfrag in parties.make_kfrags()] for _ in range(scopes)]
    grant = parties.sign()
    boxes = [
        seal(proxy.public_key, b"".join(of_scope[index] for of_scope in made))
        for index, proxy in enumerate(parties.proxies)
    ]
    parties.verify(grant)
    verifying, delegating = parties.signer.verifying_key(), parties.delegating.public_key()
    for proxy, box in zip(parties.proxies, boxes, strict=True):
        parties.verify(grant)
        opened = proxy.open(box)
        for start in range(0, len(opened), umbral.KFRAG_SIZE):
            kfrag = KeyFrag.from_bytes(opened[start : start + umbral.KFRAG_SIZE])
            umbral.accept_kfrag(kfrag, verifying, delegating, parties.receiving.public_key())
        parties.verify(parties.sign())


_part: BareChart
"""Of one process; set when it starts."""


def _take_part(bodies: Sequence[bytes]) -> None:
    global _part  # noqa: PLW0603  The one way to give a process of a pool something to keep.
    _part = BareChart(bodies)


def _open_part() -> None:
    _part.open()


def _store_part() -> None:
    _part.store()


class OnAllCores:
    """A chart's bare cryptography in as many processes as there are cores, each with its part of the records."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        cores = len(os.sched_getaffinity(0))
        # Not forked: a copy of this process would carry its event loop along.
        context = multiprocessing.get_context("spawn")
        self._pools = [ProcessPoolExecutor(1, context, _take_part, (bodies[start::cores],)) for start in range(cores)]

    async def open(self) -> None:
        """Return when every process has opened its part."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(pool, _open_part) for pool in self._pools))

    async def store(self) -> None:
        """Return when every process has encrypted its part."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(pool, _store_part) for pool in self._pools))

    def close(self) -> None:
        for pool in self._pools:
            pool.shutdown()
