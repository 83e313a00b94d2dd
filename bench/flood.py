"""What a flood of invalid requests leaves to the valid ones: `python -m bench.flood`.

One run on real processes over loopback and real Postgres. For each service, in turns, the throughput of valid requests
alone and beside a flood: tokens and statements with forged signatures, rubbish, bodies that are too large, and a party
above its rate. The flood comes from another loopback address than the valid requests, over 64 connections, and is meant
to be so many times as fast as they are; how fast it was in the end is told. Flood, valid clients, services and Postgres
share the cores of one machine; what making the flood itself takes is told too, and is part of what the valid requests
lose.

Besides, for each kind of invalid request, the processor time of the service's process that one takes ÷ one valid
request's. Neither Postgres nor the workers of a proxy are in it, which only valid requests reach.

Everything is bounded: so many requests, so many seconds, and only this machine is asked.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from bench.figure import Effort, Figure, Goal
from bench.raw_http import HOST, Connection, request
from client.disclosure import request_reencryption
from client.embedded.platform import EmbeddedPlatform
from client.held import HeldGrant
from client.reports import ListedRecord
from shared.encoding import b64url
from shared.tokens import ASSERTION_TYPE_URN
from shared.wire import RECORDS_AUDIENCE, REGISTRY_AUDIENCE
from tests.e2e.actors import Actor, ActorMaker, granted, note

TITLE = "A flood of invalid requests beside valid ones"

GOAL = Goal(0.8, at_least=True)
ELSEWHERE = "127.0.0.2"
"""Where the flood comes from."""
TIMES = 2.0
"""Requests of the flood for each valid one that is served without it."""
SECONDS = 2.0
ROUNDS = 8
CLIENTS = 4
"""Valid clients that ask at once, each the next thing when it has the answer."""
FLOOD_CONNECTIONS = 64
"""A service keeps a refusal for asking too often back for a second, so that each of these gets no further meanwhile."""
MOST = 20_000
"""Requests in one flood, whatever the rate says."""
SAMPLE = 400
"""Requests of one kind that its cost is taken over."""
PARTIES = 24
"""Whose valid requests these are, in turns, so that none of them comes near the rate of a party."""
_ADDRESSES = {"PCEHR_UNLIMITED_ADDRESSES": HOST, "PCEHR_ADDRESS_BURST": "400"}
"""All of this comes from loopback, which has no bounds otherwise: the flood's address must have them."""
_PARTIES = {"PCEHR_PARTY_RATE": "40", "PCEHR_PARTY_BURST": "100"}
SETTINGS = {"registry": _ADDRESSES | _PARTIES, "records": _ADDRESSES | _PARTIES, "proxy": _ADDRESSES}


@dataclass(frozen=True)
class Target:
    """One service: how to make one valid request, and invalid ones by kind, as bytes."""

    name: str
    url: str
    pid: int
    valid: Callable[[], Awaitable[bytes]]
    expected: int
    invalid: Mapping[str, bytes]


async def figures(effort: Effort) -> list[Figure]:
    """The throughput of valid requests with a flood ÷ without, and the cost of an invalid request ÷ a valid one."""
    # That a log is a moment behind is nothing to tell of.
    logging.getLogger("stamina").setLevel(logging.ERROR)
    rounds = 2 if effort.quick else min(effort.rounds, ROUNDS)
    seconds = 0.5 if effort.quick else SECONDS
    sample = 40 if effort.quick else SAMPLE
    found = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as elsewhere:
        async with _platform() as (platform, maker):
            for target in await _targets(platform, maker):
                found.append(await _throughput(target, elsewhere, rounds, seconds))
                found += await _costs(target, sample)
    return found


