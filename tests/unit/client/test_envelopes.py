"""Envelopes opened with re-encryptions: what holds opens, what does not is told apart, and frames lose nothing."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from client.envelopes import CONTENT_SIZE, Envelope, Fault, OpeningKeys, Unwrapped, open_envelope
from shared.crypto import umbral
from shared.crypto.errors import DecryptionFailed, MalformedKeyMaterial, SharesDoNotCombine
from shared.crypto.umbral import KfragSigner, SecretKey

CONTENT = bytes(range(CONTENT_SIZE))


@dataclass(frozen=True)
class Made:
    """A grant, 2 of 3, and an envelope under it with the re-encryptions of all three proxies."""

    keys: OpeningKeys
    envelope: Envelope


def made(receiving: SecretKey | None = None) -> Made:
    delegating, receiving = SecretKey.generate(), receiving or SecretKey.generate()
    signer = KfragSigner(SecretKey.generate())
    kfrags = umbral.generate_kfrags(delegating, receiving.public_key(), signer, 2, 3)
    capsule, wrapped = umbral.encrypt(delegating.public_key(), CONTENT)
    return Made(
        OpeningKeys(2, bytes(signer.verifying_key()), receiving),
        Envelope(
            capsule=bytes(capsule),
            delegating_key=bytes(delegating.public_key()),
            wrapped_key=wrapped,
            cfrags=tuple(bytes(umbral.reencrypt(capsule, kfrag)) for kfrag in kfrags),
        ),
    )


@pytest.fixture(scope="module")
def one() -> Made:
    return made()


def test_honest_re_encryptions_hold_and_open(one: Made) -> None:
    assert open_envelope(one.keys, one.envelope) == Unwrapped((True, True, True), CONTENT)


def test_what_lies_does_not_hold_and_the_others_open(one: Made) -> None:
    lies = (made().envelope.cfrags[1], b"", b"x" * 359)
    mixed = replace(one.envelope, cfrags=(one.envelope.cfrags[0], *lies, one.envelope.cfrags[2]))
    assert open_envelope(one.keys, mixed) == Unwrapped((True, False, False, False, True), CONTENT)


def test_too_few_that_hold_leave_it_closed(one: Made) -> None:
    mixed = replace(one.envelope, cfrags=(one.envelope.cfrags[0], b"x" * 359))
    assert open_envelope(one.keys, mixed) == Unwrapped((True, False))
    assert open_envelope(one.keys, replace(one.envelope, cfrags=())) == Unwrapped(())


def test_re_encryptions_for_another_recipient_do_not_hold(one: Made) -> None:
    other = replace(one.keys, receiving_key=SecretKey.generate())
    assert open_envelope(other, one.envelope) == Unwrapped((False, False, False))


def twice(one: Made) -> Envelope:
    return replace(one.envelope, cfrags=(one.envelope.cfrags[0],) * 2)


def other_wrapped_key(one: Made) -> Envelope:
    return replace(one.envelope, wrapped_key=made().envelope.wrapped_key)


def short_wrapped_key(one: Made) -> Envelope:
    return replace(one.envelope, wrapped_key=one.envelope.wrapped_key[:-1])


def no_capsule(one: Made) -> Envelope:
    return replace(one.envelope, capsule=b"x" * 98)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (twice, SharesDoNotCombine),
        (other_wrapped_key, DecryptionFailed),
        (short_wrapped_key, MalformedKeyMaterial),
        (no_capsule, MalformedKeyMaterial),
    ],
    ids=lambda value: value.__name__,
)
def test_what_holds_and_opens_nothing_says_why(one: Made, change: Callable[[Made], Envelope], fault: Fault) -> None:
    changed = change(one)
    assert open_envelope(one.keys, changed) == Unwrapped((True,) * len(changed.cfrags), fault=fault)


def test_a_public_key_that_is_none_is_refused(one: Made) -> None:
    with pytest.raises(MalformedKeyMaterial):
        open_envelope(one.keys, replace(one.envelope, delegating_key=b"x" * 33))


@pytest.mark.parametrize(
    "unwrapped",
    [
        Unwrapped((True, False), CONTENT),
        Unwrapped((True, False)),
        Unwrapped(()),
        Unwrapped((True, True), fault=MalformedKeyMaterial),
        Unwrapped((True, True), fault=SharesDoNotCombine),
        Unwrapped((True, True), fault=DecryptionFailed),
    ],
    ids=["opened", "closed", "nothing", "malformed", "not of one set", "not authentic"],
)
def test_answers_come_back_as_they_were(unwrapped: Unwrapped) -> None:
    frame = unwrapped.frame()
    assert len(frame) == Unwrapped.size(len(unwrapped.holds))
    assert Unwrapped.parse(frame) == unwrapped


def test_jobs_come_back_and_end_anywhere(one: Made) -> None:
    envelopes = [one.envelope, twice(one), replace(one.envelope, cfrags=())]
    stream = io.BytesIO(one.keys.frame() + b"".join(envelope.frame() for envelope in envelopes))
    keys = OpeningKeys.read(stream)
    assert keys is not None
    assert (keys.threshold, keys.verifying_key) == (2, one.keys.verifying_key)
    assert keys.receiving_key.public_key() == one.keys.receiving_key.public_key()
    assert [Envelope.read(stream) for _ in envelopes] == envelopes
    assert Envelope.read(stream) is None
    for cut in (1, 100, 500):
        assert Envelope.read(io.BytesIO(one.envelope.frame()[:-cut])) is None
    assert OpeningKeys.read(io.BytesIO(one.keys.frame()[:-1])) is None


def test_keys_and_contents_are_not_shown_and_keys_are_not_pickled(one: Made) -> None:
    secret = one.keys.receiving_key.reveal()
    assert repr(secret)[2:-1] not in repr(one.keys)
    assert repr(CONTENT)[2:-1] not in repr(open_envelope(one.keys, one.envelope))
    with pytest.raises(TypeError):
        pickle.dumps(one.keys)


@pytest.mark.parametrize("data", [b"", bytes(32), b"\xff" * 32, bytes(31) + b"\x01\x00"], ids=range(4))
def test_a_secret_key_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedKeyMaterial):
        SecretKey.from_revealed(data)
