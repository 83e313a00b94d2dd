"""`pcehr` as people run it: a process for each command, with passphrase, files, and one JSON document for machines."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import warm


@dataclass
class Terminal:
    """Runs `pcehr` with a home of its own; each profile is a party.

    The program is loaded already, and passphrases cost little to try, since both take most of the time of most
    commands. With `as_program` Python is started anew, as a shell does it, and passphrases cost what people's cost.
    """

    home: Path
    registry: str
    as_program: bool = False

    async def run(self, *arguments: str, profile: str | None = None, status: int = 0) -> Any:
        words = [*arguments, "--json", "--registry", self.registry, *(["--profile", profile] if profile else [])]
        variables = {"PCEHR_HOME": str(self.home), "PCEHR_PASSPHRASE": "correct horse battery staple"}
        if self.as_program:
            found, out, err = await _started(words, variables)
        else:
            found, out, err = await warm.run("tests.e2e.light_client", *words, env=variables)
        assert found == status, (arguments, out[-500:], err[-500:])
        return json.loads(out)


async def _started(words: list[str], variables: Mapping[str, str]) -> tuple[int | None, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "client", *words),
        env={**os.environ, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out, err
