"""Parties are believed only as far as their chains prove them, and never less than before."""

from __future__ import annotations

import pytest

from client.errors import (
    KeyChainRolledBack,
    NotSignedUp,
    ServiceRefused,
    StatementForged,
    VerificationFailed,
    WrongRole,
)
from client.fingerprint import fingerprint, fingerprint_of
from client.keyring import Keyring
from shared.statements import Denial, verify_stored
from shared.wire import DenialReason, Role
from tests.unit.client.world import World


async def test_signing_up_twice_has_no_effect(world: World) -> None:
    session = world.session()
    first = await session.sign_up(Role.PATIENT)
    assert (await session.sign_up(Role.PATIENT)).current.id == first.current.id
    assert session.state.role is Role.PATIENT
    assert len([line for line in world.log if line == "POST /v1/patients"]) == 1


async def test_signing_up_in_another_role_is_wrong_role(world: World) -> None:
    session = world.session()
    await session.sign_up(Role.PATIENT)
    with pytest.raises(WrongRole):
        await session.sign_up(Role.RECIPIENT, name="Demo Practice")


async def test_whoever_has_not_signed_up_is_told_so(world: World) -> None:
    session = world.session()
    for attempt in (session.me, session.credentials, session.rotate_keys):
        with pytest.raises(NotSignedUp):
            await attempt()


async def test_an_unknown_party_is_the_registrys_refusal(world: World) -> None:
    with pytest.raises(ServiceRefused) as refusal:
        await world.session().party(Keyring.generate().did)
    assert refusal.value.code == "unknown_party"


async def test_another_partys_chain_under_this_did_is_refused(world: World) -> None:
    recipient, other = await world.recipient(), await world.recipient()
    world.parties[recipient.session.did] = world.parties[other.session.did]
    with pytest.raises(VerificationFailed) as refusal:
        await world.session().party(recipient.session.did)
    assert refusal.value.code == "wrong_signer"


async def test_a_forged_entry_is_bad_signature(world: World) -> None:
    recipient = await world.recipient()
    did = recipient.session.did
    token = world.parties[did][0]
    other = world.parties[(await world.recipient()).session.did][0]
    world.parties[did] = [token.rpartition(".")[0] + "." + other.rpartition(".")[2]]
    with pytest.raises(StatementForged):
        await world.session().party(did)


async def test_rotation_keeps_the_id_and_changes_the_keys(world: World) -> None:
    recipient = await world.recipient()
    before = await recipient.session.me()
    after = await recipient.session.rotate_keys()
    assert after.did == before.did
    assert after.extends(before)
    assert after.current.payload.seq == 1
    assert after.name == before.name
    assert after.current.payload.receiving_key != before.current.payload.receiving_key
    statement = await recipient.session.sign(Denial, before.did, request="A" * 43, reason=DenialReason.UNSPECIFIED)
    assert statement.signed_with == after.current_identity_key


async def test_rotation_may_change_a_name(world: World) -> None:
    recipient = await world.recipient()
    assert (await recipient.session.rotate_keys(name="Demo Clinic")).name == "Demo Clinic"
    assert recipient.session.state.display_name == "Demo Clinic"


async def test_a_registry_that_goes_back_is_found_out(world: World) -> None:
    recipient = await world.recipient()
    observer = world.session()
    await recipient.session.rotate_keys()
    await observer.party(recipient.session.did)
    world.parties[recipient.session.did].pop()
    with pytest.raises(KeyChainRolledBack):
        await observer.party(recipient.session.did, fresh=True)
    with pytest.raises(KeyChainRolledBack):
        await world.session(state=observer.state).party(recipient.session.did)


async def test_a_key_not_seen_yet_makes_the_party_be_asked_for_anew(world: World) -> None:
    recipient, observer = await world.recipient(), world.session()
    await observer.party(recipient.session.did)
    await recipient.session.rotate_keys()
    statement = await recipient.session.sign(Denial, observer.did, request="A" * 43, reason=DenialReason.UNSPECIFIED)
    party = await observer.issuer_of(statement.token, Denial)
    assert verify_stored(statement.token, Denial, party).id == statement.id


async def test_the_words_alone_are_enough_after_a_rotation(world: World) -> None:
    session = world.session()
    await session.sign_up(Role.PATIENT)
    await session.rotate_keys()
    again = world.session(keyring=Keyring.from_words(session.keyring.words()))
    assert (await again.me()).current.payload.seq == 1


async def test_the_directory_finds_by_name_and_leaves_out_what_does_not_verify(world: World) -> None:
    first, second = await world.recipient("Demo Practice"), await world.recipient("Demo Practice Two")
    world.parties[second.session.did] = world.parties[first.session.did]
    found = await world.session().search("practice")
    assert [party.did for party in found] == [first.session.did]


async def test_the_fingerprint_is_eight_words_that_never_change(world: World) -> None:
    recipient = await world.recipient()
    words = fingerprint(await recipient.session.me())
    assert len(words) == 8
    assert fingerprint(await recipient.session.rotate_keys()) == words
    assert recipient.session.fingerprint(await recipient.session.me()) == words


def test_the_fingerprint_has_a_fixed_form() -> None:
    did = "did:key:z6MksmkJ9GMjH8hozxKmZbGxK8zzps235y1sEuhZojiAiqyo"
    words = fingerprint_of(did, "A" * 43)
    assert " ".join(words) == "ceiling zone holiday primary butter vague abuse brief"
    assert fingerprint_of(did, "B" * 43) != words
