"""The seed on disk: only the passphrase opens it, nobody can change it unnoticed, nothing is ever overwritten."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from client import keystore
from client.errors import (
    ClientError,
    KeystoreDamaged,
    KeystoreExists,
    KeystoreExposed,
    KeystoreMissing,
    WrongPassphrase,
)
from client.keyring import Keyring
from shared.encoding import canonical_json


@pytest.fixture(scope="module")
def keyring() -> Keyring:
    return Keyring.generate()


@pytest.fixture
def path(tmp_path: Path, keyring: Keyring) -> Path:
    made = tmp_path / "keystore.json"
    keystore.create(made, keyring, "correct horse", cost=keystore.LIGHT)
    return made


def change(path: Path, *place: str, value: Any) -> None:
    contents = json.loads(path.read_text())
    inner = contents
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    path.write_bytes(canonical_json(contents))


def test_round_trip(path: Path, keyring: Keyring) -> None:
    assert keystore.load(path, "correct horse").words() == keyring.words()
    assert keystore.did_of(path) == keyring.did


def test_the_file_holds_neither_seed_nor_words(path: Path, keyring: Keyring) -> None:
    data = path.read_bytes()
    assert keyring.reveal_seed() not in data
    assert keyring.words().split()[0].encode() + b" " not in data
    assert keyring.reveal_seed().hex().encode() not in data


def test_only_the_owner_may_read_it(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_else_is_left_in_the_folder(path: Path) -> None:
    assert [entry.name for entry in path.parent.iterdir()] == ["keystore.json"]


def test_passphrases_typed_on_other_keyboards_are_the_same(tmp_path: Path, keyring: Keyring) -> None:
    path = tmp_path / "k.json"
    keystore.create(path, keyring, "Zu\u0308rich", cost=keystore.LIGHT)
    assert keystore.load(path, "Z\u00fcrich").did == keyring.did


@pytest.mark.parametrize("passphrase", ["", "Correct horse", "correct horse ", "\ud800"])
def test_wrong_passphrase_is_refused(path: Path, passphrase: str) -> None:
    with pytest.raises(WrongPassphrase) as refusal:
        keystore.load(path, passphrase)
    assert "words" in refusal.value.hint


def test_a_missing_keystore_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeystoreMissing):
        keystore.load(tmp_path / "nothing.json", "x")


def test_an_existing_keystore_is_never_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(KeystoreExists):
        keystore.create(path, Keyring.generate(), "other", cost=keystore.LIGHT)
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o606])
def test_a_keystore_that_others_may_touch_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(KeystoreExposed) as refusal:
        keystore.load(path, "correct horse")
    assert "chmod 600" in refusal.value.hint


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("header", "v"), 2),
        (("header", "kind"), "other"),
        (("header", "kdf"), "scrypt"),
        (("header", "operations"), 0),
        (("header", "operations"), 17),
        (("header", "memory"), 1024),
        (("header", "memory"), 2**40),
        (("header", "memory"), "268435456"),
        (("header", "salt"), "short"),
        (("header", "extra"), 1),
        (("header", "did"), "did:key:nobody"),
        (("sealed",), "AAAA"),
        (("sealed",), None),
        (("extra",), 1),
    ],
)
def test_a_keystore_of_another_form_is_refused(path: Path, place: tuple[str, ...], value: Any) -> None:
    change(path, *place, value=value)
    with pytest.raises(KeystoreDamaged):
        keystore.load(path, "correct horse")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("header", "operations"), 2),
        (("header", "memory"), 9 * 2**20),
        (("header", "salt"), "AAAAAAAAAAAAAAAAAAAAAA"),
        (("header", "did"), Keyring.generate().did),
        (("sealed",), "A" * 96),
    ],
    ids=["operations", "memory", "salt", "did", "ciphertext"],
)
def test_a_changed_header_or_ciphertext_does_not_open(path: Path, place: tuple[str, ...], value: Any) -> None:
    change(path, *place, value=value)
    with pytest.raises(WrongPassphrase):
        keystore.load(path, "correct horse")


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"{" * 5000, b"x" * 10_000, b"null"])
def test_a_file_that_is_no_keystore_is_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(KeystoreDamaged):
        keystore.load(path, "correct horse")


def test_a_second_spelling_of_the_same_keystore_is_refused(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    with pytest.raises(KeystoreDamaged):
        keystore.load(path, "correct horse")


def test_one_partys_seed_under_anothers_header_does_not_open(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "other.json"
    keystore.create(other, Keyring.generate(), "correct horse", cost=keystore.LIGHT)
    change(path, "sealed", value=json.loads(other.read_text())["sealed"])
    with pytest.raises(WrongPassphrase):
        keystore.load(path, "correct horse")


def test_changing_the_passphrase(path: Path, keyring: Keyring) -> None:
    keystore.change_passphrase(path, "correct horse", "battery staple", cost=keystore.LIGHT)
    with pytest.raises(WrongPassphrase):
        keystore.load(path, "correct horse")
    assert keystore.load(path, "battery staple").did == keyring.did
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_changing_the_passphrase_needs_the_old_one(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(WrongPassphrase):
        keystore.change_passphrase(path, "wrong", "new", cost=keystore.LIGHT)
    assert path.read_bytes() == before


def test_moderate_cost_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "default.json"
    keystore.create(path, Keyring.generate(), "x")
    header = json.loads(path.read_text())["header"]
    assert (header["operations"], header["memory"]) == (3, 256 * 2**20)


def test_every_refusal_says_what_to_do() -> None:
    for kind in (KeystoreDamaged, KeystoreExists, KeystoreExposed, KeystoreMissing, WrongPassphrase):
        error: ClientError = kind()
        assert error.hint.endswith(".")
        assert error.detail
