"""Run as a program, and killed at any moment: a patient and a practice that go through the whole flow again and again.

    python -m tests.chaos.household FOLDER REGISTRY_URL

Before each step it prints the step's name, so that whoever kills can aim. What has been done is in FOLDER: keystores
and state files as the command line keeps them, and how far the round is in `progress.json`. After a kill the same
command goes on from these: the step that was cut off is done again, as a person would. It ends, with status 0, after a
whole round once there is a file `stop` in the folder; a party whose keystore or state does not open ends it with 1.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from client import keystore
from client.author import Author
from client.errors import GrantEnded
from client.files import write_atomically
from client.http import Request
from client.keyring import Keyring
from client.patient import Patient
from client.recipient import Recipient
from client.records import NewRecord
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from shared.errors import PcehrError
from shared.schemas.records import GrantState, RequestState
from shared.statements import LogErasure
from shared.wire import RECORDS_AUDIENCE, Action, DenialReason, Purpose
from tests.chaos.ledger import Observed

SCOPES = ("allergies", "laboratory")
PASSPHRASE = "a passphrase of the tests"
LARGE = 70_000
"""Bytes; more than goes into the database, so that the body lies in the folder of blobs."""
KEPT_EVENTS = 10
MONTH = 30 * 86_400


class Household:
    """Two parties and their connection. Every method named in `STEPS` may be repeated."""

    def __init__(self, folder: Path, registry_url: str) -> None:
        self._folder = folder
        self._progress: dict[str, Any] = {"round": 0, "step": 0}
        if (folder / "progress.json").exists():
            self._progress = json.loads((folder / "progress.json").read_bytes())
        platform = Platform(registry_url, transport=Observed(folder / "ledger.jsonl"))
        self._patient_session = _session(folder / "patient", platform)
        self._practice_session = _session(folder / "practice", platform)
        self.patient = Patient(self._patient_session, known_scopes=SCOPES)
        self.recipient = Recipient(self._practice_session)
        self.author = Author(self._practice_session)

    @property
    def round(self) -> int:
        return int(self._progress["round"])

    async def run(self) -> None:
        while True:
            while self._progress["step"] < len(STEPS):
                step = STEPS[self._progress["step"]]
                sys.stdout.write(f"{step.__name__}\n")
                sys.stdout.flush()
                try:
                    await step(self)
                except PcehrError as error:
                    # An outage, or a refusal that comes of one: a person tries again a little later.
                    sys.stdout.write(f"refused {step.__name__} {error.code}\n")
                    await asyncio.sleep(0.3)
                    continue
                self._keep(step=self._progress["step"] + 1)
            self._keep(round=self.round + 1, step=0)
            if (self._folder / "stop").exists():
                return

    async def sign_up(self) -> None:
        await self.patient.sign_up()
        await self.recipient.sign_up("Demo Practice")

    async def store(self) -> None:
        text = f"round {self.round}".encode()
        records = [NewRecord(body=text, media_type="text/plain", scope=scope) for scope in SCOPES]
        if self.round % 2 == 0:
            records.append(NewRecord(body=text * LARGE, media_type="text/plain", scope=SCOPES[0]))
        stored = await self.patient.add_records(records)
        self._keep(record=stored[0].record_id)

    async def amend_own(self) -> None:
        text = f"round {self.round}, second version".encode()
        await self.patient.add_version(
            self._progress["record"], NewRecord(body=text, media_type="text/plain", scope=SCOPES[0])
        )

    async def request(self) -> None:
        self._keep(
            request=await self.recipient.request(
                self._patient_session.did,
                scopes=[SCOPES[0]],
                actions=[Action.AMEND, Action.APPEND, Action.READ],
                purpose=Purpose.TREAT,
                reason="Planned treatment",
                expires=int(time.time()) + MONTH,
            )
        )

    async def deny(self) -> None:
        """Whatever else waits, such as a request of a step that was cut off, is refused."""
        for waiting in await self.patient.inbox(RequestState.PENDING):
            if waiting.id != self._progress["request"]:
                await self.patient.deny(waiting.id, DenialReason.UNSPECIFIED)

    async def approve(self) -> None:
        self._keep(grant=(await self.patient.approve(self._progress["request"])).id)

    async def active(self) -> None:
        """The outbox has done its work; before that no keys can be changed."""
        if (await self.patient.grant(self._progress["grant"])).state is not GrantState.COMPLETE:
            raise PcehrError("Not all proxies have their share yet.")

    async def append(self) -> None:
        record = NewRecord(body=b"by the practice", media_type="text/plain", scope=SCOPES[0])
        await self.author.append(self._progress["grant"], [record])

    async def amend(self) -> None:
        record = NewRecord(body=b"amended by the practice", media_type="text/plain", scope=SCOPES[0])
        await self.author.amend(self._progress["grant"], self._progress["record"], record)

    async def disclose(self) -> None:
        report = await self.recipient.fetch(self._progress["grant"], record_ids=[self._progress["record"]])
        if not report.opened:
            raise PcehrError("Nothing was opened.")

    async def rotate(self) -> None:
        if self.round % 3 == 1:
            await self.patient.rotate_keys()
            await self._practice_session.rotate_keys()

    async def revoke(self) -> None:
        await self.patient.revoke(self._progress["grant"])

    async def stays_closed(self) -> None:
        """What has been revoked stays closed, whatever is killed."""
        try:
            await self.recipient.fetch(self._progress["grant"])
        except GrantEnded:
            return
        sys.exit("A grant that had been revoked was served.")

    async def erase_events(self) -> None:
        """All but the youngest events. All have been looked at, so that the ledger knows what is erased."""
        if self.round % 2:
            return
        session = self._patient_session
        url = (await session.platform.discovery()).records_url
        newest = 0
        async for event in session.platform.log_events(await session.credentials(), url, RECORDS_AUDIENCE):
            newest = max(newest, event.n)
            if event.event is None:
                break
        upto = newest - KEPT_EVENTS
        if upto > 0:
            erasure = await session.sign(LogErasure, RECORDS_AUDIENCE, upto=upto)
            request = Request("POST", f"{url}/v1/me/audit/erasures", json={"statement": erasure.token})
            await session.platform._authorised(await session.credentials(), RECORDS_AUDIENCE, request)

    def _keep(self, **values: Any) -> None:
        self._progress |= values
        write_atomically(self._folder / "progress.json", json.dumps(self._progress).encode())


STEPS: tuple[Callable[[Household], Awaitable[None]], ...] = (
    Household.sign_up,
    Household.store,
    Household.amend_own,
    Household.request,
    Household.deny,
    Household.approve,
    Household.active,
    Household.append,
    Household.amend,
    Household.disclose,
    Household.rotate,
    Household.revoke,
    Household.stays_closed,
    Household.erase_events,
)


def _session(folder: Path, platform: Platform) -> Session:
    """The party of a folder, as the command line keeps it; made at the first start."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (folder / "keystore.json").exists():
        keystore.create(folder / "keystore.json", Keyring.generate(), PASSPHRASE, cost=keystore.LIGHT)
    keyring = keystore.load(folder / "keystore.json", PASSPHRASE)
    return Session(keyring, platform, ClientState.load(folder / "state.db"))


if __name__ == "__main__":
    home, url = sys.argv[1:3]
    asyncio.run(Household(Path(home), url).run())
