"""`make fuzz-parsers`: a million executions of each decoder, guided by coverage, a process for each core.

    python -m tests.fuzz [--executions N] [--seconds S] [--seed N] [--only PATTERN] [--replay FILE]

The seed is printed, and with the same seed and the same code a run that is not guided tries the same inputs. An input
that breaks a decoder is kept in `.fuzz/`, under the decoder's name; `--replay` takes it up again. Atheris
(libFuzzer for Python) guides where it has a wheel; elsewhere the inputs are changed without looking.
"""

from __future__ import annotations

import argparse
import mmap
import os
import secrets
import struct
import sys
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

try:
    import atheris
except ImportError:  # No wheel for this interpreter or system.
    atheris = None

if atheris is None:
    from tests.fuzz.decoders import ALL
else:
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # Atheris names every module that it instruments.
    try:
        with atheris.instrument_imports(include=["shared", "client", "services"]):
            from tests.fuzz.decoders import ALL
    finally:
        sys.stderr = sys.__stderr__

from tests.fuzz.campaign import inputs
from tests.fuzz.decoder import Broken, Decoder, execute
from tests.fuzz.mutation import LIMIT, mutate

FOUND = Path(".fuzz")
_BROKEN = 3
_EVERY = 64
"""Executions between two reports of a process to the one that started it."""


@dataclass
class Run:
    """One decoder's turn: its process, and what it has written into memory that is shared."""

    decoder: Decoder
    counts: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 16))
    process: int = 0
    began: float = 0.0
    seconds: float = 0.0
    status: int | None = None

    def report(self, executions: int, accepted: int) -> None:
        self.counts[:16] = struct.pack("<QQ", executions, accepted)

    @property
    def done(self) -> tuple[int, int]:
        """Executions, and how many of them were accepted."""
        executions, accepted = struct.unpack("<QQ", self.counts[:16])
        return executions, accepted


class Limits:
    """When a process stops by itself."""

    def __init__(self, executions: int, seconds: float) -> None:
        self.executions = executions
        self._seconds = seconds
        self._until = 0.0

    def begin(self) -> None:
        self._until = time.monotonic() + self._seconds

    def reached(self, executions: int) -> bool:
        return executions >= self.executions or time.monotonic() > self._until


def fuzz(run: Run, limits: Limits, seed: int) -> None:
    """In a process of its own: execute until a limit is reached or something breaks, and end the process."""
    limits.begin()
    executions = accepted = 0

    def one(data: bytes) -> bool:
        nonlocal executions, accepted
        try:
            took = execute(run.decoder, data)
        except Broken as broken:
            run.report(executions + 1, accepted)
            _keep(run.decoder, broken)
            os._exit(_BROKEN)
        executions += 1
        accepted += took
        if executions % _EVERY == 0 or executions >= limits.executions:
            run.report(executions, accepted)
            if limits.reached(executions):
                os._exit(0)
        return took

    if atheris is None:
        changed = inputs(run.decoder, seed)
        data = next(changed)
        while True:
            data = changed.send(one(data))
    _guided(run.decoder, one, seed)


def _guided(decoder: Decoder, one: object, seed: int) -> None:
    """libFuzzer keeps what reaches new code, and has it changed by its own means or by ours."""
    samples = list(decoder.samples) or [b""]

    def change(data: bytes, size: int, number: int) -> bytes:
        random = Random(number)
        if random.random() < 0.3:
            return bytes(atheris.Mutate(data, size))
        return mutate(data if random.random() < 0.8 else random.choice(samples), random, samples)[:size]

    corpus = FOUND / "samples" / decoder.name
    corpus.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        (corpus / sha256(sample).hexdigest()).write_bytes(sample)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    longest = max(LIMIT, *(2 * len(sample) for sample in samples))
    arguments = [
        f"-seed={seed % 2**31 or 1}",
        f"-max_len={longest}",
        "-verbosity=0",
        "-timeout=3600",
        "-rss_limit_mb=0",
    ]
    arguments.append(f"-artifact_prefix={FOUND}/")
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], one, custom_mutator=change)
    atheris.Fuzz()


def _keep(decoder: Decoder, broken: Broken) -> None:
    FOUND.mkdir(exist_ok=True)
    name = f"{decoder.name}-{sha256(broken.data).hexdigest()[:12]}"
    (FOUND / name).write_bytes(broken.data)
    (FOUND / f"{name}.txt").write_text("".join(traceback.format_exception(broken)), "utf-8")


def all_of_them(runs: Sequence[Run], limits: Limits, seed: int, console: Console) -> None:
    """Each run in a process of its own, as many at a time as there are cores."""
    waiting, running = deque(runs), []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("parsers", total=limits.executions * len(runs))
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                run = waiting.popleft()
                run.began = time.monotonic()
                run.process = os.fork()
                if run.process == 0:
                    fuzz(run, limits, seed)
                running.append(run)
            time.sleep(0.2)
            for run in list(running):
                process, status = os.waitpid(run.process, os.WNOHANG)
                if process:
                    run.status, run.seconds = os.waitstatus_to_exitcode(status), time.monotonic() - run.began
                    running.remove(run)
                    if run.status:
                        console.print(f"[bold red]{run.decoder.name} is broken[/]; the input is in {FOUND}/")
            ended = limits.executions * sum(run.status is not None for run in runs)
            names = ", ".join(run.decoder.name for run in running)
            progress.update(bar, completed=ended + sum(run.done[0] for run in running), description=names[:60])


def show(runs: Sequence[Run], console: Console) -> None:
    table = Table("decoder", "executions", "accepted", "seconds", "")
    for run in runs:
        executions, accepted = run.done
        verdict = "" if run.status == 0 else "BROKEN"
        table.add_row(run.decoder.name, f"{executions:,}", f"{accepted:,}", f"{run.seconds:.0f}", verdict)
    console.print(table)
    total, broken = sum(run.done[0] for run in runs), sum(run.status != 0 for run in runs)
    console.print(f"{len(runs)} decoders, {total:,} executions, {broken} broken.")


def replay(path: Path) -> int:
    """An input that was kept, once more."""
    decoder = next(each for each in ALL if each.name == path.name.rpartition("-")[0])
    try:
        accepted = execute(decoder, path.read_bytes())
    except Broken:
        traceback.print_exc()
        return 1
    print(f"{decoder.name} {'accepts' if accepted else 'refuses'} it, as it may.")  # noqa: T201
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--executions", type=int, default=1_000_000, help="of each decoder")
    parser.add_argument("--seconds", type=float, default=86_400.0, help="for each decoder at the most")
    parser.add_argument("--seed", type=int, default=secrets.randbits(31))
    parser.add_argument("--only", default="*", help="decoders with a name of this pattern")
    parser.add_argument("--replay", type=Path, help="a file out of .fuzz/")
    said = parser.parse_args()
    if said.replay:
        return replay(said.replay)
    console = Console()
    how = "guided by coverage" if atheris else "without guidance, since Atheris is not installed"
    console.print(f"Seed {said.seed}; {how}.")
    runs = [Run(decoder) for decoder in ALL if fnmatchcase(decoder.name, said.only)]
    all_of_them(runs, Limits(said.executions, said.seconds), said.seed, console)
    show(runs, console)
    return int(any(run.status != 0 for run in runs))


if __name__ == "__main__":
    sys.exit(main())
