"""`pcehr keys` and `pcehr keys watch`, over a platform in memory."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import stamina
from typer.testing import CliRunner, Result

from client import config, key_watch
from client.cli import app, context, keys
from client.keyring import Keyring
from client.keystore import LIGHT, create
from client.patient import Patient
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from shared.clock import system_clock
from shared.encoding import b64url, sha256
from shared.transparency.entries import key_entry_data, key_label, scope_label
from shared.wire import Role
from tests.unit.client.hiding import note
from tests.unit.client.world import REGISTRY, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for name in [name for name in os.environ if name.startswith("PCEHR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PCEHR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PCEHR_PASSPHRASE", "a passphrase")
    monkeypatch.setattr(key_watch, "_PAUSE", 0.0)
    world = World()
    # The commands go by the clock of the machine.
    world.clock.now = system_clock()

    def platform(_: str) -> Platform:
        return Platform(REGISTRY, clock=world.clock, transport=httpx.MockTransport(world.answer))

    monkeypatch.setattr(context, "Platform", platform)
    return world


def profile_of(world: World, role: Role) -> Session:
    """A party with a profile on this machine, signed up; a patient has stored a record."""
    keyring = Keyring.generate()
    profile = config.profile("default")
    profile.make_folder()
    create(profile.keystore, keyring, "a passphrase", cost=LIGHT)
    session = world.session(keyring, ClientState.load(profile.state))

    async def live() -> None:
        if role is Role.PATIENT:
            owner = Patient(session, known_scopes=["allergies"])
            await owner.sign_up()
            await owner.add_records([note("penicillin")])
        else:
            await session.sign_up(role, name="Demo Practice")
        await session.rotate_keys()
        session.state.save()

    with stamina.set_testing(True, attempts=1):
        asyncio.run(live())
    return session


def invoke(*arguments: str) -> Result:
    with stamina.set_testing(True, attempts=1):
        return CliRunner().invoke(app, list(arguments))


def document(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(invoke(*arguments, "--json").stdout)
    return found


def test_a_patients_keys_are_listed_with_their_places(world: World) -> None:
    session = profile_of(world, Role.PATIENT)
    listed = document("keys")
    assert listed["log_size"] == len(world.key_log.datas)
    assert [(one["kind"], one["number"]) for one in listed["keys"][:2]] == [("key-entry", 0), ("key-entry", 1)]
    assert {"kind": "scope-key", "scope": "allergies", "number": 0}.items() <= listed["keys"][2].items()
    for one in listed["keys"][:2]:
        data = key_entry_data(key_label(session.did), one["statement"])
        assert world.key_log.datas[one["place"]] == data
    result = invoke("keys")
    assert result.exit_code == 0, result.output
    assert "scope-key allergies" in result.output


def test_a_recipients_keys_are_listed_too(world: World) -> None:
    profile_of(world, Role.RECIPIENT)
    assert [one["number"] for one in document("keys")["keys"]] == [0, 1]


@pytest.mark.parametrize("role", [Role.PATIENT, Role.RECIPIENT])
def test_watching_an_honest_log_finds_nothing(world: World, role: Role) -> None:
    profile_of(world, role)
    result = invoke("keys", "watch", "--once")
    assert result.exit_code == 0, result.output
    assert "nothing in your name that is not yours" in " ".join(result.output.split())
    shown = document("keys", "watch", "--once")
    assert (shown["findings"], shown["read"], shown["log_size"]) == ([], 0, len(world.key_log.datas))
    assert shown["witnesses"] == {proxy.did: "agrees" for proxy in world.proxies}


def test_watching_finds_a_key_in_ones_own_name(world: World) -> None:
    session = profile_of(world, Role.PATIENT)
    statement = b64url(sha256(b"another"))
    world.key_log.append(key_entry_data(key_label(session.did), statement))
    result = invoke("keys", "watch", "--once")
    assert result.exit_code == keys.FOUND
    assert "foreign_key_entry" in result.output
    (found,) = document("keys", "watch", "--once")["findings"]
    assert (found["did"], found["statement"]) == (session.did, statement)
    assert found["place"] == len(world.key_log.datas) - 1


def test_watching_goes_on_until_it_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One document a line; while the registry is away, it waits."""
    profile_of(world, Role.RECIPIENT)
    pauses = 0

    async def pause(_: float) -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 1:
            world.fail = away
        elif pauses == 2:
            world.fail = lambda _: None
        else:
            raise KeyboardInterrupt

    def away(request: httpx.Request) -> None:
        raise httpx.ConnectError("away", request=request)

    monkeypatch.setattr(keys, "_wait", pause)
    result = invoke("keys", "watch", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()[:2]]
    assert [line["read"] for line in lines] == [len(world.key_log.datas), 0]
    assert pauses == 3


def test_watching_once_says_that_the_registry_is_away(world: World) -> None:
    profile_of(world, Role.RECIPIENT)

    def away(request: httpx.Request) -> None:
        raise httpx.ConnectError("away", request=request)

    world.fail = away
    assert document("keys", "watch", "--once")["error"]["code"] == "service_unreachable"


def test_watching_needs_the_registry_alone(world: World) -> None:
    session = profile_of(world, Role.PATIENT)

    def away(request: httpx.Request) -> None:
        if request.url.host == "records.test":
            raise httpx.ConnectError("away", request=request)

    world.fail = away
    assert document("keys", "watch", "--once")["findings"] == []
    statement = b64url(sha256(b"another"))
    scope_id = session.keyring.scope_id("allergies")
    world.key_log.append(key_entry_data(scope_label(session.did, scope_id), statement))
    (found,) = document("keys", "watch", "--once")["findings"]
    assert (found["code"], found["scope"], found["statement"]) == ("foreign_key_entry", "allergies", statement)