@asynccontextmanager
async def _platform() -> AsyncIterator[tuple[EmbeddedPlatform, ActorMaker]]:
    with tempfile.TemporaryDirectory(prefix="pcehr-flood-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # noqa: ASYNC240  Nothing else runs here yet.
        async with EmbeddedPlatform(folder / "home", base_port=None, settings=SETTINGS) as platform:
            maker = ActorMaker(platform.registry_url, folder)
            try:
                yield platform, maker
            finally:
                await maker.close()


async def _targets(platform: EmbeddedPlatform, maker: ActorMaker) -> list[Target]:
    owner, reader, greedy = await maker.patient(), await maker.recipient(), await maker.patient()
    many = await asyncio.gather(*(maker.patient() for _ in range(PARTIES)))
    await owner.patient.add_records([note(f"finding {number}") for number in range(10)])
    report = await granted(owner, reader, scopes=["allergies"])
    grant = await reader.recipient.grant(report.id)
    records = await reader.recipient.listing(grant)
    urls, pids = platform.urls, platform.pids
    return [
        await _records(many, greedy, urls["records"], pids["records"]),
        await _registry(many, greedy, urls["registry"], pids["registry"]),
        await _proxy(reader, grant, records[0], urls["proxy-1"], pids["proxy-1"]),
    ]


async def _records(many: Sequence[Actor], greedy: Actor, url: str, pid: int) -> Target:
    async def token_of(actor: Actor) -> str:
        return await actor.session.platform.token(await actor.session.credentials(), RECORDS_AUDIENCE)

    def listing(token: str) -> bytes:
        return request("GET", "/v1/me/records?limit=10", headers={"authorization": f"Bearer {token}"})

    turns = itertools.cycle([listing(await token_of(actor)) for actor in many])

    async def valid() -> bytes:
        return next(turns)

    token = await token_of(greedy)
    return Target("records", url, pid, valid, 200, {
        "a token with a forged signature": listing(_forged(token)),
        "a party above its rate": listing(token),
        "rubbish for a token": request("GET", "/v1/me/records", headers={"authorization": "Bearer " + "x" * 2000}),
        "rubbish for a body": _rubbish("/v1/records"),
        "a body too large": _too_large("/v1/records"),
    })  # fmt: skip


async def _registry(many: Sequence[Actor], greedy: Actor, url: str, pid: int) -> Target:
    turns = itertools.cycle([await actor.session.credentials() for actor in many])
    credentials = await greedy.session.credentials()
    endpoint = (await greedy.session.platform.discovery()).token_endpoint
    form = {"content-type": "application/x-www-form-urlencoded"}

    def asking(assertion: str) -> bytes:
        members = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE_URN,
            "client_assertion": assertion,
            "resource": REGISTRY_AUDIENCE,
        }
        body = "&".join(f"{name}={value}" for name, value in members.items()).encode()
        return request("POST", "/v1/oauth/token", body, form)

    async def valid() -> bytes:
        return asking(next(turns).make_assertion(endpoint))

    entry = (await greedy.session.me()).tokens[0]
    forged = json.dumps({"key_entry": _forged(entry)}).encode()
    return Target("registry", url, pid, valid, 200, {
        "an assertion with a forged signature": asking(_forged(credentials.make_assertion(endpoint))),
        "a party above its rate": asking(credentials.make_assertion(endpoint)),
        "a sign-up with a forged signature": request("POST", "/v1/patients", forged, _JSON),
        "rubbish for a body": _rubbish("/v1/patients"),
        "a body too large": _too_large("/v1/patients"),
    })  # fmt: skip


async def _proxy(reader: Actor, grant: HeldGrant, record: ListedRecord, url: str, pid: int) -> Target:
    capsules = [b64url(record.capsule)]

    def asking(token: str) -> bytes:
        return request(
            "POST", "/v1/reencryptions", json.dumps({"request": token, "capsules": capsules}).encode(), _JSON
        )

    async def valid() -> bytes:
        return asking((await request_reencryption(reader.session, grant, [record])).token)

    forged = _forged((await request_reencryption(reader.session, grant, [record])).token)
    return Target("proxy", url, pid, valid, 200, {
        "a request with a forged signature": asking(forged),
        "rubbish for a body": _rubbish("/v1/reencryptions"),
        "a body too large": _too_large("/v1/reencryptions"),
    })  # fmt: skip


_JSON = {"content-type": "application/json"}


def _forged(token: str) -> str:
    """The same statement, with a signature of the right length that somebody else might have made."""
    return f"{token.rpartition('.')[0]}.{b64url(bytes(range(64)))}"


def _rubbish(path: str) -> bytes:
    return request("POST", path, b'{"' + b"x" * 4_000, _JSON)


def _too_large(path: str) -> bytes:
    """Only the announcement: whoever waits for the body loses. Nothing else could follow on this connection."""
    return request("POST", path, headers=_JSON | {"content-length": str(2**30), "connection": "close"})


