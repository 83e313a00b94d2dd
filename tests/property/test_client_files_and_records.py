"""Round trips and hostile bytes on the client's side."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client import keystore
from client.errors import InvalidWords, KeystoreDamaged, StateDamaged, WrongPassphrase
from client.header import RecordHeader
from client.keyring import Keyring
from client.records import open_record, unwrap_as_owner
from client.reports import Override, Settings
from client.settings_record import from_body, to_record
from client.state import ClientState
from client.verification import check_record
from shared.crypto.derivation import Seed
from shared.errors import Malformed
from shared.wire import Role
from tests.unit.client.parties import Party, sealed, shown

NAMES = st.from_regex(r"[a-z0-9]{1,10}(-[a-z0-9]{1,10}){0,3}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100)
PATIENT = Party(Role.PATIENT)


@given(st.binary(min_size=32, max_size=32))
def test_words_and_seed_are_one_and_the_same(seed: bytes) -> None:
    keyring = Keyring(Seed.from_bytes(seed))
    assert Keyring.from_words(keyring.words()).reveal_seed() == seed


@given(st.data())
def test_words_in_another_order_are_other_words_or_refused(data: st.DataObject) -> None:
    keyring = Keyring(Seed.from_bytes(data.draw(st.binary(min_size=32, max_size=32))))
    shuffled = data.draw(st.permutations(keyring.words().split()))
    try:
        other = Keyring.from_words(" ".join(shuffled))
    except InvalidWords:
        return
    assert (other.did == keyring.did) == (" ".join(shuffled) == keyring.words())


@given(st.text(max_size=200))
def test_any_text_is_words_or_invalid_words(text: str) -> None:
    with contextlib.suppress(InvalidWords):
        Keyring.from_words(text)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=2000))
def test_a_body_comes_back_as_it_was(body: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        record = sealed(PATIENT, Path(folder), body=body)
    verified = check_record(shown(record), patient=PATIENT.party, author=PATIENT.party)
    key = unwrap_as_owner(verified, PATIENT.keyring.delegating("allergies", 0))
    assert open_record(verified, key, scope="allergies").body == body


@given(
    st.builds(
        RecordHeader,
        length=st.integers(0, 2**40),
        media_type=TEXTS,
        title=st.none() | TEXTS,
        date=st.none() | st.text("0123456789-", min_size=1, max_size=64),
        full_url=st.none() | TEXTS,
        filename=st.none() | TEXTS,
    )
)
def test_a_header_comes_back_as_it_was(header: RecordHeader) -> None:
    assert RecordHeader.from_json(header.to_json()) == header


@given(
    st.dictionaries(
        st.sampled_from(["length", "media_type", "title", "more"]), st.none() | st.integers() | st.text(max_size=5)
    )
)
def test_members_that_are_no_header_are_malformed(members: dict[str, object]) -> None:
    try:
        header = RecordHeader.from_json(members)
    except Malformed:
        return
    assert header.to_json() == members


@given(
    st.dictionaries(NAMES, TEXTS, max_size=5),
    st.lists(st.builds(Override, scope=NAMES, resource_type=st.none() | TEXTS, code=st.none() | TEXTS), max_size=5),
)
def test_settings_come_back_as_they_were(scopes: dict[str, str], overrides: list[Override]) -> None:
    before = Settings(scopes=scopes, overrides=tuple(overrides))
    body = to_record(before).body
    assert isinstance(body, bytes)
    assert from_body(body) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_any_file_is_a_state_or_damaged(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(data)
    with pytest.raises(StateDamaged):
        ClientState.load(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), value=st.integers(1, 255))
def test_any_changed_byte_keeps_a_keystore_closed(tmp_path: Path, place: int, value: int) -> None:
    path = tmp_path / "keystore.json"
    path.unlink(missing_ok=True)
    keystore.create(path, PATIENT.keyring, "passphrase", cost=keystore.LIGHT)
    data = bytearray(path.read_bytes())
    data[place % (len(data) - 1)] ^= value
    path.write_bytes(bytes(data))
    with pytest.raises((KeystoreDamaged, WrongPassphrase)):
        keystore.load(path, "passphrase")
