"""Signing, sealing, derivation and single messages."""

from __future__ import annotations

import pytest

from shared.crypto import aead
from shared.crypto.derivation import Seed, hkdf
from shared.crypto.errors import BadSignature, DecryptionFailed, MalformedKeyMaterial
from shared.crypto.padding import padme
from shared.crypto.sealing import SEAL_OVERHEAD, SealingKey, SealingPublicKey, seal
from shared.crypto.signing import SigningKey, VerifyKey


def test_signature_round_trip():
    key = SigningKey.generate()
    signature = key.sign(b"message")
    assert len(signature) == 64
    verify_key = VerifyKey.from_bytes(bytes(key.verify_key))
    verify_key.verify(signature, b"message")
    assert verify_key == key.verify_key
    assert hash(verify_key) == hash(key.verify_key)
    assert SigningKey(b"\x01" * 32).sign(b"x") == SigningKey.from_bytes(b"\x01" * 32).sign(b"x")
    with pytest.raises(BadSignature):
        verify_key.verify(signature, b"another message")


@pytest.mark.parametrize("kind", [Seed, SigningKey, SealingKey, VerifyKey, SealingPublicKey])
@pytest.mark.parametrize("data", [b"", bytes(31), bytes(33), "x" * 32, None])
def test_wrong_sizes_and_types_are_refused(kind, data):
    with pytest.raises(MalformedKeyMaterial):
        kind.from_bytes(data)


def test_sealed_box_round_trip():
    key = SealingKey.generate()
    public = SealingPublicKey.from_bytes(bytes(key.public_key))
    assert public == key.public_key
    box = seal(public, b"share")
    assert len(box) == 5 + SEAL_OVERHEAD
    assert key.open(box) == b"share"
    assert key.open(seal(public, b"")) == b""
    with pytest.raises(DecryptionFailed):
        SealingKey.generate().open(box)


def test_aead_round_trip():
    key = bytes(range(32))
    assert aead.decrypt(key, aead.encrypt(key, b"", b""), b"") == b""
    ciphertext = aead.encrypt(key, b"text", b"bound")
    assert len(ciphertext) == 4 + aead.OVERHEAD
    assert aead.decrypt(key, ciphertext, b"bound") == b"text"
    assert aead.encrypt(key, b"text", b"bound") != ciphertext, "every message has its own nonce"
    with pytest.raises(DecryptionFailed):
        aead.decrypt(key, ciphertext, b"unbound")


def test_labels_and_seeds_separate_keys(engine):
    seed = Seed.generate()
    assert Seed.from_bytes(seed.reveal()).derive("a", 32) == seed.derive("a", 32)
    assert seed.derive("a", 32) != seed.derive("b", 32)
    assert seed.derive("a", 64)[:32] == seed.derive("a", 32)
    assert seed.umbral_key("a").public_key() != seed.umbral_key("b").public_key()
    assert seed.umbral_key("a").public_key() != Seed.generate().umbral_key("a").public_key()


@pytest.mark.parametrize("size", [0, -1, 8161])
def test_hkdf_refuses_sizes_out_of_range(size):
    with pytest.raises(ValueError, match="8160"):
        hkdf(bytes(32), b"", size)


def test_padme_of_small_lengths_is_one_size():
    assert {padme(length) for length in range(257)} == {256}
    assert padme(257) == 272