async def _throughput(target: Target, elsewhere: ProcessPoolExecutor, rounds: int, seconds: float) -> Figure:
    alone, beside, cpu = [], [], []
    statuses: Counter[int] = Counter()
    rate = TIMES * await _served(target, seconds) / seconds
    for _ in range(rounds):
        alone.append(await _served(target, seconds))
        loop = asyncio.get_running_loop()
        invalid = list(target.invalid.values())
        flood = loop.run_in_executor(elsewhere, _flood, target.url, invalid, rate, seconds)
        beside.append(await _served(target, seconds))
        outcome, spent = await flood
        statuses += outcome
        cpu.append(spent / seconds)
    pairs = [with_flood / without for with_flood, without in zip(beside, alone, strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4)
    served = f"{statistics.median(beside) / seconds:.0f} / {statistics.median(alone) / seconds:.0f} a second"
    answers = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    flooded = (
        f"flood of {sum(statuses.values()) / rounds / seconds:.0f} a second (wanted {rate:.0f}) takes"
        f" {statistics.median(cpu):.2f} cores to make; answers {answers}"
    )
    ratio = statistics.median(beside) / statistics.median(alone)
    return Figure(f"{target.name}: valid with a flood ÷ without", ratio, low, high, GOAL, f"{served}; {flooded}")


async def _served(target: Target, seconds: float) -> int:
    """How many valid requests are served; raises if one is not."""
    ends = time.monotonic() + seconds

    async def client() -> int:
        connection, served = Connection(target.url), 0
        while time.monotonic() < ends:
            status = await connection.ask(await target.valid())
            if status != target.expected:
                raise RuntimeError(f"a valid request was answered with {status}")
            served += 1
        connection.close()
        return served

    return sum(await asyncio.gather(*(client() for _ in range(CLIENTS))))


def _flood(url: str, invalid: Sequence[bytes], rate: float, seconds: float) -> tuple[Counter[int], float]:
    """Runs in a process of its own; returns the statuses of the answers and the processor time it took to ask."""
    started = time.process_time()
    statuses = asyncio.run(_flooding(url, invalid, rate, seconds))
    return statuses, time.process_time() - started


async def _flooding(url: str, invalid: Sequence[bytes], rate: float, seconds: float) -> Counter[int]:
    statuses: Counter[int] = Counter()
    count = min(int(rate * seconds), MOST)
    started = time.monotonic()

    async def sender(first: int) -> None:
        connection = Connection(url, source=ELSEWHERE)
        for number in range(first, count, FLOOD_CONNECTIONS):
            await asyncio.sleep(started + number / rate - time.monotonic())
            if time.monotonic() > started + seconds:
                break
            try:
                statuses[await connection.ask(invalid[number // FLOOD_CONNECTIONS % len(invalid)])] += 1
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
                statuses[0] += 1
        connection.close()

    await asyncio.gather(*(sender(first) for first in range(FLOOD_CONNECTIONS)))
    return statuses


async def _costs(target: Target, sample: int) -> list[Figure]:
    """Processor time of the service for each kind of invalid request, served and held back, ÷ that of a valid one."""
    valid: list[float] = []
    kinds: dict[str, list[float]] = {}

    async def good() -> bytes:
        return await target.valid()

    for _ in range(4):
        valid.append(await _cost(target, HOST, good, sample // 4))
        for kind, content in target.invalid.items():
            kinds.setdefault(kind, []).append(await _cost(target, HOST, _always(content), sample // 4))
        await _cost(target, ELSEWHERE, _always(next(iter(target.invalid.values()))), sample // 4)
        held_back = _always(next(iter(target.invalid.values())))
        kinds.setdefault("the first of these, held back with 429", []).append(
            await _cost(target, ELSEWHERE, held_back, sample // 4)
        )
    found = []
    for kind, costs in kinds.items():
        pairs = [one / other for one, other in zip(costs, valid, strict=True)]
        low, _, high = statistics.quantiles(pairs, n=4)
        one, other = statistics.median(costs), statistics.median(valid)
        measured = f"{one * 1e6:.0f} / {other * 1e6:.0f} µs of processor time in the service's process"
        found.append(Figure(f"{target.name}: {kind} ÷ a valid request", one / other, low, high, None, measured))
    return found


def _always(content: bytes) -> Callable[[], Awaitable[bytes]]:
    async def make() -> bytes:
        return content

    return make


async def _cost(target: Target, source: str, make: Callable[[], Awaitable[bytes]], count: int) -> float:
    """One after the other; from elsewhere all at once, since each answer is kept back."""
    requests = [await make() for _ in range(count)]
    connections = [Connection(target.url, source=source) for _ in range(count if source == ELSEWHERE else 1)]
    before = _processor_seconds(target.pid)
    if source == ELSEWHERE:
        await asyncio.gather(*(each.ask(content) for each, content in zip(connections, requests, strict=True)))
    else:
        for content in requests:
            await connections[0].ask(content)
    spent = _processor_seconds(target.pid) - before
    for connection in connections:
        connection.close()
    return spent / count


def _processor_seconds(pid: int) -> float:
    """What all threads of a process have taken so far (Linux)."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


async def main() -> None:
    for figure in await figures(Effort()):
        goal = f"goal {figure.goal}" if figure.goal else ""
        spread = f"({figure.low:.2f} to {figure.high:.2f})"
        print(f"{figure.name:62} {figure.ratio:5.2f} {spread} {goal:10} {figure.measured}")


if __name__ == "__main__":
    asyncio.run(main())
