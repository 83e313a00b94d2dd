"""The command line without a network: help, usage, errors and the shape of its JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner, Result

from client import config
from client.cli import app
from client.cli.root import arrange
from client.keyring import Keyring
from client.keystore import LIGHT, create
from client.state import ClientState
from shared.wire import Role

NOBODY_LISTENS = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("PCEHR_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PCEHR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PCEHR_REGISTRY_URL", NOBODY_LISTENS)
    monkeypatch.setenv("PCEHR_PASSPHRASE", "a passphrase")
    return tmp_path / "home"


def invoke(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(app, list(arguments), **options)


def error_of(result: Result) -> dict[str, str]:
    document = json.loads(result.stdout)
    assert document.keys() == {"error"}
    assert document["error"].keys() == {"code", "detail", "hint"}
    assert all(document["error"].values())
    assert "Traceback" not in result.output
    return dict(document["error"])


def make_profile(role: Role, name: str = "default") -> Keyring:
    profile = config.profile(name)
    profile.make_folder()
    keyring = Keyring.generate()
    create(profile.keystore, keyring, "a passphrase", cost=LIGHT)
    state = ClientState(profile.state)
    state.role, state.registry_url = role, NOBODY_LISTENS
    state.save()
    return keyring


def all_commands() -> Iterator[tuple[str, ...]]:
    def walk(group: TyperGroup, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name, command in group.commands.items():
            if isinstance(command, TyperGroup):
                yield from walk(command, (*path, name))
            else:
                yield (*path, name)

    root = get_command(app)
    assert isinstance(root, TyperGroup)
    return walk(root, ())


@pytest.mark.parametrize("path", list(all_commands()), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    result = invoke(*path, "--help")
    assert result.exit_code == 0
    assert "Usage: pcehr" in result.output
    # A sentence of explanation, besides the usage.
    assert len(result.output.splitlines()) > 5


def test_the_commands_are_those_of_the_guide() -> None:
    names = {" ".join(path) for path in all_commands()}
    assert names >= {
        "up",
        "demo",
        "init",
        "restore",
        "card",
        "scopes add",
        "scopes map",
        "records add",
        "records amend",
        "records list",
        "records show",
        "records export",
        "requests new",
        "requests list",
        "requests deny",
        "approve",
        "share",
        "grants",
        "fetch",
        "revoke",
        "directory",
        "contacts list",
        "contacts add",
        "contacts remove",
        "proxies list",
        "proxies pin",
        "proxies forget",
        "watch",
        "token",
        "keys watch",
        "status",
        "audit",
        "rotate",
        "version",
    }


def test_the_first_run_explains_itself() -> None:
    result = invoke()
    assert result.exit_code == 0
    assert "pcehr demo" in result.stdout
    assert "pcehr init patient" in result.stdout
    assert "none yet" in result.stdout


def test_the_guide_as_json() -> None:
    make_profile(Role.PATIENT)
    document = json.loads(invoke("--json").stdout)
    assert document["profiles"] == ["default"]


@pytest.mark.parametrize("arguments", [["--json", "version"], ["version", "--json"]])
def test_json_may_stand_before_or_after_the_command(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 0
    assert json.loads(result.stdout).keys() == {"pcehr", "python", "umbral", "system"}


def test_version_for_people() -> None:
    assert invoke("version").stdout.startswith("pcehr 0.1.0 on Python")


@pytest.mark.parametrize("arguments", [["no-such-command"], ["approve"], ["revoke", "x", "--assumed-liars", "many"]])
def test_a_mistyped_command_is_status_2_with_one_json_document(arguments: list[str]) -> None:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 2
    assert error_of(result)["code"] == "usage"


def test_a_mistyped_command_for_people_names_the_help() -> None:
    result = invoke("no-such-command")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "--help" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["card"],
        ["records", "list"],
        ["records", "amend", "x", "file"],
        ["grants"],
        ["requests", "list"],
        ["audit"],
        ["rotate"],
        ["scopes"],
        ["token"],
        ["contacts", "list"],
        ["contacts", "add", "doctor", "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"],
        ["contacts", "remove", "doctor"],
        ["proxies", "list"],
        ["proxies", "pin"],
        ["proxies", "forget"],
    ],
)
def test_without_a_profile_the_error_says_how_to_make_one(arguments: list[str]) -> None:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 1
    error = error_of(result)
    assert error["code"] == "keystore_missing"
    assert "pcehr init" in error["hint"]


@pytest.mark.parametrize("arguments", [["status"], ["directory"], ["card"], ["init", "patient", "--yes"]])
def test_a_platform_that_is_away_is_said(arguments: list[str]) -> None:
    if arguments == ["card"]:
        make_profile(Role.PATIENT)
    result = invoke(*arguments, "--json")
    assert result.exit_code == 1
    error = error_of(result)
    assert error["code"] == "service_unreachable"
    assert "pcehr up" in error["hint"]


def test_init_makes_nothing_while_the_registry_is_away() -> None:
    assert invoke("init", "patient", "--yes").exit_code == 1
    assert config.profiles() == []


def test_init_does_not_overwrite_a_profile() -> None:
    make_profile(Role.PATIENT)
    assert error_of(invoke("init", "patient", "--yes", "--json"))["code"] == "keystore_exists"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nurse"],
        ["recipient"],
        ["patient", "--name", "Demo Patient"],
        ["recipient", "--name", "Demo\x1b[2J"],
        ["recipient", "--name", "Demo", "--organisation", "x\u202ey"],
    ],
    ids=["unknown role", "recipient without a name", "patient with a name", "control in a name", "reversed name"],
)
def test_init_refuses_what_no_role_allows(arguments: list[str]) -> None:
    assert error_of(invoke("init", *arguments, "--yes", "--json"))["code"] == "invalid_value"


@pytest.mark.parametrize(
    ("role", "arguments"),
    [
        (Role.RECIPIENT, ["scopes"]),
        (Role.RECIPIENT, ["audit"]),
        (Role.RECIPIENT, ["approve", "x", "--yes"]),
        (Role.RECIPIENT, ["revoke", "x"]),
        (Role.RECIPIENT, ["records", "amend", "x", "file"]),
        (Role.PATIENT, ["records", "amend", "x", "file", "--grant", "g"]),
        (Role.RECIPIENT, ["proxies", "list"]),
        (Role.RECIPIENT, ["proxies", "pin"]),
        (Role.RECIPIENT, ["proxies", "forget"]),
        (Role.PATIENT, ["fetch"]),
    ],
)
def test_a_command_of_the_other_role_is_refused(role: Role, arguments: list[str]) -> None:
    make_profile(role)
    error = error_of(invoke(*arguments, "--json"))
    assert error["code"] == "wrong_role"
    assert "--profile" in error["hint"]


def test_a_profile_is_chosen_by_name() -> None:
    make_profile(Role.RECIPIENT, "practice")
    assert error_of(invoke("audit", "--profile", "practice", "--json"))["code"] == "wrong_role"
    assert error_of(invoke("--profile", "other", "audit", "--json"))["code"] == "keystore_missing"
    assert error_of(invoke("audit", "--profile", "No Name", "--json"))["code"] == "invalid_profile"


def test_without_a_terminal_the_passphrase_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    make_profile(Role.PATIENT)
    monkeypatch.delenv("PCEHR_PASSPHRASE")
    assert error_of(invoke("card", "--json"))["code"] == "passphrase_needed"


def test_a_wrong_passphrase_is_refused(tmp_path: Path) -> None:
    make_profile(Role.PATIENT)
    file = tmp_path / "passphrase"
    file.write_text("another one\n")
    assert error_of(invoke("card", "--json", "--passphrase-file", str(file)))["code"] == "wrong_passphrase"


def test_the_passphrase_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_profile(Role.PATIENT)
    monkeypatch.delenv("PCEHR_PASSPHRASE")
    file = tmp_path / "passphrase"
    file.write_text("a passphrase\n")
    # The keystore opens, and what is missing is the platform.
    assert error_of(invoke("card", "--json", "--passphrase-file", str(file)))["code"] == "service_unreachable"


def test_words_that_are_no_words_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "words"
    file.write_text("abandon " * 24)
    assert error_of(invoke("restore", "--words-file", str(file), "--json"))["code"] == "invalid_words"


def test_a_token_for_an_unknown_service_is_refused() -> None:
    make_profile(Role.PATIENT)
    assert error_of(invoke("token", "--service", "everything", "--json"))["code"] == "invalid_value"


@pytest.mark.parametrize(
    "arguments",
    [
        ["requests", "new", "Demo Patient", "--scope", "allergies", "--reason", "x"],
        ["share", "did:key:zzz", "--scope", "allergies"],
    ],
)
def test_something_that_is_no_id_of_a_party_is_refused(arguments: list[str]) -> None:
    make_profile(Role.RECIPIENT if arguments[0] == "requests" else Role.PATIENT)
    error = error_of(invoke(*arguments, "--json"))
    assert error["code"] == "invalid_value"
    assert "did:key:" in error["detail"]


@pytest.mark.parametrize("name", ["", "did:key:z6Mk", "doc\u202etor", "x" * 121])
def test_a_name_that_is_none_is_refused_for_a_contact(name: str) -> None:
    make_profile(Role.PATIENT)
    error = error_of(invoke("contacts", "add", name, Keyring.generate().did, "--json"))
    assert error["code"] == "invalid_value"


def test_a_contact_is_a_party() -> None:
    make_profile(Role.PATIENT)
    error = error_of(invoke("contacts", "add", "doctor", "Demo Practice", "--json"))
    assert error["code"] == "invalid_value"
    assert "did:key:" in error["detail"]


def test_a_name_of_another_contact_is_refused() -> None:
    make_profile(Role.PATIENT)
    state = ClientState.load(config.profile("default").state)
    state.contacts["doctor"] = Keyring.generate().did
    state.save()
    error = error_of(invoke("contacts", "add", "doctor", Keyring.generate().did, "--json"))
    assert error["code"] == "contact_exists"
    assert "pcehr contacts remove" in error["hint"]


def test_a_contact_is_removed_without_a_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    make_profile(Role.PATIENT)
    monkeypatch.delenv("PCEHR_PASSPHRASE")
    did = Keyring.generate().did
    state = ClientState.load(config.profile("default").state)
    state.contacts["doctor"] = did
    state.save()
    removed = invoke("contacts", "remove", "doctor", "--json")
    assert json.loads(removed.stdout) == {"name": "doctor", "did": did}
    assert ClientState.load(config.profile("default").state).contacts == {}
    error = error_of(invoke("contacts", "remove", "doctor", "--json"))
    assert error["code"] == "unknown_contact"
    assert "pcehr contacts list" in error["hint"]


def test_status_lists_profiles_only_of_this_machine() -> None:
    make_profile(Role.PATIENT)
    result = invoke("status", "--registry", NOBODY_LISTENS)
    assert result.exit_code == 1
    assert "could not be reached" in result.stderr


def test_a_demo_with_a_file_that_is_no_bundle_says_so(tmp_path: Path) -> None:
    file = tmp_path / "bundle.json"
    file.write_text('{"resourceType": "Patient"}')
    assert error_of(invoke("demo", "--bundle", str(file), "--json"))["code"] == "not_a_bundle"


def test_a_home_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = error_of(invoke("up", "--home", str(tmp_path / "file"), "--json"))
    assert error["code"] == "broken_home"


def test_an_unexpected_error_shows_kind_and_place_and_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail() -> Path:
        raise ZeroDivisionError("a secret text")

    monkeypatch.setattr(config, "profiles", fail)
    error = error_of(invoke("--json"))
    assert error["code"] == "internal_error"
    assert "ZeroDivisionError at test_commands.py" in error["detail"]
    assert "secret" not in json.dumps(error)
    assert "PCEHR_DEBUG=1" in error["hint"]


def test_python_m_client_is_the_same_program() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "client", "version", "--json"], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(answer.stdout)["pcehr"] == "0.1.0"
    assert answer.stderr == ""


def test_colours_are_left_out_where_they_are_not_wanted() -> None:
    assert "\x1b" not in invoke("no-such-command", env={"NO_COLOR": "1", "FORCE_COLOR": ""}).stderr


def test_global_options_are_found_anywhere() -> None:
    assert arrange(["records", "list", "--json", "--profile", "x", "--registry=y"]) == [
        "--json",
        "--profile",
        "x",
        "--registry=y",
        "records",
        "list",
    ]


def test_after_two_hyphens_nothing_is_an_option() -> None:
    assert arrange(["records", "add", "--", "--json"]) == ["records", "add", "--", "--json"]


def test_an_id_that_begins_with_a_hyphen_is_no_option() -> None:
    assert arrange(["approve", "-" + "a" * 42]) == ["approve", "a" * 42]
    assert arrange(["fetch", "-o", "file"]) == ["fetch", "-o", "file"]
