"""The whole story against a running platform, by the client's own code: stored, disclosed, compared, withdrawn.

It runs inside the platform's network and yet goes the way of a client outside: `PCEHR_DOORS` are relays on this
container's own loopback interface, at the addresses that the registry tells its clients. Ends with status 1 and says
why when anything is not as it must be.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import AsyncExitStack

import relay

from client.errors import GrantEnded, ServiceRefused
from client.keyring import Keyring
from client.patient import Patient
from client.recipient import Recipient
from client.records import NewRecord
from client.reports import HeldGrant, ListedRecord
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from shared.errors import PcehrError
from shared.wire import Action, Purpose

RECORDS = 20
SCOPES = ("allergies", "mental-health")
PROXIES_SECONDS = 60.0
"""How long the proxies may take until the last one has its share, or has erased it."""


class NotAsItMustBe(Exception):
    """A claim of the story that does not hold."""


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def claim(holds: bool, text: str) -> None:
    if not holds:
        raise NotAsItMustBe(text)
    say(f"  {text}")


async def tell(registry_url: str) -> None:
    async with AsyncExitStack() as stack:

        async def session() -> Session:
            return Session(Keyring.generate(), await stack.enter_async_context(Platform(registry_url)), ClientState())

        patient, recipient = Patient(await session(), known_scopes=SCOPES), Recipient(await session())
        patient_did = (await patient.sign_up()).did
        await recipient.sign_up("Demo Practice")
        say("A patient and a doctor's practice have signed up.")

        written = [f"Allergy {number}" for number in range(RECORDS)]
        await patient.add_records(
            [_note(text, "allergies") for text in written] + [_note("Nobody else's business", "mental-health")]
        )
        say(f"{RECORDS} records and a private one are encrypted and stored.")

        request = await recipient.request(
            patient_did,
            scopes=["allergies"],
            actions=[Action.READ],
            purpose=Purpose.TREAT,
            reason="Planned treatment",
            expires=int(time.time()) + 3600,
        )
        grant = await patient.approve(request)
        say("The practice has asked for the allergies, and the patient has approved.")
        report = await recipient.fetch(grant.id)
        opened = sorted(record.body.decode() for record in report.opened)
        claim(opened == sorted(written), f"{len(opened)} of {RECORDS} records opened, each equal to what was written")
        claim({record.scope for record in report.opened} == {"allergies"}, "the private one is not among them")

        held = await recipient.grant(grant.id)
        listed = await recipient.listing(held)
        await _revoke(patient, grant.id)
        await _refused(recipient, held, listed)


async def _revoke(patient: Patient, grant_id: str) -> None:
    say("The patient revokes.")
    report = await patient.revoke(grant_id)
    claim(report.state == "sealed", f"sealed: {report.receipts} receipts, {report.needed} were needed")
    deadline = time.monotonic() + PROXIES_SECONDS
    while report.receipts < report.shares and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        report = await patient.revocation_status(grant_id)
    claim(report.receipts == report.shares, f"all {report.shares} proxies have signed that they erased their share")


async def _refused(recipient: Recipient, held: HeldGrant, listed: list[ListedRecord]) -> None:
    try:
        await recipient.fetch(held.id)
    except GrantEnded:
        claim(True, "the records service refuses the practice")
    else:
        raise NotAsItMustBe("the records service still discloses")
    for proxy in held.proxies:
        name = (await recipient.session.party(proxy.did)).current.payload.name
        try:
            await recipient.ask_proxy_directly(proxy.did, held, listed)
        except ServiceRefused as refused:
            claim(refused.code == "grant_revoked", f"{name}, asked directly, refuses it as well")
        else:
            raise NotAsItMustBe(f"{name} still re-encrypts")


def _note(text: str, scope: str) -> NewRecord:
    return NewRecord(body=text.encode(), media_type="text/plain", scope=scope)


async def main() -> int:
    doors = await relay.listen(os.environ["PCEHR_DOORS"].split(), "127.0.0.1")
    try:
        await tell(os.environ["PCEHR_REGISTRY"])
    except (NotAsItMustBe, PcehrError) as error:
        say(f"Not as it must be: {error}")
        return 1
    finally:
        for door in doors:
            door.close()
    say("All of it held.")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
