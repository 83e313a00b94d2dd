"""No decoder is left out: what looks like one runs under the registry's inputs, or says why not."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase

import pytest

from tests.fuzz import discovery
from tests.fuzz.decoder import Decoder, execute
from tests.fuzz.decoders import ALL
from tests.fuzz.exempt import EXEMPT
from tests.fuzz.reached import reached


@pytest.fixture(scope="module")
def found() -> set[str]:
    return set(discovery.found())


@pytest.fixture(scope="module")
def run() -> set[str]:
    return reached(ALL)


def exempt(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in EXEMPT)


def test_what_looks_like_a_decoder_is_tried_or_says_why_not(found: set[str], run: set[str]) -> None:
    assert {name for name in found - run if not exempt(name)} == set()


def test_every_exemption_is_for_something_that_is_there(found: set[str]) -> None:
    assert [pattern for pattern in EXEMPT if not any(fnmatchcase(name, pattern) for name in found)] == []


def test_a_decoder_is_found_by_its_name_or_by_what_it_calls(found: set[str]) -> None:
    assert {"shared.encoding.from_b64url", "shared.jose.parse", "client.transport._shape"} <= found
    calls = "def harmless(data):\n    return json.loads(data)\n"
    named = "class A:\n    def decode_x(self, data):\n        return data\n"
    assert list(discovery._in_source(calls + named)) == ["harmless", "A.decode_x"]
    assert list(discovery._in_source("def harmless(data):\n    return len(data)\n")) == []


def test_names_are_unique() -> None:
    assert [name for name, count in Counter(decoder.name for decoder in ALL).items() if count > 1] == []


@pytest.mark.parametrize("decoder", ALL, ids=lambda decoder: decoder.name)
def test_samples_are_accepted(decoder: Decoder) -> None:
    """A decoder that refuses everything would pass every other test."""
    assert [sample[:60] for sample in decoder.samples if not execute(decoder, sample)] == []
