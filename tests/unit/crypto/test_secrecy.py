"""Secrets do not show, and do not leave by pickle or copy."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest

from shared.crypto import umbral
from shared.crypto.derivation import Seed
from shared.crypto.record import RecordKey
from shared.crypto.sealing import SealingKey
from shared.crypto.signing import SigningKey

RAW = bytes(range(100, 132))


def holders():
    seed = Seed.from_bytes(RAW)
    return [
        (seed, RAW),
        (SigningKey(RAW), RAW),
        (SealingKey(RAW), RAW),
        (RecordKey(RAW), RAW),
        (seed.umbral_key("x"), secret_bytes(seed.umbral_key("x"))),
        (umbral.KfragSigner(seed.umbral_key("x")), secret_bytes(seed.umbral_key("x"))),
    ]


def secret_bytes(key: umbral.SecretKey) -> bytes:
    return key._engine.encode_secret_key(key._handle)


@pytest.fixture(params=range(6))
def holder(request, engine):
    return holders()[request.param]


def test_nothing_shows(holder, caplog):
    secret, raw = holder
    logging.getLogger("test").warning("%s %r", secret, secret)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", f"{secret!r}", str([secret]), caplog.text]
    for text in shown:
        assert raw.hex() not in text.lower()
        assert repr(raw)[2:-1] not in text
        assert str(int.from_bytes(raw, "big")) not in text
    assert "secret" in repr(secret)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle(holder, protocol):
    with pytest.raises(TypeError):
        pickle.dumps(holder[0], protocol)


def test_no_copy(holder):
    for copier in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copier(holder[0])


def test_no_attribute_dictionary_and_no_bytes(holder):
    with pytest.raises(TypeError):
        vars(holder[0])
    with pytest.raises(TypeError):
        bytes(holder[0])


def test_a_share_shows_only_a_hash_and_does_not_pickle(cast):
    verified = cast.kfrags()[0]
    for share in (verified, umbral.KeyFrag.from_bytes(bytes(verified))):
        key = bytes(share)[32:64]
        assert key.hex() not in f"{share!r} {share!s} {share}"
        with pytest.raises(TypeError):
            pickle.dumps(share)


def test_a_signer_signs_nothing_but_kfrags(cast):
    assert not hasattr(cast.signer, "sign")
