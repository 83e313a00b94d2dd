"""One proxy over HTTP beside the bare arithmetic that it does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.bare import BareProcesses, reencryptions
from bench.connection import Connection
from bench.figure import Effort, Figure, Goal, in_turns, ratio_figure
from bench.platform import Measured, measured
from shared.crypto.umbral import KfragSigner, SecretKey, encrypt, generate_kfrags
from shared.encoding import b64url, sha256
from shared.schemas.proxy import ReencryptionIn
from shared.schemas.records import GrantState
from shared.statements import ReencryptionRequest, WantedCapsule
from shared.wire import PROXIES_AUDIENCE, REENCRYPTION_LIFETIME
from tests.e2e.actors import Actor, grant_in_state, granted, note

TITLE = "Re-encryption at one proxy"
CAPSULES = 100
"""In one batch."""
AT_ONCE_PER_WORKER = 4
"""Batches that callers have under way at the proxy for each of its processes."""
BATCHES_PER_CONNECTION = 4
"""In one turn."""
SINGLES_PER_ROUND = 10
SCOPE = "allergies"


@dataclass(frozen=True)
class Caller:
    """A recipient with a grant, and what it asks the proxy for: capsules made for the patient's key."""

    reader: Actor
    grant: str
    capsules: list[bytes]

    async def request(self, count: int) -> bytes:
        """A body of `POST /v1/reencryptions`, signed now, for so many capsules."""
        wanted = self.capsules[:count]
        now = self.reader.session.clock()
        statement = await self.reader.session.sign(
            ReencryptionRequest,
            PROXIES_AUDIENCE,
            exp=now + REENCRYPTION_LIFETIME,
            grant=self.grant,
            capsules=tuple(WantedCapsule(entry=0, capsule=b64url(sha256(capsule))) for capsule in wanted),
        )
        body = ReencryptionIn(request=statement.token, capsules=[b64url(capsule) for capsule in wanted])
        return body.model_dump_json().encode()


async def caller_at(platform: Measured) -> Caller:
    """A fresh patient and a fresh recipient whose grant every proxy of the platform has stored."""
    owner, reader = await platform.actors.patient(), await platform.actors.recipient()
    await owner.patient.add_records([note("no known allergies", SCOPE)])
    grant = await granted(owner, reader, scopes=[SCOPE])
    await grant_in_state(owner, grant.id, GrantState.COMPLETE)
    delegating = owner.keyring.delegating(SCOPE, 0).public_key()
    return Caller(reader, grant.id, [bytes(encrypt(delegating, bytes(64))[0]) for _ in range(CAPSULES)])


def a_kfrag() -> bytes:
    """Any kfrag: the arithmetic costs the same with each."""
    signer = KfragSigner(SecretKey.generate())
    return bytes(generate_kfrags(SecretKey.generate(), SecretKey.generate().public_key(), signer, 2, 3)[0])


@asynccontextmanager
async def bare_processes(processes: int) -> AsyncIterator[BareProcesses]:
    pool = BareProcesses(processes)
    try:
        await pool.start()
        yield pool
    finally:
        pool.close()


async def batches(platform: Measured, caller: Caller, workers: int, effort: Effort) -> Figure:
    """Throughput with every worker busy, over that of the loop in as many processes."""
    at_once, each = (1, 1) if effort.quick else (AT_ONCE_PER_WORKER, BATCHES_PER_CONNECTION)
    connections = [Connection(platform.running.urls["proxy-1"]) for _ in range(workers * at_once)]
    kfrag, capsules = a_kfrag(), caller.capsules * (each * len(connections))
    bodies: list[bytes] = []

    async def sign() -> None:
        bodies[:] = [await caller.request(CAPSULES) for _ in range(each * len(connections))]

    async def drain(connection: Connection, own: list[bytes]) -> None:
        for body in own:
            await connection.post("/v1/reencryptions", body)

    async def over_http() -> None:
        await asyncio.gather(*(drain(one, bodies[at :: len(connections)]) for at, one in enumerate(connections)))

    async with bare_processes(workers) as bare:
        http, loop = await in_turns(effort.rounds, over_http, lambda: bare.reencrypt(kfrag, capsules), before=sign)
    for connection in connections:
        await connection.close()
    return ratio_figure(
        f"re-encryptions a second over HTTP, batches of {CAPSULES}, ÷ the bare loop on as many cores ({workers})",
        loop,
        http,
        goal=Goal(0.9, at_least=True),
        per=f" for {len(capsules)}",
    )


async def singles(platform: Measured, caller: Caller, effort: Effort) -> Figure:
    """One capsule in a request, one request at a time, beside its parsing and re-encryption in this process."""
    connection = Connection(platform.running.urls["proxy-1"])
    kfrag, capsules = a_kfrag(), caller.capsules[:1]
    body = b""

    async def sign() -> None:
        nonlocal body
        body = await caller.request(1)

    async def over_http() -> None:
        await connection.post("/v1/reencryptions", body)

    async def bare() -> None:
        reencryptions(kfrag, capsules)

    http, loop = await in_turns(effort.rounds * SINGLES_PER_ROUND, over_http, bare, before=sign)
    await connection.close()
    return ratio_figure("one re-encryption over HTTP, one at a time, p50, ÷ its bare crypto", http, loop, goal=Goal(3))


async def figures(effort: Effort) -> list[Figure]:
    workers = len(os.sched_getaffinity(0))
    async with measured(proxies=1, threshold=1, workers=workers) as platform:
        caller = await caller_at(platform)
        return [await batches(platform, caller, workers, effort), await singles(platform, caller, effort)]
