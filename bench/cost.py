"""What encryption, consent and the log cost: the platform with its client beside a service that has none of them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import httpx

from bench.figure import Effort, Figure, in_turns, ratio_figure
from bench.platform import Measured, measured
from client.embedded.home import free_ports
from client.embedded.process import ChildProcess
from client.records import NewRecord
from shared.schemas.records import GrantState
from tests.e2e.actors import grant_in_state, granted, note

TITLE = "Cost of the platform beside a plain FastAPI and asyncpg service, the same records unencrypted"
SCOPE = "allergies"
SIZES = (1, 50)
"""Records written or read by one call."""
BODY = '{"resourceType":"AllergyIntolerance","note":"' + "no known allergies; " * 50 + '"}'
"""About a kilobyte, as most FHIR resources are."""
READY_SECONDS = 120.0


@asynccontextmanager
async def plain_service(platform: Measured) -> AsyncIterator[httpx.AsyncClient]:
    """The plain service as a process over the platform's Postgres, and a client of it."""
    port = free_ports(1)[0]
    process = ChildProcess(
        [
            *(sys.executable, "-m", "uvicorn", "bench.plain_service:app", "--host", "127.0.0.1", "--port", str(port)),
            *("--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools"),
        ],
        log=platform.folder / "plain.log",
        cwd=Path(__file__).parents[1],
        env={"PLAIN_DATABASE_URL": platform.database_url("records")},
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
            await _until_ready(http)
            yield http
    finally:
        process.terminate()
        await process.ended_within(10)
        process.kill_group()


async def _until_ready(http: httpx.AsyncClient) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            (await http.get("/patients/nobody/records")).raise_for_status()
            return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


def records(number: int) -> list[NewRecord]:
    return [note(BODY, SCOPE, title="Allergy") for _ in range(number)]


async def write_plainly(http: httpx.AsyncClient, patient: str, new: Sequence[NewRecord]) -> None:
    rows = [
        {"scope": one.scope, "media_type": one.media_type, "title": one.title, "body": one.body.decode()} for one in new
    ]
    (await http.post(f"/patients/{patient}/records", json={"records": rows})).raise_for_status()


async def read_plainly(http: httpx.AsyncClient, patient: str, number: int) -> None:
    answer = await http.get(f"/patients/{patient}/records")
    if len(answer.raise_for_status().json()["records"]) != number:
        raise RuntimeError("the plain service has lost a record")


async def of_size(platform: Measured, http: httpx.AsyncClient, size: int, effort: Effort) -> list[Figure]:
    """Storing so many records in one call, and a recipient's opening all of them, 2 of 3, everything verified."""
    writer = await platform.actors.patient()
    owner, reader = await platform.actors.patient(), await platform.actors.recipient()
    await owner.patient.add_records(records(size))
    await write_plainly(http, owner.did, records(size))
    grant = await granted(owner, reader, scopes=[SCOPE])
    await grant_in_state(owner, grant.id, GrantState.COMPLETE)
    written = count()

    async def open_all() -> None:
        if len((await reader.recipient.fetch(grant.id)).opened) != size:
            raise RuntimeError("a record could not be opened")

    pairs: list[tuple[str, Callable[[], Awaitable[object]], Callable[[], Awaitable[object]]]] = [
        (
            f"store {size} of a kilobyte: encrypted and signed ÷ plain",
            lambda: writer.patient.add_records(records(size)),
            lambda: write_plainly(http, f"writer-{next(written)}", records(size)),
        ),
        (
            f"list and open {size} under a grant, 2 of 3, verified ÷ plain",
            open_all,
            lambda: read_plainly(http, owner.did, size),
        ),
    ]
    return [ratio_figure(name, *await in_turns(effort.rounds, ours, plain)) for name, ours, plain in pairs]


async def figures(effort: Effort) -> list[Figure]:
    async with measured() as platform, plain_service(platform) as http:
        sizes = SIZES[:1] if effort.quick else SIZES
        return [figure for size in sizes for figure in await of_size(platform, http, size, effort)]
