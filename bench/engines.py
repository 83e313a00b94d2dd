"""Both implementations of Umbral beside each other, operation by operation, and the npm build of one of them.

Each runs in a process of its own, they take turns, and what counts is processor time. The npm build is Umbral's Rust
library compiled to WebAssembly; `npm install --no-package-lock --ignore-scripts` in bench/wasm fetches it. Nothing is
run of it but the very files named here.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from bench.figure import Effort, Figure, ratio_figure
from client.embedded.process import environment

TITLE = "Umbral: both engines, and the npm build beside them"

OPERATIONS = {
    "encrypt": "encrypt 64 bytes",
    "kfrags": "make 3 kfrags, 2 of 3",
    "verify_kfrag": "parse and verify a kfrag",
    "accept": "accept a kfrag: verify it and try it",
    "parse_capsule": "parse a capsule, its proof included",
    "reencrypt": "re-encrypt a parsed capsule",
    "verify_cfrag": "parse and verify a cfrag",
    "decrypt": "decrypt from 2 verified cfrags",
}
AT_ONCE_SECONDS = 0.05
"""How long one engine works at one operation before it is another's turn; long beside a message through a pipe."""

FOLDER = Path(__file__).with_name("wasm")
PACKAGE = FOLDER / "node_modules" / "@nucypher" / "umbral-pre"
FILES = {
    "pkg-node/umbral_pre_wasm.js": "5a3bc101b992ccb3c0fe61b2f77e237eb05e6be50f9cc002708432616422fd7f",
    "pkg-node/umbral_pre_wasm_bg.wasm": "2a819911e8e59da437d339a458cd8eafdabdcd19bf6935f8a5817abe2ca41f45",
}
"""SHA-256 of what runs of @nucypher/umbral-pre 0.10.0."""


@dataclass
class Engine:
    """A process that does one operation so many times and says how long that took."""

    name: str
    process: Process

    async def seconds(self, operation: str, times: int) -> float:
        """Seconds of processor time for each of `times`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{operation} {times}\n".encode())
        answer = await self.process.stdout.readline()
        return float(answer) / times


async def figures(effort: Effort) -> list[Figure]:
    """The ratios of the other engines to umbral-pre, without a goal: they are for choosing."""
    async with AsyncExitStack() as stack:
        first = await _start(stack, "umbral-pre", *_python(), engine="umbral-pre")
        others = [await _start(stack, "umbral (pure Python)", *_python(), engine="umbral")]
        missing = why_no_wasm()
        if missing is None:
            others.append(await _start(stack, "umbral-pre 0.10 as WASM in node", "node", str(FOLDER / "loop.js")))
        else:
            print(f"The npm build of Umbral is not measured: {missing}")
        return [
            figure
            for operation, name in OPERATIONS.items()
            for figure in await _of(operation, name, first, others, effort)
        ]


async def _of(operation: str, name: str, first: Engine, others: list[Engine], effort: Effort) -> list[Figure]:
    engines = [first, *others]
    wanted = AT_ONCE_SECONDS / 10 if effort.quick else AT_ONCE_SECONDS
    times = {engine.name: max(1, round(wanted / await engine.seconds(operation, 3))) for engine in engines}
    taken: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for _ in range(effort.rounds):
        for engine in engines:
            taken[engine.name].append(await engine.seconds(operation, times[engine.name]))
    return [
        ratio_figure(f"{name}: {other.name} ÷ umbral-pre", taken[other.name], taken[first.name]) for other in others
    ]


def why_no_wasm() -> str | None:
    """Why the npm build cannot be measured here, in a sentence; None where it can."""
    if shutil.which("node") is None:
        return "node is not installed."
    for file, digest in FILES.items():
        path = PACKAGE / file
        if not path.is_file():
            return "@nucypher/umbral-pre is not there; in bench/wasm: npm install --no-package-lock --ignore-scripts"
        if sha256(path.read_bytes()).hexdigest() != digest:
            return f"{file} of @nucypher/umbral-pre is not that of version 0.10.0."
    return None


def _python() -> tuple[str, ...]:
    return sys.executable, "-P", "-m", "bench.engine_loop"


async def _start(stack: AsyncExitStack, name: str, *command: str, engine: str = "") -> Engine:
    env = environment({"PCEHR_UMBRAL_ENGINE": engine} if engine else {})
    process = await asyncio.create_subprocess_exec(*command, env=env, stdin=PIPE, stdout=PIPE)

    async def stop() -> None:
        process.kill()
        await process.communicate()

    stack.push_async_callback(stop)
    return Engine(name, process)
