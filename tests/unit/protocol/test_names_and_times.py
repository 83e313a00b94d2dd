"""Names that people read and times that calendars reach: what is refused of both, wherever a statement is read."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.plain_text import is_unfit, unfit
from shared.wire import MAX_TIME, Label, Time

NAME: TypeAdapter[str] = TypeAdapter(Label)
TIME: TypeAdapter[int] = TypeAdapter(Time)

CATEGORIES: Any = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


@pytest.mark.parametrize(
    "name",
    [
        "Demo Practice",
        "Żółta Przychodnia",
        "診療所",
        "عيادة",
        "می\u200cخواهم",  # Persian: a non-joiner between two letters.
        "ක්\u200dෂ",  # Sinhala: a joiner after a virama.
        "[red]Demo[/red] :smile: 1 < 2 & \\n",
        "Praxis №\u00a05",
        "❤\ufe0f",
        "x" * 120,
    ],
)
def test_a_name_in_any_script_is_a_name(name: str) -> None:
    assert NAME.validate_python(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "Demo\x00",
        "Demo\nPractice",
        "Demo\x1b[31m",
        "Demo\x7f",
        "Demo\x9b31m",
        "Demo\x85",
        "Demo\u00ad",
        "Demo\u200bPractice",
        "Demo\u200c",
        "Demo\u200dPractice",
        "\u200dDemo",
        "می\u200dخواهم",
        "ا\u200c",
        "Demo\u200e",
        "Demo\u202eecitcarP",
        "Demo\u2066",
        "Demo\u2028",
        "Demo\u2029",
        "Demo\ufeff",
        "Demo\ufffe",
        "Demo\ue000",
        "Demo\u0378",
        "Demo\U000e0041",
        "Demo\U0010ffff",
        "Demo\u034f",
        "\u3164",
        "\u2800",
        " Demo",
        "Demo ",
        "Demo\u00a0",
        "\u3000Demo",
        " ",
        "",
        "De\u0301mo",
        "x" * 121,
    ],
)
def test_a_name_with_what_nobody_sees_or_a_terminal_obeys_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        NAME.validate_python(name)


def test_half_a_surrogate_pair_is_no_name() -> None:
    with pytest.raises(ValidationError):
        NAME.validate_python("Demo\ud800")


@given(st.text(alphabet=st.characters(categories=CATEGORIES), min_size=1, max_size=3))
def test_no_character_of_these_categories_stands_in_a_name(text: str) -> None:
    with pytest.raises(ValidationError):
        NAME.validate_python(f"Demo{text}Practice")


@given(st.text(max_size=60))
def test_what_is_a_name_has_no_unfit_character(text: str) -> None:
    try:
        name = NAME.validate_python(text)
    except ValidationError:
        return
    assert not list(unfit(name))
    assert name == name.strip() == unicodedata.normalize("NFC", name)


@given(
    st.characters(exclude_categories=CATEGORIES, exclude_characters="\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
)
def test_every_other_character_may_be_read(character: str) -> None:
    assert not is_unfit(character)
    assert not list(unfit(character))


def test_times_end_with_the_year_9999() -> None:
    assert datetime.fromtimestamp(MAX_TIME, UTC).isoformat() == "9999-12-31T23:59:59+00:00"
    assert TIME.validate_python(MAX_TIME) == MAX_TIME
    for beyond in (MAX_TIME + 1, 2**40, 2**63, -1):
        with pytest.raises(ValidationError):
            TIME.validate_python(beyond)
