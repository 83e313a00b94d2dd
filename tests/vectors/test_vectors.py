"""Every committed vector under every engine: what it must give, or the code of the one error it must raise."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.crypto import aead, stream, umbral
from shared.crypto.derivation import Seed, hkdf
from shared.crypto.engines import ENGINE_NAMES, load_engine, use_engine
from shared.crypto.errors import EngineUnavailable
from shared.crypto.padding import padme
from shared.crypto.record import RecordContext, RecordKey, body_ciphertext_size
from shared.crypto.sealing import SealingKey, SealingPublicKey
from shared.crypto.signing import VerifyKey
from shared.did import key_from_did
from shared.encoding import b64url, canonical_json, from_b64url, from_canonical_json
from shared.errors import PcehrError
from tests.vectors import log

Vector = dict[str, Any]

# Kinds that never reach an engine run once; running them under both would only repeat them.
WITHOUT_ENGINE = {
    "aead", "base64url", "body", "canonical_json", "context_digest", "derive", "did_signature", "header", "hkdf",
    "padme", "sealed", "sealing_key", "seed", "signature", "stream", "stream_at", "verify_key", *log.RUN,
}  # fmt: skip


def load() -> tuple[list[Vector], dict[str, bytes]]:
    vectors: list[Vector] = []
    blobs: dict[str, bytes] = {}
    for path in sorted(Path(__file__).parent.glob("*.json")):
        content = json.loads(path.read_text(encoding="ascii"))
        vectors += content["vectors"]
        blobs |= {name: base64.b64decode(data) for name, data in content.get("blobs", {}).items()}
    return vectors, blobs


VECTORS, BLOBS = load()


def pieces(vector: Vector) -> Iterator[bytes]:
    for piece in vector["pieces"]:
        if piece[0] == "hex":
            yield bytes.fromhex(piece[1])
        else:
            name, start, end = piece
            yield BLOBS[name][start:end]


def pattern(size: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in range(-(-size // 4)))[:size]


def data(vector: Vector, name: str = "data") -> bytes:
    return bytes.fromhex(vector[name])


def public_key(vector: Vector, name: str) -> umbral.PublicKey:
    return umbral.PublicKey.from_bytes(data(vector, name))


def secret_key(vector: Vector) -> umbral.SecretKey:
    return Seed.from_bytes(data(vector, "seed")).umbral_key(vector["label"])


def keys(vector: Vector) -> tuple[umbral.PublicKey, umbral.PublicKey, umbral.PublicKey]:
    return (
        public_key(vector, "verifying_key"),
        public_key(vector, "delegating_key"),
        public_key(vector, "receiving_key"),
    )


def parse(kind: Any) -> Callable[[Vector], None]:
    def run(vector: Vector) -> None:
        assert bytes(kind.from_bytes(data(vector))) == data(vector)

    return run


def kfrag_verify(vector: Vector) -> None:
    assert bytes(umbral.KeyFrag.from_bytes(data(vector)).verify(*keys(vector))) == data(vector)


def kfrag_accept(vector: Vector) -> None:
    assert bytes(umbral.accept_kfrag(umbral.KeyFrag.from_bytes(data(vector)), *keys(vector))) == data(vector)


def cfrag_verify(vector: Vector) -> None:
    capsule = umbral.Capsule.from_bytes(data(vector, "capsule"))
    assert bytes(umbral.CapsuleFrag.from_bytes(data(vector)).verify(capsule, *keys(vector))) == data(vector)


def generate_kfrags(vector: Vector) -> None:
    patient, signer, recipient = (umbral.SecretKey.generate() for _ in range(3))
    kfrags = umbral.generate_kfrags(
        patient, recipient.public_key(), umbral.KfragSigner(signer), vector["threshold"], vector["shares"]
    )
    assert len(set(kfrags)) == vector["shares"]


def decrypt_original(vector: Vector) -> None:
    capsule = umbral.Capsule.from_bytes(data(vector, "capsule"))
    plaintext = umbral.decrypt_original(secret_key(vector), capsule, data(vector, "ciphertext"))
    assert plaintext == data(vector, "plaintext")


def verified_cfrags(vector: Vector, capsule: umbral.Capsule) -> list[umbral.VerifiedCapsuleFrag]:
    # A vector about a receiving key that is not the fragments' own verifies them under the one they were made for.
    label = "receiving/0" if vector.get("unchecked") else vector["label"]
    receiving_key = Seed.from_bytes(data(vector, "seed")).umbral_key(label).public_key()
    named = (public_key(vector, "verifying_key"), public_key(vector, "delegating_key"), receiving_key)
    return [umbral.CapsuleFrag.from_bytes(bytes.fromhex(cfrag)).verify(capsule, *named) for cfrag in vector["cfrags"]]


def decrypt_reencrypted(vector: Vector) -> None:
    capsule = umbral.Capsule.from_bytes(data(vector, "capsule"))
    plaintext = umbral.decrypt_reencrypted(
        secret_key(vector),
        public_key(vector, "delegating_key"),
        capsule,
        verified_cfrags(vector, capsule),
        data(vector, "ciphertext"),
    )
    assert plaintext == data(vector, "plaintext")


def unwrap_original(vector: Vector) -> None:
    capsule = umbral.Capsule.from_bytes(data(vector, "capsule"))
    context = RecordContext(**vector["context"])
    key = RecordKey.unwrap_original(secret_key(vector), capsule, data(vector, "wrapped"), context)
    key.check_commitment(data(vector, "commitment"))


def unwrap_reencrypted(vector: Vector) -> None:
    capsule = umbral.Capsule.from_bytes(data(vector, "capsule"))
    key = RecordKey.unwrap_reencrypted(
        secret_key(vector),
        public_key(vector, "delegating_key"),
        capsule,
        verified_cfrags(vector, capsule),
        data(vector, "wrapped"),
        RecordContext(**vector["context"]),
    )
    key.check_commitment(data(vector, "commitment"))


def context_digest(vector: Vector) -> None:
    assert RecordContext(**vector["context"]).digest() == data(vector, "digest")


def header(vector: Vector) -> None:
    key = RecordKey(data(vector, "cek"))
    assert key.decrypt_header(data(vector, "ciphertext"), RecordContext(**vector["context"])) == vector["header"]


def body(vector: Vector) -> None:
    key, context, length = RecordKey(data(vector, "cek")), RecordContext(**vector["context"]), vector["length"]
    assert b"".join(key.decrypt_body(pieces(vector), length, context)) == pattern(length)
    assert sum(map(len, pieces(vector))) == body_ciphertext_size(length)


def stream_all(vector: Vector) -> None:
    opened = b"".join(stream.decrypt_chunks(data(vector, "key"), data(vector, "context_digest"), pieces(vector)))
    assert opened == pattern(vector["pattern_length"])
    sealed = stream.encrypt_chunks(data(vector, "key"), data(vector, "context_digest"), [opened])
    assert b"".join(sealed) == b"".join(pieces(vector))


def stream_at(vector: Vector) -> None:
    opened = stream.decrypt_chunk_at(
        data(vector, "key"), data(vector, "context_digest"), vector["index"], *pieces(vector), final=vector["final"]
    )
    start = vector["index"] * stream.CHUNK_SIZE
    assert opened == pattern(start + len(opened))[start:]


def signature(vector: Vector) -> None:
    VerifyKey.from_bytes(data(vector, "public_key")).verify(data(vector, "signature"), data(vector, "message"))


def did_signature(vector: Vector) -> None:
    VerifyKey.from_bytes(key_from_did(vector["did"])).verify(data(vector, "signature"), data(vector, "message"))


def sealed(vector: Vector) -> None:
    assert SealingKey(data(vector, "private_key")).open(data(vector, "ciphertext")) == data(vector, "plaintext")


def aead_message(vector: Vector) -> None:
    opened = aead.decrypt(data(vector, "key"), data(vector, "ciphertext"), data(vector, "aad"))
    assert opened == data(vector, "plaintext")


def base64url(vector: Vector) -> None:
    assert b64url(from_b64url(vector["text"], vector["size"])) == vector["text"]


def json_document(vector: Vector) -> None:
    document = vector["text"].encode("utf-8")
    assert canonical_json(from_canonical_json(document)) == document


def umbral_key(vector: Vector) -> None:
    assert bytes(secret_key(vector).public_key()) == data(vector, "public_key")


def derive(vector: Vector) -> None:
    assert Seed.from_bytes(data(vector, "seed")).derive(vector["label"], vector["size"]) == data(vector, "output")


def hkdf_output(vector: Vector) -> None:
    assert hkdf(data(vector, "key"), data(vector, "info"), vector["size"]) == data(vector, "output")


def seed(vector: Vector) -> None:
    assert Seed.from_bytes(data(vector)).reveal() == data(vector)


def padded_length(vector: Vector) -> None:
    assert padme(vector["length"]) == vector["padded"]


RUN: dict[str, Callable[[Vector], None]] = {
    "aead": aead_message,
    "base64url": base64url,
    "body": body,
    "canonical_json": json_document,
    "capsule": parse(umbral.Capsule),
    "cfrag": parse(umbral.CapsuleFrag),
    "cfrag_verify": cfrag_verify,
    "context_digest": context_digest,
    "decrypt_original": decrypt_original,
    "decrypt_reencrypted": decrypt_reencrypted,
    "derive": derive,
    "did_signature": did_signature,
    "generate_kfrags": generate_kfrags,
    "header": header,
    "hkdf": hkdf_output,
    "kfrag": parse(umbral.KeyFrag),
    "kfrag_accept": kfrag_accept,
    "kfrag_verify": kfrag_verify,
    "padme": padded_length,
    "public_key": parse(umbral.PublicKey),
    "sealed": sealed,
    "sealing_key": parse(SealingPublicKey),
    "seed": seed,
    "signature": signature,
    "stream": stream_all,
    "stream_at": stream_at,
    "umbral_key": umbral_key,
    "unwrap_original": unwrap_original,
    "unwrap_reencrypted": unwrap_reencrypted,
    "verify_key": parse(VerifyKey),
    **log.RUN,
}


def check(vector: Vector) -> None:
    run = RUN[vector["kind"]]
    if vector["expect"] == "ok":
        run(vector)
        return
    with pytest.raises(PcehrError) as raised:
        run(vector)
    assert raised.value.code == vector["expect"]


@pytest.mark.parametrize("name", ENGINE_NAMES)
@pytest.mark.parametrize("vector", [v for v in VECTORS if v["kind"] not in WITHOUT_ENGINE], ids=lambda v: v["id"])
def test_vector_under_engine(vector: Vector, name: str) -> None:
    try:
        load_engine(name)
    except EngineUnavailable:
        pytest.skip(f"{name} has no wheel for this interpreter")
    with use_engine(name):
        check(vector)


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["kind"] in WITHOUT_ENGINE], ids=lambda v: v["id"])
def test_vector(vector: Vector) -> None:
    check(vector)


def test_there_are_enough_vectors() -> None:
    assert len(VECTORS) >= 80


def test_ids_are_unique() -> None:
    counted = Counter(vector["id"] for vector in VECTORS)
    assert [name for name, count in counted.items() if count > 1] == []


def test_every_kind_has_an_accepted_and_a_refused_vector() -> None:
    """A kind with refusals only would pass with a function that refuses everything."""
    outcomes: dict[str, set[bool]] = {}
    for vector in VECTORS:
        outcomes.setdefault(vector["kind"], set()).add(vector["expect"] == "ok")
    assert set(outcomes) == set(RUN)
    # Only these cannot fail or cannot succeed by themselves.
    one_sided = {kind for kind, seen in outcomes.items() if len(seen) == 1}
    assert one_sided == {"context_digest", "derive", "hkdf", "seed", "umbral_key"}
