"""The command line as people use it: separate programs, passphrases, files, and one JSON document for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from client.embedded.platform import EmbeddedPlatform
from client.fhir.bundle import read_bundle, same_resource
from client.keyring import Keyring
from client.records import NewRecord
from tests.e2e.actors import ActorMaker
from tests.e2e.terminal import Terminal

BUNDLE = Path(__file__).parents[2] / "client" / "fhir" / "demo_bundle.json"


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


async def test_a_wrong_passphrase_says_what_to_do(terminal: Terminal) -> None:
    terminal.as_program = True
    await terminal.run("init", "patient", "--yes", profile="alice")
    wrong = terminal.home.parent / "wrong.txt"
    wrong.write_text("another passphrase", "utf-8")
    refused = await terminal.run("records", "list", "--passphrase-file", str(wrong), profile="alice", status=1)
    assert refused["error"]["code"] == "wrong_passphrase"
    assert refused["error"]["hint"]


async def test_an_unknown_profile_says_what_to_do(terminal: Terminal) -> None:
    refused = await terminal.run("records", "list", profile="nobody", status=1)
    assert refused["error"]["hint"]


# --- amending ---------------------------------------------------------------------------------------------------------


def written(path: Path, text: str) -> str:
    path.write_text(text, "utf-8")
    return str(path)


async def body_of(terminal: Terminal, record: str, tmp_path: Path, *options: str) -> str:
    place = tmp_path / "body"
    await terminal.run("records", "show", record, "-o", str(place), *options, profile="alice")
    return place.read_text("utf-8")


async def test_a_record_is_amended_by_its_patient_and_by_somebody_allowed_to(
    terminal: Terminal, tmp_path: Path
) -> None:
    await terminal.run("init", "patient", "--yes", profile="alice")
    practice = await terminal.run("init", "recipient", "--name", "Demo Practice", "--yes", profile="practice")
    insurer = await terminal.run("init", "recipient", "--name", "Demo Insurer", "--yes", profile="insurer")
    note = written(tmp_path / "note.txt", "first")
    [stored] = (await terminal.run("records", "add", note, "--scope", "allergies", profile="alice"))["stored"]
    amended = await terminal.run(
        "records", "amend", stored["id"][:13], written(tmp_path / "note.txt", "second"), profile="alice"
    )
    assert (amended["id"], amended["version"], amended["scope"]) == (stored["id"], 2, "allergies")

    give = ["share", practice["did"], "--scope", "allergies", "--action", "amend"]
    grant = await terminal.run(*give, profile="alice")
    again = written(tmp_path / "note.txt", "third")
    for_alice = ["--grant", grant["id"]]
    by_practice = await terminal.run("records", "amend", stored["id"], again, *for_alice, profile="practice")
    assert by_practice["version"] == 3
    # A second time on top of its own version, with the beginning of the id.
    again = written(tmp_path / "note.txt", "fourth")
    by_practice = await terminal.run("records", "amend", stored["id"][:13], again, *for_alice, profile="practice")
    assert by_practice["version"] == 4
    [listed] = (await terminal.run("records", "list", profile="alice"))["records"]
    assert (listed["version"], listed["author"], listed["problem"]) == (4, practice["did"], None)
    assert await body_of(terminal, stored["id"], tmp_path) == "fourth"
    for number, text in enumerate(["first", "second", "third", "fourth"], start=1):
        assert await body_of(terminal, stored["id"], tmp_path, "--version", str(number)) == text

    # Somebody who only reads checks who wrote over whom, and is shown what it takes to.
    await terminal.run("share", insurer["did"], "--scope", "allergies", profile="alice")
    fetched = await terminal.run("fetch", "-o", str(tmp_path / "opened.json"), profile="insurer")
    assert ([one["version"] for one in fetched["opened"]], fetched["problems"]) == ([4], [])

    moved = await terminal.run("records", "amend", stored["id"], note, "--scope", "knee-surgery", profile="alice")
    assert (moved["version"], moved["scope"]) == (5, "knee-surgery")


async def test_what_cannot_be_amended_says_what_to_do(terminal: Terminal, tmp_path: Path) -> None:
    await terminal.run("init", "patient", "--yes", profile="alice")
    practice = await terminal.run("init", "recipient", "--name", "Demo Practice", "--yes", profile="practice")
    note = written(tmp_path / "note.txt", "text")
    [stored] = (await terminal.run("records", "add", note, "--scope", "medications", profile="alice"))["stored"]
    await terminal.run("records", "add", note, "--scope", "allergies", profile="alice")
    share = ["share", practice["did"], "--scope", "allergies", "--action"]
    grant = await terminal.run(*share, "amend", profile="alice")
    append = await terminal.run(*share, "append", profile="alice")

    async def refused(*arguments: str, profile: str) -> str:
        answer = await terminal.run("records", "amend", *arguments, profile=profile, status=1)
        assert answer["error"]["hint"]
        return str(answer["error"]["code"])

    several = str(BUNDLE)
    assert await refused(stored["id"], several, profile="alice") == "invalid_value"
    assert await refused("0000", note, profile="alice") == "unknown_record"
    assert await refused(stored["id"], str(tmp_path / "nothing"), profile="alice") == "unreadable_file"
    within = ["--grant", grant["id"]]
    assert await refused(stored["id"], note, *within, profile="practice") == "invalid_value"
    over = [*within, "--scope", "allergies"]
    assert await refused(stored["id"], note, *over, profile="practice") == "unknown_record"
    assert await refused(stored["id"], note, *within, "--scope", "medications", profile="practice") == "unknown_record"
    assert await refused(stored["id"], note, "--grant", "nothing", profile="practice") == "unknown_grant"
    assert await refused(stored["id"], note, "--grant", append["id"], *over[2:], profile="practice") in (
        "invalid_grant",
        "not_found",
    )
    assert await body_of(terminal, stored["id"], tmp_path) == "text"


async def test_an_amended_resource_keeps_its_place_in_the_bundle(terminal: Terminal, tmp_path: Path) -> None:
    await terminal.run("init", "patient", "--yes", profile="alice")
    await terminal.run("records", "add", str(BUNDLE), profile="alice")
    listed = (await terminal.run("records", "list", "--scope", "allergies", profile="alice"))["records"]
    chosen = next(record for record in listed if record["full_url"])
    resource = (await terminal.run("records", "show", chosen["id"], profile="alice"))["resource"]
    resource["language"] = "en"
    file = written(tmp_path / "resource.json", json.dumps(resource))
    await terminal.run("records", "amend", chosen["id"], file, profile="alice")
    exported = tmp_path / "exported.json"
    await terminal.run("records", "export", "-o", str(exported), profile="alice")
    items = {item.full_url: item.resource for item in read_bundle(exported.read_bytes())}
    assert items[chosen["full_url"]]["language"] == "en"


# --- contacts and proxies ---------------------------------------------------------------------------------------------


async def test_contacts_stand_for_ids(terminal: Terminal, tmp_path: Path) -> None:
    await terminal.run("init", "patient", "--yes", profile="alice")
    practice = await terminal.run("init", "recipient", "--name", "Demo Practice", "--yes", profile="practice")
    await terminal.run(
        "records", "add", written(tmp_path / "note.txt", "text"), "--scope", "allergies", profile="alice"
    )
    added = await terminal.run("contacts", "add", "my doctor", practice["did"], profile="alice")
    assert added["fingerprint"] == practice["fingerprint"]
    # Once more is no error; somebody else under that name is.
    await terminal.run("contacts", "add", "my doctor", practice["did"], profile="alice")
    other = await terminal.run("init", "recipient", "--name", "Demo Practice", "--yes", profile="other")
    taken = await terminal.run("contacts", "add", "my doctor", other["did"], profile="alice", status=1)
    assert taken["error"]["code"] == "contact_exists"
    [contact] = (await terminal.run("contacts", "list", profile="alice"))["contacts"]
    assert contact == added
    assert (contact["name"], contact["public_name"], contact["role"]) == ("my doctor", "Demo Practice", "recipient")

    grant = await terminal.run("share", "my doctor", "--scope", "allergies", profile="alice")
    assert grant["recipient"] == practice["did"]
    await terminal.run("contacts", "remove", "my doctor", profile="alice")
    assert (await terminal.run("contacts", "list", profile="alice"))["contacts"] == []
    refused = await terminal.run("share", "my doctor", "--scope", "allergies", profile="alice", status=1)
    assert refused["error"]["code"] == "invalid_value"
    unknown = Keyring.generate().did
    missing = await terminal.run("contacts", "add", "nobody", unknown, profile="alice", status=1)
    assert missing["error"]["code"] == "unknown_party"
    assert (await terminal.run("contacts", "list", profile="alice"))["contacts"] == []


async def test_shares_go_to_the_proxies_that_are_pinned(terminal: Terminal, tmp_path: Path) -> None:
    await terminal.run("init", "patient", "--yes", profile="alice")
    practice = await terminal.run("init", "recipient", "--name", "Demo Practice", "--yes", profile="practice")
    note = written(tmp_path / "note.txt", "text")
    await terminal.run("records", "add", note, "--scope", "allergies", profile="alice")

    async def pinned() -> list[str]:
        listed = (await terminal.run("proxies", "list", profile="alice"))["proxies"]
        assert len(listed) == 3
        assert all(proxy["shown"] and len(proxy["fingerprint"].split()) == 8 for proxy in listed)
        return [proxy["did"] for proxy in listed if proxy["pinned"]]

    known = [proxy["did"] for proxy in (await terminal.run("proxies", "list", profile="alice"))["proxies"]]
    assert await pinned() == []
    # By the whole id, and by a beginning without what all ids share.
    beginning = known[2].removeprefix("did:key:")[:20]
    assert (await terminal.run("proxies", "pin", known[0], beginning, profile="alice"))["pinned"] == [
        known[0],
        known[2],
    ]
    assert await pinned() == [known[0], known[2]]
    share = ["share", practice["did"], "--scope", "allergies"]
    grant = await terminal.run(*share, profile="alice")
    assert (grant["shares"], grant["threshold"]) == (2, 2)

    assert (await terminal.run("proxies", "forget", known[0], profile="alice"))["pinned"] == [known[2]]
    gone = await terminal.run("proxies", "forget", known[0], profile="alice", status=1)
    assert gone["error"]["code"] == "unknown_proxy"
    assert (await terminal.run("proxies", "pin", profile="alice"))["pinned"] == sorted(known)
    assert (await terminal.run(*share, profile="alice"))["shares"] == 3
    assert (await terminal.run("proxies", "forget", profile="alice"))["pinned"] == []
    assert await pinned() == []
    unknown = await terminal.run("proxies", "pin", practice["did"], profile="alice", status=1)
    assert unknown["error"]["code"] == "unknown_proxy"
    # The next grant pins those of the directory.
    await terminal.run(*share, profile="alice")
    assert sorted(await pinned()) == sorted(known)


# --- hostile records --------------------------------------------------------------------------------------------------


async def test_hostile_records_keep_no_other_from_being_written(
    terminal: Terminal, make: ActorMaker, tmp_path: Path
) -> None:
    await terminal.run("init", "patient", "--yes", profile="alice")
    await terminal.run("init", "recipient", "--name", "Demo Insurer", "--yes", profile="insurer")
    reader = await terminal.run("card", profile="insurer")
    await terminal.run("records", "add", str(BUNDLE), "--scope", "documents", profile="alice")
    originals = {item.full_url: item.resource for item in read_bundle(BUNDLE.read_bytes())}
    taken = next(url for url in originals if url)
    author = await make.recipient("Demo Practice")
    write = ["share", author.did, "--scope", "documents", "--action", "append"]
    grant = await terminal.run(*write, profile="alice")

    def record(body: bytes, media_type: str = "text/plain", **header: Any) -> NewRecord:
        return NewRecord(body=body, media_type=media_type, scope="documents", **header)

    stored = await author.author.append(
        grant["id"],
        [
            record(b"this is no FHIR", "application/fhir+json", title="\x1b[2J\u202e"),
            record(b'{"resourceType":"Basic","code":{}}', "application/fhir+json", full_url=taken),
            record(b"long", filename="漢" * 250 + ".txt"),
            record(b"device", filename="CON"),
            record(b"elsewhere", filename="../../elsewhere.txt"),
            record(b"hidden", filename=".bashrc"),
            record(b"one", filename="Note.txt"),
            record(b"two", filename="NOTE.TXT"),
        ],
    )
    bad = {stored[0].record_id: "not_json", stored[1].record_id: "malformed_bundle"}
    await terminal.run("share", reader["did"], "--scope", "documents", profile="alice")
    for profile, command in (("alice", ["records", "export"]), ("insurer", ["fetch"])):
        target = tmp_path / profile / "out.json"
        report = await terminal.run(*command, "-o", str(target), profile=profile, status=1)
        assert {problem["record"]: problem["code"] for problem in report["problems"]} == bad
        assert len(report["opened"]) == len(originals) + len(stored)
        found = {item.full_url: item.resource for item in read_bundle(target.read_bytes())}
        assert found.keys() == originals.keys()
        assert all(same_resource(resource, originals[url]) for url, resource in found.items())
        folder = target.parent / "out-files"
        bodies = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert len(bodies) == len(stored) == len({name.casefold() for name in bodies})
        assert bodies["_CON"] == b"device"
        assert bodies["elsewhere.txt"] == b"elsewhere"
        assert bodies["bashrc"] == b"hidden"
        assert bodies[f"{stored[0].record_id}.json"] == b"this is no FHIR"
        assert sorted(path.name for path in target.parent.iterdir()) == ["out-files", "out.json"]
    shown = await terminal.run("records", "show", stored[0].record_id, profile="alice")
    assert (shown["resource"], shown["problem"]) == (None, "not_json")
