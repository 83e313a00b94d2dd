"""Run as a program: one operation of a patient or a recipient, which dies of SIGKILL at a numbered point.

    python -m tests.chaos.mortal FOLDER REGISTRY_URL OPERATION ARGUMENT DIE_AT

A point is each request before it is sent, each answer before the client has it, each statement of SQL before SQLite
runs it on the state file, and each file before it is renamed or linked into its place. They are counted from outside
the code under test: by the transport beneath the client, by SQLite's trace, and by Python's audit hooks. DIE_AT 0 lets
the operation come to its end; then the program prints as JSON what came of it and the points that it has passed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import httpx

from client.errors import GrantEnded
from client.keyring import Keyring
from client.patient import Patient
from client.recipient import Recipient
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from tests.chaos.ledger import Observed

_CONNECT = sqlite3.connect
PATIENCE = 60.0
"""Seconds that a revocation waits for its receipts; it ends as soon as it has them."""


class Life:
    """Counts points, and ends at one."""

    def __init__(self, die_at: int) -> None:
        self._die_at = die_at
        self.passed: list[str] = []

    def point(self, name: str) -> None:
        self.passed.append(name)
        if len(self.passed) == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(self, event: str, _arguments: tuple[Any, ...]) -> None:
        """See "Audit events table" in Python's documentation."""
        if event in ("os.rename", "os.link"):
            self.point(event)

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        """A connection as SQLite's module gives it, with a trace; the audit event of it comes too early for one."""
        connection = _CONNECT(*arguments, **options)
        connection.set_trace_callback(self._statement)
        return connection

    def _statement(self, sql: str) -> None:
        # Reading leaves nothing behind.
        if not sql.lstrip().upper().startswith(("SELECT", "PRAGMA")):
            self.point(" ".join(sql.split()[:3]))


class Mortal(httpx.AsyncBaseTransport):
    """The network, with a point before each request and after each answer has been noted in the ledger."""

    def __init__(self, life: Life, observed: Observed) -> None:
        self._life = life
        self._observed = observed

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        line = f"{request.method} {request.url.path.partition('did:')[0]}"
        self._life.point(f"before {line}")
        response = await self._observed.handle_async_request(request)
        self._life.point(f"after {line}")
        return response

    async def aclose(self) -> None:
        await self._observed.aclose()


async def operate(folder: Path, url: str, operation: str, argument: str, life: Life) -> Any:
    """`approve` a request, `disclose` under a grant, or `revoke` one, as the party whose words are in the folder."""
    async with Platform(url, transport=Mortal(life, Observed(folder.parent / "ledger.jsonl"))) as platform:
        keyring = Keyring.from_words((folder / "words").read_text())
        session = Session(keyring, platform, ClientState.load(folder / "state.db"))
        patient = Patient(session, known_scopes=("allergies",))
        if operation == "approve":
            return (await patient.approve(argument)).id
        if operation == "revoke":
            return (await patient.revoke(argument, wait_seconds=PATIENCE)).state
        try:
            return [record.body.decode() for record in (await Recipient(session).fetch(argument)).opened]
        except GrantEnded:
            return GrantEnded.code


if __name__ == "__main__":
    home, registry_url, wanted, about, number = sys.argv[1:]
    own = Life(int(number))
    sys.addaudithook(own.hook)
    sqlite3.connect = own.connect
    came_of_it = asyncio.run(operate(Path(home), registry_url, wanted, about, own))
    sys.stdout.write(json.dumps({"result": came_of_it, "passed": own.passed}))
