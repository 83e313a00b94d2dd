"""The list of what is known of the dependencies is that of the versions that are locked."""

from __future__ import annotations

from tests.unit.hygiene.dependencies import NOTES, listed, locked


def test_what_is_locked_is_listed_with_its_version() -> None:
    assert listed() == locked()
    assert len(locked()) > 40


def test_every_note_is_of_a_package_that_is_locked() -> None:
    assert set(NOTES) <= set(locked())
