"""A record at rest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.crypto import stream, umbral
from shared.crypto.errors import (
    CommitmentMismatch,
    ContextMismatch,
    DecryptionFailed,
    MalformedKeyMaterial,
    PayloadCorrupt,
    PayloadTruncated,
)
from shared.crypto.record import WRAPPED_KEY_SIZE, RecordKey, body_ciphertext_size
from shared.encoding import sha256
from shared.errors import Malformed, TooLarge

ELSEWHERE = {"patient": "x", "record": "x", "version": 9, "scope": "x", "epoch": 9, "author": "x"}


def test_envelope_opens_for_owner_and_recipient(cast, context):
    key = RecordKey.generate()
    capsule, wrapped = key.wrap(cast.delegating, context)
    assert len(wrapped) == WRAPPED_KEY_SIZE == 104
    RecordKey.unwrap_original(cast.delegating_sk, capsule, wrapped, context).check_commitment(key.commitment)
    cfrags = [umbral.reencrypt(capsule, kfrag) for kfrag in cast.kfrags()]
    opened = RecordKey.unwrap_reencrypted(cast.receiving_sk, cast.delegating, capsule, cfrags, wrapped, context)
    opened.check_commitment(key.commitment)


@pytest.mark.parametrize("member", ELSEWHERE)
def test_every_member_of_the_context_is_bound(cast, context, member):
    key = RecordKey.generate()
    capsule, wrapped = key.wrap(cast.delegating, context)
    cfrags = [umbral.reencrypt(capsule, kfrag) for kfrag in cast.kfrags()]
    other = replace(context, **{member: ELSEWHERE[member]})
    with pytest.raises(ContextMismatch):
        RecordKey.unwrap_original(cast.delegating_sk, capsule, wrapped, other)
    with pytest.raises(ContextMismatch):
        RecordKey.unwrap_reencrypted(cast.receiving_sk, cast.delegating, capsule, cfrags, wrapped, other)
    with pytest.raises(DecryptionFailed):
        key.decrypt_header(key.encrypt_header({}, context), other)
    with pytest.raises(PayloadCorrupt):
        list(key.decrypt_body(key.encrypt_body([b"x"], 1, context), 1, other))


@pytest.mark.parametrize("length", [0, 40, 103, 105])
def test_wrapped_key_of_another_length_is_refused(cast, context, length):
    capsule, _ = RecordKey.generate().wrap(cast.delegating, context)
    with pytest.raises(MalformedKeyMaterial):
        RecordKey.unwrap_original(cast.delegating_sk, capsule, bytes(length), context)
    cfrags = [umbral.reencrypt(capsule, kfrag) for kfrag in cast.kfrags()]
    with pytest.raises(MalformedKeyMaterial):
        RecordKey.unwrap_reencrypted(cast.receiving_sk, cast.delegating, capsule, cfrags, bytes(length), context)


def test_commitment_of_another_key_is_refused():
    with pytest.raises(CommitmentMismatch):
        RecordKey.generate().check_commitment(RecordKey.generate().commitment)


def test_context_digest_is_over_canonical_json(context):
    members = b'{"author":"did:key:a","epoch":0,"patient":"did:key:p","record":"r","scope":"s","v":1,"version":1}'
    assert context.digest() == sha256(b"pcehr/v1/context\0" + members)


@pytest.mark.parametrize(
    "changed",
    [
        {"patient": ""},
        {"record": 1},
        {"version": "1"},
        {"version": True},
        {"epoch": -1},
        {"epoch": 2**53},
        {"scope": "\ud800"},
    ],
)
def test_malformed_context_is_refused(context, changed):
    with pytest.raises(Malformed):
        replace(context, **changed)


def test_header_sizes_tell_little(context):
    key = RecordKey.generate()
    sizes = {len(key.encrypt_header({"t": "x" * length}, context)) for length in range(240)}
    assert sizes == {256 + 40}
    assert len(key.encrypt_header({"t": "x" * 8183}, context)) == 8192 + 40
    with pytest.raises(TooLarge):
        key.encrypt_header({"t": "x" * 8184}, context)
    with pytest.raises(TooLarge):
        key.decrypt_header(bytes(8192 + 41), context)


@pytest.mark.parametrize("header", [{"a": 1.5}, {"a": 2**53}, {"a": "\ud800"}, {"a": b""}, {1: 2}, {"a": float("nan")}])
def test_header_that_is_not_canonical_json_is_refused(context, header):
    with pytest.raises(Malformed):
        RecordKey.generate().encrypt_header(header, context)


def test_header_nested_too_deeply_is_refused(context):
    nested: object = 1
    for _ in range(20):
        nested = [nested]
    with pytest.raises(Malformed):
        RecordKey.generate().encrypt_header({"a": nested}, context)


@pytest.mark.parametrize(("said", "error"), [(9, PayloadCorrupt), (11, PayloadTruncated)])
def test_body_of_another_length_than_said_is_not_encrypted(context, said, error):
    with pytest.raises(error):
        list(RecordKey.generate().encrypt_body([b"x" * 10], said, context))


def test_negative_length_is_refused_before_the_first_byte(context):
    key = RecordKey.generate()
    for method in (key.encrypt_body, key.decrypt_body):
        with pytest.raises(Malformed):
            method([], -1, context)


@pytest.mark.parametrize("length", [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000])
def test_random_access_gives_the_same_as_streaming(context, length):
    key, body = RecordKey.generate(), bytes(range(251)) * 800
    body = body[:length]
    ciphertext = b"".join(key.encrypt_body([body], length, context))
    assert len(ciphertext) == body_ciphertext_size(length)
    step = stream.CIPHERTEXT_CHUNK_SIZE
    parts = [
        key.decrypt_body_chunk(index, ciphertext[start : start + step], length, context)
        for index, start in enumerate(range(0, len(ciphertext), step))
    ]
    assert b"".join(parts) == body == b"".join(key.decrypt_body([ciphertext], length, context))
    with pytest.raises(PayloadCorrupt):
        key.decrypt_body_chunk(len(parts), ciphertext[-step:], length, context)
    with pytest.raises(PayloadCorrupt):
        key.decrypt_body_chunk(-1, ciphertext[:step], length, context)


def test_a_large_body_streams_in_constant_memory(context):
    key, size, served = RecordKey.generate(), 32 * 1024 * 1024, 0

    def source():
        nonlocal served
        for _ in range(size // 8192):
            served += 8192
            yield bytes(8192)

    received = 0
    for chunk in key.decrypt_body(key.encrypt_body(source(), size, context), size, context):
        received += len(chunk)
        assert served - received <= 4 * 65_536, "no more than a few chunks are held at any time"
    assert received == size
