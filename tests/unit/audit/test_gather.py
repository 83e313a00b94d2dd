"""The audit through the client: all logs fetched, proven, remembered and compared, over a platform in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest
import stamina

from client.audit import gather as gathering
from client.audit.chain import RECORDS
from client.audit.gather import gather
from client.audit.report import Audit, audit_of
from client.evidence.verify import verify
from client.evidence.write import NothingToProve, write_evidence
from client.patient import Patient
from client.recipient import Recipient
from client.reports import GrantReport
from shared.schemas import log as log_schemas
from shared.wire import Action, DenialReason, Purpose
from tests.unit.audit.logs import hashed
from tests.unit.audit.world import LoggingWorld, logging_world
from tests.unit.client.hiding import again, hide_grants, note, share
from tests.unit.client.world import DAY, MemoryProxy


@pytest.fixture(autouse=True)
def _no_pauses() -> Any:
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture
def world() -> LoggingWorld:
    return logging_world()


class Story:
    """A patient with a record that a recipient has been granted and has opened."""

    def __init__(self, world: LoggingWorld, owner: Patient, reader: Recipient, grant: GrantReport) -> None:
        self.world, self.owner, self.reader, self.grant = world, owner, reader, grant

    @property
    def did(self) -> str:
        return self.owner.session.did

    @property
    def helpers(self) -> list[MemoryProxy]:
        """The proxies in the order of the grant; the first two have re-encrypted, the third has not."""
        return [self.world.proxy(did) for did in self.world.grants[self.grant.id].proxies]

    def close(self, proxy: MemoryProxy) -> None:
        """This proxy does not answer about its log."""
        self.world.closed.add(proxy.endpoint.removeprefix("http://"))

    async def audit(self) -> Audit:
        self.world.clock.now += 120  # Nothing is on its way any more.
        return audit_of(await gather(self.owner))


@pytest.fixture
async def story(world: LoggingWorld) -> Story:
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("penicillin"), note("pollen")])
    grant = await share(owner, reader)
    await reader.fetch(grant.id)
    return Story(world, owner, reader, grant)


def codes(audit: Audit) -> list[str]:
    return [finding.code for finding in audit.findings]


def gaps(audit: Audit) -> list[str]:
    return [gap.code for gap in audit.gaps]


async def test_an_honest_platform_has_no_finding_and_no_gap(story: Story) -> None:
    audit = await story.audit()
    assert codes(audit) == []
    assert gaps(audit) == []
    assert audit.closing == "4 logs agree: 10 events, all proven."
    (received,) = audit.received
    assert sorted(received.records) == ["penicillin", "pollen"]
    assert audit.name_of(received.recipient) == "Demo Practice"


async def test_a_revocation_has_no_finding(story: Story) -> None:
    await story.owner.revoke(story.grant.id, wait_seconds=0)
    audit = await story.audit()
    assert codes(audit) == []
    assert gaps(audit) == []
    assert len([line for line in audit.lines if line.event == "erased"]) == 3


async def test_a_patient_without_any_event_is_told_so(world: LoggingWorld) -> None:
    audit = audit_of(await gather(await world.patient()))
    assert codes(audit) == []
    assert audit.lines == ()
    assert audit.closing == "4 logs agree: 0 events, all proven."


async def test_titles_of_earlier_versions_are_known_too(story: Story) -> None:
    newest = (await story.owner.records())[0]
    await story.owner.add_version(newest.record_id, note("penicillin and latex"))
    titles = {title for line in (await story.audit()).lines for title in line.records}
    assert any("(earlier version)" in title for title in titles)


async def test_titles_can_be_left_out(story: Story) -> None:
    gathered = await gather(story.owner, with_titles=False)
    assert gathered.titles == {}
    assert audit_of(gathered).lines


# --- services that lie ----------------------------------------------------------------------------------------------


async def test_a_disclosure_that_is_left_out_is_a_missing_event(story: Story) -> None:
    chain = story.world.records_log.chains[story.did]
    chain.remove(next(one for one in chain if '"disclosed"' in (one.event or "")))
    chain.append(replace(chain[-1], n=chain[-1].n + 2))
    audit = await story.audit()
    assert codes(audit)[0] == "event_missing"
    assert audit.findings[0].services == (RECORDS,)


async def test_a_log_without_its_newest_events_is_rewritten(story: Story) -> None:
    await story.audit()
    story.world.records_log.chains[story.did].pop()
    assert codes(await story.audit())[0] == "log_rewritten"


async def test_a_proxy_that_drops_what_it_showed_is_found(story: Story) -> None:
    await story.audit()
    proxy = story.world.proxies[0].did
    story.world.proxy_logs[proxy].chains[story.did].pop()
    audit = await story.audit()
    assert codes(audit)[0] == "log_rewritten"
    assert audit.findings[0].services == (proxy,)


async def test_what_was_seen_is_remembered_by_the_next_program(story: Story) -> None:
    await story.audit()
    story.world.records_log.chains[story.did].pop()
    story.owner = again(story.world, story.owner, story.owner.session.state)
    assert codes(await story.audit())[0] == "log_rewritten"


async def test_a_log_that_does_not_hold_is_not_remembered(story: Story) -> None:
    chain = story.world.records_log.chains[story.did]
    whole = list(chain)
    chain[1] = replace(chain[1], salt=hashed("x"))
    assert codes(await story.audit())[0] == "event_changed"
    assert story.owner.session.state.logs.end(RECORDS, story.did) is None
    chain[:] = whole
    assert codes(await story.audit()) == []


async def test_an_event_that_is_in_no_tree_is_not_in_the_log(story: Story) -> None:
    log = story.world.records_log
    shown = log.append(story.did, event="listed", at=story.world.clock())
    del log.places[shown.commitment]
    audit = await story.audit()
    assert codes(audit)[0] == "not_in_log"
    assert audit.findings[0].services == (RECORDS,)


async def test_a_secret_release_is_found(story: Story) -> None:
    proxy = story.world.proxies[2].did
    story.world.proxy_logs[proxy].append(
        story.did,
        event="reencrypted",
        at=story.world.clock(),
        grant=story.grant.id,
        statement=hashed("in secret"),
        capsules=(hashed("x"),),
        actor=story.reader.session.did,
    )
    audit = await story.audit()
    assert codes(audit) == ["released_without_event"]
    assert audit.findings[0].services == (RECORDS, proxy)


async def test_a_disclosure_without_proxies_is_found(story: Story) -> None:
    story.world.say(
        story.did,
        "disclosed",
        grant=story.grant.id,
        statement=hashed("in secret"),
        capsules=(hashed("x"),),
        actor=story.reader.session.did,
    )
    assert codes(await story.audit()) == ["disclosed_without_proxies"]


async def test_a_foreign_grant_is_found(story: Story) -> None:
    story.world.say(story.did, "granted", grant=hashed("foreign"))
    assert codes(await story.audit()) == ["grant_unknown"]


async def test_a_grant_that_is_hidden_and_remembered_is_known(story: Story) -> None:
    hide_grants(story.world, story.grant.id)
    assert codes(await story.audit()) == []


async def test_a_grant_that_is_hidden_from_somebody_without_memory_is_found(story: Story) -> None:
    hide_grants(story.world, story.grant.id)
    story.owner = again(story.world, story.owner)
    assert set(codes(await story.audit())) == {"grant_unknown", "share_without_grant"}


async def test_a_log_under_another_key_is_replaced(story: Story) -> None:
    await story.audit()
    proxy = story.world.proxies[1].did
    other = logging_world().proxy_logs.popitem()[1]
    for one in story.world.proxy_logs[proxy].chains[story.did]:
        other.chains.setdefault(story.did, []).append(one)
        other.add_leaf(
            one.commitment, story.world.proxy_logs[proxy].nodes[0, story.world.proxy_logs[proxy].places[one.commitment]]
        )
    story.world.proxy_logs[proxy] = other
    audit = await story.audit()
    assert codes(audit)[0] == "log_replaced"
    assert audit.findings[0].services == (proxy,)


async def test_a_checkpoint_that_too_few_have_cosigned_is_not_accepted(story: Story) -> None:
    await story.audit()
    for proxy in story.world.proxies[:2]:
        proxy.away = True
    audit = await story.audit()
    assert "not_enough_cosignatures" in codes(audit)


async def test_a_receipt_that_is_no_proxys_is_said(story: Story) -> None:
    grant = story.world.grants[story.grant.id]
    card = grant.proxies[story.world.proxies[0].did]
    card["stored"] = grant.proxies[story.world.proxies[1].did]["stored"]
    audit = await story.audit()
    assert codes(audit) == []
    assert gaps(audit) == ["receipt_invalid"]


# --- services that are away -----------------------------------------------------------------------------------------


async def test_a_proxy_whose_log_is_away_is_a_gap(story: Story) -> None:
    story.close(story.helpers[2])
    audit = await story.audit()
    assert codes(audit) == []
    assert gaps(audit) == ["log_away"]
    assert audit.closing == "3 logs agree as far as they could be compared: 9 events, all proven."


async def test_a_proxy_that_was_needed_and_is_away_leaves_the_disclosure_unconfirmed(story: Story) -> None:
    story.close(story.helpers[0])
    audit = await story.audit()
    assert codes(audit) == []
    assert gaps(audit) == ["log_away", "disclosure_unconfirmed"]


async def test_without_the_records_services_log_nobody_is_accused(story: Story) -> None:
    story.world.closed.add("records.test")
    audit = await story.audit()
    assert codes(audit) == []
    assert gaps(audit) == ["log_away"]


async def test_without_the_records_service_the_proxies_are_still_heard(story: Story) -> None:
    def away(request: httpx.Request) -> None:
        if request.url.host == "records.test":
            raise httpx.ConnectError("away")

    story.world.fail = away
    audit = await story.audit()
    assert codes(audit) == []
    assert "log_away" in gaps(audit)
    assert len(audit.gathered.logs) == 3
    assert set(audit.gathered.grants) == {story.grant.id}


# --- what is not in the tree yet ------------------------------------------------------------------------------------


async def test_newest_events_without_a_place_are_a_gap(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "_SHORT", 5)
    log, end = story.world.records_log, len(story.world.records_log.chains[story.did])
    story.world.held_back = {story.world.leaf_of(log, story.did, n) for n in (end - 1, end)}
    audit = await story.audit()
    assert codes(audit) == []
    assert gaps(audit) == ["not_proven_yet"]
    assert audit.unproven == 2
    story.world.held_back.clear()
    assert gaps(await story.audit()) == []


async def test_an_event_that_waits_for_days_is_a_finding(story: Story) -> None:
    log = story.world.records_log
    story.world.held_back = {story.world.leaf_of(log, story.did, len(log.chains[story.did]))}
    story.world.clock.now += 86_400
    assert codes(await story.audit()) == ["not_in_log"]


async def test_long_logs_are_proven_in_batches(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MAX_LEAVES", 4)
    assert log_schemas.MAX_LEAVES == 200
    inclusion, log = story.world._inclusion, story.world.records_log

    def growing(asked: Any, body: Any) -> Any:
        answer = inclusion(asked, body)
        if asked is log:
            log.append("did:key:z6MkehRgf7yJbgaGfYsdoAsKdBPE3dj2CYhowQdcjqSJgvVd", event="listed")
        return answer

    story.world._inclusion = growing  # type: ignore[method-assign]
    for _ in range(6):
        story.world.say(story.did, "listed", actor=story.reader.session.did)
    audit = await story.audit()
    assert codes(audit) == []
    proofs = audit.gathered.logs[RECORDS].proofs
    assert len(proofs) == 3
    assert proofs[0].checkpoint.size < proofs[1].checkpoint.size < proofs[2].checkpoint.size
    assert proofs[0].consistency == ()
    assert all(proof.consistency for proof in proofs[1:])
    assert verify(await write_evidence(story.owner.session, audit.gathered)).holds


async def test_a_log_without_end_is_refused(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MAX_EVENTS", 4)
    assert codes(await story.audit())[0] == "too_many_events"


# --- evidence -------------------------------------------------------------------------------------------------------


async def test_the_evidence_of_an_honest_platform_verifies(story: Story) -> None:
    await story.owner.revoke(story.grant.id, wait_seconds=0)
    audit = await story.audit()
    verdict = verify(await write_evidence(story.owner.session, audit.gathered), patient=story.did)
    assert verdict.faults == ()
    assert verdict.findings == ()
    assert verdict.events == verdict.proven == audit.events
    assert verdict.grants == 1


async def test_the_evidence_of_a_lie_verifies_and_proves_it(story: Story) -> None:
    story.world.say(
        story.did,
        "disclosed",
        grant=story.grant.id,
        statement=hashed("in secret"),
        capsules=(hashed("x"),),
        actor=story.reader.session.did,
    )
    audit = await story.audit()
    verdict = verify(await write_evidence(story.owner.session, audit.gathered))
    assert verdict.holds
    assert [finding.code for finding in verdict.findings] == ["disclosed_without_proxies"]


async def test_without_a_log_there_is_nothing_to_prove(story: Story) -> None:
    story.world.closed |= {"records.test", *(f"proxy-{number}.test" for number in range(3))}
    audit = await story.audit()
    with pytest.raises(NothingToProve):
        await write_evidence(story.owner.session, audit.gathered)


async def test_evidence_holds_no_title_and_no_health_data(story: Story) -> None:
    audit = await story.audit()
    data = await write_evidence(story.owner.session, audit.gathered)
    assert b"penicillin" not in data
    assert b"allergies" not in data


# --- requests -------------------------------------------------------------------------------------------------------


async def ask(story: Story) -> str:
    return await story.reader.request(
        story.did,
        scopes=["allergies"],
        actions=[Action.READ],
        purpose=Purpose.TREAT,
        reason="Planned treatment",
        expires=story.world.clock() + DAY,
    )


async def test_requests_and_denials_are_part_of_the_evidence(story: Story) -> None:
    denied, waiting = await ask(story), await ask(story)
    await story.owner.deny(denied, DenialReason.TOO_BROAD)
    gathered = (await story.audit()).gathered
    known = {request.statement.id: request.denial for request in gathered.requests}
    assert known.keys() == {denied, waiting}
    denial = known[denied]
    assert denial is not None
    assert denial.payload.reason is DenialReason.TOO_BROAD
    assert known[waiting] is None
    assert verify(await write_evidence(story.owner.session, gathered)).holds


async def test_a_forged_request_is_said_and_hides_no_grant(story: Story) -> None:
    request = await ask(story)
    token = story.world.requests[request]["statement"]
    story.world.requests[request]["statement"] = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
    audit = await story.audit()
    assert codes(audit) == []
    assert len(gaps(audit)) == 1
    assert audit.gathered.requests == ()
    assert set(audit.gathered.grants) == {story.grant.id}


async def test_another_requests_denial_is_said(story: Story) -> None:
    denied, waiting = await ask(story), await ask(story)
    await story.owner.deny(denied)
    story.world.requests[waiting]["denial"] = story.world.requests[denied]["denial"]
    audit = await story.audit()
    assert gaps(audit) == ["wrong_answer"]
    assert {request.statement.id for request in audit.gathered.requests} == {denied}


async def test_a_list_of_requests_that_is_away_hides_no_grant(story: Story) -> None:
    def away(request: httpx.Request) -> None:
        if request.url.path == "/v1/disclosure-requests":
            raise httpx.ConnectError("away")

    story.world.fail = away
    audit = await story.audit()
    assert codes(audit) == []
    assert gaps(audit) == ["service_unreachable"]
    assert set(audit.gathered.grants) == {story.grant.id}
