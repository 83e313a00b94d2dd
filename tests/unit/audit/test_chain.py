"""One log's events for one subject: everything that can be dropped, swapped, changed or made up is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from client.audit import chain
from client.audit.chain import (
    RECORDS,
    ChainEnd,
    CheckedLog,
    EventChanged,
    EventMissing,
    EventsOutOfOrder,
    Inclusion,
    LogFault,
    LogRewritten,
    NotInLog,
    Proven,
    TooManyEvents,
    check_chain,
    check_log,
    proven_leaves,
)
from shared.encoding import b64url
from shared.transparency.merkle import leaf_hash
from shared.wire import Role
from tests.unit.audit.logs import MemoryLog, Shown, hashed
from tests.unit.client.parties import Party

ANNA = Party(Role.PATIENT).did
BEN = Party(Role.PATIENT).did


def a_log(count: int = 5) -> MemoryLog:
    log = MemoryLog("records")
    for number in range(count):
        log.append(BEN, event="requested")
        log.append(ANNA, event="disclosed", statement=hashed(str(number)))
    return log


def refusal(kind: type[LogFault], *arguments: object, **options: object) -> LogFault:
    with pytest.raises(kind) as caught:
        check_chain(*arguments, **options)  # type: ignore[arg-type]
    assert type(caught.value) is kind
    return caught.value


def test_a_whole_chain_is_returned_oldest_first() -> None:
    log = a_log()
    checked = log.checked(RECORDS, ANNA)
    assert [one.n for one in checked.events] == [1, 2, 3, 4, 5]
    assert checked.unproven == frozenset()
    assert checked.erased == 0
    assert checked.end == ChainEnd(5, log.shown(ANNA)[0].commitment)
    event = checked.event(3)
    assert event is not None
    assert event.event is not None
    assert event.event.statement == hashed("2")
    assert checked.event(0) is None
    assert checked.event(6) is None


def test_no_events_are_a_whole_chain() -> None:
    checked = check_log(RECORDS, ANNA, [], [])
    assert checked.events == ()
    assert checked.end is None


def test_the_leaves_asked_for_are_the_hashes_of_the_commitments() -> None:
    log = a_log(1)
    events = check_chain(ANNA, log.shown(ANNA))
    assert proven_leaves(events) == [b64url(log.nodes[0, log.places[events[0].commitment]])]


@pytest.mark.parametrize("gone", [1, 2, 4])
def test_an_event_left_out_is_missing(gone: int) -> None:
    shown = [one for one in a_log().shown(ANNA) if one.n != gone]
    assert refusal(EventMissing, ANNA, shown).n == gone


def test_an_event_shown_twice_is_out_of_order() -> None:
    shown = a_log().shown(ANNA)
    assert refusal(EventsOutOfOrder, ANNA, [shown[0], *shown]).n == 5


def test_oldest_first_is_out_of_order() -> None:
    refusal(EventsOutOfOrder, ANNA, a_log().shown(ANNA)[::-1])


def test_two_events_that_changed_places_are_out_of_order() -> None:
    shown = a_log().shown(ANNA)
    shown[1], shown[2] = shown[2], shown[1]
    with pytest.raises((EventsOutOfOrder, EventMissing)):
        check_chain(ANNA, shown)


def test_an_event_number_below_one_is_out_of_order() -> None:
    shown = a_log().shown(ANNA)
    refusal(EventsOutOfOrder, ANNA, [*shown, replace(shown[-1], n=0)])


def changes() -> dict[str, Callable[[Shown], Shown]]:
    def edit(**members: object) -> Callable[[Shown], Shown]:
        def change(one: Shown) -> Shown:
            assert one.event is not None
            claims = json.loads(one.event) | members
            return replace(one, event=json.dumps(claims, separators=(",", ":"), sort_keys=True))

        return change

    return {
        "outcome": edit(outcome="refused"),
        "time": edit(at=1),
        "an added member": edit(actor=BEN),
        "salt": lambda one: replace(one, salt=hashed("salt")),
        "commitment": lambda one: replace(one, commitment=hashed("commitment")),
        "commitment of no hash": lambda one: replace(one, commitment="AAAA"),
        "salt of another length": lambda one: replace(one, salt="AAAA"),
        "no text": lambda one: replace(one, event=None),
        "no salt": lambda one: replace(one, salt=None),
        "text that is no Unicode": lambda one: replace(one, event="\ud800"),
        "not JSON": lambda one: replace(one, event="disclosed"),
    }


@pytest.mark.parametrize("change", changes().values(), ids=changes())
@pytest.mark.parametrize("n", [1, 3, 5])
def test_an_event_that_is_not_what_was_committed_to_is_changed(change: Callable[[Shown], Shown], n: int) -> None:
    shown = [change(one) if one.n == n else one for one in a_log().shown(ANNA)]
    assert refusal(EventChanged, ANNA, shown).n == n


def test_another_partys_event_in_its_place_is_changed() -> None:
    log = a_log()
    shown = [next(one for one in log.shown(BEN) if one.n == 3) if one.n == 3 else one for one in log.shown(ANNA)]
    assert refusal(EventChanged, ANNA, shown).n == 3


def test_an_event_under_another_number_is_changed() -> None:
    shown = a_log().shown(ANNA)
    shown[0], shown[1] = replace(shown[1], n=5), replace(shown[0], n=4)
    refusal(EventChanged, ANNA, shown)


def test_an_event_made_anew_breaks_the_link_of_the_next() -> None:
    """The service may commit to whatever it likes; the event after it then names another one."""
    log, other = a_log(), MemoryLog("records")
    for one in log.chains[ANNA][:2]:
        other.chains.setdefault(ANNA, []).append(one)
    forged = other.append(ANNA, event="listed")
    shown = [forged if one.n == 3 else one for one in log.shown(ANNA)]
    assert refusal(EventChanged, ANNA, shown).n == 4


def test_a_chain_of_another_subject_is_changed() -> None:
    refusal(EventChanged, BEN, a_log().shown(ANNA))


@pytest.mark.parametrize("n", [1, 3, 5])
def test_an_erased_event_leaves_the_chain_whole(n: int) -> None:
    log = a_log()
    log.chains[ANNA] = [replace(one, event=None, salt=None) if one.n == n else one for one in log.chains[ANNA]]
    checked = log.checked(RECORDS, ANNA)
    assert checked.erased == 1
    assert checked.unproven == frozenset()


def test_an_erased_event_with_another_commitment_is_changed() -> None:
    log = a_log()
    shown = [Shown(3, hashed("x"), None, None) if one.n == 3 else one for one in log.shown(ANNA)]
    assert refusal(EventChanged, ANNA, shown).n == 4


def test_one_leaf_cannot_stand_for_two_erased_events() -> None:
    log = a_log(2)
    one = log.chains[ANNA][1]
    refusal(EventChanged, ANNA, [Shown(n, one.commitment, None, None) for n in (2, 1)])


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 4, 5])
def test_a_chain_that_goes_on_from_what_was_seen_is_fine(n: int) -> None:
    log = a_log()
    end = ChainEnd(n, log.chains[ANNA][n - 1].commitment)
    assert log.checked(RECORDS, ANNA, remembered=end).end == ChainEnd(5, log.shown(ANNA)[0].commitment)


@pytest.mark.parametrize("kept", [0, 3, 4])
def test_a_chain_that_ends_before_what_was_seen_is_rewritten(kept: int) -> None:
    log = a_log()
    end = ChainEnd(5, log.shown(ANNA)[0].commitment)
    assert refusal(LogRewritten, ANNA, log.shown(ANNA)[5 - kept :], remembered=end).n == 5


def test_a_new_chain_from_one_on_is_rewritten() -> None:
    """All of it hangs together and is in the tree, and is not what was shown before."""
    log = a_log()
    end = ChainEnd(4, log.chains[ANNA][3].commitment)
    other = a_log(3)
    other.append(ANNA, event="disclosed")
    other.append(ANNA, event="disclosed")
    assert len(other.shown(ANNA)) == 5
    assert refusal(LogRewritten, ANNA, other.shown(ANNA), remembered=end).n == 4


# --- the tree -------------------------------------------------------------------------------------------------------


def test_an_event_without_proof_is_unproven() -> None:
    log = a_log()
    checked = check_log(RECORDS, ANNA, log.shown(ANNA), [log.proven(ANNA, [1, 2, 4])])
    assert checked.unproven == {3, 5}


def test_proofs_may_come_in_batches_under_growing_checkpoints() -> None:
    log = a_log(3)
    first = log.proven(ANNA)
    log.append(ANNA, event="listed")
    checked = check_log(RECORDS, ANNA, log.shown(ANNA), [first, log.proven(ANNA, [4])])
    assert checked.unproven == frozenset()


def not_in_log(log: MemoryLog, proven: Proven) -> None:
    with pytest.raises(NotInLog):
        check_log(RECORDS, ANNA, log.shown(ANNA), [proven])


def test_an_event_that_is_in_no_tree_is_not_in_the_log() -> None:
    """A chain that was made for one reader: it hangs together, and the tree does not hold it."""
    log, other = a_log(), a_log()
    other.chains[ANNA][4] = MemoryLog.append(other, ANNA, event="listed")
    not_in_log(log, Proven(log.checkpoint(), {5: Inclusion(9, log.inclusion(log.chains[BEN][4].commitment).path)}))


def test_a_proof_of_another_leaf_is_not_enough() -> None:
    log = a_log()
    not_in_log(log, Proven(log.checkpoint(), {2: log.inclusion(log.chains[ANNA][2].commitment)}))


def test_a_proof_under_an_earlier_tree_is_not_enough() -> None:
    log = a_log(3)
    old = log.checkpoint()
    log.append(ANNA, event="listed")
    not_in_log(log, Proven(old, log.proven(ANNA).items))


def test_a_proof_under_another_log_is_not_enough() -> None:
    log = a_log()
    not_in_log(log, Proven(a_log().checkpoint(), log.proven(ANNA).items))


def test_a_proof_for_an_event_that_is_not_shown_is_refused() -> None:
    log = a_log()
    items = dict(log.proven(ANNA).items) | {6: log.inclusion(log.chains[ANNA][0].commitment)}
    not_in_log(log, Proven(log.checkpoint(), items))


def test_more_events_than_a_client_takes_in_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "MAX_EVENTS", 4)
    refusal(TooManyEvents, ANNA, a_log().shown(ANNA))


def test_a_leaf_is_the_hash_of_the_commitment() -> None:
    log = a_log(1)
    checked: CheckedLog = log.checked(RECORDS, ANNA)
    assert checked.events[0].leaf != leaf_hash(checked.events[0].commitment.encode())
    assert checked.events[0].leaf == log.nodes[0, 1]
