"""Where a person's data lives, and which registry is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from client import config
from client.errors import InvalidProfile, UnexpectedAnswer
from client.state import ClientState


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PCEHR_HOME", str(tmp_path))
    monkeypatch.delenv("PCEHR_REGISTRY_URL", raising=False)


def test_the_home_is_what_the_environment_says(tmp_path: Path) -> None:
    assert config.home() == tmp_path


def test_without_it_root_has_the_systems_folder_and_others_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PCEHR_HOME")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert config.home() == Path("/var/lib/pcehr")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert config.home().name == "pcehr"
    assert config.home() != Path("/var/lib/pcehr")


def test_a_profile_is_a_folder_closed_to_others(tmp_path: Path) -> None:
    profile = config.profile("doctor")
    assert profile.keystore == tmp_path / "profiles" / "doctor" / "keystore.json"
    assert profile.state == tmp_path / "profiles" / "doctor" / "state.db"
    assert config.profiles() == []
    profile.make_folder()
    assert profile.folder.stat().st_mode & 0o077 == 0
    assert not profile.exists
    profile.keystore.touch()
    assert [found.name for found in config.profiles()] == ["doctor"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "x" * 65, ".hidden", "a b", "/etc"])
def test_a_name_that_leaves_the_folder_is_refused(name: str) -> None:
    with pytest.raises(InvalidProfile):
        config.profile(name)


def test_the_registry_is_found_by_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.registry_url() == "http://127.0.0.1:8400"
    config.platform_file().write_text('{"registry_url": "http://running", "pid": 1}')
    assert config.registry_url() == "http://running"
    state = ClientState()
    assert config.registry_url(None, state) == "http://running"
    state.registry_url = "http://profile/"
    assert config.registry_url(None, state) == "http://profile"
    monkeypatch.setenv("PCEHR_REGISTRY_URL", "http://environment")
    assert config.registry_url(None, state) == "http://environment"
    assert config.registry_url("http://flag/", state) == "http://flag"


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 50_000])
def test_a_platform_file_that_is_none_is_refused(text: str) -> None:
    config.platform_file().write_text(text)
    with pytest.raises(UnexpectedAnswer):
        config.registry_url()
