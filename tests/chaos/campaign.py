"""A platform under load whose processes are killed by plan while it is watched, and the comparison afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from client import keystore
from client.audit.gather import gather
from client.audit.report import audit_of
from client.embedded.platform import EmbeddedPlatform
from client.embedded.postgres import EmbeddedPostgres
from client.patient import Patient
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from tests.chaos.account import AWAY, entries_of, names_of, settled_account, watched
from tests.chaos.compare import problems
from tests.chaos.effects import effects_of
from tests.chaos.household import PASSPHRASE, SCOPES
from tests.chaos.plan import Kill

ROOT = Path(__file__).parents[2]
STEP_SECONDS = 8.0
"""How long a kill waits for its step to begin anywhere before it happens all the same."""
ROUND_SECONDS = 240.0
"""How long the households may take to the end of a round when nothing is killed any more."""
VICTIM_SECONDS = 60.0
"""How long a kill waits for its victim, which may just be on its way back."""
LOOK_EVERY = 10
"""After so many kills what has been acknowledged by then is looked for, while all goes on."""


@dataclass
class Outcome:
    """What a campaign has seen; `problems` must be empty."""

    killed: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    entries: Counter[str] = field(default_factory=Counter)
    statements: int = 0
    looks: int = 0
    grants_twice: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        killed = ", ".join(f"{victim} {count}" for victim, count in sorted(self.killed.items()))
        acknowledged = ", ".join(f"{kind} {count}" for kind, count in sorted(self.entries.items()) if kind != "seen")
        refused = ", ".join(f"{code} {count}" for code, count in sorted(self.refused.items()))
        return (
            f"{sum(self.killed.values())} kills in {self.seconds:.0f} s ({killed});"
            f" {sum(self.entries.values()) - self.entries['seen']} acknowledgements of {self.statements} statements"
            f" ({acknowledged}); looked at {self.looks} times; refused meanwhile: {refused or 'nothing'};"
            f" requests answered twice by a client that was killed: {self.grants_twice};"
            f" problems: {len(self.problems)}"
        )


class Household:
    """The process of one household, started again whenever it was killed."""

    def __init__(self, folder: Path, registry_url: str, began: Callable[[str], None]) -> None:
        self.folder = folder
        self._command = [sys.executable, "-m", "tests.chaos.household", str(folder), registry_url]
        self._began = began
        self._process: asyncio.subprocess.Process | None = None
        self.refused: Counter[str] = Counter()
        self.last = "nothing yet"
        folder.mkdir(parents=True)

    async def run(self) -> None:
        """Returns when it has ended by itself; raises AssertionError when it ended in another way than by a kill."""
        while True:
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            assert process.stderr is not None
            complaints = asyncio.create_task(process.stderr.read())
            try:
                async for line in process.stdout:
                    said = line.decode().split()
                    self.last = " ".join(said)
                    if said[0] == "refused":
                        self.refused[said[2]] += 1
                    else:
                        self._began(said[0])
                status = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                complaint = (await complaints).decode()
            if status == 0:
                return
            assert status == -signal.SIGKILL, complaint

    def kill(self) -> bool:
        if self._process is None or self._process.returncode is not None:
            return False
        self._process.kill()
        return True


class Campaign:
    """`run` goes through a plan. `say` hears of each kill."""

    def __init__(self, platform: EmbeddedPlatform, folder: Path, *, households: int) -> None:
        self._platform = platform
        self._begun = asyncio.Condition()
        self._steps: Counter[str] = Counter()
        self._households = [
            Household(folder / f"household-{number}", platform.registry_url, self._note) for number in range(households)
        ]
        self.outcome = Outcome()

    async def run(self, plan: list[Kill], say: Callable[[str], None]) -> Outcome:
        started = time.monotonic()
        async with watched(self._platform):
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(household.run()) for household in self._households]
                await self._kill_all(plan, say)
                for household in self._households:
                    (household.folder / "stop").touch()
                _, stuck = await asyncio.wait(running, timeout=ROUND_SECONDS)
                assert not stuck, f"stuck; the households said last: {[one.last for one in self._households]}"
            say("all households have come to the end of a round")
            await self._settle()
        for household in self._households:
            self.outcome.refused.update(household.refused)
        self.outcome.seconds = time.monotonic() - started
        return self.outcome

    async def _kill_all(self, plan: list[Kill], say: Callable[[str], None]) -> None:
        for kill in plan:
            await self._until_begun(kill.step)
            await asyncio.sleep(kill.delay)
            hit = await self._hit(kill)
            (self.outcome.killed.update if hit else self.outcome.missed.extend)([kill.victim])
            say(f"{kill}{'' if hit else ': was not there'}")
            if kill.number % LOOK_EVERY == 0:
                await self._look()

    async def _hit(self, kill: Kill) -> bool:
        deadline = time.monotonic() + VICTIM_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(ProcessLookupError):
                if kill.victim == "client":
                    if self._households[int(kill.choice * len(self._households))].kill():
                        return True
                elif (pid := self._pid(kill)) is not None:
                    os.kill(pid, signal.SIGKILL)
                    return True
            await asyncio.sleep(0.05)
        return False

    def _pid(self, kill: Kill) -> int | None:
        database = self._platform._database
        assert isinstance(database, EmbeddedPostgres)
        if kill.victim == "postmaster":
            return database.pid if database.running else None
        if kill.victim == "backend":
            return _chosen(descendants(database.pid), kill.choice) if database.running else None
        if kill.victim == "worker":
            proxies = [pid for name, pid in self._platform.pids.items() if name.startswith("proxy")]
            return _chosen([child for pid in proxies for child in descendants(pid)], kill.choice)
        return self._platform.pids.get(kill.victim)

    async def _look(self) -> None:
        """What the ledger has by now is looked for; not while Postgres is away."""
        entries = entries_of(self._ledgers)
        with contextlib.suppress(*AWAY):
            self.outcome.problems += problems(entries, await effects_of(self._platform), names_of(self._platform))
            self.outcome.looks += 1

    async def _settle(self) -> None:
        """Nothing is killed any more: everything must settle, and then all of it is compared."""
        problems, effects = await settled_account(self._platform, self._ledgers)
        entries = entries_of(self._ledgers)
        self.outcome.entries = Counter(entry.kind for entry in entries)
        self.outcome.statements = len({signed.id for entry in entries for signed in entry.statements})
        self.outcome.grants_twice = sum(count > 1 for count in effects.grants_of_request.values())
        self.outcome.problems += problems
        for household in self._households:
            self.outcome.problems += await _audited(household.folder, self._platform.registry_url)

    @property
    def _ledgers(self) -> list[Path]:
        return [household.folder / "ledger.jsonl" for household in self._households]

    def _note(self, step: str) -> None:
        self._steps[step] += 1
        asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        async with self._begun:
            self._begun.notify_all()

    async def _until_begun(self, step: str) -> None:
        before = self._steps[step]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STEP_SECONDS), self._begun:
                await self._begun.wait_for(lambda: self._steps[step] > before)


async def _audited(folder: Path, registry_url: str) -> list[str]:
    """What `pcehr audit` finds for the patient of a household, from its own keystore and state."""
    async with Platform(registry_url) as platform:
        session = Session(
            keystore.load(folder / "patient" / "keystore.json", PASSPHRASE),
            platform,
            ClientState.load(folder / "patient" / "state.db"),
        )
        audit = audit_of(await gather(Patient(session, known_scopes=SCOPES)))
    return [f"audit: {finding}" for finding in audit.findings] + [
        f"audit: {service} is not looked at: {problem}"
        for service, problem in {**audit.gathered.away, **audit.gathered.broken}.items()
    ]


def descendants(pid: int) -> list[int]:
    """Children of a process, and theirs, in the order of their ids."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children.setdefault(int(status.read_text().rpartition(")")[2].split()[1]), []).append(
                int(status.parent.name)
            )
    found, wanted = [], children.get(pid, [])
    while wanted:
        found += wanted
        wanted = [child for one in wanted for child in children.get(one, [])]
    return sorted(found)


def _chosen(pids: list[int], choice: float) -> int | None:
    return pids[int(choice * len(pids))] if pids else None
