"""All logs against each other: every lie has a finding of its own, and honest trouble has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from client.audit.chain import RECORDS, check_log
from client.audit.story import SENTENCES, Story, tell
from shared import statements as st
from shared.wire import Role
from tests.unit.audit.logs import HOUR, NOW, Case, hashed
from tests.unit.client.parties import Party


def codes(story: Story) -> list[str]:
    return [finding.code for finding in story.findings]


def gaps(story: Story) -> list[str]:
    return [gap.code for gap in story.gaps]


def nothing_wrong(case: Case, **how: Any) -> Story:
    story = tell(case.material(**how))
    assert story.findings == ()
    return story


def only(case: Case, code: str, **how: Any) -> Any:
    story = tell(case.material(**how))
    assert codes(story) == [code]
    assert story.findings[0].sentence == SENTENCES[code]
    return story.findings[0]


# --- no false alarm -------------------------------------------------------------------------------------------------


def test_a_whole_story_has_no_finding_and_no_gap() -> None:
    case = Case()
    story = nothing_wrong(case)
    assert story.gaps == ()
    (n,) = story.confirmed
    assert story.confirmed[n] == tuple(proxy.did for proxy in case.proxies[:2])


def test_a_revoked_grant_has_no_finding() -> None:
    case = Case()
    case.revoke()
    assert nothing_wrong(case).gaps == ()


def test_a_proxy_whose_answer_came_too_late_is_no_finding() -> None:
    case = Case()
    case.release(case.proxies[2])
    (confirmed,) = nothing_wrong(case).confirmed.values()
    assert len(confirmed) == 3


def test_a_request_that_too_few_proxies_answered_explains_their_work() -> None:
    case = Case()
    case.statement = hashed("another request")
    case.release(case.proxies[0])
    case.say("disclosed", **(case._terms() | {"outcome": "not_enough_proxies"}))
    assert nothing_wrong(case).gaps == ()


def test_a_refusal_written_without_capsules_explains_the_work_too() -> None:
    case = Case()
    case.statement = hashed("another request")
    case.release(case.proxies[0])
    case.say(
        "disclosed",
        grant=case.grant.id,
        statement=case.statement,
        actor=case.recipient.did,
        outcome="grant_revoked",
    )
    nothing_wrong(case)


def test_a_request_that_proxies_refused_is_no_finding() -> None:
    case = Case()
    case.statement = hashed("another request")
    for proxy in case.proxies:
        case.release(proxy, outcome="capsule_not_granted")
    nothing_wrong(case)


def test_refusals_may_name_any_grant() -> None:
    case = Case()
    case.say("disclosed", grant=hashed("no grant"), actor=case.recipient.did, outcome="unknown_grant")
    nothing_wrong(case)


def test_events_of_a_kind_that_this_version_does_not_know_are_no_finding() -> None:
    case = Case()
    case.say("polished", grant=case.grant.id)
    nothing_wrong(case)


def test_a_proxy_that_is_away_is_no_finding() -> None:
    case = Case()
    story = nothing_wrong(case, without=case.proxies[1:2])
    assert gaps(story) == ["disclosure_unconfirmed"]
    assert story.gaps[0].services == (case.proxies[1].did, case.proxies[2].did)[:1]


def test_a_proxy_that_is_away_and_was_not_needed_is_not_even_a_gap() -> None:
    case = Case()
    assert nothing_wrong(case, without=case.proxies[2:]).gaps == ()


def test_nothing_is_found_while_the_records_service_is_away() -> None:
    case = Case()
    case.release(case.proxies[2], statement=hashed("unheard of"))
    nothing_wrong(case, without_records=True)


def test_what_happened_within_the_last_minute_may_still_be_on_its_way() -> None:
    case = Case()
    case.release(case.proxies[2], statement=hashed("just now"), at=case.now - 59)
    assert gaps(nothing_wrong(case)) == ["settling"]


def test_a_disclosure_of_the_last_minute_may_still_be_on_its_way() -> None:
    case = Case()
    case.disclose([], statement=hashed("just now"), at=case.now - 10)
    assert gaps(nothing_wrong(case)) == ["settling"]


def test_what_happened_while_the_logs_were_fetched_may_be_in_some_only() -> None:
    """Fetching may take minutes: what counts is what was old enough when it began."""
    case = Case()
    case.release(case.proxies[2], statement=hashed("meanwhile"), at=case.now - 200)
    assert codes(tell(case.material())) == ["released_without_event"]
    assert gaps(tell(replace(case.material(), began=case.now - 201))) == ["settling"]


def test_a_grant_given_a_moment_ago_on_another_machine_is_no_finding() -> None:
    case = Case()
    case.say("granted", grant=hashed("just now"), at=case.now - 5)
    case.say("stored", case.proxies[0], grant=hashed("just now"), at=case.now - 4)
    assert set(gaps(nothing_wrong(case))) == {"settling"}


def test_a_grant_that_only_this_client_knows_needs_no_event() -> None:
    case = Case()
    grant = case.make_grant()
    case.grants[grant.id] = replace(case.grants[case.grant.id], statement=grant, receipts=(), shown=False)
    nothing_wrong(case)


# --- disclosed_without_proxies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("helpers", [0, 1])
def test_a_disclosure_with_fewer_proxies_than_needed(helpers: int) -> None:
    case = Case()
    case.statement = hashed("another request")
    event = case.disclose(case.proxies[:helpers])
    finding = only(case, "disclosed_without_proxies")
    assert finding.services == (RECORDS, *(proxy.did for proxy in case.proxies[helpers:]))
    assert finding.events[0].n == event.n
    assert len(finding.events) == 1 + helpers
    assert finding.grant == case.grant.id


def other_terms() -> dict[str, dict[str, Any]]:
    return {
        "other capsules": {"capsules": (hashed("x"), hashed("y"))},
        "fewer capsules": {"capsules": (hashed("capsule one"),)},
        "capsules in another order": {"capsules": (hashed("capsule two"), hashed("capsule one"))},
        "another request": {"statement": hashed("x")},
        "refused": {"outcome": "grant_expired"},
    }


@pytest.mark.parametrize("terms", other_terms().values(), ids=other_terms())
def test_what_a_proxy_did_for_something_else_does_not_count(terms: dict[str, Any]) -> None:
    case = Case()
    case.statement = hashed("another request")
    case.release(case.proxies[0])
    case.release(case.proxies[1], **terms)
    case.say("disclosed", **case._terms())
    assert "disclosed_without_proxies" in codes(tell(case.material()))


def test_one_proxy_does_not_count_twice() -> None:
    case = Case()
    case.statement = hashed("another request")
    case.release(case.proxies[0])
    case.disclose(case.proxies[:1])
    only(case, "disclosed_without_proxies")


def test_a_disclosure_that_names_no_capsules_is_confirmed_by_nobody() -> None:
    case = Case()
    case.statement = hashed("another request")
    terms = {name: value for name, value in case._terms().items() if name != "capsules"}
    for proxy in case.proxies:
        case.say("reencrypted", proxy, **terms)
    case.say("disclosed", **terms)
    only(case, "disclosed_without_proxies")


def test_a_disclosure_dated_a_minute_ago_is_found() -> None:
    case = Case()
    case.disclose([], statement=hashed("a minute ago"), at=case.now - 60)
    only(case, "disclosed_without_proxies")


def test_too_many_proxies_away_for_the_threshold_leave_a_finding() -> None:
    case = Case(threshold=3)
    finding = only(case, "disclosed_without_proxies", without=case.proxies[:1])
    assert case.proxies[2].did in finding.services


# --- released_without_event -----------------------------------------------------------------------------------------


def test_a_release_that_the_records_service_knows_nothing_of() -> None:
    case = Case()
    event = case.release(case.proxies[2], statement=hashed("behind its back"))
    finding = only(case, "released_without_event")
    assert finding.services == (RECORDS, case.proxies[2].did)
    assert [(one.service, one.n) for one in finding.events] == [(case.proxies[2].did, event.n)]


def test_an_event_for_other_capsules_explains_no_release() -> None:
    case = Case()
    case.release(case.proxies[2], capsules=(hashed("a third capsule"),))
    only(case, "released_without_event")


# --- grants ---------------------------------------------------------------------------------------------------------


def test_a_share_under_a_grant_never_signed() -> None:
    case = Case()
    case.say("stored", case.proxies[0], grant=hashed("foreign"), statement=hashed("foreign"))
    finding = only(case, "share_without_grant")
    assert finding.services == (case.proxies[0].did,)
    assert finding.grant == hashed("foreign")


def test_a_share_at_a_proxy_that_the_grant_does_not_name() -> None:
    case = Case()
    stranger = Party(Role.PROXY)
    case.logs[stranger.did] = type(case.records)("proxy")
    case.say("stored", stranger, grant=case.grant.id)
    only(case, "share_without_grant")


@pytest.mark.parametrize("event", ["granted", "disclosed", "record_written", "listed"])
def test_something_done_under_a_grant_never_signed(event: str) -> None:
    case = Case()
    case.say(event, grant=hashed("foreign"), actor=case.recipient.did)
    assert only(case, "grant_unknown").grant == hashed("foreign")


def test_a_disclosure_under_no_grant_at_all() -> None:
    case = Case()
    case.say("disclosed", actor=case.recipient.did, capsules=case.capsules)
    only(case, "grant_unknown")


def test_a_re_encryption_under_a_grant_never_signed() -> None:
    case = Case()
    case.say("reencrypted", case.proxies[0], grant=hashed("foreign"), statement=case.statement, capsules=case.capsules)
    only(case, "grant_unknown")


def beyond() -> dict[str, dict[str, Any]]:
    return {
        "another recipient": {"actor": Party(Role.RECIPIENT).did},
        "nobody": {"actor": None},
        "before it began": {"at": NOW - 561},
        "after it ended": {"at": NOW + 90 * 86_400 + 60},
    }


@pytest.mark.parametrize("terms", beyond().values(), ids=beyond())
def test_a_disclosure_beyond_the_grant(terms: dict[str, Any]) -> None:
    case = Case(now=NOW + 91 * 86_400)
    case.statement = hashed("another request")
    case.disclose(case.proxies, **terms)
    only(case, "beyond_grant")


def test_a_disclosure_of_capsules_that_the_grant_does_not_list() -> None:
    case = Case()
    scope = case.grant.payload.scopes[0]
    case.grant = case.give(scopes=(scope.model_copy(update={"capsules": (case.capsules[0],)}),))
    case.disclose(case.proxies, statement=hashed("both"))
    only(case, "beyond_grant")


def test_a_disclosure_of_capsules_that_the_grant_lists() -> None:
    case = Case()
    scope = case.grant.payload.scopes[0]
    case.grant = case.give(scopes=(scope.model_copy(update={"capsules": case.capsules}),))
    case.disclose(case.proxies, statement=hashed("both"))
    nothing_wrong(case)


def test_a_grant_that_is_shown_and_stands_in_no_log() -> None:
    case = Case()
    grant = case.make_grant()
    case.grants[grant.id] = replace(case.grants[case.grant.id], statement=grant, receipts=())
    assert only(case, "grant_without_event").grant == grant.id


def test_a_revocation_that_is_shown_and_stands_in_no_log() -> None:
    case = Case()
    revocation = case.patient.verified(st.Revocation, case.recipient.did, grant=case.grant.id, epochs=())
    case.grants[case.grant.id] = replace(case.grants[case.grant.id], revocation=revocation)
    assert only(case, "revocation_without_event").grant == case.grant.id


def test_a_revocation_that_the_service_never_got_is_no_finding() -> None:
    case = Case()
    revocation = case.patient.verified(st.Revocation, case.recipient.did, grant=case.grant.id, epochs=())
    case.grants[case.grant.id] = replace(case.grants[case.grant.id], revocation=revocation, revocation_shown=False)
    assert gaps(nothing_wrong(case)) == ["revocation_not_received"]


# --- shares and receipts --------------------------------------------------------------------------------------------


def test_a_share_that_a_proxy_is_said_to_have_and_has_no_event_of() -> None:
    case = Case()
    other = case.make_grant()
    case.grants[other.id] = replace(case.grants[case.grant.id], statement=other, receipts=())
    case.say("granted", grant=other.id)
    case.say("stored", grant=other.id, actor=case.proxies[1].did)
    assert only(case, "share_missing").services == (RECORDS, case.proxies[1].did)


def test_an_erasure_that_a_proxy_is_said_to_have_made_and_has_no_event_of() -> None:
    case = Case()
    case.revoke(silent=case.proxies[1:2])
    case.say("erased", grant=case.grant.id, actor=case.proxies[1].did, at=NOW + 600)
    assert only(case, "erasure_missing").services == (RECORDS, case.proxies[1].did)


def test_a_receipt_of_an_erasure_that_the_proxy_has_no_event_of() -> None:
    case = Case()
    revocation = case.revoke(silent=case.proxies[1:2])
    receipt = case.receipt(case.proxies[1], "erased", revocation.id, case.grant.id, 9)
    own = case.grants[case.grant.id]
    case.grants[case.grant.id] = replace(own, receipts=(*own.receipts, receipt))
    finding = only(case, "erasure_missing")
    assert finding.receipts == (receipt.id,)
    assert finding.services == (case.proxies[1].did,)


def wrong_receipts() -> dict[str, dict[str, Any]]:
    return {
        "another number": {"seq": 2},
        "a number beyond the log": {"seq": 99},
        "another statement": {"statement": hashed("x")},
        "another grant": {"grant": hashed("x")},
    }


@pytest.mark.parametrize("members", wrong_receipts().values(), ids=wrong_receipts())
def test_a_receipt_that_no_event_matches(members: dict[str, Any]) -> None:
    case = Case()
    own = case.grants[case.grant.id]
    terms = {"statement": case.grant.id, "grant": case.grant.id, "seq": 1} | members
    receipt = case.receipt(case.proxies[0], "stored", terms["statement"], terms["grant"], terms["seq"])
    case.grants[case.grant.id] = replace(own, receipts=(receipt,))
    assert only(case, "receipt_without_event").receipts == (receipt.id,)


def test_a_receipt_of_a_proxy_that_is_away_is_no_finding() -> None:
    case = Case()
    case.logs[case.proxies[2].did].chains.clear()
    nothing_wrong(case, without=case.proxies[2:])


def test_a_receipt_signed_this_minute_may_be_ahead_of_the_log() -> None:
    case = Case()
    own = case.grants[case.grant.id]
    receipt = case.receipt(case.proxies[0], "stored", case.grant.id, case.grant.id, 99, iat=case.now - 5)
    case.grants[case.grant.id] = replace(own, receipts=(*own.receipts, receipt))
    assert gaps(nothing_wrong(case)) == ["settling"]


# --- after the end --------------------------------------------------------------------------------------------------


def test_a_disclosure_after_the_revocation_by_the_order_of_the_log() -> None:
    """Dated back to before the end, it still stands behind it."""
    case = Case()
    case.statement = hashed("too late")
    for proxy in case.proxies[:2]:
        case.release(proxy)
    case.revoke()
    case.disclose([], at=NOW)
    assert only(case, "revoked_but_served").services == (RECORDS,)


def test_a_disclosure_long_after_the_revocation() -> None:
    case = Case()
    case.revoke(at=NOW + 600)
    case.disclose(case.proxies[:2], statement=hashed("too late"), at=NOW + 661)
    story = tell(case.material())
    assert set(codes(story)) == {"revoked_but_served"}
    assert {service for finding in story.findings for service in finding.services} == {
        RECORDS,
        case.proxies[0].did,
        case.proxies[1].did,
    }


def test_a_proxy_that_goes_on_after_its_own_erasure() -> None:
    case = Case()
    case.revoke()
    case.release(case.proxies[0], at=NOW)
    finding = only(case, "revoked_but_served")
    assert finding.services == (case.proxies[0].did,)


def test_a_proxy_that_had_not_heard_of_the_end_and_released_after_it() -> None:
    case = Case()
    case.revoke(at=NOW + 600, silent=case.proxies[2:])
    case.release(case.proxies[2], at=NOW + 661)
    assert only(case, "revoked_but_served").services == (case.proxies[2].did,)


@pytest.mark.parametrize("late", [0, 60])
def test_a_release_within_the_skew_of_the_clocks_is_no_finding(late: int) -> None:
    case = Case()
    case.revoke(at=NOW + 600, silent=case.proxies[2:])
    case.release(case.proxies[2], at=NOW + 600 + late)
    nothing_wrong(case)


def test_a_release_refused_after_the_end_is_no_finding() -> None:
    case = Case()
    case.revoke()
    case.release(case.proxies[0], at=NOW + 900, outcome="grant_revoked")
    case.say("disclosed", **(case._terms() | {"outcome": "grant_revoked", "at": NOW + 900}))
    nothing_wrong(case)


# --- time and texts -------------------------------------------------------------------------------------------------


def test_an_event_from_the_future() -> None:
    case = Case()
    case.say("listed", at=case.now + 61)
    assert only(case, "event_from_the_future").services == (RECORDS,)


def test_an_event_within_the_skew_is_no_finding() -> None:
    case = Case()
    case.say("listed", at=case.now + 60)
    nothing_wrong(case)


def erase(case: Case, upto: int, who: Callable[[Case], Any] = lambda case: case.records) -> None:
    chain = who(case).chains[case.patient.did]
    chain[:upto] = [replace(one, event=None, salt=None) for one in chain[:upto]]


def test_texts_that_are_gone_without_the_patients_asking() -> None:
    case = Case()
    erase(case, 2)
    story = tell(case.material())
    assert codes(story) == ["event_withheld"]
    assert [one.n for one in story.findings[0].events] == [1, 2]


def test_somebody_elses_erasure_is_not_the_patients() -> None:
    case = Case()
    erase(case, 2)
    case.say("log_erased", actor=case.recipient.did)
    only(case, "event_withheld")


def test_texts_that_the_patient_had_erased_are_a_gap() -> None:
    case = Case()
    erase(case, len(case.records.chains[case.patient.did]))
    case.say("log_erased", actor=case.patient.did, at=NOW + 600)
    assert gaps(nothing_wrong(case)) == ["texts_erased", "release_unexplained", "release_unexplained"]


def test_texts_erased_at_a_proxy_are_a_gap() -> None:
    case = Case()
    first = case.proxies[0]
    erase(case, len(case.logs[first.did].chains[case.patient.did]), lambda case: case.logs[first.did])
    case.say("log_erased", first, actor=case.patient.did, at=NOW + 600)
    assert gaps(nothing_wrong(case)) == ["texts_erased", "disclosure_unconfirmed"]


def test_what_came_after_an_erasure_is_compared() -> None:
    case = Case()
    erase(case, len(case.records.chains[case.patient.did]))
    case.say("log_erased", actor=case.patient.did, at=NOW + 600)
    case.release(case.proxies[2], statement=hashed("later"), at=NOW + 900)
    only(case, "released_without_event")


# --- the tree -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "code"), [(HOUR, None), (86_401, "not_in_log")])
def test_an_event_that_waits_for_its_proof(age: int, code: str | None) -> None:
    case = Case(now=NOW + age)
    subject = case.patient.did
    log = check_log(RECORDS, subject, case.records.shown(subject), [case.records.proven(subject, range(2, 6))])
    story = tell(replace(case.material(), records=log))
    assert codes(story) == ([code] if code else [])
    assert gaps(story) == ([] if code else ["not_proven_yet"])
