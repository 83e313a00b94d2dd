"""Whether memory stays: `python -m bench.soak [--minutes 60]`, or PCEHR_SOAK_MINUTES for the chapter.

One run on real processes over loopback and real Postgres. A cast that changes all the time does at a steady, low rate
what parties do: sign up, write, ask, approve, open, look at the log, revoke, and are refused. No list grows with the
length of the run, so that what grows is kept by somebody. Memory is the resident set of each process as Linux tells it
(`/proc/PID/status`): of a service, of all workers of a proxy together, and of all of Postgres's processes. Postgres's
shared buffers have a fixed size, fill as pages are first touched, and stand in a line of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.figure import Effort, Figure, Goal
from client.embedded.platform import EmbeddedPlatform
from client.embedded.postgres import EmbeddedPostgres
from client.errors import ClientError
from shared.wire import RECORDS_AUDIENCE
from tests.e2e.actors import ActorMaker, granted, note

TITLE = "Memory after a while of load ÷ after its first minute"

DEFAULT_MINUTES = 3.0
PAUSE_SECONDS = 2.0
"""Between one visit and the next; a visit makes some forty requests to the five services."""
LOOKS = 15
"""How often memory is looked at around each of the two moments, a second apart: one look may fall on a peak."""
GOAL = Goal(1.1)
KIB_PER_MIB = 1024
SHARED = "Postgres, shared buffers"


async def figures(effort: Effort) -> list[Figure]:
    """The memory of each process, at the end of the run ÷ after its first minute (of a quick run: a sixth of it)."""
    minutes = 0.5 if effort.quick else float(os.environ.get("PCEHR_SOAK_MINUTES", DEFAULT_MINUTES))
    return await soak(minutes, first=minutes / 6 if effort.quick else 1.0)


async def soak(minutes: float, *, first: float = 1.0, pause: float = PAUSE_SECONDS) -> list[Figure]:
    """Run for `minutes` and compare memory with that after `first` minutes."""
    # That a log is a moment behind is nothing to tell of.
    logging.getLogger("stamina").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="pcehr-soak-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # noqa: ASYNC240  Nothing else runs here yet.
        async with (
            EmbeddedPostgres(folder / "postgres") as server,
            EmbeddedPlatform(folder / "home", base_port=None, postgres_url=server.superuser_url) as platform,
        ):
            roots = {**platform.pids, "Postgres": server.pid, "client": os.getpid()}
            started = time.monotonic()
            load = asyncio.create_task(_load(platform, folder, pause))
            before = await _looks(roots, load, until=started + first * 60)
            after = await _looks(roots, load, until=started + minutes * 60)
            load.cancel()
            visits, failed = await load
    if failed > visits / 10:
        raise RuntimeError(f"{failed} of {visits + failed} visits failed, so that this says little of memory")
    note = f"MiB; {minutes:g} min ÷ {first:g} min, {visits} visits, {failed} that found no answer in time"
    return [_figure(one, after[one], before[one], note) for one in sorted(before)]


async def _load(platform: EmbeddedPlatform, folder: Path, pause: float) -> tuple[int, int]:
    """Visits, one after the other, until it is cancelled; returns how many there were, and how many found a service too
    slow to answer, as on a machine that has much else to do."""
    visits = failed = 0
    try:
        while True:
            started = time.monotonic()
            try:
                await _visit(platform, folder / "machines" / str(visits + failed))
                visits += 1
            except ClientError as error:
                if error.status < 500:
                    raise
                failed += 1
            await asyncio.sleep(max(pause - (time.monotonic() - started), 0.1))
    except asyncio.CancelledError:
        return visits, failed


async def _visit(platform: EmbeddedPlatform, folder: Path) -> None:
    """A patient and a practice that have never been here before, from sign-up to the end of consent."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    maker = ActorMaker(platform.registry_url, folder)
    try:
        owner, reader, stranger = await maker.patient(), await maker.recipient(), await maker.recipient("Demo Insurer")
        await owner.patient.add_records([note(f"finding {number}") for number in range(10)])
        grant = await granted(owner, reader, scopes=["allergies"])
        for _ in range(3):
            opened = await reader.recipient.fetch(grant.id)
            if len(opened.opened) != 10:
                raise RuntimeError("a granted record was not opened")
        try:
            await stranger.recipient.fetch(grant.id)
            raise RuntimeError("a stranger was not refused")
        except ClientError as refused:
            if refused.status >= 500:
                raise
        await owner.patient.records()
        records_url = platform.urls["records"]
        log = owner.session.platform.log_events(await owner.session.credentials(), records_url, RECORDS_AUDIENCE)
        async for _ in log:
            pass
        await owner.patient.revoke(grant.id)
    finally:
        await maker.close()


async def _looks(
    roots: Mapping[str, int], load: asyncio.Task[tuple[int, int]], *, until: float
) -> dict[str, list[int]]:
    """Memory in KiB by what it belongs to, looked at several times from the moment `until` on."""
    await asyncio.wait({load}, timeout=max(until - time.monotonic(), 0))
    found: dict[str, list[int]] = {}
    for _ in range(LOOKS):
        if load.done():
            load.result()
        for name, kib in _memory(roots).items():
            found.setdefault(name, []).append(kib)
        await asyncio.wait({load}, timeout=1)
    return found


def _memory(roots: Mapping[str, int]) -> dict[str, int]:
    parents = _parents()
    found = {}
    for name, root in roots.items():
        below = [] if name == "client" else list(_descendants(root, parents))
        if name == "Postgres":
            sizes = [_status(pid) for pid in (root, *below)]
            found["Postgres, all processes without shared buffers"] = sum(rss - shared for rss, shared in sizes)
            found[SHARED] = max(shared for _, shared in sizes)
            continue
        found[name] = _status(root)[0]
        if below:
            found[f"{name}, its workers"] = sum(_status(pid)[0] for pid in below)
    return found


def _parents() -> dict[int, int]:
    """The parent of each process that runs now."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # The name of the program, in parentheses, may hold anything.
                found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
    return found


def _descendants(root: int, parents: Mapping[int, int]) -> Iterable[int]:
    for pid, parent in parents.items():
        if parent == root:
            yield pid
            yield from _descendants(pid, parents)


def _status(pid: int) -> tuple[int, int]:
    """Resident memory of a process and how much of it is shared with others by mmap, in KiB; 0 for one that is gone."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
        return int(lines["VmRSS"].split()[0]), int(lines["RssShmem"].split()[0])
    except (OSError, KeyError):
        return 0, 0


def _figure(name: str, after: list[int], before: list[int], note: str) -> Figure:
    pairs = [one / other for one, other in zip(sorted(after), sorted(before), strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4)
    one, other = statistics.median(after), statistics.median(before)
    goal = None if name in (SHARED, "client") else GOAL
    measured = f"{one / KIB_PER_MIB:.1f} / {other / KIB_PER_MIB:.1f} {note}"
    return Figure(f"memory: {name}", one / other, low, high, goal, measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES)
    parser.add_argument("--pause", type=float, default=PAUSE_SECONDS, help="seconds from one visit to the next")
    given = parser.parse_args()
    first = min(1.0, given.minutes / 6)
    failed = False
    for figure in asyncio.run(soak(given.minutes, first=first, pause=given.pause)):
        failed |= figure.met is False
        goal = f"goal {figure.goal}" if figure.goal else ""
        print(
            f"{figure.name:58} {figure.ratio:6.3f} ({figure.low:.3f} to {figure.high:.3f}) {goal:12} {figure.measured}"
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
