"""Workers give the same answers as this process, also when they die."""

from __future__ import annotations

import io

import pytest

from client import pool
from client.cfrags import CfragTask, check_all_cfrags
from client.pool import CfragPool
from shared.wire import Role
from tests.unit.client.parties import Party
from tests.unit.client.test_verification import reencrypted


@pytest.fixture(scope="module")
def tasks() -> list[CfragTask]:
    patient, author = Party(Role.PATIENT), Party(Role.RECIPIENT)
    honest = [reencrypted(patient, author) for _ in range(5)]
    lying = CfragTask(
        honest[0].capsule,
        honest[0].verifying_key,
        honest[0].delegating_key,
        honest[0].receiving_key,
        (honest[1].cfrags[0], *honest[0].cfrags[1:]),
    )
    none = CfragTask(honest[0].capsule, *_keys(honest[0]), ())
    return [*honest, lying, none]


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WORTH_A_POOL", {})
    monkeypatch.setattr(pool, "_processors", lambda: 2)


def _keys(task: CfragTask) -> tuple[bytes, bytes, bytes]:
    return task.verifying_key, task.delegating_key, task.receiving_key


@pytest.mark.usefixtures("_at_once")
async def test_workers_answer_as_this_process_does(tasks: list[CfragTask]) -> None:
    async with CfragPool(expected=7) as workers:
        assert len(workers._workers) == 2
        assert await workers.check(tasks) == check_all_cfrags(tasks)
        assert await workers.check([]) == []


@pytest.mark.usefixtures("_at_once")
async def test_the_part_of_a_dead_worker_is_done_here(tasks: list[CfragTask]) -> None:
    async with CfragPool(expected=7) as workers:
        for worker in workers._workers:
            worker._process.kill()
        assert await workers.check(tasks) == check_all_cfrags(tasks)


@pytest.mark.usefixtures("_at_once")
async def test_what_no_frame_can_carry_is_checked_here(tasks: list[CfragTask]) -> None:
    odd = CfragTask(tasks[0].capsule, *_keys(tasks[0]), (b"", b"x", tasks[0].cfrags[0]))
    async with CfragPool(expected=7) as workers:
        assert await workers.check([odd]) == [(False, False, True)]


async def test_few_records_start_no_process(tasks: list[CfragTask]) -> None:
    async with CfragPool(expected=len(tasks)) as workers:
        assert workers._workers == []
        assert await workers.check(tasks) == check_all_cfrags(tasks)


def test_frames_come_back_and_end_anywhere(tasks: list[CfragTask]) -> None:
    data = b"".join(task.frame() for task in tasks)
    stream = io.BytesIO(data)
    assert [CfragTask.read(stream) for _ in tasks] == tasks
    assert CfragTask.read(stream) is None
    for cut in (1, 100, 500):
        assert CfragTask.read(io.BytesIO(tasks[0].frame()[:-cut])) is None
