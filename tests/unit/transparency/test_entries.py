"""What the leaves hold: labels and statement ids, events in their one form, and commitments that hide them."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.encoding import b64url
from shared.errors import Malformed, PcehrError, TooLarge
from shared.transparency.entries import (
    MAX_EVENT_BYTES,
    Event,
    commitment,
    key_entry_data,
    key_label,
    parse_event,
    scope_label,
    split_key_entry,
)
from shared.wire import MAX_CAPSULES
from tests.unit.transparency.trees import DIDS, NOW, unhurried

HASH = b64url(bytes(range(32)))
SCOPE = b64url(bytes(range(16)))


def event(**changed: Any) -> Event:
    members: dict[str, Any] = {
        "subject": DIDS[0],
        "n": 2,
        "prev": HASH,
        "at": NOW,
        "event": "disclosure",
        "outcome": "done",
        "actor": DIDS[1],
        "grant": HASH,
        "statement": HASH,
        "capsules": (HASH, HASH),
    }
    return Event(**(members | changed))


class TestLabels:
    def test_labels_are_hashes_of_text(self) -> None:
        did = DIDS[0].encode()
        assert key_label(DIDS[0]) == sha256(b"pcehr/v1/label\x00" + did).digest()
        assert scope_label(DIDS[0], SCOPE) == sha256(b"pcehr/v1/label\x00" + did + b"\x00" + SCOPE.encode()).digest()

    def test_a_leaf_of_the_registry_is_label_and_statement_id(self) -> None:
        label = key_label(DIDS[0])
        data = key_entry_data(label, HASH)
        assert data == label + bytes(range(32))
        assert split_key_entry(data) == (label, HASH)

    @pytest.mark.parametrize("did", ["", "did:web:example.com", DIDS[0] + "\x00" + SCOPE, DIDS[0][:-1]])
    def test_a_label_of_what_is_no_party_is_refused(self, did: str) -> None:
        with pytest.raises(Malformed):
            key_label(did)
        with pytest.raises(Malformed):
            scope_label(did, SCOPE)

    @pytest.mark.parametrize("scope_id", ["", "mental-health", SCOPE[:-1], SCOPE + "A", SCOPE + "=="])
    def test_a_label_of_what_is_no_scope_id_is_refused(self, scope_id: str) -> None:
        with pytest.raises(Malformed):
            scope_label(DIDS[0], scope_id)

    @pytest.mark.parametrize("size", [0, 31, 33])
    def test_another_length_is_refused(self, size: int) -> None:
        with pytest.raises(Malformed):
            key_entry_data(bytes(size), HASH)
        with pytest.raises(Malformed):
            key_entry_data(bytes(32), b64url(bytes(size)))
        with pytest.raises(Malformed):
            split_key_entry(bytes(size + 32))


class TestCommitments:
    def test_a_commitment_is_the_hash_of_the_specification(self) -> None:
        salt, canonical = bytes(range(32)), event().canonical()
        assert commitment(salt, canonical) == sha256(b"pcehr/v1/event\x00" + salt + canonical).digest()

    def test_it_depends_on_salt_and_event(self) -> None:
        canonical = event().canonical()
        assert commitment(bytes(32), canonical) != commitment(b"\x01" + bytes(31), canonical)
        assert commitment(bytes(32), canonical) != commitment(bytes(32), event(n=3).canonical())

    @pytest.mark.parametrize("size", [0, 31, 33])
    def test_a_salt_of_another_length_is_refused(self, size: int) -> None:
        """Otherwise bytes could move between salt and event, and one commitment would stand for two events."""
        with pytest.raises(Malformed):
            commitment(bytes(size), event().canonical())


class TestEvents:
    @pytest.mark.parametrize(
        "changed",
        [
            {},
            {"n": 1, "prev": None},
            {"outcome": "grant_revoked"},
            {"event": "body-fetched"},
            {"actor": None, "grant": None, "statement": None, "capsules": None},
            {"capsules": (HASH,) * MAX_CAPSULES},
        ],
    )
    def test_an_event_is_read_as_it_was_written(self, changed: dict[str, Any]) -> None:
        written = event(**changed)
        assert parse_event(written.canonical()) == parse_event(written.canonical().decode()) == written
        assert b"null" not in written.canonical()

    def test_the_canonical_form(self) -> None:
        written = event(n=1, prev=None, actor=None, grant=None, statement=None, capsules=(HASH,))
        assert written.canonical().decode() == (
            f'{{"at":{NOW},"capsules":["{HASH}"],"event":"disclosure","n":1,"outcome":"done","subject":"{DIDS[0]}","v":1}}'
        )

    @pytest.mark.parametrize(
        "changed",
        [
            {"v": 2},
            {"subject": "urn:pcehr:records"},
            {"n": 0},
            {"n": -1},
            {"n": 2**53},
            {"n": True},
            {"prev": None},
            {"n": 1},
            {"prev": HASH + "A"},
            {"prev": "*" * 43},
            {"at": -1},
            {"at": 2**41},
            {"at": 1.5},
            {"event": ""},
            {"event": "Disclosure"},
            {"event": "two words"},
            {"event": "line\n"},
            {"event": "x" * 65},
            {"outcome": "grant revoked"},
            {"actor": "somebody"},
            {"grant": "1"},
            {"statement": SCOPE},
            {"capsules": ()},
            {"capsules": (HASH,) * (MAX_CAPSULES + 1)},
            {"capsules": (SCOPE,)},
            {"patient": DIDS[0]},
        ],
    )
    def test_an_event_with_a_wrong_member_is_refused(self, changed: dict[str, Any]) -> None:
        with pytest.raises((ValidationError, Malformed)):
            event(**changed)
        members = event().model_dump(mode="json") | changed
        text = json.dumps({name: members[name] for name in sorted(members) if members[name] is not None})
        with pytest.raises(Malformed):
            parse_event(text.replace(": ", ":").replace(", ", ","))

    def test_other_spellings_are_refused(self) -> None:
        text = event().canonical().decode()
        short = event(grant=None).canonical().decode()
        for other in (
            "",
            "[]",
            "null",
            text + " ",
            text.replace(":", ": ", 1),
            text.replace("disclosure", "disclosur\\u0065"),
            text.replace('"v":1', '"v":1,"v":1'),
            text.replace('"v":1', '"v":1.0'),
            text.replace('"v":1', '"v":"1"'),
            short.replace('"n":2', '"grant":null,"n":2'),
            text.replace("{", "{" + '"a":' + "[" * 20),
            "\ud800",
        ):
            with pytest.raises(Malformed):
                parse_event(other)

    def test_a_text_beyond_the_bound_is_refused(self) -> None:
        largest = event(capsules=(HASH,) * MAX_CAPSULES, event="x" * 64, outcome="x" * 64).canonical()
        assert len(largest) < MAX_EVENT_BYTES
        with pytest.raises(TooLarge):
            parse_event(b" " * (MAX_EVENT_BYTES + 1))

    @unhurried
    @given(st.one_of(st.binary(max_size=200), st.text(max_size=200), st.text(max_size=50).map('{{"v":1,{}}}'.format)))
    def test_hostile_bytes_are_refused(self, text: str | bytes) -> None:
        with pytest.raises(PcehrError):
            parse_event(text)
