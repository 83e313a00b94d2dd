"""The worker processes: what they know, what happens when one dies, and how much is taken on at once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.proxy import arithmetic as module
from services.proxy.arithmetic import Arithmetic
from services.proxy.errors import Overloaded, WorkerLost
from shared.crypto.derivation import Seed
from shared.crypto.errors import KeyFragRejected, MalformedKeyMaterial
from shared.crypto.umbral import KfragSigner, encrypt, generate_kfrags
from tests.services.proxy.world import World, refused

DELEGATING = Seed.from_bytes(bytes(31) + b"\x01").umbral_key("scope/x/0")
RECEIVING = Seed.from_bytes(bytes(31) + b"\x02").umbral_key("receiving/0").public_key()
SIGNER = KfragSigner(Seed.from_bytes(bytes(31) + b"\x01").umbral_key("signer/0"))


@pytest.fixture
async def arithmetic() -> AsyncIterator[Arithmetic]:
    pool = Arithmetic(1)
    await pool.start()
    yield pool
    await pool.close()


@pytest.fixture(scope="module")
def kfrag() -> bytes:
    return bytes(generate_kfrags(DELEGATING, RECEIVING, SIGNER, 1, 1)[0])


def _capsules(count: int) -> list[bytes]:
    return [bytes(encrypt(DELEGATING.public_key(), b"")[0]) for _ in range(count)]


def _pids(arithmetic: Arithmetic) -> list[int]:
    """Which processes to kill is what no interface tells, and only this test wants to know."""
    return list(arithmetic._pool._processes or {})


def test_a_worker_knows_nothing_but_the_crypto_package() -> None:
    code = (
        "import sys, services.proxy.worker\n"
        "print(*sorted(name for name in sys.modules if name.startswith(('services.', 'shared.', 'sqlalchemy',"
        " 'fastapi', 'httpx', 'pydantic', 'asyncpg'))))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    allowed = ("services.proxy", "shared.crypto", "shared.encoding", "shared.errors")
    assert [name for name in run.stdout.split() if not name.startswith(allowed)] == []
    assert [name for name in run.stdout.split() if name.startswith("services.proxy.")] == ["services.proxy.worker"]


async def test_a_worker_runs_in_another_process(arithmetic: Arithmetic) -> None:
    assert os.getpid() not in _pids(arithmetic)
    assert len(_pids(arithmetic)) == 1


async def test_a_worker_killed_midway_fails_its_request_and_not_the_next(arithmetic: Arithmetic, kfrag: bytes) -> None:
    capsules = _capsules(400)
    working = asyncio.create_task(arithmetic.reencrypt([(kfrag, capsules)]))
    await asyncio.sleep(0.05)
    assert not working.done()
    for pid in _pids(arithmetic):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerLost):
        await working
    assert len((await arithmetic.reencrypt([(kfrag, capsules[:3])]))[0]) == 3


async def test_a_worker_killed_between_requests_costs_one_request_at_most(arithmetic: Arithmetic, kfrag: bytes) -> None:
    capsules = _capsules(1)
    for pid in _pids(arithmetic):
        os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(0.2)
    try:
        await arithmetic.reencrypt([(kfrag, capsules)])
    except WorkerLost:
        await arithmetic.reencrypt([(kfrag, capsules)])


async def test_a_killed_worker_is_a_503_and_the_same_request_works_afterwards(world: World) -> None:
    grant = await world.stored()
    body = world.request(grant, *[(0, world.envelope()) for _ in range(200)])
    posted = asyncio.create_task(world.http.post("/v1/reencryptions", json=body))
    await asyncio.sleep(0.1)
    for pid in _pids(world.app.state.service._arithmetic):
        os.kill(pid, signal.SIGKILL)
    refused(await posted, 503, "unavailable")
    assert await world.count("log_events") == 1
    again = await world.http.post("/v1/reencryptions", json=body)
    assert again.status_code == 200
    assert len(again.json()["cfrags"]) == 200


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import asyncio, os, signal\n"
        "from services.proxy.arithmetic import Arithmetic\n"
        "async def main():\n"
        "    pool = Arithmetic(1)\n"
        "    await pool.start()\n"
        "    print(*pool._pool._processes, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    parent = subprocess.run(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert parent.returncode == -signal.SIGKILL
    for _ in range(500):
        if not _alive(int(parent.stdout)):
            return
        time.sleep(0.01)
    pytest.fail("the worker has outlived its parent")


async def test_overloaded(arithmetic: Arithmetic, kfrag: bytes) -> None:
    capsules = _capsules(5)
    asked = module.REQUESTS_PER_WORKER + 10
    answers = await asyncio.gather(
        *[arithmetic.reencrypt([(kfrag, capsules)]) for _ in range(asked)], return_exceptions=True
    )
    assert sum(isinstance(answer, Overloaded) for answer in answers) == 10
    assert sum(isinstance(answer, list) for answer in answers) == module.REQUESTS_PER_WORKER
    assert len((await arithmetic.reencrypt([(kfrag, capsules)]))[0]) == 5


async def test_one_bad_capsule_gives_nothing(arithmetic: Arithmetic, kfrag: bytes) -> None:
    with pytest.raises(MalformedKeyMaterial):
        await arithmetic.reencrypt([(kfrag, [*_capsules(60), bytes(98)])])


async def test_one_bad_kfrag_among_good_ones(arithmetic: Arithmetic, kfrag: bytes) -> None:
    keys = {"verifying_key": bytes(SIGNER.verifying_key()), "receiving_key": bytes(RECEIVING)}
    good = (kfrag, bytes(DELEGATING.public_key()))
    await arithmetic.accept([good] * 3, **keys)
    with pytest.raises(KeyFragRejected):
        await arithmetic.accept([good, (bytes(260), good[1]), good], **keys)


async def test_several_workers_share_a_request(kfrag: bytes) -> None:
    pool = Arithmetic(2)
    await pool.start()
    try:
        assert len((await pool.reencrypt([(kfrag, _capsules(120))]))[0]) == 120
        assert len(_pids(pool)) == 2
    finally:
        await pool.close()


def _alive(pid: int) -> bool:
    try:
        # A process that has ended and that nobody has waited for is a zombie, which is dead enough.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
