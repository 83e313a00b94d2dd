"""Parties of the end-to-end tests, each with a fresh seed, and what the tests look at from outside."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from client.author import Author
from client.keyring import Keyring
from client.patient import Patient
from client.recipient import Recipient
from client.records import NewRecord
from client.reports import GrantReport
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from shared.schemas.records import GrantState
from shared.wire import Action, Purpose

KNOWN_SCOPES = ("allergies", "laboratory", "medications", "mental-health")
MONTH = 30 * 86_400


@dataclass
class Actor:
    """One party: its keys, its connection, and the roles it can play."""

    keyring: Keyring
    session: Session

    @property
    def did(self) -> str:
        return self.keyring.did

    @property
    def patient(self) -> Patient:
        return Patient(self.session, known_scopes=KNOWN_SCOPES)

    @property
    def recipient(self) -> Recipient:
        return Recipient(self.session)

    @property
    def author(self) -> Author:
        return Author(self.session)


def note(text: str, scope: str = "allergies", title: str | None = None) -> NewRecord:
    """A small record."""
    return NewRecord(body=text.encode(), media_type="text/plain", scope=scope, title=title)


def in_a_month() -> int:
    return int(time.time()) + MONTH


async def granted(
    owner: Actor, reader: Actor, *, scopes: list[str], actions: tuple[Action, ...] = (Action.READ,)
) -> GrantReport:
    """The reader asks, the owner approves all of it; returns when enough proxies have their share."""
    request = await reader.recipient.request(
        owner.did,
        scopes=scopes,
        actions=list(actions),
        purpose=Purpose.TREAT,
        reason="Planned treatment",
        expires=in_a_month(),
    )
    return await owner.patient.approve(request)


async def grant_in_state(owner: Actor, grant_id: str, state: GrantState) -> GrantReport:
    """Waits for the outbox, up to a minute."""
    for _ in range(300):
        report = await owner.patient.grant(grant_id)
        if report.state is state:
            return report
        await asyncio.sleep(0.2)
    raise AssertionError(f"the grant did not become {state.value}")


class ActorMaker:
    """Makes parties against one platform and closes their connections at the end."""

    def __init__(self, registry_url: str, folder: Path) -> None:
        self.registry_url = registry_url
        self._folder = folder
        self._platforms: list[Platform] = []

    async def blank(self, keyring: Keyring | None = None) -> Actor:
        """A party that has signed up nowhere, on a machine with nothing but (perhaps) its words."""
        platform = Platform(self.registry_url)
        await platform.__aenter__()
        self._platforms.append(platform)
        keyring = keyring or Keyring.generate()
        state = ClientState.load(self._folder / f"{len(self._platforms)}.json")
        return Actor(keyring, Session(keyring, platform, state))

    async def patient(self) -> Actor:
        actor = await self.blank()
        await actor.patient.sign_up()
        return actor

    async def recipient(self, name: str = "Demo Practice") -> Actor:
        actor = await self.blank()
        await actor.recipient.sign_up(name)
        return actor

    async def close(self) -> None:
        for platform in self._platforms:
            await platform.__aexit__(None, None, None)
