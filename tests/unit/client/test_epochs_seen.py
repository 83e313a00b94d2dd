"""Nobody encrypts to an older key of a scope than the patient's own statements show, whatever the registry says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from client.author import Author
from client.errors import ScopeKeyRolledBack
from client.patient import Patient
from client.recipient import Recipient
from client.records import Placement, new_record_id, seal_record
from client.scope_keys import current_scope_key
from shared.statements import ScopeKey
from shared.wire import REGISTRY_AUDIENCE, Action
from tests.unit.client.hiding import again, hide_grants, note, share
from tests.unit.client.world import NOW, World, claims_of


def roll_back(world: World, owner: Patient) -> None:
    """The registry shows the first epoch of every scope and no later one."""
    keys = world.scope_keys[owner.session.did]
    world.scope_keys[owner.session.did] = [token for token in keys if claims_of(token)["epoch"] == 0]


async def in_epoch_one(world: World, evidence: str) -> tuple[Patient, Recipient]:
    """A patient whose scope is in epoch 1, and one kind of statement that says so; all others are hidden."""
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    ended = await share(owner, reader)
    await owner.revoke(ended.id, wait_seconds=0)
    if evidence != "revocation":
        hide_grants(world, ended.id)
    if evidence == "record":
        await owner.add_records([note("b")])
    if evidence == "grant":
        await share(owner, reader, actions=[Action.APPEND])
    return owner, reader


@pytest.mark.parametrize("rolled_back", [False, True])
@pytest.mark.parametrize("evidence", ["record", "grant", "revocation"])
async def test_restoring_refuses_keys_older_than_what_the_patient_has_signed(evidence: str, rolled_back: bool) -> None:
    world = World()
    owner, _ = await in_epoch_one(world, evidence)
    if not rolled_back:
        report = await again(world, owner).restore()
        assert [(scope.name, scope.epoch) for scope in report.scopes] == [("allergies", 1)]
        return
    roll_back(world, owner)
    with pytest.raises(ScopeKeyRolledBack):
        await again(world, owner).restore()


async def test_with_the_words_alone_what_all_hide_together_is_not_known() -> None:
    world = World()
    owner, _ = await in_epoch_one(world, "nothing")
    roll_back(world, owner)
    report = await again(world, owner).restore()
    assert [(scope.name, scope.epoch) for scope in report.scopes] == [("allergies", 0)]


async def test_a_scope_that_the_registry_does_not_show_at_all_is_missed() -> None:
    world = World()
    owner, _ = await in_epoch_one(world, "grant")
    world.scope_keys[owner.session.did] = []
    with pytest.raises(ScopeKeyRolledBack):
        await again(world, owner).restore()


async def test_nothing_is_written_to_an_older_key_than_a_statement_met_on_the_way_shows() -> None:
    world = World()
    owner, _ = await in_epoch_one(world, "revocation")
    keys = list(world.scope_keys[owner.session.did])
    roll_back(world, owner)
    other = again(world, owner)
    assert [scope.epoch for scope in await other.scopes()] == [0]
    await other.grants()
    before = len(world.records)
    with pytest.raises(ScopeKeyRolledBack):
        await other.add_records([note("must not be written under the old key")])
    assert len(world.records) == before
    world.scope_keys[owner.session.did] = keys
    (stored,) = await other.add_records([note("b")])
    assert stored.epoch == 1


async def test_what_another_machine_of_the_patient_publishes_is_looked_up_and_no_fault() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader)
    await again(world, owner).revoke(grant.id, wait_seconds=0)
    await owner.grants()
    (stored,) = await owner.add_records([note("b")])
    assert stored.epoch == 1


@pytest.mark.parametrize("rolled_back", [False, True])
async def test_an_author_writes_to_no_older_key_than_its_grant_names(rolled_back: bool) -> None:
    world = World()
    owner, author = await in_epoch_one(world, "grant")
    (grant,) = await author.grants()
    before = len(world.records)
    if rolled_back:
        roll_back(world, owner)
    # On another machine, that has seen nothing of this patient but the grant.
    writer = Author(world.session(author.session.keyring))
    if rolled_back:
        with pytest.raises(ScopeKeyRolledBack):
            await writer.append(grant.id, [note("c")])
        assert len(world.records) == before
    else:
        assert (await writer.append(grant.id, [note("c")]))[0].epoch == 1


async def test_an_author_writes_to_no_older_key_than_it_has_seen() -> None:
    world = World()
    owner, author = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    ended = await share(owner, await world.recipient("Demo Insurer"))
    grant = await share(owner, author, actions=[Action.APPEND])
    await owner.revoke(ended.id, wait_seconds=0)
    writer = Author(author.session)
    assert (await writer.append(grant.id, [note("b")]))[0].epoch == 1
    roll_back(world, owner)
    with pytest.raises(ScopeKeyRolledBack):
        await writer.append(grant.id, [note("c")])


async def test_an_epoch_that_an_author_made_up_proves_nothing() -> None:
    """Otherwise whoever may append could keep a patient from ever writing again."""
    world = World()
    owner, author = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, author, actions=[Action.APPEND])
    world.records.update(await made_up(author, owner, grant.id, epoch=7))
    assert sorted(record.epoch for record in await owner.records()) == [0, 7]
    assert (await owner.add_records([note("b")]))[0].epoch == 0


async def made_up(author: Recipient, owner: Patient, grant_id: str, *, epoch: int) -> dict[str, list[Any]]:
    """A record of the author's, filed under an epoch that the patient has not published."""
    session, keyring = author.session, owner.session.keyring
    record_id = new_record_id()
    placement = Placement(
        patient=owner.session.did,
        scope_id=keyring.scope_id("allergies"),
        epoch=epoch,
        delegating_key=keyring.delegating("allergies", epoch).public_key(),
        record_id=record_id,
        grant=grant_id,
    )
    key = session.keyring.identity(0)
    sealed = seal_record(note("x"), placement, author=session.did, key=key, now=NOW, folder=Path())
    shown = sealed.upload.model_dump()
    authority = (await author.grant(grant_id)).statement.token
    return {record_id: [shown | {"authority": authority}]}


async def test_one_patients_scope_does_not_stand_in_the_way_of_anothers() -> None:
    """Ids of scopes are claims: an accomplice of the records service may publish any under its own name."""
    world = World()
    owner, accomplice, author = await world.patient(), await world.patient(), await world.recipient()
    await owner.add_scope("allergies")
    scope_id = owner.session.keyring.scope_id("allergies")
    poison = await accomplice.session.sign(
        ScopeKey,
        REGISTRY_AUDIENCE,
        scope=scope_id,
        epoch=1000,
        delegating_key=accomplice.session.keyring.delegating("allergies", 0).public_key().b64,
    )
    world.scope_keys[accomplice.session.did] = [poison.token]
    world.log_key(accomplice.session.did, poison.token)
    assert (await current_scope_key(author.session, accomplice.session.did, scope_id)).payload.epoch == 1000
    assert (await current_scope_key(author.session, owner.session.did, scope_id)).payload.epoch == 0
    grant = await share(owner, author, actions=[Action.APPEND])
    assert (await Author(author.session).append(grant.id, [note("a")]))[0].epoch == 0
