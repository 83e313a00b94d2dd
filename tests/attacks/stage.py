"""Where attacks take place: parties prepared once, and for each run new sessions of theirs on a network with a lie.

A session of a run has a copy of its party's memory, so that what one attack does to it is nothing to the next one;
`new_machine` gives one that has seen nothing yet.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from client.audit.gather import gather
from client.audit.report import audit_of
from client.author import Author
from client.embedded.platform import EmbeddedPlatform
from client.errors import GrantEnded
from client.keyring import Keyring
from client.reports import FetchReport, GrantReport, HeldGrant, StoredRecord
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from shared.schemas.records import GrantState
from shared.statements import Payload, sign
from shared.wire import Action, Purpose, Role
from tests.attacks.lying import Lie, Network
from tests.attacks.operators import Operators
from tests.e2e.actors import Actor, grant_in_state, in_a_month, note

LARGE = b"laboratory " * 30_000


@dataclass(frozen=True)
class Party:
    """A party that has signed up, and the file with what its client remembers."""

    keyring: Keyring
    state: Path

    @property
    def did(self) -> str:
        return self.keyring.did

    def sign(self, payload: Payload, seq: int = 0) -> str:
        """A statement signed with this party's own key: what a thief of the key, or a colluding party, can make."""
        return sign(payload, self.keyring.identity(seq))


@dataclass
class Cast:
    """Everybody who takes part, and what they have done before."""

    owner: Party
    """The patient: two records under allergies (one in two versions), medications, a large one under laboratory."""
    doctor: Party
    """Holds grants to read allergies and laboratory (the second was ended), has changed its keys once."""
    clinic: Party
    """Holds a grant to read, append and amend medications; wrote a record and amended one."""
    neighbour: Party
    """Another patient, with a record and a grant to the doctor."""
    stranger: Party
    """A recipient whom nobody knows."""
    peanuts: StoredRecord
    pollen: StoredRecord
    pills: StoredRecord
    blood: StoredRecord
    written: StoredRecord
    theirs: StoredRecord
    reading: GrantReport
    writing: GrantReport
    ended: GrantReport
    nextdoor: GrantReport
    over: GrantReport
    """One that the neighbour gave the stranger, and ended."""
    asked: tuple[str, str]
    """Ids of requests to the owner that wait: the doctor's and the clinic's."""
    refused: str
    """The id of a request of the doctor's that the owner denied."""
    asked_nextdoor: str
    """The id of a request of the doctor's to the neighbour, which waits."""
    bodies: frozenset[bytes] = field(default=frozenset())


class Stage:
    """One run of one attack."""

    def __init__(self, cast: Cast, operators: Operators, lie: Lie, folder: Path, stack: AsyncExitStack) -> None:
        self.cast = cast
        self.operators = operators
        self.lie = lie
        self._folder = folder
        self._stack = stack
        self._sessions = 0

    async def machine(self, party: Party) -> Actor:
        """The party on its own machine, with all that it remembers."""
        return await self._actor(party.keyring, party.state)

    async def new_machine(self, party: Party | None = None) -> Actor:
        """The party with nothing but its words; somebody who has signed up nowhere if it is None."""
        return await self._actor(party.keyring if party else Keyring.generate(), None)

    async def newcomer(self, role: Role = Role.RECIPIENT) -> Actor:
        """Somebody who signs up now."""
        actor = await self.new_machine()
        await actor.session.sign_up(role, name="Demo Practice" if role is Role.RECIPIENT else None)
        return actor

    async def _actor(self, keyring: Keyring, state: Path | None) -> Actor:
        self._sessions += 1
        copy = self._folder / f"{self._sessions}.db"
        if state is not None:
            copy_state(state, copy)
        network = Network(self.operators.urls, self.lie)
        platform = await self._stack.enter_async_context(Platform(self.operators.urls["registry"], transport=network))
        return Actor(keyring, Session(keyring, platform, ClientState.load(copy)))

    async def give(self, owner: Actor, recipient: str, scopes: Sequence[str], *actions: Action) -> GrantReport:
        """A grant without a request."""
        return await share(owner, recipient, scopes, *actions)

    async def fetch(self, reader: Actor, grant: GrantReport | HeldGrant | None = None, owner: str = "") -> list[str]:
        """What a recipient's fetch complains of. Whatever it opens is what the patients wrote."""
        report = await reader.recipient.fetch(None if grant is None else grant.id, patient=owner or None)
        return self.complaints(report)

    def complaints(self, report: FetchReport) -> list[str]:
        """Codes of what a fetch left out; nothing that it opened is false."""
        assert {record.body for record in report.opened} <= self.cast.bodies
        return [problem.code for problem in report.problems]


def copy_state(source: Path, destination: Path) -> None:
    """Copy what a client remembers."""
    with sqlite3.connect(source) as old, sqlite3.connect(destination) as new:
        old.backup(new)
    old.close()
    new.close()


