"""The client dies at any request, any answer and any write to its own files, and goes on from its own state."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from client.embedded.platform import EmbeddedPlatform
from client.keyring import Keyring
from client.patient import Patient
from client.recipient import Recipient
from client.records import NewRecord
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from shared.schemas.records import GrantState
from shared.wire import Action, Purpose
from tests import warm
from tests.chaos.account import settled_account
from tests.chaos.conftest import WHOLE
from tests.chaos.ledger import Observed

OPERATIONS = ("approve", "disclose", "revoke")
CYCLES = 3
"""So many cycles has the suite, each with another point of each operation; `make chaos` has one for each point."""


class Parties:
    """An owner and a reader, each with a folder: its words, and the state that this process and those killed share."""

    def __init__(self, folder: Path, platform: EmbeddedPlatform) -> None:
        self.folder = folder
        self.died = 0
        self._url = platform.registry_url
        self._keyrings = {name: Keyring.generate() for name in ("owner", "reader")}
        for name, keyring in self._keyrings.items():
            (folder / name).mkdir(mode=0o700)
            (folder / name / "words").write_text(keyring.words())

    def session(self, name: str, platform: Platform) -> Session:
        return Session(self._keyrings[name], platform, ClientState.load(self.folder / name / "state.db"))

    def platform(self) -> Platform:
        return Platform(self._url, transport=Observed(self.folder / "ledger.jsonl"))

    async def sign_up(self) -> None:
        async with self.platform() as platform:
            owner = Patient(self.session("owner", platform), known_scopes=("allergies",))
            await owner.sign_up()
            await Recipient(self.session("reader", platform)).sign_up("Demo Practice")
            await owner.add_records([NewRecord(body=b"peanuts", media_type="text/plain", scope="allergies")])

    async def ask(self) -> str:
        async with self.platform() as platform:
            return await Recipient(self.session("reader", platform)).request(
                self._keyrings["owner"].did,
                scopes=["allergies"],
                actions=[Action.READ],
                purpose=Purpose.TREAT,
                reason="Planned treatment",
                expires=int(time.time()) + 86_400,
            )

    async def run(self, operation: str, argument: str, die_at: int = 0) -> dict[str, Any] | None:
        """What the operation came to in a process of its own, or None where it died at its point."""
        name = "reader" if operation == "disclose" else "owner"
        arguments = (str(self.folder / name), self._url, operation, argument, str(die_at))
        status, said, complaint = await warm.run("tests.chaos.mortal", *arguments, env={})
        with sqlite3.connect(self.folder / name / "state.db") as state:
            assert state.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        state.close()
        if status == -signal.SIGKILL:
            return None
        assert status == 0, complaint
        found: dict[str, Any] = json.loads(said)
        return found

    async def cycle(self, die_at: dict[str, int]) -> dict[str, list[str]]:
        """One consent from request to sealed; each operation is repeated after it has died. The points passed."""
        passed = {}
        request = await self.ask()
        approved = await self._twice("approve", request, die_at)
        async with self.platform() as platform:
            owner = Patient(self.session("owner", platform), known_scopes=("allergies",))
            [grant] = [grant for grant in await owner.grants() if grant.live]
            assert (grant.id, grant.request) == (approved["result"], request)
            while (await owner.grant(grant.id)).state is not GrantState.COMPLETE:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        disclosed = await self._twice("disclose", grant.id, die_at)
        assert disclosed["result"] == ["peanuts"]
        revoked = await self._twice("revoke", grant.id, die_at)
        assert revoked["result"] == "sealed"
        async with self.platform() as platform:
            owner = Patient(self.session("owner", platform), known_scopes=("allergies",))
            assert (await owner.grant(grant.id)).state is GrantState.REVOKED
            assert not any(grant.live for grant in await owner.grants())
        for operation, outcome in zip(OPERATIONS, (approved, disclosed, revoked), strict=True):
            passed[operation] = outcome["passed"]
        return passed

    async def _twice(self, operation: str, argument: str, die_at: dict[str, int]) -> dict[str, Any]:
        point = die_at.get(operation, 0)
        outcome = await self.run(operation, argument, point) if point else None
        if outcome is None:
            self.died += point > 0
            outcome = await self.run(operation, argument)
        assert outcome is not None
        return outcome


@pytest.mark.timeout(7200 if WHOLE else 1800)
async def test_a_client_that_dies_at_any_point_goes_on_from_its_own_state(
    platform: EmbeddedPlatform, chaos_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parties = Parties(chaos_home, platform)
    await parties.sign_up()
    await parties.cycle({})
    points = await parties.cycle({})
    for operation, about in (("approve", "/v1/grants"), ("disclose", "/v1/disclosures"), ("revoke", "/v1/revocations")):
        assert {f"before POST {about}", f"after POST {about}"} <= set(points[operation])
    assert {"BEGIN IMMEDIATE", "COMMIT"} <= set(points["approve"]) & set(points["revoke"])
    counts = {operation: len(passed) for operation, passed in points.items()}
    cycles = max(counts.values()) if WHOLE else CYCLES
    for number in range(cycles):
        # Evenly spread, the first and the last among them; where all have their turn, one after the other.
        die_at = {
            operation: number + 1 if WHOLE else 1 + round(number * (count - 1) / (cycles - 1))
            for operation, count in counts.items()
        }
        die_at = {operation: point for operation, point in die_at.items() if point <= counts[operation]}
        await parties.cycle(die_at)
    problems, effects = await settled_account(platform, [chaos_home / "ledger.jsonl"])
    with capsys.disabled():
        sys.stdout.write(
            f"\n{parties.died} of {sum(counts.values())} fail points of the client ({counts}): {problems}\n"
        )
    assert problems == []
    assert parties.died >= 2 * CYCLES
    assert set(effects.grants_of_request.values()) == {1}, "each request has been answered with one grant"
