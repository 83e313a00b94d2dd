"""No single change of a file, of whatever kind and wherever, is accepted."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.evidence.verify import verify
from shared.encoding import canonical_json
from tests.unit.evidence.files import Evidence

WHOLE = Evidence()
DATA = WHOLE.data
Path = tuple[str | int, ...]

thorough = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def paths_of(value: Any, here: Path = ()) -> list[Path]:
    """The way to every member and item of a JSON value."""
    found: list[Path] = []
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        found += [(*here, name), *paths_of(child, (*here, name))]
    return found


MEMBERS = json.loads(DATA)
OTHER = json.loads(Evidence().data)
PATHS = paths_of(MEMBERS)


def at(value: Any, path: Path) -> Any:
    for name in path:
        value = value[name]
    return value


LEAVES = [path for path in PATHS if not isinstance(at(MEMBERS, path), dict | list)]
SEQUENCES = [path for path in PATHS if isinstance(at(MEMBERS, path), list) and len(at(MEMBERS, path)) > 1]


def refused(data: bytes) -> None:
    verdict = verify(data)
    assert not verdict.holds
    assert verdict.faults[0].code
    assert verdict.faults[0].detail


def test_the_file_itself_is_accepted() -> None:
    assert verify(DATA).holds
    assert len(PATHS) > 250


@thorough
@given(st.integers(0, len(DATA) * 8 - 1))
def test_no_flipped_bit_is_accepted(bit: int) -> None:
    changed = bytearray(DATA)
    changed[bit // 8] ^= 1 << (bit % 8)
    refused(bytes(changed))


@thorough
@given(st.integers(0, len(DATA) - 1), st.integers(1, 200))
def test_no_deletion_of_bytes_is_accepted(start: int, length: int) -> None:
    refused(DATA[:start] + DATA[start + length :])


@thorough
@given(st.integers(0, len(DATA)), st.binary(min_size=1, max_size=40))
def test_no_insertion_of_bytes_is_accepted(place: int, extra: bytes) -> None:
    refused(DATA[:place] + extra + DATA[place:])


@thorough
@given(st.sampled_from(PATHS))
def test_no_part_can_be_left_out(path: Path) -> None:
    members = copy.deepcopy(MEMBERS)
    del at(members, path[:-1])[path[-1]]
    refused(canonical_json(members))


@thorough
@given(st.sampled_from(SEQUENCES), st.data())
def test_no_two_items_can_change_places(path: Path, data: st.DataObject) -> None:
    members = copy.deepcopy(MEMBERS)
    items = at(members, path)
    one, other = data.draw(st.lists(st.sampled_from(range(len(items))), min_size=2, max_size=2, unique=True))
    items[one], items[other] = items[other], items[one]
    if members == MEMBERS:  # Two equal hashes in a path changed places: the file is byte for byte the same.
        return
    refused(canonical_json(members))


@thorough
@given(st.sampled_from(SEQUENCES), st.data())
def test_no_item_can_stand_twice(path: Path, data: st.DataObject) -> None:
    members = copy.deepcopy(MEMBERS)
    items = at(members, path)
    items.append(data.draw(st.sampled_from(items)))
    refused(canonical_json(members))


@thorough
@given(st.sampled_from(LEAVES), st.data())
def test_no_value_can_be_another_of_the_same_kind(path: Path, data: st.DataObject) -> None:
    """Another hash, statement, text or number of the very file in its place: well-formed, and wrong."""
    value = at(MEMBERS, path)
    same = [other for other in (at(MEMBERS, leaf) for leaf in LEAVES) if type(other) is type(value) and other != value]
    if not same:
        same = [not value if isinstance(value, bool) else value + 1]
    members = copy.deepcopy(MEMBERS)
    at(members, path[:-1])[path[-1]] = data.draw(st.sampled_from(same))
    refused(canonical_json(members))


@thorough
@given(st.sampled_from(PATHS))
def test_no_part_of_another_patients_file_fits(path: Path) -> None:
    """The same place in a file that is whole, of a story of the same shape."""
    try:
        foreign = at(OTHER, path)
    except (KeyError, IndexError):
        return
    members = copy.deepcopy(MEMBERS)
    at(members, path[:-1])[path[-1]] = foreign
    if members != MEMBERS:
        refused(canonical_json(members))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=2_000))
def test_any_bytes_are_an_answer_and_never_an_exception(data: bytes) -> None:
    refused(data)


@pytest.mark.parametrize("depth", [17, 5_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    refused(b"[" * depth + b"]" * depth)
