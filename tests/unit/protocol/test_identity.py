"""Chains of keys: what proves itself, and every way a chain is refused."""

from __future__ import annotations

import pytest

from shared import statements as st
from shared import wire
from shared.crypto.errors import BadSignature
from shared.did import did_from_key, key_from_did, key_id, split_key_id
from shared.encoding import b64url
from shared.errors import Malformed
from shared.identity import BrokenChain, receiving_key, sealing_key, verify_chain, verify_next, verifying_key
from tests.unit.protocol.parties import NOW, SeededParty, id_of

ALICE = SeededParty(1)
BOB = SeededParty(2, wire.Role.RECIPIENT)
PROXY = SeededParty(3, wire.Role.PROXY)


def test_did_key_of_a_known_key() -> None:
    # The Ed25519 example of the W3C did:key method specification.
    did = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"
    assert did_from_key(key_from_did(did)) == did


@pytest.mark.parametrize(
    "text",
    [
        "did:key:",
        "did:web:example.org",
        "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2do",
        "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK ",
        "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme",
        "did:key:m7QEuKJnTCGB3PjkVq8mWjqZkKDRVpBT4jEBzTmEJZJgu2w",
        "DID:KEY:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
    ],
    ids=["nothing", "other method", "truncated", "trailing space", "secp256k1", "other base", "capitals"],
)
def test_did_refuses(text: str) -> None:
    with pytest.raises(Malformed):
        key_from_did(text)


def test_key_id_round_trip_and_refusal() -> None:
    key = bytes(BOB.identity().verify_key)
    assert split_key_id(key_id(ALICE.did, key)) == (ALICE.did, key)
    with pytest.raises(Malformed):
        split_key_id(ALICE.did)


def test_a_chain_of_three_verifies() -> None:
    party = verify_chain(ALICE.did, ALICE.chain(3))
    assert party.role is wire.Role.PATIENT
    assert party.current.payload.seq == 2
    assert party.current_identity_key == bytes(ALICE.identity(2).verify_key)
    assert len(party.all_identity_keys) == 3
    assert party.entry(party.entries[1].id) is party.entries[1]
    assert bytes(verifying_key(party.current)) == bytes(ALICE.seed.umbral_key("signer/2").public_key())
    assert bytes(receiving_key(party.current)) == bytes(ALICE.seed.umbral_key("receiving/2").public_key())


def test_a_proxy_has_a_sealing_key_and_no_umbral_key() -> None:
    party = verify_chain(PROXY.did, PROXY.chain())
    assert len(bytes(sealing_key(party.current))) == 32
    with pytest.raises(Malformed):
        receiving_key(party.current)
    with pytest.raises(Malformed):
        sealing_key(verify_chain(ALICE.did, ALICE.chain()).current)


def test_an_empty_chain_is_broken() -> None:
    with pytest.raises(BrokenChain):
        verify_chain(ALICE.did, [])


def test_a_chain_under_another_id_is_wrong_signer() -> None:
    with pytest.raises(st.WrongSigner):
        verify_chain(BOB.did, ALICE.chain())


def test_a_missing_link_is_wrong_signer() -> None:
    tokens = ALICE.chain(3)
    with pytest.raises(st.WrongSigner):
        verify_chain(ALICE.did, [tokens[0], tokens[2]])


def test_an_entry_that_skips_a_number_is_broken() -> None:
    first = ALICE.key_entry()
    claims = ALICE.key_entry_claims(2, id_of(first))
    claims["possession"] = b64url(ALICE.identity(2).sign(st.KeyEntry.model_construct(**claims).possession_message()))
    with pytest.raises(BrokenChain):
        verify_chain(ALICE.did, [first, st.sign(st.KeyEntry(**claims), ALICE.identity(0))])


def test_an_entry_that_names_another_predecessor_is_broken() -> None:
    with pytest.raises(BrokenChain):
        verify_chain(ALICE.did, [ALICE.key_entry(), ALICE.key_entry(1, b64url(bytes(32)))])


def test_a_role_that_changes_is_broken() -> None:
    first = ALICE.key_entry()
    other = SeededParty(1, wire.Role.RECIPIENT)
    with pytest.raises(BrokenChain):
        verify_chain(ALICE.did, [first, other.key_entry(1, id_of(first))])


def test_an_entry_older_than_its_predecessor_is_broken() -> None:
    first = ALICE.key_entry()
    with pytest.raises(BrokenChain):
        verify_chain(ALICE.did, [first, ALICE.key_entry(1, id_of(first), iat=NOW - 1)])


def test_an_identity_key_used_before_is_broken() -> None:
    first = ALICE.key_entry()
    claims = ALICE.key_entry_claims(1, id_of(first), identity_key=b64url(bytes(ALICE.identity(0).verify_key)))
    claims["possession"] = b64url(ALICE.identity(0).sign(st.KeyEntry.model_construct(**claims).possession_message()))
    with pytest.raises(BrokenChain):
        verify_chain(ALICE.did, [first, st.sign(st.KeyEntry(**claims), ALICE.identity(0))])


def test_anothers_identity_key_cannot_be_pulled_into_a_chain() -> None:
    first = ALICE.key_entry()
    claims = ALICE.key_entry_claims(1, id_of(first), identity_key=b64url(bytes(BOB.identity().verify_key)))
    claims["possession"] = b64url(ALICE.identity(0).sign(st.KeyEntry.model_construct(**claims).possession_message()))
    with pytest.raises(BrokenChain):
        verify_chain(ALICE.did, [first, st.sign(st.KeyEntry(**claims), ALICE.identity(0))])


def test_a_first_entry_with_another_identity_key_is_broken() -> None:
    claims = ALICE.key_entry_claims(identity_key=b64url(bytes(BOB.identity().verify_key)))
    with pytest.raises(BrokenChain):
        verify_chain(ALICE.did, [st.sign(st.KeyEntry(**claims), ALICE.identity(0))])


def test_a_key_that_is_no_point_is_refused() -> None:
    claims = ALICE.key_entry_claims(receiving_key=b64url(b"\x02" + b"\xff" * 32))
    with pytest.raises(Malformed):
        verify_chain(ALICE.did, [st.sign(st.KeyEntry(**claims), ALICE.identity(0))])


def test_an_entry_signed_by_the_new_key_only_is_refused() -> None:
    first = ALICE.key_entry()
    claims = ALICE.key_entry_claims(1, id_of(first))
    claims["possession"] = b64url(ALICE.identity(1).sign(st.KeyEntry.model_construct(**claims).possession_message()))
    with pytest.raises((st.WrongSigner, BadSignature)):
        verify_chain(ALICE.did, [first, st.sign(st.KeyEntry(**claims), ALICE.identity(1))])


def test_a_longer_chain_extends_a_shorter_one_and_not_the_other_way_round() -> None:
    tokens = ALICE.chain(3)
    short, long = verify_chain(ALICE.did, tokens[:1]), verify_chain(ALICE.did, tokens)
    assert long.extends(short)
    assert not short.extends(long)
    assert not verify_chain(ALICE.did, ALICE.chain(3)).extends(long), "another chain of the same length is a fork"
    assert verify_next(verify_chain(ALICE.did, tokens[:2]), tokens[2]).extends(short)
