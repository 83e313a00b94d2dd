"""Properties of what encrypts a record: streams, headers, bodies, lengths, envelopes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.crypto import stream, umbral
from shared.crypto.engines import ENGINE_NAMES, load_engine, use_engine
from shared.crypto.errors import EngineUnavailable, PayloadCorrupt, PayloadTruncated
from shared.crypto.padding import padme
from shared.crypto.record import RecordContext, RecordKey, body_ciphertext_size
from shared.errors import PcehrError

KEY, DIGEST = bytes(range(32)), bytes(range(32, 64))
PATTERN = b"".join(number.to_bytes(4, "big") for number in range(60_000))

# Sizes around the borders of chunks, where mistakes live, besides any size.
sizes = st.one_of(
    st.integers(0, 1000),
    st.integers(0, len(PATTERN)),
    st.builds(lambda chunks, by: max(0, chunks * 65_536 + by), st.integers(0, 3), st.integers(-2, 2)),
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts
headers = st.dictionaries(
    texts,
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)),
    max_size=5,
)
contexts = st.builds(
    RecordContext,
    patient=texts.filter(bool),
    record=texts.filter(bool),
    version=st.integers(0, 2**53 - 1),
    scope=texts.filter(bool),
    epoch=st.integers(0, 2**53 - 1),
    author=texts.filter(bool),
)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in pieces, cut at the given places; some may be empty."""
    places = sorted(min(place, len(data)) for place in cuts)
    return [data[start:end] for start, end in pairwise([0, *places, len(data)])]


cuts = st.lists(st.integers(0, len(PATTERN)), max_size=8)


@given(size=sizes, before=cuts, after=cuts)
def test_stream_round_trip_in_any_pieces(size, before, after):
    plaintext = PATTERN[:size]
    ciphertext = b"".join(stream.encrypt_chunks(KEY, DIGEST, cut(plaintext, before)))
    assert len(ciphertext) == stream.ciphertext_size(size)
    assert ciphertext == b"".join(stream.encrypt_chunks(KEY, DIGEST, [plaintext])), "pieces leave no trace"
    assert b"".join(stream.decrypt_chunks(KEY, DIGEST, cut(ciphertext, after))) == plaintext


@given(size=sizes, data=st.data())
def test_every_cut_and_every_flip_of_a_stream_is_refused(size, data):
    ciphertext = b"".join(stream.encrypt_chunks(KEY, DIGEST, [PATTERN[:size]]))
    end = data.draw(st.integers(0, len(ciphertext) - 1))
    with pytest.raises((PayloadTruncated, PayloadCorrupt)):
        list(stream.decrypt_chunks(KEY, DIGEST, [ciphertext[:end]]))
    changed = bytearray(ciphertext)
    changed[end] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PayloadCorrupt):
        list(stream.decrypt_chunks(KEY, DIGEST, [bytes(changed)]))


@given(chunks=st.integers(2, 3), data=st.data())
@settings(max_examples=30)
def test_every_other_order_of_chunks_is_refused(chunks, data):
    ciphertext = b"".join(stream.encrypt_chunks(KEY, DIGEST, [PATTERN[: chunks * 65_536]]))
    size = stream.CIPHERTEXT_CHUNK_SIZE
    parts = [ciphertext[at : at + size] for at in range(0, len(ciphertext), size)]
    order = data.draw(st.lists(st.sampled_from(range(chunks)), max_size=5).filter(lambda o: o != list(range(chunks))))
    with pytest.raises((PayloadTruncated, PayloadCorrupt)):
        list(stream.decrypt_chunks(KEY, DIGEST, [parts[index] for index in order]))


@given(garbage=st.binary(max_size=300))
def test_garbage_never_decrypts(garbage):
    for opened in (
        lambda: list(stream.decrypt_chunks(KEY, DIGEST, [garbage])),
        lambda: RecordKey(KEY).decrypt_header(garbage, CONTEXT),
        lambda: list(RecordKey(KEY).decrypt_body([garbage], 10, CONTEXT)),
    ):
        with pytest.raises(PcehrError):
            opened()


CONTEXT = RecordContext(patient="p", record="r", version=1, scope="s", epoch=0, author="a")


@given(header=headers, context=contexts)
def test_header_round_trip(header, context):
    key = RecordKey.generate()
    ciphertext = key.encrypt_header(header, context)
    assert (len(ciphertext) - 40) % 256 == 0
    assert key.decrypt_header(ciphertext, context) == header


@given(size=sizes, before=cuts, after=cuts, context=contexts)
def test_body_round_trip(size, before, after, context):
    key, body = RecordKey.generate(), PATTERN[:size]
    ciphertext = b"".join(key.encrypt_body(cut(body, before), len(body), context))
    assert len(ciphertext) == body_ciphertext_size(len(body))
    assert b"".join(key.decrypt_body(cut(ciphertext, after), len(body), context)) == body


@given(size=st.integers(0, 70_000), said=st.integers(0, 80_000))
def test_body_under_another_length_is_refused_or_differs_in_zeros_only(size, said):
    """A larger length of the same padded size only adds zeros; that the length is right is for the manifest to say."""
    key, body = RecordKey(KEY), b"\x01" * size
    ciphertext = b"".join(key.encrypt_body([body], size, CONTEXT))
    if size <= said and padme(said) == padme(size):
        assert b"".join(key.decrypt_body([ciphertext], said, CONTEXT)) == body + bytes(said - size)
    else:
        with pytest.raises((PayloadTruncated, PayloadCorrupt)):
            list(key.decrypt_body([ciphertext], said, CONTEXT))


@given(length=st.integers(257, 2**60))
def test_padme_adds_at_most_twelve_percent(length):
    padded = padme(length)
    assert length <= padded
    assert 100 * (padded - length) <= 12 * length
    assert padme(padded) == padded


@given(lengths=st.lists(st.integers(0, 2**40), min_size=2, max_size=2).map(sorted))
def test_padme_never_turns_lengths_around(lengths):
    assert padme(lengths[0]) <= padme(lengths[1])


@pytest.mark.parametrize("name", ENGINE_NAMES)
@given(seed=st.binary(min_size=32, max_size=32), context=contexts, threshold=st.integers(1, 3), data=st.data())
@settings(max_examples=25, deadline=None)
def test_envelope_round_trip(name, seed, context, threshold, data):
    try:
        load_engine(name)
    except EngineUnavailable:
        pytest.skip(f"{name} has no wheel for this interpreter")
    with use_engine(name):
        key = RecordKey(seed)
        patient, recipient, signer = (umbral.SecretKey.generate() for _ in range(3))
        capsule, wrapped = key.wrap(patient.public_key(), context)
        assert RecordKey.unwrap_original(patient, capsule, wrapped, context).commitment == key.commitment
        kfrags = umbral.generate_kfrags(patient, recipient.public_key(), umbral.KfragSigner(signer), threshold, 4)
        chosen = data.draw(st.permutations(kfrags))[: data.draw(st.integers(threshold, 4))]
        cfrags = [umbral.reencrypt(capsule, kfrag) for kfrag in chosen]
        opened = RecordKey.unwrap_reencrypted(recipient, patient.public_key(), capsule, cfrags, wrapped, context)
        assert opened.commitment == key.commitment
