"""Patient, approval, recapsulation, revocation, across processes."""

from __future__ import annotations

import time

import pytest

from client.errors import GrantEnded, InvalidGrant, ServiceRefused
from client.keyring import Keyring
from client.records import NewRecord
from shared.schemas.records import GrantState, RequestState
from shared.wire import Action, Purpose
from tests.e2e.actors import ActorMaker, grant_in_state, granted, in_a_month, note


async def test_a_recipient_opens_what_was_granted_and_nothing_else(make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records(
        [note(f"allergy {number}") for number in range(5)] + [note("a secret", "mental-health")]
    )
    grant = await granted(owner, reader, scopes=["allergies"])
    # Approving waits for enough proxies only.
    grant = await grant_in_state(owner, grant.id, GrantState.COMPLETE)
    assert grant.stored == 3
    report = await reader.recipient.fetch()
    assert sorted(record.body for record in report.opened) == [f"allergy {number}".encode() for number in range(5)]
    assert {record.scope for record in report.opened} == {"allergies"}
    assert report.problems == []
    assert report.lying_proxies == []


async def test_the_patient_narrows_what_was_asked(make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("peanuts"), note("pills", "medications")])
    request = await reader.recipient.request(
        owner.did,
        scopes=["allergies", "medications"],
        actions=[Action.READ],
        purpose=Purpose.TREAT,
        reason="Planned treatment",
        expires=in_a_month(),
    )
    [incoming] = await owner.patient.inbox()
    assert incoming.scopes == ["allergies", "medications"]
    assert incoming.reason == "Planned treatment"
    assert len(incoming.fingerprint) == 8
    await owner.patient.approve(request, scopes=["allergies"], expires=int(time.time()) + 3600)
    report = await reader.recipient.fetch()
    assert [record.body for record in report.opened] == [b"peanuts"]
    [sent] = await reader.recipient.requests()
    assert sent.state is RequestState.APPROVED


async def test_a_grant_limited_to_one_record_opens_that_record_only(make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    stored = await owner.patient.add_records([note("this one"), note("not this one")])
    request = await reader.recipient.request(
        owner.did,
        scopes=["allergies"],
        actions=[Action.READ],
        purpose=Purpose.TREAT,
        reason="Planned treatment",
        expires=in_a_month(),
    )
    await owner.patient.approve(request, records=[stored[0].record_id])
    report = await reader.recipient.fetch()
    assert [record.body for record in report.opened] == [b"this one"]


async def test_a_denied_request_gives_nothing(make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("peanuts")])
    request = await reader.recipient.request(
        owner.did,
        scopes=["allergies"],
        actions=[Action.READ],
        purpose=Purpose.HPAYMT,
        reason="Reimbursement",
        expires=in_a_month(),
    )
    await owner.patient.deny(request)
    [sent] = await reader.recipient.requests()
    assert sent.state is RequestState.DENIED
    assert await reader.recipient.grants() == []


async def test_revocation_is_sealed_and_every_proxy_refuses_from_then_on(make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("opened before"), note("never opened")])
    grant = await granted(owner, reader, scopes=["allergies"])
    held = await reader.recipient.grant(grant.id)
    listed = await reader.recipient.listing(held)
    await reader.recipient.fetch(grant.id, record_ids=[listed[0].record_id])

    report = await owner.patient.revoke(grant.id)
    assert report.state == "sealed"
    assert report.receipts >= report.needed == 2
    assert report.already_disclosed == 1
    assert report.new_epochs == {"allergies": 1}

    with pytest.raises(GrantEnded):
        await reader.recipient.fetch(grant.id)
    for proxy in held.proxies:
        with pytest.raises(ServiceRefused) as refused:
            await reader.recipient.ask_proxy_directly(proxy.did, held, listed)
        assert refused.value.code == "grant_revoked"
    [later] = await owner.patient.add_records([note("written later")])
    assert later.epoch == 1


async def test_revoking_twice_reports_the_same(make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("peanuts")])
    grant = await granted(owner, reader, scopes=["allergies"])
    first = await owner.patient.revoke(grant.id)
    second = await owner.patient.revoke(grant.id)
    assert (first.state, second.state) == ("sealed", "sealed")
    assert second.new_epochs == first.new_epochs


