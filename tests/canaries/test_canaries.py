"""No plaintext and no private key of a party is anywhere on the side of the servers, and no server has another's keys.

Searched are: a dump of each database; the files of Postgres, write-ahead log and all; the logs of all services, at
their most talkative; the memory of every process of the platform; all traffic between services, clients and database;
and the refusals in it. Each medium has a needle planted in it, which must be found.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from client.embedded.platform import EmbeddedPlatform
from tests.canaries import media
from tests.canaries.needles import Needle, Search
from tests.canaries.story import Secrets, Story, tell
from tests.conftest import temporary_folder
from tests.e2e.actors import ActorMaker

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux may read all memory and traffic"
)

PLANTED = Needle("planted", secrets.token_bytes(24))
"""The same in every medium: whoever does not find it would not find anything else either."""


@dataclass
class Scene:
    """The platform after the run, and what is known of it."""

    platform: EmbeddedPlatform
    story: Story
    known: Secrets
    search: Search
    capture: media.Capture
    superuser: str

    @property
    def pgdata(self) -> Path:
        return self.platform.home / "postgres" / "pgdata"

    async def databases(self) -> list[str]:
        """URLs, for the superuser."""
        connection = await asyncpg.connect(self.superuser)
        rows = await connection.fetch("SELECT datname FROM pg_database WHERE NOT datistemplate")
        await connection.close()
        return [urlsplit(self.superuser)._replace(path=f"/{row['datname']}").geturl() for row in rows]

    async def execute(self, *statements: str, url: str | None = None) -> None:
        connection = await asyncpg.connect(url or self.superuser)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


@contextlib.contextmanager
def _talkative() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PCEHR_LOG_LEVEL", "debug")
        yield


@contextlib.asynccontextmanager
async def _holding(url: str, planted: bytes) -> AsyncIterator[None]:
    """A request that is never finished: what has come of it waits in the memory of the service."""
    address = urlsplit(url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"POST /v1/records HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {60_000}\r\n\r\n"
    writer.write(head.encode() + planted * 40)
    await writer.drain()
    try:
        yield
    finally:
        writer.close()


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    known = Secrets([PLANTED])
    with temporary_folder() as folder, _talkative():
        async with EmbeddedPlatform(folder / "home", base_port=None) as platform:
            superuser = platform._database.superuser_url
            make = ActorMaker(platform.registry_url, tmp_path_factory.mktemp("clients"))
            ports = [urlsplit(url).port or 0 for url in (*platform.urls.values(), superuser)]
            with media.Capture(ports) as capture:
                try:
                    story = await tell(platform, make, known)
                    yield Scene(platform, story, known, Search(known.needles), capture, superuser)
                finally:
                    await make.close()


def test_there_are_a_thousand_plaintexts_and_every_key(scene: Scene) -> None:
    kinds = [needle.kind for needle in scene.known.needles]
    assert sum(kind in ("body", "title", "file name") for kind in kinds) >= 1_000
    assert kinds.count("content key") >= 334
    assert kinds.count("kfrag") == 3
    assert {"seed", "words", "identity key", "key signer", "key receiving", "key scope", "reason"} <= set(kinds)
    assert {needle.holder for needle in scene.known.needles if needle.holder} == set(scene.platform.pids)


def beside_planted(found: Iterable[Needle]) -> set[Needle]:
    """What was found, after the planted needle was found as well."""
    found = set(found)
    assert PLANTED in found
    return found - {PLANTED}


async def test_databases_hold_no_secret(scene: Scene) -> None:
    await scene.execute(
        "CREATE TABLE planted (value bytea)", f"INSERT INTO planted VALUES ('\\x{PLANTED.value.hex()}')"
    )
    pieces = [piece for url in await scene.databases() for piece in await media.dump(url)]
    assert len(pieces) > 1_000
    assert beside_planted(scene.search.found(pieces)) == set()


async def test_files_of_the_database_hold_no_secret(scene: Scene) -> None:
    """Each part of them has its own planted needle: the row above is in the heap after a checkpoint, and in the WAL."""
    await scene.execute("CREATE TABLE IF NOT EXISTS planted (value bytea)")
    await scene.execute(f"INSERT INTO planted VALUES ('\\x{PLANTED.value.hex()}')", "CHECKPOINT")
    for part in ("base", "pg_wal"):
        assert beside_planted(scene.search.found(media.files(scene.pgdata / part))) == set()
    assert scene.search.found(media.files(scene.pgdata)) == {PLANTED}


def test_logs_hold_no_secret(scene: Scene) -> None:
    logs = scene.platform.home / "logs"
    said = b"".join(media.files(logs))
    assert {log.stem for log in logs.iterdir()} == {*scene.platform.pids, "migrations"}
    assert said.count(b"Started server process") == len(scene.platform.pids)
    (logs / "planted.log").write_bytes(PLANTED.value.hex().encode())
    assert beside_planted(scene.search.found(media.files(logs))) == set()


async def test_memory_of_a_service_holds_nobody_elses_secret(scene: Scene) -> None:
    """A service has its own keys, and a proxy its own share of each grant: one of three, where two are needed."""
    for name, pid in scene.platform.pids.items():
        async with _holding(scene.platform.urls[name], PLANTED.value):
            await asyncio.sleep(0.5)
            processes = media.family(pid)
            found = beside_planted(
                scene.search.found(piece for process in processes for piece in media.memory(process))
            )
        assert {needle for needle in found if needle.holder != name} == set(), name
        # What it must have, it has: so the search would have seen what it must not have.
        assert any(needle.holder == name for needle in found), name
        if name.startswith("proxy"):
            assert sum(needle.kind == "kfrag" for needle in found) <= 1


async def test_memory_of_the_database_holds_no_secret(scene: Scene) -> None:
    connection = await asyncpg.connect(scene.superuser)
    await connection.fetchval("SELECT $1::bytea", PLANTED.value)
    [postmaster] = [int((scene.pgdata / "postmaster.pid").read_text().split()[0])]
    found = scene.search.found(
        piece for process in media.family(postmaster) for piece in media.memory(process, shared=process == postmaster)
    )
    await connection.close()
    assert beside_planted(found) == set()


async def test_traffic_and_refusals_hold_no_secret(scene: Scene) -> None:
    """An unknown member is named in the refusal: so what is planted there travels there and back."""
    async with httpx.AsyncClient(trust_env=False) as http:
        refusal = await http.post(f"{scene.platform.registry_url}/v1/patients", json={PLANTED.value.hex(): 1})
    assert PLANTED.value.hex() in refusal.text
    await scene.capture.caught_up_with(PLANTED.value.hex().encode())
    assert scene.capture.lost() == 0
    ports = {urlsplit(url).port for url in (*scene.platform.urls.values(), scene.superuser)}
    assert ports <= scene.capture.ports()
    streams = list(scene.capture.streams())
    assert beside_planted(scene.search.found(streams)) == set()
    refusals = [answer for stream in streams for answer in stream.split(b"HTTP/1.1 ")[1:] if answer[:1] in (b"4", b"5")]
    assert len(refusals) >= 50
    assert beside_planted(scene.search.found(refusals)) == set()


async def test_an_erased_share_leaves_tables_heap_and_write_ahead_log(scene: Scene) -> None:
    """Measured where a sceptic would look, by the encrypted rows as they rest; the share itself never was there.

    While the grant lives they are in heap and log, so the search would see them afterwards too. A vacuum takes them out
    of the heap (but for the row that was written last, where others of the page live on, until its place is taken), and
    the checkpoint after the log has gone on to another segment takes them out of the log, since none is recycled.
    """
    rows = await _rows_of_kfrags(scene)
    assert len(rows) == 3
    sealed = Search([Needle("kfrag at rest", row) for row in rows])
    heap, log = scene.pgdata / "base", scene.pgdata / "pg_wal"
    for url in await scene.databases():
        if "proxy" in urlsplit(url).path:
            # Written once more, since the log may have left behind by now what it said of the first time.
            await scene.execute("UPDATE kfrags SET sealed = sealed", url=url)
    await scene.execute("CHECKPOINT")
    assert len(sealed.found(media.files(heap))) == 3
    assert len(sealed.found(media.files(log))) == 3
    report = await scene.story.patient.revoke(scene.story.grant.id, wait_seconds=60)
    assert report.state == "sealed"
    assert await _rows_of_kfrags(scene) == []
    for url in await scene.databases():
        if "proxy" in urlsplit(url).path:
            await scene.execute("VACUUM kfrags", url=url)
    await scene.execute("SELECT pg_switch_wal()", "CHECKPOINT")
    assert sealed.found(media.files(heap)) == set()
    assert sealed.found(media.files(log)) == set()


async def _rows_of_kfrags(scene: Scene) -> list[bytes]:
    rows = []
    for url in await scene.databases():
        if "proxy" in urlsplit(url).path:
            connection = await asyncpg.connect(url)
            rows += [row["sealed"] for row in await connection.fetch("SELECT sealed FROM kfrags")]
            await connection.close()
    return rows
