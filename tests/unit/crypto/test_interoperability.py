"""Each engine opens what the other produced, in every direction."""

from __future__ import annotations

from itertools import product

import pytest

from shared.crypto import umbral
from shared.crypto.derivation import Seed
from shared.crypto.engines import use_engine

PLAINTEXT = b"the same bytes in every engine"
NAMES = ("umbral-pre", "umbral")


@pytest.mark.usefixtures("both_engines")
class TestInteroperability:
    @pytest.mark.parametrize("label", ["receiving/0", "signer/0", "scope/allergies/3", "", "ä"])
    def test_derived_keys_are_equal(self, label):
        keys = set()
        for name in NAMES:
            with use_engine(name):
                keys.add(bytes(Seed.from_bytes(bytes(range(32))).umbral_key(label).public_key()))
        assert len(keys) == 1

    @pytest.mark.parametrize(("maker", "opener"), list(product(NAMES, NAMES)))
    def test_original_decryption(self, new_cast, maker, opener):
        with use_engine(maker):
            capsule, ciphertext = umbral.encrypt(new_cast().delegating, PLAINTEXT)
        with use_engine(opener):
            received = umbral.Capsule.from_bytes(bytes(capsule))
            assert umbral.decrypt_original(new_cast().delegating_sk, received, ciphertext) == PLAINTEXT

    @pytest.mark.parametrize(("author", "patient", "proxy", "recipient"), list(product(NAMES, repeat=4)))
    def test_every_party_on_another_engine(self, new_cast, author, patient, proxy, recipient):
        with use_engine(author):
            capsule_bytes, ciphertext = umbral.encrypt(new_cast().delegating, PLAINTEXT)
        with use_engine(patient):
            kfrags = [bytes(kfrag) for kfrag in new_cast().kfrags()]
        with use_engine(proxy):
            capsule, keys = umbral.Capsule.from_bytes(bytes(capsule_bytes)), new_cast().keys
            accepted = [umbral.accept_kfrag(umbral.KeyFrag.from_bytes(kfrag), *keys) for kfrag in kfrags]
            sent = [bytes(umbral.reencrypt(capsule, kfrag)) for kfrag in accepted[:2]]
        with use_engine(recipient):
            capsule, cast = umbral.Capsule.from_bytes(bytes(capsule_bytes)), new_cast()
            cfrags = [umbral.CapsuleFrag.from_bytes(cfrag).verify(capsule, *cast.keys) for cfrag in sent]
            opened = umbral.decrypt_reencrypted(cast.receiving_sk, cast.delegating, capsule, cfrags, ciphertext)
        assert opened == PLAINTEXT

    @pytest.mark.parametrize("recipient", NAMES)
    def test_proxies_on_different_engines_combine(self, new_cast, recipient):
        cast = new_cast()
        capsule, ciphertext = umbral.encrypt(cast.delegating, PLAINTEXT)
        sent = []
        for name, kfrag in zip(NAMES, cast.kfrags(), strict=False):
            with use_engine(name):
                sent.append(bytes(umbral.reencrypt(capsule, kfrag)))
        with use_engine(recipient):
            cfrags = [umbral.CapsuleFrag.from_bytes(cfrag).verify(capsule, *cast.keys) for cfrag in sent]
            opened = umbral.decrypt_reencrypted(cast.receiving_sk, cast.delegating, capsule, cfrags, ciphertext)
        assert opened == PLAINTEXT

    @pytest.mark.parametrize(("maker", "user"), list(product(NAMES, NAMES)))
    def test_objects_of_one_engine_are_usable_under_the_other(self, new_cast, maker, user):
        with use_engine(maker):
            cast = new_cast()
            capsule, ciphertext = umbral.encrypt(cast.delegating, PLAINTEXT)
            kfrags = cast.kfrags()
        with use_engine(user):
            assert umbral.decrypt_original(cast.delegating_sk, capsule, ciphertext) == PLAINTEXT
            cfrags = [umbral.reencrypt(capsule, kfrag) for kfrag in kfrags]
            more = cast.kfrags(1, 1)
        with use_engine(maker):
            single = [umbral.reencrypt(capsule, more[0])]
            for chosen in (cfrags, single):
                opened = umbral.decrypt_reencrypted(cast.receiving_sk, cast.delegating, capsule, chosen, ciphertext)
                assert opened == PLAINTEXT
