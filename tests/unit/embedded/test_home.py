"""The folder of a platform: its lock, its secrets, its layout."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest

from client.embedded.errors import AlreadyRunning, BrokenHome, HomeMismatch
from client.embedded.home import Home, free_ports, port_is_free


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.lock()
    return made


def test_a_home_that_is_in_use_is_refused_and_says_by_whom(home: Home) -> None:
    home.write_state({"pid": 4711, "registry_url": "http://127.0.0.1:8400"})
    with pytest.raises(AlreadyRunning) as refusal:
        Home(home.path).lock()
    assert "process 4711" in refusal.value.detail
    assert "http://127.0.0.1:8400" in refusal.value.detail
    assert "--home" in refusal.value.detail


def test_a_home_can_be_taken_again_after_it_was_given_back(home: Home) -> None:
    home.write_state({"pid": 1, "registry_url": ""})
    home.unlock()
    assert not home.state_path.exists()
    Home(home.path).lock()


def test_what_a_killed_platform_said_of_itself_is_taken_away(home: Home) -> None:
    home.unlock()
    home.write_state({"pid": 1, "registry_url": ""})
    other = Home(home.path)
    other.lock()
    assert not other.state_path.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokenHome, match="file"):
        Home(tmp_path / "file" / "home").lock()


def test_secrets_are_made_once_and_only_their_owner_reads_them(home: Home) -> None:
    secret = home.secret("proxy-1", "pcehr_seed")
    assert len(secret) == 32
    assert home.secret("proxy-1", "pcehr_seed") == secret
    assert home.secret("proxy-2", "pcehr_seed") != secret
    folder = home.secrets_dir("proxy-1")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "pcehr_seed").stat().st_mode) == 0o600


def test_a_damaged_secret_is_never_replaced(home: Home) -> None:
    home.put_secret("proxy-1", "pcehr_seed", "too short")
    with pytest.raises(BrokenHome, match="pcehr_seed"):
        home.secret("proxy-1", "pcehr_seed")


def test_ports_follow_the_first_one(home: Home) -> None:
    layout = home.layout(proxies=3, base_port=9400, external_database=False)
    assert layout.ports == (9400, 9401, 9411, 9412, 9413)


@pytest.mark.parametrize("change", [{"base_port": "9400"}, {"proxy_ports": [None]}, {"database_prefix": 5}], ids=str)
def test_a_damaged_layout_is_refused(home: Home, change: dict[str, object]) -> None:
    home.layout(proxies=3, base_port=9400, external_database=False)
    layout = home.path / "layout.json"
    layout.write_text(json.dumps(json.loads(layout.read_text()) | change))
    with pytest.raises(BrokenHome):
        home.layout(proxies=None, base_port=None, external_database=False)


def test_free_ports_stay_the_same(home: Home) -> None:
    first = home.layout(proxies=3, base_port=None, external_database=False)
    assert len(set(first.ports)) == 5
    assert home.layout(proxies=None, base_port=None, external_database=False) == first


def test_the_number_of_proxies_may_grow(home: Home) -> None:
    first = home.layout(proxies=2, base_port=9400, external_database=False)
    grown = home.layout(proxies=4, base_port=9400, external_database=False)
    assert grown.proxy_ports == (*first.proxy_ports, 9413, 9414)


def test_the_number_of_proxies_may_not_shrink(home: Home) -> None:
    home.layout(proxies=3, base_port=9400, external_database=False)
    with pytest.raises(HomeMismatch, match="may grow and not shrink"):
        home.layout(proxies=2, base_port=9400, external_database=False)


def test_other_ports_are_refused(home: Home) -> None:
    home.layout(proxies=3, base_port=9400, external_database=False)
    with pytest.raises(HomeMismatch, match="signed their addresses"):
        home.layout(proxies=3, base_port=9500, external_database=False)


def test_another_database_is_refused(home: Home) -> None:
    home.layout(proxies=3, base_port=9400, external_database=False)
    with pytest.raises(HomeMismatch, match="embedded Postgres"):
        home.layout(proxies=3, base_port=9400, external_database=True)


@pytest.mark.parametrize("proxies", [0, 17])
def test_a_number_of_proxies_out_of_range_is_refused(home: Home, proxies: int) -> None:
    with pytest.raises(HomeMismatch):
        home.layout(proxies=proxies, base_port=9400, external_database=False)


@pytest.mark.parametrize("port", [80, 65_500])
def test_a_port_out_of_range_is_refused(home: Home, port: int) -> None:
    with pytest.raises(HomeMismatch):
        home.layout(proxies=3, base_port=port, external_database=False)


def test_a_damaged_layout_is_named(home: Home) -> None:
    (home.path / "layout.json").write_text(json.dumps({"base_port": 1}))
    with pytest.raises(BrokenHome, match=r"layout\.json"):
        home.layout(proxies=3, base_port=None, external_database=False)


def test_homes_with_an_external_database_do_not_share_names(tmp_path: Path) -> None:
    prefixes = set()
    for name in ("a", "b"):
        home = Home(tmp_path / name)
        home.lock()
        prefixes.add(home.layout(proxies=3, base_port=None, external_database=True).database_prefix)
    assert len(prefixes) == 2


def test_a_port_in_use_is_seen() -> None:
    port = free_ports(1)[0]
    assert port_is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not port_is_free(port)
