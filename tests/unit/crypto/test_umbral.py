"""The door to Umbral, under each engine."""

from __future__ import annotations

import pytest

from shared.crypto import umbral
from shared.crypto.errors import (
    CapsuleFragRejected,
    DecryptionFailed,
    InvalidThreshold,
    KeyFragRejected,
    MalformedKeyMaterial,
    SharesDoNotCombine,
)
from shared.encoding import from_b64url, sha256

PLAINTEXT = b"a content key and the digest of a context"


def test_whole_flow(cast):
    capsule, ciphertext = umbral.encrypt(cast.delegating, PLAINTEXT)
    assert len(bytes(capsule)) == 98
    assert len(ciphertext) == len(PLAINTEXT) + 40
    assert umbral.decrypt_original(cast.delegating_sk, capsule, ciphertext) == PLAINTEXT

    accepted = [umbral.accept_kfrag(umbral.KeyFrag.from_bytes(bytes(kfrag)), *cast.keys) for kfrag in cast.kfrags()]
    stored = [umbral.VerifiedKeyFrag.from_verified_bytes(bytes(kfrag)) for kfrag in accepted]
    assert stored == accepted
    sent = [bytes(umbral.reencrypt(capsule, kfrag)) for kfrag in stored]
    assert {len(cfrag) for cfrag in sent} == {359}
    cfrags = [umbral.CapsuleFrag.from_bytes(cfrag).verify(capsule, *cast.keys) for cfrag in sent]
    for chosen in (cfrags[:2], cfrags[1:], cfrags[::-1], cfrags):
        opened = umbral.decrypt_reencrypted(cast.receiving_sk, cast.delegating, capsule, chosen, ciphertext)
        assert opened == PLAINTEXT


@pytest.mark.parametrize("plaintext", [b"", b"\x00", bytes(5000)])
def test_any_length_of_plaintext(cast, plaintext):
    capsule, ciphertext = umbral.encrypt(cast.delegating, plaintext)
    assert umbral.decrypt_original(cast.delegating_sk, capsule, ciphertext) == plaintext


def test_one_of_one_and_64_of_64(cast):
    capsule, ciphertext = umbral.encrypt(cast.delegating, PLAINTEXT)
    for threshold, shares in ((1, 1), (64, 64)):
        cfrags = [umbral.reencrypt(capsule, kfrag) for kfrag in cast.kfrags(threshold, shares)]
        opened = umbral.decrypt_reencrypted(cast.receiving_sk, cast.delegating, capsule, cfrags, ciphertext)
        assert opened == PLAINTEXT


@pytest.mark.parametrize(
    ("threshold", "shares"), [(0, 3), (4, 3), (-1, 1), (1, 65), (65, 65), (True, 2), (1, True), (1.0, 2), ("1", 2)]
)
def test_impossible_threshold_is_refused(cast, threshold, shares):
    with pytest.raises(InvalidThreshold):
        cast.kfrags(threshold, shares)


def test_plain_verification_overlooks_the_receivers_signature_and_acceptance_does_not(cast):
    kfrag, other = (bytes(kfrag) for kfrag in cast.kfrags()[:2])
    tampered = umbral.KeyFrag.from_bytes(kfrag[:194] + other[194:258] + kfrag[258:])
    tampered.verify(*cast.keys)
    with pytest.raises(KeyFragRejected):
        umbral.accept_kfrag(tampered, *cast.keys)


def test_kfrag_that_does_not_sign_both_keys_is_refused(cast):
    kfrag = bytes(cast.kfrags()[0])
    for flags in (b"\x00\x00", b"\x01\x00", b"\x00\x01"):
        with pytest.raises(KeyFragRejected):
            umbral.KeyFrag.from_bytes(kfrag[:258] + flags).verify(*cast.keys)


def test_kfrag_under_exchanged_keys_is_refused(cast):
    kfrag = umbral.KeyFrag.from_bytes(bytes(cast.kfrags()[0]))
    verifying, delegating, receiving = cast.keys
    for keys in (
        (delegating, delegating, receiving),
        (verifying, receiving, delegating),
        (verifying, delegating, verifying),
    ):
        with pytest.raises(KeyFragRejected):
            kfrag.verify(*keys)


def test_cfrag_of_another_capsule_is_refused(cast):
    capsule, _ = umbral.encrypt(cast.delegating, PLAINTEXT)
    another, _ = umbral.encrypt(cast.delegating, PLAINTEXT)
    cfrag = umbral.CapsuleFrag.from_bytes(bytes(umbral.reencrypt(capsule, cast.kfrags()[0])))
    with pytest.raises(CapsuleFragRejected):
        cfrag.verify(another, *cast.keys)


