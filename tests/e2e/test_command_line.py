"""The command line as people use it: separate programs, passphrases, files, and one JSON document for machines."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from client.embedded.platform import EmbeddedPlatform
from client.fhir.bundle import read_bundle, same_resource

BUNDLE = Path(__file__).parents[2] / "client" / "fhir" / "demo_bundle.json"


@dataclass
class Terminal:
    """Runs `pcehr` with a home of its own; each profile is a party."""

    home: Path
    registry: str

    async def run(self, *arguments: str, profile: str | None = None, status: int = 0) -> Any:
        words = [*arguments, "--json", "--registry", self.registry, *(["--profile", profile] if profile else [])]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "client", *words),
            env={**os.environ, "PCEHR_HOME": str(self.home), "PCEHR_PASSPHRASE": "correct horse battery staple"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == status, (arguments, out[-500:], err[-500:])
        return json.loads(out)


@pytest.fixture
def terminal(platform: EmbeddedPlatform, tmp_path: Path) -> Terminal:
    return Terminal(tmp_path / "home", platform.registry_url)


async def test_the_flow_of_the_readme(terminal: Terminal, tmp_path: Path) -> None:
    alice = await terminal.run("init", "patient", "--yes", profile="alice")
    await terminal.run("init", "recipient", "--name", "Demo Practice", "--yes", profile="practice")
    await terminal.run("records", "add", str(BUNDLE), profile="alice")
    did = (await terminal.run("card", profile="alice"))["did"]
    asked = ["--scope", "allergies", "--scope", "medications", "--reason", "Planned treatment"]
    await terminal.run("requests", "new", did, *asked, profile="practice")
    [request] = (await terminal.run("requests", "list", profile="alice"))["requests"]
    await terminal.run("approve", request["id"], "--scope", "allergies", "--expires", "30d", profile="alice")

    opened = tmp_path / "opened.json"
    await terminal.run("fetch", "-o", str(opened), profile="practice")
    originals = {item.resource["id"]: item.resource for item in read_bundle(BUNDLE.read_bytes())}
    items = read_bundle(opened.read_bytes())
    assert {item.resource["resourceType"] for item in items} == {"AllergyIntolerance"}
    assert all(same_resource(item.resource, originals[item.resource["id"]]) for item in items)

    exported = tmp_path / "exported.json"
    await terminal.run("records", "export", "-o", str(exported), profile="alice")
    everything = read_bundle(exported.read_bytes())
    assert len(everything) == len(originals)
    assert all(same_resource(item.resource, originals[item.resource["id"]]) for item in everything)

    [grant] = (await terminal.run("grants", profile="alice"))["grants"]
    revoked = await terminal.run("revoke", grant["id"], profile="alice")
    assert revoked["state"] == "sealed"
    refused = await terminal.run("fetch", grant["id"], profile="practice", status=1)
    assert refused["error"]["code"] == "grant_revoked"
    assert refused["error"]["hint"]

    words = tmp_path / "words.txt"
    words.write_text(" ".join(alice["words"]) if isinstance(alice["words"], list) else alice["words"], "utf-8")
    await terminal.run("restore", "--words-file", str(words), profile="alice-again")
    listed = await terminal.run("records", "list", profile="alice-again")
    assert len(listed["records"]) == len(originals)
    assert len((await terminal.run("grants", profile="alice-again"))["grants"]) == 1


async def test_a_wrong_passphrase_says_what_to_do(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    await terminal.run("init", "patient", "--yes", profile="alice")
    wrong = terminal.home.parent / "wrong.txt"
    wrong.write_text("another passphrase", "utf-8")
    refused = await terminal.run("records", "list", "--passphrase-file", str(wrong), profile="alice", status=1)
    assert refused["error"]["code"] == "wrong_passphrase"
    assert refused["error"]["hint"]


async def test_an_unknown_profile_says_what_to_do(terminal: Terminal) -> None:
    refused = await terminal.run("records", "list", profile="nobody", status=1)
    assert refused["error"]["hint"]
