"""Nobody shares with a key, or encrypts to one, that is not in the log that everybody is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina

from client.author import Author
from client.errors import NotInLog, ServiceRefused, VerificationFailed
from client.log_memory import REGISTRY
from client.patient import Patient
from client.recipient import Recipient
from client.session import Session
from client.state import ClientState
from shared.statements import ScopeKey
from shared.wire import REGISTRY_AUDIENCE, Action, Purpose, Role
from tests.unit.client.hiding import note, sent, share
from tests.unit.client.world import DAY, NOW, World, id_of

INCLUSION = "POST /v1/log/inclusion"


@pytest.fixture(autouse=True)
def no_patience() -> Iterator[None]:
    with stamina.set_testing(True, attempts=1):
        yield


async def rotate(world: World, recipient: Recipient, *, logged: bool) -> None:
    """New keys of a recipient, which the registry has in its log or only says it has."""
    if not logged:
        world.log_key = lambda did, token: None  # type: ignore[method-assign]
    try:
        await recipient.session.rotate_keys()
    except NotInLog:
        assert not logged
    finally:
        world.__dict__.pop("log_key", None)


@pytest.mark.parametrize("logged", [True, False])
async def test_a_key_entry_outside_of_the_log_is_not_shared_with(world: World, logged: bool) -> None:
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    await rotate(world, reader, logged=logged)
    if logged:
        grant = await share(owner, reader)
        assert grant.statement.payload.recipient_entry == id_of(world.parties[reader.session.did][1])
        return
    with pytest.raises(NotInLog) as caught:
        await share(owner, reader)
    assert reader.session.did in caught.value.detail
    assert (sent(world, "POST /v1/grants"), world.grants) == (0, {})
    # Nothing of it is remembered: the chain without it is the party's chain still.
    world.parties[reader.session.did].pop()
    assert (await share(owner, reader)).recipient.did == reader.session.did


@pytest.mark.parametrize("logged", [True, False])
async def test_a_party_that_was_never_logged_is_nobody_to_share_with(world: World, logged: bool) -> None:
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    if not logged:
        # The registry shows this patient another history than it showed the recipient when it signed up.
        world.key_log = world.key_log.branch(0)
        for did, chain in world.parties.items():
            if did != reader.session.did:
                world.log_key(did, chain[0])
        owner = Patient(world.session(owner.session.keyring, ClientState()), known_scopes=["allergies"])
        for token in world.scope_keys[owner.session.did]:
            world.log_key(owner.session.did, token)
        with pytest.raises(VerificationFailed) as caught:
            await share(owner, reader)
        # Its witnesses have cosigned the true history, and do not cosign this one.
        assert caught.value.code == "not_enough_cosignatures"
        return
    assert (await share(owner, reader)).recipient.did == reader.session.did


async def test_a_swapped_scope_key_that_was_never_logged_is_not_encrypted_to(world: World) -> None:
    """The patient's own signature is on it, for instance by a stolen key; the log is what gives it away."""
    owner, author = await world.patient(), await world.recipient()
    await owner.add_scope("allergies")
    grant = await share(owner, author, actions=[Action.APPEND])
    swapped = await owner.session.sign(
        ScopeKey,
        REGISTRY_AUDIENCE,
        scope=owner.session.keyring.scope_id("allergies"),
        epoch=1,
        delegating_key=owner.session.keyring.delegating("medications", 0).public_key().b64,
    )
    published = world.scope_keys[owner.session.did]
    published.append(swapped.token)
    with pytest.raises(NotInLog) as caught:
        await Author(author.session).append(grant.id, [note("b")])
    assert owner.session.did in caught.value.detail
    assert sent(world, "POST /v1/records") == 0
    assert author.session.state.epoch(owner.session.did, swapped.payload.scope) == 0
    world.log_key(owner.session.did, swapped.token)
    assert (await Author(author.session).append(grant.id, [note("b")]))[0].epoch == 1


async def test_ones_own_key_outside_of_the_log_is_noticed(world: World) -> None:
    world.log_key = lambda did, token: None  # type: ignore[method-assign]
    session = world.session()
    with pytest.raises(NotInLog) as caught:
        await session.sign_up(Role.PATIENT)
    assert session.did in caught.value.detail
    del world.log_key
    world.log_key(session.did, world.parties[session.did][0])
    assert (await session.sign_up(Role.PATIENT)).did == session.did


async def test_ones_own_scope_key_outside_of_the_log_is_noticed(world: World) -> None:
    owner = await world.patient()
    world.log_key = lambda did, token: None  # type: ignore[method-assign]
    with pytest.raises(NotInLog) as caught:
        await owner.add_scope("knee-surgery")
    assert owner.session.did in caught.value.detail
    del world.log_key
    for token in world.scope_keys[owner.session.did]:
        world.log_key(owner.session.did, token)
    assert (await owner.add_scope("knee-surgery")).epoch == 0


