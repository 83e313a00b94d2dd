"""The proxy as a witness: what it cosigns, and everything that it refuses to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from services.proxy.settings import ProxySettings
from shared.crypto.signing import SigningKey
from shared.encoding import b64url
from shared.transparency.checkpoints import accept_cosignatures, origin_of, sign_checkpoint, verify_checkpoint
from shared.transparency.merkle import Frontier, needed_for_consistency, prove_consistency
from shared.transparency.witnessing import AddCheckpoint
from tests.services.proxy.world import World, refused

KEYS = {"registry": SigningKey(b"\x01" * 32), "records": SigningKey(b"\x02" * 32)}
ORIGINS = {kind: origin_of(kind, key.verify_key) for kind, key in KEYS.items()}
PATH = "/v1/witness/add-checkpoint"


class SmallLog:
    """A log in memory that signs what it is told to."""

    def __init__(self, kind: str = "registry", fork: bytes = b"") -> None:
        self.kind = kind
        self.frontier = Frontier()
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.fork = fork

    def grow(self, count: int) -> SmallLog:
        for _ in range(count):
            leaf = (b"%d" % self.frontier.size + self.fork).rjust(32, b"\0")
            self.nodes[0, self.frontier.size] = leaf
            for level, index, digest in self.frontier.append(leaf):
                self.nodes[level, index] = digest
        return self

    @property
    def size(self) -> int:
        return self.frontier.size

    def note(self, key: SigningKey | None = None) -> str:
        return sign_checkpoint(key or KEYS[self.kind], self.kind, self.size, self.frontier.root())

    def submission(self, old: int, *, path: tuple[bytes, ...] | None = None, note: str | None = None) -> str:
        if path is None:
            nodes = {place: self.nodes[place] for place in needed_for_consistency(old, self.size)}
            path = tuple(prove_consistency(old, self.size, lambda level, index: nodes[level, index]))
        return AddCheckpoint(old, path, note or self.note()).format()


@pytest.fixture
async def world(idle_world: World) -> AsyncIterator[World]:
    async with idle_world.running(witnessed_logs=",".join(ORIGINS.values())):
        yield await knowing(idle_world)


async def knowing(world: World) -> World:
    """The world, once its proxy knows the logs."""
    async with asyncio.timeout(10):
        while await world.count("witnessed_logs") < 2:  # noqa: ASYNC110  The task of another app tells nobody.
            await asyncio.sleep(0.01)
    return world


async def submit(world: World, submission: str | bytes) -> httpx.Response:
    return await world.http.post(PATH, content=submission, headers={"content-type": "text/plain; charset=utf-8"})


async def cosigned(world: World, log: SmallLog, old: int) -> None:
    """The proxy cosigns the log as it stands, with its own key and at its own time."""
    response = await submit(world, log.submission(old))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    checkpoint = verify_checkpoint(log.note(), ORIGINS[log.kind])
    key = world.proxy.identity_key().verify_key
    assert len(accept_cosignatures(checkpoint, response.content, world.proxy.did, frozenset({key}))) == 1
    assert accept_cosignatures(checkpoint, response.content, world.second.did, frozenset({key})) == ()


def conflict(response: httpx.Response, size: int) -> None:
    assert (response.status_code, response.text) == (409, f"{size}\n")
    assert response.headers["content-type"].startswith("text/x.tlog.size")


async def test_a_log_that_only_grows_is_cosigned(world: World) -> None:
    log = SmallLog()
    await cosigned(world, log, 0)
    for more in (1, 2, 1, 5, 64):
        old = log.size
        await cosigned(world, log.grow(more), old)


async def test_the_same_checkpoint_is_cosigned_again(world: World) -> None:
    log = SmallLog().grow(3)
    await cosigned(world, log, 0)
    world.clock.now += 600
    await cosigned(world, log, 3)


async def test_both_logs_are_witnessed_apart(world: World) -> None:
    registry, records = SmallLog("registry").grow(3), SmallLog("records").grow(5)
    await cosigned(world, registry, 0)
    await cosigned(world, records, 0)
    shown = (await world.http.get("/v1/witness/checkpoints")).json()["items"]
    assert {item["origin"]: item["checkpoint"] for item in shown} == {
        ORIGINS["registry"]: registry.note(),
        ORIGINS["records"]: records.note(),
    }


async def test_stale_size_is_answered_with_the_size_known(world: World) -> None:
    log = SmallLog().grow(3)
    await cosigned(world, log, 0)
    log.grow(2)
    conflict(await submit(world, log.submission(0)), 3)
    conflict(await submit(world, log.submission(2)), 3)
    await cosigned(world, log, 3)


async def test_another_root_of_the_same_size_is_not_cosigned(world: World) -> None:
    await cosigned(world, SmallLog().grow(3), 0)
    conflict(await submit(world, SmallLog(fork=b"x").grow(3).submission(3)), 3)


async def test_log_forked_is_refused(world: World) -> None:
    log = SmallLog().grow(3)
    await cosigned(world, log, 0)
    refused(await submit(world, SmallLog(fork=b"x").grow(5).submission(3)), 422, "log_forked")
    refused(await submit(world, SmallLog().grow(5).submission(3, path=())), 422, "log_forked")
    # What was refused has left no trace: the honest log goes on.
    await cosigned(world, log.grow(2), 3)


async def test_a_smaller_checkpoint_is_not_cosigned(world: World) -> None:
    await cosigned(world, SmallLog().grow(5), 0)
    refused(await submit(world, SmallLog().grow(3).submission(3, note=SmallLog().grow(2).note())), 400, "malformed")
    conflict(await submit(world, SmallLog().grow(3).submission(0)), 5)


async def test_unknown_log_is_refused(world: World) -> None:
    key = SigningKey(b"\x03" * 32)
    log = SmallLog().grow(2)
    refused(await submit(world, log.submission(0, note=log.note(key))), 404, "unknown_log")


async def test_not_signed_by_log_is_refused(world: World) -> None:
    log = SmallLog().grow(2)
    note = log.note()
    body, _, _ = note.partition("\n\n")
    other = SmallLog(fork=b"x").grow(2).note().partition("\n\n")[2]
    refused(await submit(world, log.submission(0, note=f"{body}\n\n{other}")), 403, "not_signed_by_log")


@pytest.mark.parametrize(
    "body", [b"", b"old 0\n", b"old 00\n\n", b"old -1\n\n", b"\xff\xfe", b"old 0\n\n" + b"x" * 1000]
)
async def test_malformed_submissions_are_refused(world: World, body: bytes) -> None:
    refused(await submit(world, body), 400, "malformed")


async def test_too_large_a_submission_is_refused(world: World) -> None:
    refused(await submit(world, b"x" * 100_000), 413, "too_large")


async def test_of_two_histories_that_arrive_together_one_is_cosigned(world: World) -> None:
    """Twenty at once, half of them forked: whatever is cosigned is of one history."""
    logs = [SmallLog(fork=b"" if number % 2 else b"x").grow(3) for number in range(20)]
    responses = await asyncio.gather(*(submit(world, log.submission(0)) for log in logs))
    good = {log.fork for log, response in zip(logs, responses, strict=True) if response.status_code == 200}
    assert len(good) == 1
    assert {response.status_code for response in responses} <= {200, 409}


async def test_what_was_cosigned_is_known_after_a_restart(idle_world: World) -> None:
    world = idle_world
    async with world.running(witnessed_logs=",".join(ORIGINS.values())):
        await cosigned(await knowing(world), SmallLog().grow(3), 0)
    async with world.running(witnessed_logs=",".join(ORIGINS.values())):
        conflict(await submit(world, SmallLog(fork=b"x").grow(3).submission(0)), 3)


async def test_nothing_is_cosigned_that_could_not_be_stored(world: World) -> None:
    async with world.sql() as connection:
        await connection.execute("ALTER TABLE witnessed_logs ADD CONSTRAINT broken CHECK (size IS NULL)")
    response = await submit(world, SmallLog().grow(3).submission(0))
    assert response.status_code == 500
    assert b"\xe2\x80\x94" not in response.content


async def test_the_logs_are_those_that_the_registry_named_first(idle_world: World) -> None:
    world = idle_world
    world.registry.logs = dict(ORIGINS)
    async with world.running():
        await cosigned(await knowing(world), SmallLog().grow(1), 0)
    other = SigningKey(b"\x04" * 32)
    world.registry.logs["registry"] = origin_of("registry", other.verify_key)
    async with world.running():
        log = SmallLog().grow(2)
        refused(await submit(world, log.submission(0, note=log.note(other))), 404, "unknown_log")
        await cosigned(world, log, 1)


async def test_a_registry_that_is_away_is_asked_again(idle_world: World) -> None:
    world = idle_world
    world.registry.away = True
    async with world.running():
        log = SmallLog().grow(1)
        refused(await submit(world, log.submission(0)), 404, "unknown_log")
        world.registry.logs = dict(ORIGINS)
        world.registry.away = False
        await cosigned(await knowing(world), log, 0)


@pytest.mark.parametrize(
    "value",
    [
        "nonsense",
        "pcehr/registry/z6Mk",
        f"{ORIGINS['records']},{origin_of('records', SigningKey(bytes(32)).verify_key)}",
    ],
)
def test_a_setting_that_names_no_logs_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="log"):
        ProxySettings(
            PCEHR_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing",
            seed=b64url(bytes(32)),
            endpoint="http://proxy.test",
            witnessed_logs=value,
        )
