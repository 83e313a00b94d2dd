"""The seed, its words, and what is derived from it: fixed vectors, so that words written down today serve for ever."""

from __future__ import annotations

import copy
import pickle

import pytest

from client.errors import InvalidWords, UnknownScope
from client.keyring import Keyring
from shared.crypto.derivation import Seed
from shared.crypto.record import RecordContext, RecordKey

ZERO_WORDS = "abandon " * 23 + "art"
"""BIP-39's own vector for 32 zero bytes."""


def test_fixed_words_give_fixed_keys() -> None:
    keyring = Keyring.from_words(ZERO_WORDS)
    assert keyring.did == "did:key:z6MksmkJ9GMjH8hozxKmZbGxK8zzps235y1sEuhZojiAiqyo"
    assert keyring.scope_id("allergies") == "ILscVqR0JOUpzPJcdP55LQ"
    assert keyring.settings_record_id == "f3861cee-3ca6-86a8-b0ea-4a55daa6f70b"
    assert keyring.receiving(0).public_key().b64 == "Aj8NmdhcwGJTNafs4kP4C8WXSYDl98q4e3kf5MLESt8A"
    assert keyring.signer(0).verifying_key().b64 == "AmTVJGECO6-clfpAbAqIrJknSA5cDGsi2nMQagpEE_zM"
    assert keyring.delegating("allergies", 0).public_key().b64 == "AvswwJcrbnbu9S91M5x2wUX_31ZoMMCHv4PZunXVdRru"


def test_words_are_the_entropy_itself() -> None:
    assert Keyring(Seed.from_bytes(bytes(32))).words() == ZERO_WORDS
    assert Keyring.from_words(ZERO_WORDS).reveal_seed() == bytes(32)


def test_words_round_trip() -> None:
    keyring = Keyring.generate()
    assert Keyring.from_words(keyring.words()).did == keyring.did


def test_words_in_any_case_and_white_space_are_accepted() -> None:
    assert Keyring.from_words("  " + ZERO_WORDS.upper().replace(" ", "\n\t")).did == Keyring.from_words(ZERO_WORDS).did


@pytest.mark.parametrize(
    "words",
    [
        "",
        "abandon " * 24,
        "abandon " * 23 + "artt",
        "abandon " * 22 + "art",
        "abandon " * 11 + "about",
        "art " + "abandon " * 23,
        "é " * 24,
    ],
)
def test_wrong_words_are_refused(words: str) -> None:
    with pytest.raises(InvalidWords) as refusal:
        Keyring.from_words(words)
    assert refusal.value.hint


def test_every_key_has_its_own_label() -> None:
    keyring = Keyring.generate()
    umbral = [
        keyring.signer(0).verifying_key(),
        keyring.signer(1).verifying_key(),
        keyring.receiving(0).public_key(),
        keyring.receiving(1).public_key(),
        keyring.delegating("allergies", 0).public_key(),
        keyring.delegating("allergies", 1).public_key(),
        keyring.delegating("medications", 0).public_key(),
    ]
    assert len({bytes(key) for key in umbral}) == len(umbral)
    assert bytes(keyring.identity(0).verify_key) != bytes(keyring.identity(1).verify_key)
    assert keyring.scope_id("allergies") != keyring.scope_id("medications")


def test_scope_ids_differ_between_parties() -> None:
    assert Keyring.generate().scope_id("allergies") != Keyring.generate().scope_id("allergies")


def test_settings_record_id_is_a_version_8_uuid() -> None:
    record_id = Keyring.generate().settings_record_id
    assert record_id[14] == "8"
    assert record_id[19] in "89ab"


@pytest.mark.parametrize("name", ["", "Allergies", "a--b", "-a", "a-", "a b", "x" * 65, "ä", "a\n"])
def test_a_name_that_is_no_scope_name_is_refused(name: str) -> None:
    with pytest.raises(UnknownScope):
        Keyring.generate().scope_id(name)


def test_a_keyring_shows_nothing_and_cannot_be_pickled_or_copied() -> None:
    keyring = Keyring.generate()
    assert keyring.words() not in f"{keyring!r} {keyring} {keyring:>30}"
    assert "secret" in repr(keyring)
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(keyring)


def test_a_delegating_key_opens_what_was_wrapped_for_it() -> None:
    keyring = Keyring.generate()
    context = RecordContext(patient="p", record="r", version=1, scope="s", epoch=3, author="a")
    key = RecordKey.generate()
    capsule, wrapped = key.wrap(keyring.delegating("allergies", 3).public_key(), context)
    again = Keyring.from_words(keyring.words()).delegating("allergies", 3)
    assert RecordKey.unwrap_original(again, capsule, wrapped, context).commitment == key.commitment
