"""Whatever the bytes, a parser or a verifier raises nothing but a `PcehrError`, under each engine."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.crypto import umbral
from shared.crypto.derivation import Seed
from shared.crypto.engines import ENGINE_NAMES, load_engine, use_engine
from shared.crypto.errors import BadSignature, EngineUnavailable
from shared.crypto.sealing import SealingKey, SealingPublicKey, seal
from shared.crypto.signing import SigningKey, VerifyKey
from shared.crypto.wireform import ORDER
from shared.errors import PcehrError

KINDS = {umbral.PublicKey: 33, umbral.Capsule: 98, umbral.KeyFrag: 260, umbral.CapsuleFrag: 359}
# Where points, scalars and flags begin, so that random changes hit structure and not only noise.
INTERESTING = (0, 32, 33, 64, 66, 97, 98, 130, 131, 162, 164, 194, 197, 226, 230, 258, 259, 263, 295, 327)
fillings = st.sampled_from(
    [bytes(33), b"\x02" + bytes(32), b"\xff" * 33, b"\x04" + b"\x01" * 32, ORDER.to_bytes(32, "big"), b"\x01", b"\x00"]
) | st.binary(min_size=1, max_size=66)

engines = pytest.mark.parametrize("name", ENGINE_NAMES)


def load(name: str) -> None:
    try:
        load_engine(name)
    except EngineUnavailable:
        pytest.skip(f"{name} has no wheel for this interpreter")


@cache
def world():
    seed = Seed.from_bytes(bytes(range(32)))
    patient, recipient, signing = (seed.umbral_key(label) for label in ("scope", "receiving", "signer"))
    signer = umbral.KfragSigner(signing)
    capsule, _ = umbral.encrypt(patient.public_key(), b"")
    kfrag = umbral.generate_kfrags(patient, recipient.public_key(), signer, 1, 1)[0]
    keys = (signer.verifying_key(), patient.public_key(), recipient.public_key())
    return capsule, kfrag, umbral.reencrypt(capsule, kfrag), keys


def use(kind, data, capsule, keys) -> None:
    """Parse, and go as far as a service would with what parses."""
    parsed = kind.from_bytes(data)
    assert bytes(parsed) == data, "what is accepted has one spelling"
    if kind is umbral.KeyFrag:
        umbral.accept_kfrag(parsed, *keys)
    elif kind is umbral.CapsuleFrag:
        parsed.verify(capsule, *keys)
    elif kind is umbral.PublicKey:
        umbral.encrypt(parsed, b"")


@engines
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(deadline=None)
def test_random_bytes(name, kind, data):
    load(name)
    size = KINDS[kind]
    noise = data.draw(st.binary(max_size=400) | st.binary(min_size=size, max_size=size))
    with use_engine(name):
        capsule, _, _, keys = world()
        with suppress(PcehrError):
            use(kind, noise, capsule, keys)


@engines
@given(place=st.sampled_from(INTERESTING), filling=fillings, which=st.integers(0, 3))
@settings(deadline=None, max_examples=200)
def test_valid_objects_with_a_hostile_part(name, place, filling, which):
    load(name)
    with use_engine(name):
        capsule, kfrag, cfrag, keys = world()
        kind, good = [
            (umbral.PublicKey, bytes(keys[0])),
            (umbral.Capsule, bytes(capsule)),
            (umbral.KeyFrag, bytes(kfrag)),
            (umbral.CapsuleFrag, bytes(cfrag)),
        ][which]
        place %= len(good)
        hostile = (good[:place] + filling + good[place + len(filling) :])[: len(good)]
        with suppress(PcehrError):
            use(kind, hostile, capsule, keys)
            # Only another public key can be good; anything else must be what it was.
            assert hostile == good or kind is umbral.PublicKey


@engines
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_engines_agree_on_what_they_accept(name, data):
    """A point that one engine takes and the other does not would let two parties see different things."""
    load(name)
    other = "umbral" if name == "umbral-pre" else "umbral-pre"
    load(other)
    candidate = bytes([data.draw(st.sampled_from([2, 3]))]) + data.draw(st.binary(min_size=32, max_size=32))
    seen = []
    for engine in (name, other):
        with use_engine(engine):
            try:
                seen.append(bytes(umbral.PublicKey.from_bytes(candidate)))
            except PcehrError as error:
                seen.append(error.code)
    assert seen[0] == seen[1]


@given(noise=st.binary(max_size=80) | st.binary(min_size=32, max_size=32), message=st.binary(max_size=10))
def test_signing_and_sealing(noise, message):
    with suppress(PcehrError):
        assert bytes(VerifyKey.from_bytes(noise)) == noise
    with suppress(PcehrError):
        seal(SealingPublicKey.from_bytes(noise), message)
    with suppress(PcehrError):
        SealingKey(bytes(range(32))).open(noise)
    with suppress(PcehrError):
        SigningKey(noise)
    with pytest.raises(BadSignature):
        SigningKey(bytes(range(32))).verify_key.verify(noise, message)
