"""`pcehr` as people run it: a process for each command, with passphrase, files, and one JSON document for machines."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from client import cli, keystore

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["client.cli"])
SECONDS = 240.0
"""What one command may take on the busiest machine."""


@dataclass
class Terminal:
    """Runs `pcehr` with a home of its own; each profile is a party.

    Commands are forked from a process that has the program loaded already, and their passphrases cost little to try,
    since both take most of the time of most commands. With `as_program` Python is started anew, as a shell does it, and
    passphrases cost what people's cost.
    """

    home: Path
    registry: str
    as_program: bool = False

    async def run(self, *arguments: str, profile: str | None = None, status: int = 0) -> Any:
        words = [*arguments, "--json", "--registry", self.registry, *(["--profile", profile] if profile else [])]
        variables = {"PCEHR_HOME": str(self.home), "PCEHR_PASSPHRASE": "correct horse battery staple"}
        found, out, err = await (_started if self.as_program else _forked)(words, variables)
        assert found == status, (arguments, out[-500:], err[-500:])
        return json.loads(out)


async def _started(words: list[str], variables: dict[str, str]) -> tuple[int | None, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "client", *words),
        env={**os.environ, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out, err


async def _forked(words: list[str], variables: dict[str, str]) -> tuple[int | None, bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _SERVER.Process(target=_command, args=(words, variables, out, err))
        process.start()
        await asyncio.to_thread(process.join, SECONDS)
        # One that has not ended by then is killed, and has no status that a test waits for.
        process.kill()
        process.join()
        return process.exitcode, *await asyncio.to_thread(lambda: (out.read_bytes(), err.read_bytes()))


def _command(words: list[str], variables: dict[str, str], *places: Path) -> None:
    os.environ.update(variables)
    for descriptor, place in enumerate(places, start=1):
        with place.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    keystore.create = partial(keystore.create, cost=keystore.LIGHT)
    sys.argv = ["pcehr", *words]
    cli.main()
