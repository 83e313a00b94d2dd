"""From request to revocation, with services, proxies and recipients that misbehave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import stamina

from client.author import Author
from client.errors import (
    GrantEnded,
    GrantOver,
    GrantPending,
    InvalidGrant,
    InvalidRequest,
    ServiceRefused,
    TooFewProxies,
    TooManyScopeEntries,
    UnknownGrant,
    UnknownRecord,
    UnknownRequest,
    UnknownScope,
    VerificationFailed,
    WiderThanRequested,
    WrongRole,
)
from client.keyring import Keyring
from client.patient import NewRecord, Patient
from client.recipient import Recipient
from client.reports import GrantReport
from shared.schemas.records import GrantState, RequestState
from shared.statements import DisclosureRequest, Revocation, ScopeKey
from shared.wire import Action, DenialReason, Purpose
from tests.unit.client.world import DAY, NOW, Answer, World, claims_of

READ = [Action.READ]
TREAT = Purpose.TREAT


@dataclass
class Scene:
    world: World
    patient: Patient
    doctor: Recipient
    insurer: Recipient

    async def share(self, recipient: Recipient, scopes: list[str], **options: Any) -> GrantReport:
        terms: dict[str, Any] = {"actions": READ, "purpose": TREAT, "expires": NOW + 30 * DAY} | options
        return await self.patient.share(recipient.session.did, scopes=scopes, **terms)

    async def ask(self, **options: Any) -> str:
        terms: dict[str, Any] = {
            "scopes": ["allergies", "medications"],
            "actions": READ,
            "purpose": TREAT,
            "reason": "Planned treatment",
            "expires": NOW + DAY,
        }
        return await self.doctor.request(self.patient.session.did, **(terms | options))


def note(text: str, scope: str = "allergies") -> NewRecord:
    return NewRecord(body=text.encode(), media_type="text/plain", scope=scope, title=text)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> Any:
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture
async def scene(world: World) -> Scene:
    scene = Scene(world, await world.patient(), await world.recipient(), await world.recipient("Demo Insurer"))
    await scene.patient.add_records([note("a1"), note("a2"), note("m1", "medications")])
    return scene


def bodies(report: Any) -> list[bytes]:
    return sorted(opened.body for opened in report.opened)


# --- asking and answering -------------------------------------------------------------------------------------------


async def test_a_request_arrives_as_it_was_asked(scene: Scene) -> None:
    request_id = await scene.ask()
    (request,) = await scene.patient.inbox()
    assert request.id == request_id
    assert (request.scopes, request.reason, request.actions) == (
        ["allergies", "medications"],
        "Planned treatment",
        (Action.READ,),
    )
    assert request.recipient.name == "Demo Practice"
    assert request.fingerprint == scene.doctor.session.fingerprint(await scene.doctor.session.me())
    assert request.problem is None
    assert await scene.patient.inbox(RequestState.DENIED) == []
    seen = repr(scene.world.requests) + repr(claims_of(scene.world.requests[request_id]["statement"]))
    assert "allergies" not in seen
    assert "Planned" not in seen


async def test_a_request_approved_opens_what_was_granted(scene: Scene) -> None:
    grant = await scene.patient.approve(await scene.ask(), scopes=["allergies"])
    assert (grant.state, grant.stored, grant.shares, grant.threshold) == (GrantState.COMPLETE, 3, 3, 2)
    assert grant.expires == NOW + 90 * DAY
    (held,) = await scene.doctor.grants()
    assert (held.id, held.scopes, held.live) == (grant.id, ["allergies"], True)
    heard: list[tuple[int, int]] = []
    report = await scene.doctor.fetch(progress=lambda *now: heard.append(now))
    assert bodies(report) == [b"a1", b"a2"]
    assert (report.problems, report.lying_proxies, heard) == ([], [], [(2, 2)])
    assert report.opened[0].scope == "allergies"
    ((sent),) = await scene.doctor.requests()
    assert (sent.state, sent.grants, sent.denial) == (RequestState.APPROVED, [grant.id], None)


@pytest.mark.parametrize("wider", [{"scopes": ["diary"]}, {"actions": [Action.READ, Action.APPEND]}])
async def test_asking_for_more_than_was_asked_is_wider_than_requested(scene: Scene, wider: dict[str, Any]) -> None:
    await scene.patient.add_scope("diary")
    request = await scene.ask()
    with pytest.raises(WiderThanRequested):
        await scene.patient.approve(request, **wider)
    assert scene.world.grants == {}


async def test_a_request_denied(scene: Scene) -> None:
    request = await scene.ask()
    await scene.patient.deny(request, DenialReason.TOO_BROAD)
    ((sent),) = await scene.doctor.requests()
    assert (sent.state, sent.denial) == (RequestState.DENIED, DenialReason.TOO_BROAD)


async def test_an_unknown_request_is_named(scene: Scene) -> None:
    for answer in (scene.patient.approve, scene.patient.deny):
        with pytest.raises(UnknownRequest):
            await answer("A" * 43)


async def test_a_request_with_anothers_sealed_text_is_shown_with_its_problem(scene: Scene) -> None:
    first = claims_of(scene.world.requests[await scene.ask()]["statement"])
    thief = scene.insurer.session
    me = await thief.me()
    forged = await thief.sign(
        DisclosureRequest,
        scene.patient.session.did,
        exp=NOW + DAY,
        actions=(Action.READ,),
        purpose=TREAT,
        recipient_entry=me.current.id,
        patient_entry=first["patient_entry"],
        sealed=first["sealed"],
    )
    scene.world.requests[forged.id] = {"id": forged.id, "statement": forged.token, "denial": None, "grants": []}
    request = next(one for one in await scene.patient.inbox() if one.id == forged.id)
    assert request.problem is not None
    assert request.problem.code == "context_mismatch"
    assert request.scopes == []
    with pytest.raises(VerificationFailed):
        await scene.patient.approve(forged.id)


@pytest.mark.parametrize("wrong", [{"scopes": []}, {"actions": []}, {"reason": "x" * 1001}])
async def test_a_request_that_makes_no_sense_is_refused(scene: Scene, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await scene.ask(**wrong)


async def test_records_are_asked_of_patients_and_given_to_recipients(scene: Scene) -> None:
    with pytest.raises(WrongRole):
        await scene.doctor.request(
            scene.insurer.session.did, scopes=["a"], actions=READ, purpose=TREAT, reason="", expires=NOW + DAY
        )
    with pytest.raises(WrongRole):
        await scene.patient.share(
            (await scene.world.patient()).session.did,
            scopes=["allergies"],
            actions=READ,
            purpose=TREAT,
            expires=NOW + DAY,
        )


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"scopes": []}, InvalidGrant),
        ({"actions": []}, InvalidGrant),
        ({"expires": NOW}, InvalidGrant),
        ({"scopes": ["no-such-scope"]}, UnknownScope),
        ({"scopes": ["pcehr-settings"]}, InvalidGrant),
        ({"threshold": 4}, TooFewProxies),
        ({"records": ["0198f000-0000-7000-8000-000000000001"]}, UnknownRecord),
        ({"records": []}, UnknownRecord),
    ],
)
async def test_a_grant_that_makes_no_sense_is_refused(
    scene: Scene, wrong: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await scene.share(scene.doctor, **({"scopes": ["allergies"]} | wrong))
    assert scene.world.grants == {}


async def test_more_than_64_entries_are_too_many(scene: Scene) -> None:
    names = [f"scope-{number}" for number in range(65)]
    await scene.patient.add_records([note(name, name) for name in names])
    with pytest.raises(TooManyScopeEntries):
        await scene.share(scene.doctor, names)


async def test_a_grant_covers_every_epoch_that_has_records(scene: Scene) -> None:
    await scene.patient._scopes.publish({"allergies": 1})
    await scene.patient._scopes.publish({"allergies": 2})
    await scene.patient.add_records([note("a3")])
    grant = await scene.share(scene.doctor, ["allergies"])
    assert [(entry.scope, entry.epoch) for entry in grant.entries] == [("allergies", 0), ("allergies", 2)]
    assert bodies(await scene.doctor.fetch()) == [b"a1", b"a2", b"a3"]


async def test_a_grant_limited_to_records_opens_these_only(scene: Scene) -> None:
    wanted = next(one for one in await scene.patient.records() if one.title == "a2")
    grant = await scene.share(scene.doctor, ["allergies"], records=[wanted.record_id])
    assert grant.entries[0].limited_to == 1
    assert bodies(await scene.doctor.fetch()) == [b"a2"]


async def test_shares_go_to_pinned_proxies_only(scene: Scene) -> None:
    first = await scene.share(scene.doctor, ["allergies"])
    intruder = World(proxies=1).proxies[0]
    scene.world.proxies.append(intruder)
    scene.world.parties[intruder.did] = [intruder.key_entry()]
    scene.world.log_key(intruder.did, scene.world.parties[intruder.did][0])
    second = await scene.share(scene.doctor, ["medications"])
    assert [proxy.did for proxy in second.proxies] == [proxy.did for proxy in first.proxies]
    assert intruder.did in await scene.patient.pin_proxies()


async def test_a_recipient_cannot_be_pinned_as_a_proxy(scene: Scene) -> None:
    with pytest.raises(WrongRole):
        await scene.patient.pin_proxies([scene.doctor.session.did])
    with pytest.raises(TooFewProxies):
        await scene.patient.pin_proxies([])


async def test_a_receipt_that_does_not_verify_is_no_receipt(scene: Scene) -> None:
    scene.world.proxies[0].forges_receipts = True
    grant = await scene.share(scene.doctor, ["allergies"])
    assert (grant.state, grant.stored) == (GrantState.ACTIVE, 2)
    assert grant.problem is not None
    assert grant.problem.code == "receipt_invalid"
    assert grant.problem.proxy == scene.world.proxies[0].did


async def test_a_grant_swapped_by_the_service_is_found_out(scene: Scene) -> None:
    one, two = await scene.share(scene.doctor, ["allergies"]), await scene.share(scene.insurer, ["medications"])
    shown = scene.world.grants
    shown[one.id], shown[two.id] = shown[two.id], shown[one.id]
    with pytest.raises(VerificationFailed):
        await scene.patient.grant(one.id)
    with pytest.raises(UnknownGrant):
        await scene.patient.grant("A" * 43)


# --- opening --------------------------------------------------------------------------------------------------------


async def test_a_lying_proxy_is_named_and_replaced(scene: Scene) -> None:
    await scene.share(scene.doctor, ["allergies"])
    liar = scene.world.proxies[0]
    liar.lies = True
    first_two = scene.patient.session.state.proxies[:2]
    report = await scene.doctor.fetch()
    assert bodies(report) == [b"a1", b"a2"]
    if liar.did in first_two:
        assert report.lying_proxies == [liar.did]
        assert [problem.code for problem in report.problems] == ["cfrag_rejected"]


async def test_two_lying_proxies_of_three_leave_the_records_closed(scene: Scene) -> None:
    await scene.share(scene.doctor, ["allergies"])
    for proxy in scene.world.proxies[:2]:
        proxy.lies = True
    report = await scene.doctor.fetch()
    assert report.opened == []
    assert set(report.lying_proxies) <= {proxy.did for proxy in scene.world.proxies[:2]}
    assert {problem.code for problem in report.problems} == {"cfrag_rejected", "not_enough_proxies"}


async def test_a_proxy_without_a_receipt_is_passed_over_and_not_accused(scene: Scene) -> None:
    await scene.share(scene.doctor, ["allergies"])

    def drop_a_receipt(path: str, answer: Answer) -> Answer:
        if path == "POST /v1/disclosures":
            dropped = scene.patient.session.state.proxies[0]
            answer["receipts"] = [one for one in answer["receipts"] if one["proxy"] != dropped]
        return answer

    scene.world.tamper = drop_a_receipt
    report = await scene.doctor.fetch()
    assert bodies(report) == [b"a1", b"a2"]
    assert report.lying_proxies == []
    assert {problem.code for problem in report.problems} <= {"receipt_invalid"}


async def test_shares_of_different_sets_do_not_combine_and_it_is_said(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])
    other = await scene.share(scene.doctor, ["allergies"])
    for proxy in scene.world.proxies[1:]:
        proxy.foreign_kfrags[grant.id] = proxy.kfrags[other.id]
    scene.world.proxies[0].foreign_kfrags[other.id] = scene.world.proxies[0].kfrags[grant.id]
    first = scene.world.proxies[0].did
    if first not in list(scene.world.grants[grant.id].proxies)[:2]:
        scene.world.proxies[1].foreign_kfrags.pop(grant.id)
    report = await scene.doctor.fetch(grant.id)
    assert report.opened == []
    assert {problem.code for problem in report.problems} == {"shares_do_not_combine"}
    assert report.lying_proxies == []


async def test_a_record_swapped_under_a_disclosure_costs_no_other(scene: Scene) -> None:
    await scene.share(scene.doctor, ["allergies"])

    def swap(path: str, answer: Answer) -> Answer:
        if path == "POST /v1/disclosures":
            answer["records"][0]["record"] = answer["records"][1]["record"]
        return answer

    scene.world.tamper = swap
    report = await scene.doctor.fetch()
    assert len(report.opened) == 1
    assert [problem.code for problem in report.problems] == ["wrong_answer"]


async def test_a_record_rolled_back_is_refused_by_the_recipient(scene: Scene) -> None:
    await scene.share(scene.doctor, ["allergies"])
    record = next(one for one in await scene.patient.records() if one.title == "a1")
    await scene.patient.add_version(record.record_id, note("a1 again"))
    assert bodies(await scene.doctor.fetch()) == [b"a1 again", b"a2"]
    scene.world.records[record.record_id].pop()
    report = await scene.doctor.fetch()
    assert bodies(report) == [b"a2"]
    assert [(problem.code, problem.record_id) for problem in report.problems] == [
        ("record_rolled_back", record.record_id)
    ]


async def test_an_author_without_authority_is_named(scene: Scene) -> None:
    append = await scene.share(scene.insurer, ["allergies"], actions=[Action.APPEND])
    await Author(scene.insurer.session).append(append.id, [note("written")])
    await scene.share(scene.doctor, ["allergies"])

    def hide_authority(path: str, answer: Answer) -> Answer:
        if path == "GET /v1/records":
            for record in answer["items"]:
                record["authority"] = None
        return answer

    assert bodies(await scene.doctor.fetch()) == [b"a1", b"a2", b"written"]
    scene.world.tamper = hide_authority
    report = await scene.doctor.fetch()
    assert bodies(report) == [b"a1", b"a2"]
    assert [problem.code for problem in report.problems] == ["unauthorised_author"]


async def test_only_what_is_asked_for_is_opened(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies", "medications"])
    (held,) = await scene.doctor.grants()
    listed = await scene.doctor.listing(held)
    assert {one.scope for one in listed} == {"allergies", "medications"}
    medication = next(one for one in listed if one.scope == "medications")
    assert bodies(await scene.doctor.fetch(grant.id, record_ids=[medication.record_id])) == [b"m1"]
    assert bodies(await scene.doctor.fetch(patient=Keyring.generate().did)) == []


async def test_a_record_under_two_grants_is_opened_once(scene: Scene) -> None:
    await scene.share(scene.doctor, ["allergies"])
    await scene.share(scene.doctor, ["allergies", "medications"])
    assert bodies(await scene.doctor.fetch()) == [b"a1", b"a2", b"m1"]


async def test_each_proxy_answers_directly_and_refuses_directly(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])
    (held,) = await scene.doctor.grants()
    listed = await scene.doctor.listing(held)
    for proxy in grant.proxies:
        assert len((await scene.doctor.ask_proxy_directly(proxy.did, held, listed)).cfrags) == 2
    await scene.patient.revoke(grant.id)
    for proxy in grant.proxies:
        with pytest.raises(ServiceRefused) as refusal:
            await scene.doctor.ask_proxy_directly(proxy.did, held, listed)
        assert refusal.value.code == "grant_revoked"


# --- writing for a patient ------------------------------------------------------------------------------------------


async def test_an_author_appends_and_amends(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["medications"], actions=[Action.APPEND, Action.AMEND])
    assert (grant.state, grant.shares, grant.threshold) == (GrantState.COMPLETE, 0, 0)
    author = Author(scene.doctor.session)
    (stored,) = await author.append(grant.id, [note("by the doctor", "medications")])
    opened = await scene.patient.read_record(stored.record_id)
    assert (opened.body, opened.author) == (b"by the doctor", scene.doctor.session.did)
    assert (await author.amend(grant.id, stored.record_id, note("better", "medications"))).version == 2
    assert (await scene.patient.read_record(stored.record_id)).body == b"better"


async def test_an_author_needs_a_grant_for_action_and_scope(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["medications"], actions=[Action.APPEND])
    author = Author(scene.doctor.session)
    with pytest.raises(UnknownScope):
        await author.append(grant.id, [note("x", "allergies")])
    with pytest.raises(InvalidGrant):
        await author.amend(grant.id, "0198f000-0000-7000-8000-000000000001", note("x", "medications"))
    with pytest.raises(UnknownGrant):
        await author.append("A" * 43, [note("x")])


async def test_an_author_takes_the_newest_epoch_when_its_own_is_stale(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["medications"], actions=[Action.APPEND])
    author = Author(scene.doctor.session)
    scope_id = scene.patient.session.keyring.scope_id("medications")
    raced: list[int] = []

    def bump(request: httpx.Request) -> None:
        if request.url.path == "/v1/records" and request.method == "POST" and not raced:
            raced.append(1)
            scene.world.floors[scope_id] = 1
            scene.world.scope_keys[scene.patient.session.did].append(newer.token)
            scene.world.log_key(scene.patient.session.did, newer.token)

    newer = await scene.patient.session.sign(
        ScopeKey,
        "urn:pcehr:registry",
        scope=scope_id,
        epoch=1,
        delegating_key=scene.patient.session.keyring.delegating("medications", 1).public_key().b64,
    )
    scene.world.fail = bump
    (stored,) = await author.append(grant.id, [note("late", "medications")])
    assert (raced, stored.epoch) == ([1], 1)


async def test_a_scope_key_of_somebody_else_is_not_encrypted_to(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["medications"], actions=[Action.APPEND])
    other = await scene.world.patient()
    await other.add_scope("medications")
    scene.world.scope_keys[scene.patient.session.did] = scene.world.scope_keys[other.session.did]
    with pytest.raises((VerificationFailed, UnknownScope)):
        await Author(scene.doctor.session).append(grant.id, [note("x", "medications")])


# --- ending it ------------------------------------------------------------------------------------------------------


async def test_a_revocation_is_sealed_by_receipts(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])
    await scene.doctor.fetch()
    report = await scene.patient.revoke(grant.id)
    assert (report.state, report.receipts, report.needed, report.shares) == ("sealed", 3, 2, 3)
    assert report.already_disclosed == 2
    assert report.new_epochs == {"allergies": 1}
    assert report.continued_grants == []
    with pytest.raises(GrantEnded) as refusal:
        await scene.doctor.fetch(grant.id)
    assert refusal.value.code == "grant_revoked"
    assert bodies(await scene.doctor.fetch()) == []


async def test_the_next_epoch_is_published_before_the_revocation(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])
    scene.world.log.clear()
    await scene.patient.revoke(grant.id)
    published = next(i for i, line in enumerate(scene.world.log) if line.startswith("PUT"))
    assert published < scene.world.log.index("POST /v1/revocations")
    assert scene.world.floors == {scene.patient.session.keyring.scope_id("allergies"): 1}


@pytest.mark.parametrize(("liars", "state", "needed"), [(0, "sealed", 2), (1, "sealed", 3), (2, "pending", 4)])
async def test_assumed_liars_raise_what_is_needed(scene: Scene, liars: int, state: str, needed: int) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])
    report = await scene.patient.revoke(grant.id, assumed_liars=liars, wait_seconds=0)
    assert (report.state, report.needed) == (state, needed)


async def test_a_proxy_that_the_service_does_not_tell_is_told_directly(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])
    for proxy in scene.world.proxies:
        proxy.silent_to_records = True
    report = await scene.patient.revoke(grant.id, wait_seconds=0)
    assert (report.state, report.receipts) == ("sealed", 3)
    assert all(grant.id in proxy.tombstones for proxy in scene.world.proxies)


async def test_away_proxies_leave_it_pending_until_they_are_back(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])
    for proxy in scene.world.proxies[:2]:
        proxy.away = True
    report = await scene.patient.revoke(grant.id, wait_seconds=0)
    assert (report.state, report.receipts, report.needed) == ("pending", 1, 2)
    assert {proxy.problem for proxy in report.proxies} == {None, "service_unreachable"}
    assert (await scene.patient.revocation_status(grant.id)).state == "pending"
    for proxy in scene.world.proxies:
        proxy.away = False
    again = await scene.patient.revoke(grant.id, wait_seconds=0)
    assert (again.state, again.new_epochs) == ("sealed", {"allergies": 1})


async def test_forged_receipts_of_erasure_do_not_count(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])
    for proxy in scene.world.proxies:
        proxy.forges_receipts = True
    report = await scene.patient.revoke(grant.id, wait_seconds=0)
    assert (report.state, report.receipts) == ("pending", 0)


async def test_receipts_of_storing_do_not_count_as_erasure(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])
    for proxy in scene.world.proxies:
        proxy.silent_to_records = True

    def old_receipts(path: str, answer: Answer) -> Answer:
        for card in answer.get("proxies", []) if path.startswith("GET /v1/grants/") else []:
            card["erased"] = card["stored"]
        return answer

    scene.world.tamper = old_receipts
    for proxy in scene.world.proxies:
        proxy.away = True
    report = await scene.patient.revoke(grant.id, wait_seconds=0)
    assert (report.state, report.receipts) == ("pending", 0)


async def test_other_readers_of_the_scope_are_continued(scene: Scene) -> None:
    ended = await scene.share(scene.doctor, ["allergies"])
    kept = await scene.share(scene.insurer, ["allergies", "medications"], purpose=Purpose.HPAYMT)
    report = await scene.patient.revoke(ended.id)
    (continued,) = report.continued_grants
    grants = {grant.id: grant for grant in await scene.patient.grants()}
    made = grants[continued]
    assert (made.purpose, made.expires, made.actions) == (kept.purpose, kept.expires, kept.actions)
    assert [(entry.scope, entry.epoch) for entry in made.entries] == [("allergies", 1)]
    assert made.continues == kept.id
    await scene.patient.add_records([note("a3")])
    assert bodies(await scene.insurer.fetch()) == [b"a1", b"a2", b"a3", b"m1"]
    assert bodies(await scene.doctor.fetch()) == []


async def test_a_consent_is_continued_beside_a_longer_one_and_outlives_its_end(scene: Scene) -> None:
    """Otherwise the shorter consent would miss what was written while the longer one covered it."""
    ended = await scene.share(scene.doctor, ["allergies"])
    await scene.share(scene.insurer, ["allergies"])
    longer = await scene.share(scene.insurer, ["allergies"], expires=NOW + 60 * DAY)
    assert len((await scene.patient.revoke(ended.id)).continued_grants) == 2
    assert (await scene.patient.revoke(ended.id)).continued_grants == []
    await scene.patient.add_records([note("a3")])
    await scene.patient.revoke(longer.id)
    assert bodies(await scene.insurer.fetch()) == [b"a1", b"a2", b"a3"]


async def test_a_grant_limited_to_records_is_not_continued(scene: Scene) -> None:
    ended = await scene.share(scene.doctor, ["allergies"])
    record = (await scene.patient.records())[0]
    await scene.share(scene.insurer, ["allergies"], records=[record.record_id])
    assert (await scene.patient.revoke(ended.id)).continued_grants == []


async def test_a_grant_ends_with_those_that_continue_it(scene: Scene) -> None:
    first = await scene.share(scene.doctor, ["allergies"])
    kept = await scene.share(scene.insurer, ["allergies"])
    (continued,) = (await scene.patient.revoke(first.id)).continued_grants
    report = await scene.patient.revoke(kept.id)
    assert {grant.grant_id for grant in report.grants} == {kept.id, continued}
    assert report.continued_grants == []
    await scene.patient.add_records([note("a3")])
    assert bodies(await scene.insurer.fetch()) == []


async def test_a_second_grant_of_the_same_terms_is_a_consent_of_its_own(scene: Scene) -> None:
    one = await scene.share(scene.doctor, ["allergies"])
    two = await scene.share(scene.doctor, ["allergies"])
    report = await scene.patient.revoke(one.id)
    assert [grant.grant_id for grant in report.grants] == [one.id]
    assert {grant.id: grant.state for grant in await scene.patient.grants()}[two.id] is GrantState.COMPLETE


@pytest.mark.parametrize("path", ["/v1/revocations", "/v1/grants", "scope-keys"])
@pytest.mark.parametrize("before", [True, False])
async def test_a_revocation_interrupted_anywhere_is_simply_repeated(scene: Scene, path: str, before: bool) -> None:
    """The machine stops right before or right after a write; another run, from the words alone, ends the same way."""
    ended = await scene.share(scene.doctor, ["allergies"])
    await scene.share(scene.insurer, ["allergies"])
    stopped: list[str] = []

    def stop_before(request: httpx.Request) -> None:
        if before and not stopped and request.method != "GET" and path in request.url.path:
            stopped.append(path)
            raise KeyboardInterrupt

    def stop_after(line: str, answer: Answer) -> Answer:
        if not before and not stopped and not line.startswith("GET") and path in line:
            stopped.append(path)
            raise KeyboardInterrupt
        return answer

    scene.world.fail, scene.world.tamper = stop_before, stop_after
    with pytest.raises(KeyboardInterrupt):
        await scene.patient.revoke(ended.id)
    again = Patient(
        scene.world.session(Keyring.from_words(scene.patient.session.keyring.words())),
        known_scopes=["allergies", "medications"],
    )
    report = await again.revoke(ended.id)
    assert (report.state, report.new_epochs) == ("sealed", {"allergies": 1})
    live = [grant for grant in await again.grants() if grant.live]
    assert sorted(entry.epoch for grant in live for entry in grant.entries) == [0, 1]
    assert {grant.recipient.did for grant in live} == {scene.insurer.session.did}


async def test_a_revocation_by_somebody_else_does_not_count(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])
    forged = await scene.doctor.session.sign(Revocation, scene.doctor.session.did, grant=grant.id, epochs=())
    scene.world.grants[grant.id].revocation = forged.token
    with pytest.raises(VerificationFailed):
        await scene.patient.grants()


async def test_an_unknown_grant_cannot_be_revoked(scene: Scene) -> None:
    with pytest.raises(UnknownGrant):
        await scene.patient.revoke("A" * 43)
    grant = await scene.share(scene.doctor, ["allergies"])
    with pytest.raises(UnknownGrant):
        await scene.patient.revocation_status(grant.id)


async def test_a_scope_of_unknown_name_does_not_keep_a_grant_alive(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])
    nameless = Patient(scene.world.session(Keyring.from_words(scene.patient.session.keyring.words())))
    report = await nameless.revoke(grant.id)
    assert (report.state, report.new_epochs) == ("sealed", {})


async def test_an_append_grant_is_sealed_at_once(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"], actions=[Action.APPEND])
    report = await scene.patient.revoke(grant.id, wait_seconds=0)
    assert (report.state, report.needed, report.shares) == ("sealed", 0, 0)


async def test_an_expired_grant_is_said_to_be_so(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])
    scene.world.clock.now += 31 * DAY
    assert (await scene.patient.grant(grant.id)).state is GrantState.EXPIRED
    assert bodies(await scene.doctor.fetch()) == []
    with pytest.raises(GrantOver) as refusal:
        await scene.doctor.fetch(grant.id)
    assert refusal.value.code == "grant_expired"


async def test_a_grant_without_enough_shares_is_pending(scene: Scene) -> None:
    for proxy in scene.world.proxies[1:]:
        proxy.silent_to_records = True
    grant = await scene.share(scene.doctor, ["allergies"], wait=False)
    assert (grant.state, grant.stored) == (GrantState.PENDING, 1)
    with pytest.raises(GrantPending):
        await scene.doctor.fetch(grant.id)


async def test_after_both_sides_changed_their_keys_old_grants_still_open(scene: Scene) -> None:
    await scene.share(scene.doctor, ["allergies"])
    await scene.doctor.session.rotate_keys()
    await scene.patient.session.rotate_keys()
    assert bodies(await scene.doctor.fetch()) == [b"a1", b"a2"]
    await scene.share(scene.doctor, ["medications"])
    assert bodies(await scene.doctor.fetch()) == [b"a1", b"a2", b"m1"]
    request = await scene.ask()
    assert (await scene.patient.approve(request)).state is GrantState.COMPLETE


async def test_an_outage_while_waiting_changes_nothing(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])
    revoked: list[int] = []

    def fail(request: httpx.Request) -> None:
        if request.url.path == "/v1/revocations" and request.url.host == "records.test":
            revoked.append(1)
        elif revoked and request.url.path == f"/v1/grants/{grant.id}":
            raise httpx.ConnectError("away")

    scene.world.fail = fail
    report = await scene.patient.revoke(grant.id, wait_seconds=0)
    # The proxies were asked directly, because nothing was heard from the records service.
    assert report.state == "sealed"


async def test_a_records_service_that_was_away_is_told_once_more_before_the_end(scene: Scene) -> None:
    """The proxies have been told directly by then; a recipient asks the records service first."""
    grant = await scene.share(scene.doctor, ["allergies"])
    refused: list[int] = []

    def fail(request: httpx.Request) -> None:
        if request.url.path == "/v1/revocations" and request.url.host == "records.test" and len(refused) < 2:
            refused.append(1)
            raise httpx.ConnectError("away")

    scene.world.fail = fail
    report = await scene.patient.revoke(grant.id, wait_seconds=0)
    assert (report.state, report.problems) == ("sealed", [])
    assert (await scene.patient.grant(grant.id)).revocation_shown


async def test_revocation_unconfirmed_while_the_records_service_stays_away(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])
    posted: list[int] = []

    def fail(request: httpx.Request) -> None:
        if request.url.host == "records.test" and (posted or request.url.path == "/v1/revocations"):
            posted.append(1)
            raise httpx.ConnectError("away")

    scene.world.fail = fail
    report = await scene.patient.revoke(grant.id, wait_seconds=0)
    assert report.state == "sealed"
    assert [(problem.code, problem.grant_id) for problem in report.problems] == [("revocation_unconfirmed", grant.id)]


async def test_revocation_withheld_where_the_records_service_takes_none(scene: Scene) -> None:
    grant = await scene.share(scene.doctor, ["allergies"])

    def fail(request: httpx.Request) -> None:
        if request.url.host == "records.test" and request.url.path == "/v1/revocations":
            raise httpx.ConnectError("away")

    scene.world.fail = fail
    report = await scene.patient.revoke(grant.id, wait_seconds=0)
    assert report.state == "sealed"
    assert [problem.code for problem in report.problems] == ["revocation_withheld"]
