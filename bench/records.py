"""The records service with three proxies behind it: how soon a revocation holds, and many clients at once."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import asyncpg

from bench.connection import Connection
from bench.figure import Effort, Figure, Goal, in_turns, ratio_figure
from bench.platform import Measured, measured
from shared.encoding import b64url, sha256
from shared.schemas.records import GrantState
from shared.statements import ReencryptionRequest, Revocation, WantedCapsule
from shared.wire import PROXIES_AUDIENCE, RECORDS_AUDIENCE, REENCRYPTION_LIFETIME, Action, Purpose
from tests.e2e.actors import Actor, grant_in_state, in_a_month, note

TITLE = "Revocation and many clients, three proxies of which two must take part"
SCOPE = "allergies"
CLIENTS = 64
RECIPIENTS_OF_A_PATIENT = 4
SIGNING_UP_AT_ONCE = 8
DISCLOSURES_OF_A_CLIENT = 4
"""Of each of many clients in a turn; the one alone makes as many as ten clients."""
LOOK_AGAIN_SECONDS = 0.001
ERASED_TO_SEAL = 2
"""Receipts: n - t + 1 of three proxies with a threshold of two."""


async def share(owner: Actor, reader: Actor) -> str:
    """A grant of the owner's to read, which all proxies have stored."""
    grant = await owner.patient.share(
        reader.did, scopes=[SCOPE], actions=[Action.READ], purpose=Purpose.TREAT, expires=in_a_month()
    )
    await grant_in_state(owner, grant.id, GrantState.COMPLETE)
    return grant.id


async def access(actor: Actor) -> dict[str, str]:
    """The header that lets a party in at the records service."""
    token = await actor.session.platform.token(await actor.session.credentials(), RECORDS_AUDIENCE)
    return {"Authorization": f"Bearer {token}"}