async def prepare(platform: EmbeddedPlatform, folder: Path) -> Cast:
    """Sign everybody up and let them do what the attacks are about, with nobody lying."""
    async with AsyncExitStack() as stack:

        async def party(name: str, role: Role) -> tuple[Party, Actor]:
            keyring = Keyring.generate()
            platform_ = await stack.enter_async_context(Platform(platform.registry_url))
            made = Party(keyring, folder / f"{name}.db")
            actor = Actor(keyring, Session(keyring, platform_, ClientState.load(made.state)))
            await actor.session.sign_up(role, name=f"Demo {name}" if role is Role.RECIPIENT else None)
            return made, actor

        owner, patient = await party("Owner", Role.PATIENT)
        doctor, reader = await party("Doctor", Role.RECIPIENT)
        clinic, writer = await party("Clinic", Role.RECIPIENT)
        neighbour, other = await party("Neighbour", Role.PATIENT)
        stranger, _ = await party("Stranger", Role.RECIPIENT)

        first = await patient.patient.add_records(
            [
                note("peanuts", title="Peanuts"),
                note("pollen", title="Pollen"),
                note("pills", "medications", "Pills"),
                note(LARGE.decode(), "laboratory", "Blood"),
            ]
        )
        peanuts, pollen, pills, blood = first
        peanuts = await patient.patient.add_version(peanuts.record_id, note("peanuts and nuts", title="Peanuts"))
        reading = await share(patient, doctor.did, ["allergies"], Action.READ)
        writing = await share(patient, clinic.did, ["medications"], Action.READ, Action.APPEND, Action.AMEND)
        ended = await share(patient, doctor.did, ["laboratory"], Action.READ)
        await settled(lambda: unopened(reader, 1, ended.id))
        # The doctor's keys change after its first grants, which go on.
        await reader.session.rotate_keys()
        await patient.session.party(doctor.did, fresh=True)
        await settled(lambda: unopened(reader, 2, reading.id))
        [written] = await Author(writer.session).append(writing.id, [note("written", "medications")])
        await Author(writer.session).amend(writing.id, pills.record_id, note("amended", "medications"))
        await patient.patient.revoke(ended.id)
        try:
            await reader.recipient.fetch(ended.id)
        except GrantEnded:
            pass
        else:
            raise AssertionError("an ended grant opened something")

        [theirs, _] = await other.patient.add_records([note("next door"), note("old", "laboratory")])
        nextdoor = await share(other, doctor.did, ["allergies"], Action.READ)
        over = await share(other, stranger.did, ["laboratory"], Action.READ)
        await other.patient.revoke(over.id)
        asked = (await ask(reader, owner.did), await ask(writer, owner.did))
        refused = await ask(reader, owner.did)
        await patient.patient.deny(refused)
        asked_nextdoor = await ask(reader, neighbour.did)
        # Everybody has looked at everything once.
        await settled(lambda: unreadable(patient))
        for stored in (peanuts, pollen, pills, blood, written):
            await patient.patient.read_record(stored.record_id)
        await patient.patient.grants()
        await settled(lambda: unopened(writer, 2, writing.id))
        await settled(lambda: unopened(reader, 3))
        for grant in (reading, writing):
            await grant_in_state(patient, grant.id, GrantState.COMPLETE)
        await settled(lambda: found_by_audit(patient))
        for actor in (patient, reader, writer, other):
            actor.session.state.save()
    bodies = [b"peanuts", b"peanuts and nuts", b"pollen", b"pills", b"amended", b"written", b"next door", b"old", LARGE]
    return Cast(
        owner=owner,
        doctor=doctor,
        clinic=clinic,
        neighbour=neighbour,
        stranger=stranger,
        peanuts=peanuts,
        pollen=pollen,
        pills=pills,
        blood=blood,
        written=written,
        theirs=theirs,
        reading=reading,
        writing=writing,
        ended=ended,
        nextdoor=nextdoor,
        over=over,
        asked=asked,
        refused=refused,
        asked_nextdoor=asked_nextdoor,
        bodies=frozenset(bodies),
    )


async def settled(look: Callable[[], Awaitable[Sequence[object]]]) -> None:
    """Return when `look` finds nothing amiss: a service on a slow machine may be late, for a minute at most."""
    for _ in range(60):
        if not (amiss := await look()):
            return
        await asyncio.sleep(1)
    raise AssertionError(f"with nobody lying: {amiss}")


async def unopened(reader: Actor, records: int, grant: str | None = None) -> Sequence[object]:
    """What is in the way of opening so many records."""
    report = await reader.recipient.fetch(grant)
    if len(report.opened) != records and not report.problems:
        return [f"{len(report.opened)} records opened instead of {records}"]
    return report.problems


async def unreadable(owner: Actor) -> Sequence[object]:
    """The patient's own records that do not verify."""
    return [summary for summary in await owner.patient.records() if summary.problem is not None]


async def found_by_audit(owner: Actor) -> Sequence[object]:
    """What an audit finds."""
    return audit_of(await gather(owner.patient)).findings


async def share(owner: Actor, recipient: str, scopes: Sequence[str], *actions: Action) -> GrantReport:
    """A grant for a month, without a request; returns when enough proxies have their share."""
    return await owner.patient.share(
        recipient, scopes=scopes, actions=actions, purpose=Purpose.TREAT, expires=in_a_month()
    )


async def ask(reader: Actor, patient: str) -> str:
    """A request for disclosure; its id."""
    return await reader.recipient.request(
        patient,
        scopes=["allergies"],
        actions=[Action.READ],
        purpose=Purpose.TREAT,
        reason="Planned treatment",
        expires=in_a_month(),
    )


def found(*codes: str | None) -> list[str]:
    """The codes that there are."""
    return [code for code in codes if code is not None]


def codes_of(problems: Iterable[object]) -> list[str]:
    """Codes of problems, findings or reports on proxies."""
    return [code for one in problems if (code := getattr(one, "code", None) or getattr(one, "problem", None))]
