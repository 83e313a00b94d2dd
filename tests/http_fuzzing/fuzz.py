"""Runs Schemathesis against a service, as a process of its own, and reads what it found."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.http_fuzzing.parties import Known

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


@dataclass(frozen=True)
class Run:
    """What came of a run: its last words, whether it found nothing, and how often each operation had each status."""

    clean: bool
    output: str
    statuses: dict[str, int]

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())

    def table(self) -> str:
        """A line for each operation, with its statuses and how often each came."""
        lines: dict[str, list[str]] = {}
        for name, count in sorted(self.statuses.items()):
            operation, _, status = name.rpartition(" ")
            lines.setdefault(operation, []).append(f"{status}×{count}")
        return "\n".join(f"  {operation}: {' '.join(counts)}" for operation, counts in lines.items())

    def succeeded(self) -> set[str]:
        """The operations that were carried out at least once."""
        return {name.rpartition(" ")[0] for name in self.statuses if name.rpartition(" ")[2].startswith("2")}


async def fuzz(url: str, known: Known, token: str | None, *, examples: int, folder: Path) -> Run:
    """All checks over so many examples of each operation; without a token where there is none."""
    stage, statuses = folder / "stage.json", folder / "statuses.json"
    known.save(stage)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(FOLDER / "schemathesis.toml")),
        *(
            "run",
            f"{url}/openapi.json",
            "--phases",
            "examples,coverage,fuzzing,stateful",
            "--max-examples",
            str(examples),
        ),
        # The stream of notices has no end; `test_oddities.py` looks at it.
        *("--exclude-path", "/v1/me/events", "--warnings", "off", "--seed", "1"),
    ]
    if token is not None:
        command += ["--header", f"Authorization: Bearer {token}"]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=os.environ | {"PCEHR_FUZZ_STAGE": str(stage), "PCEHR_FUZZ_STATUSES": str(statuses), "NO_COLOR": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    counted = json.loads(statuses.read_text("utf-8")) if statuses.exists() else {}
    return Run(process.returncode == 0, output.decode("utf-8", "replace"), counted)