class OneRow:
    """The least that a database can make durable: one row, one statement, one commit."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def prepare(self) -> None:
        await self._connection.execute("CREATE TABLE IF NOT EXISTS one_row (said text)")

    async def commit(self) -> None:
        async with self._connection.transaction():
            await self._connection.execute("INSERT INTO one_row VALUES ($1)", "x" * 200)


async def revocations(platform: Measured, effort: Effort) -> list[Figure]:
    """From the posting of a signed revocation until the records service shows the receipts that seal it."""
    owner, reader = await platform.actors.patient(), await platform.actors.recipient()
    await owner.patient.add_records([note("no known allergies", SCOPE)])
    connection = Connection(platform.running.urls["records"])
    headers, token, grant = {}, "", ""

    async def give() -> None:
        nonlocal headers, token, grant
        grant = await share(owner, reader)
        headers = await access(owner)
        token = (await owner.session.sign(Revocation, reader.did, grant=grant, epochs=())).token

    async def seal() -> None:
        await connection.post("/v1/revocations", {"statement": token}, headers)
        while True:
            shown = json.loads(await connection.send("GET", f"/v1/grants/{grant}", headers=headers))
            if sum(proxy["erased"] is not None for proxy in shown["proxies"]) >= ERASED_TO_SEAL:
                return
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    database = await asyncpg.connect(platform.database_url("records"))
    one_row = OneRow(database)
    await one_row.prepare()
    sealed, commits = await in_turns(effort.rounds, seal, one_row.commit, before=give)
    await connection.close()
    await database.close()
    return [ratio_figure("revoke until sealed, p50, ÷ one commit of one row", sealed, commits, goal=Goal(5))]


@dataclass
class Client:
    """One of many, with a grant to read one record, and a connection of its own."""

    reader: Actor
    grant: str
    capsule: str
    connection: Connection
    headers: dict[str, str]
    bodies: list[bytes]

    async def sign(self, number: int) -> None:
        """Prepare so many disclosures; outside of what is measured."""
        self.headers = await access(self.reader)
        session = self.reader.session
        wanted = (WantedCapsule(entry=0, capsule=self.capsule),)
        self.bodies = [
            json.dumps(
                {
                    "request": (
                        await session.sign(
                            ReencryptionRequest,
                            PROXIES_AUDIENCE,
                            exp=session.clock() + REENCRYPTION_LIFETIME,
                            grant=self.grant,
                            capsules=wanted,
                        )
                    ).token
                }
            ).encode()
            for _ in range(number)
        ]

    async def disclose_all(self) -> list[float]:
        """Make what is prepared, one after the other; the seconds of each. Whatever fails ends the chapter."""
        taken = []
        for body in self.bodies:
            started = time.perf_counter()
            await self.connection.post("/v1/disclosures", body, self.headers)
            taken.append(time.perf_counter() - started)
        return taken


async def make_clients(platform: Measured, number: int) -> list[Client]:
    """Clients of different recipients, with grants of as many patients as `RECIPIENTS_OF_A_PATIENT` asks for."""
    places = asyncio.Semaphore(SIGNING_UP_AT_ONCE)

    async def of_one_patient(recipients: int) -> list[Client]:
        async with places:
            owner = await platform.actors.patient()
            await owner.patient.add_records([note("no known allergies", SCOPE)])
            made = []
            for _ in range(recipients):
                reader = await platform.actors.recipient()
                grant = await share(owner, reader)
                listed = await reader.recipient.listing(await reader.recipient.grant(grant))
                connection = Connection(platform.running.urls["records"])
                capsule = b64url(sha256(listed[0].capsule))
                made.append(Client(reader, grant, capsule, connection, {}, []))
            return made

    patients = [min(RECIPIENTS_OF_A_PATIENT, number - at) for at in range(0, number, RECIPIENTS_OF_A_PATIENT)]
    return [client for made in await asyncio.gather(*map(of_one_patient, patients)) for client in made]


async def many_clients(platform: Measured, effort: Effort) -> list[Figure]:
    """Disclosures of one record each, by one client alone and by many at once."""
    clients = await make_clients(platform, 4 if effort.quick else CLIENTS)
    each = 1 if effort.quick else DISCLOSURES_OF_A_CLIENT
    alone = replace(clients[0], connection=Connection(platform.running.urls["records"]))
    latencies: list[float] = []

    async def sign() -> None:
        await asyncio.gather(alone.sign(10 * each), *(client.sign(each) for client in clients))

    async def all_at_once() -> None:
        for taken in await asyncio.gather(*(client.disclose_all() for client in clients)):
            latencies.extend(taken)

    many, one = await in_turns(effort.rounds, all_at_once, alone.disclose_all, before=sign)
    await alone.connection.close()
    for client in clients:
        await client.connection.close()
    of_many = [seconds / (each * len(clients)) for seconds in many]
    best = min(one) / (10 * each)
    cores = len(os.sched_getaffinity(0))
    return [
        ratio_figure(
            f"{len(clients)} clients at once: disclosures a second ÷ one client's best",
            [best] * len(of_many),
            of_many,
            goal=Goal(0.9 * cores, at_least=True),
            per=" each",
        ),
        _tail(f"{len(clients)} clients at once: p99 ÷ p50 of a disclosure", latencies),
    ]


def _tail(name: str, latencies: Sequence[float]) -> Figure:
    """The figure of how much worse the worst hundredth is; its quartiles are those of the latencies over their p50."""
    low, middle, high = statistics.quantiles(latencies, n=4)
    p99 = statistics.quantiles(latencies, n=100)[98]
    measured = f"{p99 * 1000:.2f} / {middle * 1000:.2f} ms"
    return Figure(name, p99 / middle, low / middle, high / middle, Goal(10), measured)


async def figures(effort: Effort) -> list[Figure]:
    async with measured() as platform:
        return [*await revocations(platform, effort), *await many_clients(platform, effort)]
