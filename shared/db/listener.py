"""Hears what other transactions announce with NOTIFY, so that whoever waits for a row need not poll for it."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import asyncpg

from shared.db.engine import CONNECT_SECONDS, libpq_url

CHECK_SECONDS = 10.0
"""How often the connection is tried, since one that is broken may say nothing."""
RECONNECT_SECONDS = 1.0

log = logging.getLogger("pcehr.listener")


class Listener:
    """One connection that listens on one channel, and those in this process who wait for a payload of it.

    A notification is a hint that there may be something to read, nothing more: one that is lost while the connection is
    away is made up for by waking everybody, and who is woken reads the table. `url` is a Postgres URL.
    """

    def __init__(self, url: str, channel: str, *, application_name: str) -> None:
        self._dsn = libpq_url(url)
        self._channel = channel
        self._application_name = application_name
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def waiting_for(self, payload: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever this payload is announced, or may have been."""
        event = asyncio.Event()
        self._waiting[payload].add(event)
        try:
            yield event
        finally:
            self._waiting[payload].discard(event)
            if not self._waiting[payload]:
                del self._waiting[payload]

    def waiting(self, payload: str | None = None) -> int:
        """How many wait for this payload, or for any."""
        if payload is not None:
            return len(self._waiting.get(payload, ()))
        return sum(map(len, self._waiting.values()))

    async def run(self) -> None:
        """Listen until cancelled, over as many connections as it takes."""
        while True:
            try:
                await self._listen()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                log.warning("the database is away; notices come late until it is back")
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(
            self._dsn, timeout=CONNECT_SECONDS, server_settings={"application_name": self._application_name}
        )
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        try:
            await connection.add_listener(self._channel, self._heard)
            # What was announced while nobody listened.
            self._wake_all()
            while not ended.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), CHECK_SECONDS)
                await connection.execute("SELECT 1", timeout=CONNECT_SECONDS)
        finally:
            with suppress(Exception):
                await connection.close(timeout=1)

    def _heard(self, _connection: Any, _process: int, _channel: str, payload: object) -> None:
        for event in self._waiting.get(str(payload), ()):
            event.set()

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()
