"""The table itself: what it covers, and the page that is written from it."""

from __future__ import annotations

from collections import Counter

from tests.attacks.all_attacks import TABLE
from tests.attacks.document import PATH, text_of
from tests.attacks.table import GROUPS


def test_the_page_for_reviewers_is_the_table() -> None:
    assert PATH.read_text("utf-8") == text_of(TABLE), "write it anew: python -m tests.attacks.document"


def test_there_are_attacks_of_every_group() -> None:
    assert len(TABLE) >= 60
    assert Counter(one.group for one in TABLE).keys() == set(GROUPS)


def test_no_two_attacks_are_the_same() -> None:
    assert len({one.id for one in TABLE}) == len(TABLE)
    twice = [line for line, count in Counter((one.group, one.liar, one.does) for one in TABLE).items() if count > 1]
    assert twice == []
