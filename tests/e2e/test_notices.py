"""Being told across process boundaries: the SDK's stream over a restart of the service, and `pcehr watch`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from client.embedded.platform import EmbeddedPlatform
from client.notices import Notice, follow
from tests.e2e.actors import ActorMaker, granted, note
from tests.e2e.test_command_line import Terminal, terminal

__all__ = ["terminal"]

PATIENCE = 60.0


async def next_of(notices: AsyncIterator[Notice]) -> Notice:
    async with asyncio.timeout(PATIENCE):
        return await anext(notices)


async def test_both_sides_hear_of_what_concerns_them_also_after_the_service_was_killed(
    platform: EmbeddedPlatform, make: ActorMaker
) -> None:
    alice, practice = await make.patient(), await make.recipient()
    await alice.patient.add_records([note("no known allergies")])
    patient, recipient = follow(alice.session), follow(practice.session, after=0)
    asked = asyncio.create_task(next_of(patient))
    # The stream is open once it has been asked for; what happens afterwards is heard.
    await asyncio.sleep(1)
    grant = await granted(alice, practice, scopes=["allergies"])
    assert (await asked).kind == "requested"
    assert [(await next_of(recipient)).kind for _ in range(2)] == ["granted", "active"]

    await platform.kill("records")
    await platform.start("records")
    await practice.recipient.fetch(grant.id)
    disclosed = await next_of(patient)
    assert (disclosed.kind, disclosed.number, disclosed.grant, disclosed.count) == ("disclosed", 2, grant.id, 1)
    assert disclosed.other == practice.did
    await alice.patient.revoke(grant.id)
    assert (await next_of(recipient)).kind == "revoked"


async def test_watch_prints_one_document_a_line(terminal: Terminal) -> None:
    await terminal.run("init", "patient", "--yes", profile="alice")
    await terminal.run("init", "recipient", "--name", "Demo Practice", "--yes", profile="practice")
    did = (await terminal.run("card", profile="alice"))["did"]
    request = await terminal.run("requests", "new", did, "--scope", "allergies", "--reason", "x", profile="practice")
    [heard] = [await terminal.run("watch", "--after", "0", "--first", "1", profile="alice")]
    assert (heard["kind"], heard["number"], heard["request"]) == ("requested", 1, request["id"])
