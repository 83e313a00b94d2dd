"""The platform that chapters measure: real processes over loopback, real Postgres with fsync, real keys."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from client.embedded.platform import EmbeddedPlatform
from tests.e2e.actors import ActorMaker


@dataclass(frozen=True)
class Measured:
    """A platform that runs, and what makes parties against it. `folder` is for whatever a chapter wants to keep."""

    running: EmbeddedPlatform
    actors: ActorMaker
    folder: Path

    def database_url(self, service: str) -> str:
        """The URL of a service's own database; `service` is `registry`, `records`, `proxy-1` and so on."""
        return (self.running.home / "secrets" / service / "pcehr_database_url").read_text()


@asynccontextmanager
async def measured(*, proxies: int = 3, threshold: int = 2, workers: int = 1) -> AsyncIterator[Measured]:
    """A platform of its own in a temporary folder; `workers` are the re-encryption processes of each proxy."""
    with tempfile.TemporaryDirectory(prefix="pcehr-bench-") as name:
        folder = Path(name)
        # Postgres may run as another user than who measures.
        folder.chmod(0o711)  # noqa: ASYNC240  Nothing else runs here yet.
        platform = EmbeddedPlatform(
            folder / "home", proxies=proxies, threshold=threshold, workers=workers, base_port=None
        )
        async with platform:
            actors = ActorMaker(platform.registry_url, folder)
            try:
                yield Measured(platform, actors, folder)
            finally:
                await actors.close()
