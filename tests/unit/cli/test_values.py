"""What people type, and what it means."""

from __future__ import annotations

from datetime import datetime

import pytest

from client.cli.failures import AmbiguousId, InvalidValue
from client.cli.values import choices, expiry, full_id, label, names, party_id
from client.errors import UnknownGrant
from client.keyring import Keyring
from shared.wire import Action

NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600), ("6m", 15_552_000), ("1Y", 31_536_000)],
)
def test_a_span_counts_from_now(typed: str, seconds: int) -> None:
    assert expiry(typed, NOW) == NOW + seconds


def test_a_day_counts_to_its_end() -> None:
    end = expiry("2027-01-31", NOW)
    assert end is not None
    assert datetime.fromtimestamp(end).strftime("%Y-%m-%d %H:%M") == "2027-02-01 00:00"  # noqa: DTZ006  Local time.


@pytest.mark.parametrize("typed", ["", "soon", "0d", "-3d", "2027-02-30", "2020-01-01", "99999999d", "99999y"])
def test_what_is_no_time_to_come_is_refused(typed: str) -> None:
    with pytest.raises(InvalidValue):
        expiry(typed, NOW)


def test_no_time_stays_none() -> None:
    assert expiry(None, NOW) is None


def test_choices_in_any_case_and_with_commas() -> None:
    assert choices(Action, ["READ,append", "read"]) == [Action.READ, Action.APPEND]


def test_an_unknown_choice_names_the_known_ones() -> None:
    with pytest.raises(InvalidValue, match="read, append, amend"):
        choices(Action, ["write"])


def test_names_are_distinct_and_in_order() -> None:
    assert names(["b,a", "a", " c "]) == ["b", "a", "c"]
    assert names([]) is None
    assert names(None) is None


def test_a_name_is_brought_into_the_form_that_is_signed() -> None:
    assert label(" Z\u0307o\u0301lta ") == "\u017b\u00f3lta"


@pytest.mark.parametrize("typed", ["", " ", "a\x1b[2J", "a\u202eb", "a\nb", "x" * 121])
def test_a_name_that_nobody_could_read_is_refused(typed: str) -> None:
    with pytest.raises(InvalidValue):
        label(typed)


def test_an_id_may_be_shortened() -> None:
    assert full_id("abc", ["abcdef", "xyz"], UnknownGrant) == "abcdef"
    assert full_id("abcdef", ["abcdef", "abcdefg"], UnknownGrant) == "abcdef"


def test_a_leading_hyphen_of_an_id_may_be_left_out() -> None:
    assert full_id("abc", ["-abcdef"], UnknownGrant) == "-abcdef"
    assert full_id("-abc", ["-abcdef"], UnknownGrant) == "-abcdef"


def test_an_ambiguous_id_is_refused() -> None:
    with pytest.raises(AmbiguousId):
        full_id("a", ["ab", "ac"], UnknownGrant)


@pytest.mark.parametrize("typed", ["z", ""])
def test_an_id_of_nothing_is_refused(typed: str) -> None:
    with pytest.raises(UnknownGrant):
        full_id(typed, ["ab"], UnknownGrant)


def test_an_id_of_a_party() -> None:
    did = Keyring.generate().did
    assert party_id(f" {did}\n") == did
    with pytest.raises(InvalidValue):
        party_id(did[:-1])