async def test_other_recipients_go_on_after_a_revocation(make: ActorMaker) -> None:
    owner, first, second = await make.patient(), await make.recipient(), await make.recipient("Other Practice")
    await owner.patient.add_records([note("before")])
    grant = await granted(owner, first, scopes=["allergies"])
    await granted(owner, second, scopes=["allergies"])
    report = await owner.patient.revoke(grant.id)
    assert len(report.continued_grants) == 1
    await owner.patient.add_records([note("after")])
    opened = (await second.recipient.fetch()).opened
    assert sorted(record.body for record in opened) == [b"after", b"before"]
    with pytest.raises(GrantEnded):
        await first.recipient.fetch(grant.id)


async def test_a_hospital_appends_without_being_able_to_read(make: ActorMaker) -> None:
    owner, hospital = await make.patient(), await make.recipient("Demo Hospital")
    await owner.patient.add_records([note("mine")])
    grant = await granted(owner, hospital, scopes=["laboratory"], actions=(Action.APPEND,))
    await hospital.author.append(grant.id, [note("a result", "laboratory")])
    bodies = {record.body: record.author for record in await owner.patient.export()}
    assert bodies == {b"mine": owner.did, b"a result": hospital.did}
    with pytest.raises(InvalidGrant):
        await hospital.recipient.fetch(grant.id)


async def test_an_author_follows_the_patient_into_a_new_epoch(make: ActorMaker) -> None:
    owner, hospital, reader = await make.patient(), await make.recipient("Demo Hospital"), await make.recipient()
    writing = await granted(owner, hospital, scopes=["laboratory"], actions=(Action.APPEND,))
    reading = await granted(owner, reader, scopes=["laboratory"])
    await owner.patient.revoke(reading.id)
    [stored] = await hospital.author.append(writing.id, [note("after the revocation", "laboratory")])
    assert stored.epoch == 1


async def test_an_amendment_is_the_newest_version_and_the_old_one_stays(make: ActorMaker) -> None:
    owner, hospital = await make.patient(), await make.recipient("Demo Hospital")
    [stored] = await owner.patient.add_records([note("first", "laboratory")])
    grant = await granted(owner, hospital, scopes=["laboratory"], actions=(Action.AMEND, Action.READ))
    await hospital.author.amend(grant.id, stored.record_id, note("second", "laboratory"))
    newest = await owner.patient.read_record(stored.record_id)
    assert (newest.version, newest.body, newest.author) == (2, b"second", hospital.did)
    assert (await owner.patient.read_record(stored.record_id, version=1)).body == b"first"


async def test_a_large_record_goes_through_the_blob_store(make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    scan = bytes(range(256)) * 4096 * 3
    await owner.patient.add_records(
        [NewRecord(body=scan, media_type="application/dicom", scope="laboratory", filename="scan.dcm")]
    )
    await granted(owner, reader, scopes=["laboratory"])
    [opened] = (await reader.recipient.fetch()).opened
    assert opened.body == scan
    assert opened.header.filename == "scan.dcm"


async def test_the_words_alone_restore_everything(make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_scope("family-notes", "Family notes")
    await owner.patient.add_records([note("peanuts"), note("private", "family-notes")])
    revoked = await granted(owner, reader, scopes=["allergies"])
    await owner.patient.revoke(revoked.id)
    await granted(owner, reader, scopes=["allergies"])
    await owner.patient.add_records([note("in the new epoch")])
    await owner.session.rotate_keys()

    again = await make.blank(Keyring.from_words(owner.keyring.words()))
    report = await again.patient.restore()
    assert again.did == owner.did
    assert report.unknown_scopes == []
    assert report.records == 3
    assert {scope.name for scope in report.scopes} >= {"allergies", "family-notes"}
    assert sorted(record.body for record in await again.patient.export()) == sorted(
        [b"peanuts", b"private", b"in the new epoch"]
    )
    assert len([grant for grant in await again.patient.grants() if grant.live]) == 1
    [stored] = await again.patient.add_records([note("and goes on")])
    assert stored.epoch == 1


async def test_after_a_rotation_old_grants_still_open_and_old_keys_are_refused(make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("peanuts")])
    await granted(owner, reader, scopes=["allergies"])
    await reader.session.rotate_keys()
    await owner.session.rotate_keys()
    assert [record.body for record in (await reader.recipient.fetch()).opened] == [b"peanuts"]
    await owner.patient.add_records([note("signed with the new key")])
    assert len((await reader.recipient.fetch()).opened) == 2


async def test_two_hundred_and_fifty_records_are_opened_in_batches(make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note(f"value {number}", "laboratory") for number in range(250)])
    await granted(owner, reader, scopes=["laboratory"])
    report = await reader.recipient.fetch()
    assert len({record.body for record in report.opened}) == 250