def test_every_changed_byte_of_a_kfrag_or_cfrag_is_refused(cast):
    capsule, _ = umbral.encrypt(cast.delegating, PLAINTEXT)
    kfrag = cast.kfrags()[0]
    cfrag = bytes(umbral.reencrypt(capsule, kfrag))
    for at in range(0, 260, 5):
        with pytest.raises((MalformedKeyMaterial, KeyFragRejected)):
            umbral.accept_kfrag(umbral.KeyFrag.from_bytes(flipped(bytes(kfrag), at)), *cast.keys)
    for at in range(0, 359, 5):
        with pytest.raises((MalformedKeyMaterial, CapsuleFragRejected)):
            umbral.CapsuleFrag.from_bytes(flipped(cfrag, at)).verify(capsule, *cast.keys)


def test_every_changed_byte_of_a_capsule_is_refused(cast):
    capsule = bytes(umbral.encrypt(cast.delegating, PLAINTEXT)[0])
    for at in range(98):
        with pytest.raises(MalformedKeyMaterial):
            umbral.Capsule.from_bytes(flipped(capsule, at))


def test_what_does_not_combine_and_what_does_not_decrypt_are_told_apart(cast):
    capsule, ciphertext = umbral.encrypt(cast.delegating, PLAINTEXT)
    first, second, third = (umbral.reencrypt(capsule, kfrag) for kfrag in cast.kfrags())
    again = umbral.reencrypt(capsule, umbral.VerifiedKeyFrag.from_verified_bytes(bytes(cast.kfrags()[0])))

    def opened(cfrags, text=ciphertext, key=cast.receiving_sk, sealed=capsule):
        return umbral.decrypt_reencrypted(key, cast.delegating, sealed, cfrags, text)

    another, _ = umbral.encrypt(cast.delegating, PLAINTEXT)
    for cfrags in ([], [first], [first, first], [first, again], [first, second, second], [third] * 65):
        with pytest.raises(SharesDoNotCombine):
            opened(cfrags)
    with pytest.raises(SharesDoNotCombine):
        opened([first, second], key=cast.delegating_sk)
    with pytest.raises(SharesDoNotCombine):
        opened([first, second], sealed=another)
    for text in (b"", ciphertext[:10], ciphertext[:30], ciphertext[:-1], flipped(ciphertext, 50)):
        with pytest.raises(DecryptionFailed):
            opened([first, second], text)
        with pytest.raises(DecryptionFailed):
            umbral.decrypt_original(cast.delegating_sk, capsule, text)


def test_reencryption_of_a_capsule_for_another_scope_opens_nothing(cast):
    """The fragments verify, and even combine under the shares' own key; but to a secret that encrypts nothing."""
    elsewhere = umbral.SecretKey.generate()
    capsule, ciphertext = umbral.encrypt(elsewhere.public_key(), PLAINTEXT)
    cfrags = [umbral.reencrypt(capsule, kfrag) for kfrag in cast.kfrags()]
    with pytest.raises(DecryptionFailed):
        umbral.decrypt_reencrypted(cast.receiving_sk, cast.delegating, capsule, cfrags, ciphertext)
    with pytest.raises(SharesDoNotCombine):
        umbral.decrypt_reencrypted(cast.receiving_sk, elsewhere.public_key(), capsule, cfrags, ciphertext)


def test_objects_compare_hash_and_show_by_their_bytes(cast):
    key = umbral.PublicKey.from_bytes(bytes(cast.delegating))
    assert key == cast.delegating
    assert hash(key) == hash(cast.delegating)
    assert key != cast.receiving
    assert from_b64url(key.b64, 33) == bytes(key)
    assert key.hash == sha256(bytes(key))
    kfrag = cast.kfrags()[0]
    assert kfrag != umbral.KeyFrag.from_bytes(bytes(kfrag)), "verified and unverified are never equal"
    capsule, _ = umbral.encrypt(cast.delegating, PLAINTEXT)
    assert capsule.hash == sha256(bytes(capsule))


@pytest.mark.parametrize(
    "kind",
    [
        umbral.PublicKey,
        umbral.SecretKey,
        umbral.Capsule,
        umbral.KeyFrag,
        umbral.VerifiedKeyFrag,
        umbral.CapsuleFrag,
        umbral.VerifiedCapsuleFrag,
    ],
)
def test_objects_come_from_parsing_or_from_functions_only(kind):
    with pytest.raises(TypeError):
        kind()


@pytest.mark.parametrize("hostile", [None, "text", 33, bytearray(33), memoryview(bytes(33))])
def test_other_types_than_bytes_are_refused(engine, hostile):
    for kind in (umbral.PublicKey, umbral.Capsule, umbral.KeyFrag, umbral.CapsuleFrag):
        with pytest.raises(MalformedKeyMaterial):
            kind.from_bytes(hostile)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