async def test_a_proxy_outside_of_the_log_gets_no_share(world: World) -> None:
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    false = World(proxies=1).proxies[0]
    world.proxies.append(false)
    world.parties[false.did] = [false.key_entry()]
    with pytest.raises(NotInLog) as caught:
        await owner.pin_proxies([*(proxy.did for proxy in world.proxies)])
    # Of several parties asked for at once, the one is named that is not there.
    assert false.did in caught.value.detail
    assert owner.session.state.proxies == []
    assert await owner.pin_proxies([proxy.did for proxy in world.proxies[:3]])
    assert false.did not in [proxy.did for proxy in (await share(owner, reader)).proxies]


async def test_two_clients_cannot_be_shown_two_histories(world: World) -> None:
    """An honest witness cosigns one of them, whoever asks first."""
    one, reader = await world.patient(), await world.recipient()
    true = world.key_log
    assert (await one.session.logs.refresh(REGISTRY, one.session.platform.registry_url)).size == len(true.datas)
    world.key_log = true.branch(4)
    world.key_log.append(bytes(64))
    world.log_key(reader.session.did, world.parties[reader.session.did][0])
    two = world.session(one.session.keyring, ClientState())
    with pytest.raises(VerificationFailed) as caught:
        await two.party(reader.session.did)
    assert caught.value.code == "not_enough_cosignatures"
    world.key_log = true
    assert (await world.session(one.session.keyring, ClientState()).party(reader.session.did)).did == reader.session.did


async def test_with_the_witnesses_away_known_keys_go_on_working(world: World, tmp_path: Path) -> None:
    state = ClientState(tmp_path / "state.db")
    owner = Patient(world.session(state=state), known_scopes=["allergies"])
    await owner.sign_up()
    known, new = await world.recipient(), await world.recipient("Demo Insurer")
    await owner.add_records([note("a")])
    await share(owner, known)
    for proxy in world.proxies:
        proxy.witness.away = True
    world.clock.now += 2 * DAY
    later = Patient(
        world.session(owner.session.keyring, ClientState.load(tmp_path / "state.db")), known_scopes=["allergies"]
    )
    assert (await share(later, known)).recipient.did == known.session.did
    with pytest.raises(VerificationFailed) as caught:
        await share(later, new)
    assert caught.value.code == "not_enough_cosignatures"
    assert caught.value.hint
    for proxy in world.proxies:
        proxy.witness.away = False
    assert (await share(later, new)).recipient.did == new.session.did


async def test_what_has_no_place_in_the_log_yet_is_refused_with_a_hint(world: World) -> None:
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    world.key_log.held_back = 1
    with pytest.raises(ServiceRefused) as caught:
        await share(owner, reader)
    assert (caught.value.code, world.grants) == ("not_in_log_yet", {})
    assert "proxies" in caught.value.hint
    world.key_log.held_back = 0
    assert (await share(owner, reader)).recipient.did == reader.session.did


async def test_approving_costs_the_log_two_questions_however_much_is_asked_for(world: World) -> None:
    names = [f"scope-{number}" for number in range(12)]
    owner, reader = Patient(world.session(), known_scopes=names), await world.recipient()
    await owner.sign_up()
    await owner.add_records([note(name, name) for name in names])
    request = await reader.request(
        owner.session.did,
        scopes=names,
        actions=[Action.READ],
        purpose=Purpose.TREAT,
        reason="Planned treatment",
        expires=NOW + DAY,
    )
    # Another process, which has proven nothing but what the first has written down.
    later = Patient(world.session(owner.session.keyring, owner.session.state), known_scopes=names)
    before = sent(world, INCLUSION)
    grant = await later.approve(request)
    assert (len(grant.scopes), len(grant.proxies)) == (12, 3)
    assert sent(world, INCLUSION) - before <= 2
    # What was proven once is not asked for again.
    before = sent(world, INCLUSION)
    await Patient(world.session(owner.session.keyring, owner.session.state), known_scopes=names).grants()
    assert sent(world, INCLUSION) == before


async def test_those_found_by_a_search_are_proven_when_they_are_used(world: World) -> None:
    owner, reader = await world.patient(), await world.recipient()
    world.key_log = world.key_log.branch(len(world.key_log.datas) - 1)
    before = sent(world, INCLUSION)
    assert [party.did for party in await owner.session.search("demo")] == [reader.session.did]
    assert sent(world, INCLUSION) == before
    with pytest.raises(NotInLog):
        await owner.session.party(reader.session.did)


async def test_a_registry_that_hides_a_proxy_does_not_pass_for_one_that_does_not_know_oneself(world: World) -> None:
    session: Session = world.session()
    world.parties.pop(world.proxies[0].did)
    assert (await session.sign_up(Role.PATIENT)).did == session.did
    assert (await world.session(session.keyring, session.state).me()).did == session.did
