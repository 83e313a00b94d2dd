"""Workers give the same answers as this process, also when they die, and show nobody what they hold."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from client import pool
from client.envelopes import Envelope, OpeningKeys, open_envelopes
from client.pool import EnvelopePool
from tests.unit.client.test_envelopes import Made, made


@pytest.fixture(scope="module")
def one() -> Made:
    return made()


@pytest.fixture(scope="module")
def envelopes(one: Made) -> list[Envelope]:
    honest = one.envelope
    lying = replace(honest, cfrags=(made().envelope.cfrags[0], *honest.cfrags[1:]))
    closed = replace(honest, cfrags=())
    twice = replace(honest, cfrags=(honest.cfrags[0],) * 2)
    return [honest, lying, closed, twice, honest]


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WORTH_A_POOL", {})
    monkeypatch.setattr(pool, "_processors", lambda: 2)


@pytest.mark.usefixtures("_at_once")
async def test_workers_answer_as_this_process_does(one: Made, envelopes: list[Envelope]) -> None:
    async with EnvelopePool() as workers:
        workers.expect(len(envelopes))
        assert await workers.open(one.keys, envelopes) == open_envelopes(one.keys, envelopes)
        assert await workers.open(one.keys, []) == []
        other = made(one.keys.receiving_key)
        keys = OpeningKeys(3, other.keys.verifying_key, one.keys.receiving_key)
        assert await workers.open(keys, [other.envelope]) == open_envelopes(keys, [other.envelope])


@pytest.mark.usefixtures("_at_once")
async def test_the_part_of_a_dead_worker_is_done_here(one: Made, envelopes: list[Envelope]) -> None:
    async with EnvelopePool() as workers:
        workers.expect(len(envelopes))
        assert workers._starting is not None
        for worker in await workers._starting:
            worker._process.kill()
        assert await workers.open(one.keys, envelopes) == open_envelopes(one.keys, envelopes)


@pytest.mark.usefixtures("_at_once")
async def test_who_gives_up_waiting_for_workers_takes_them_from_nobody(one: Made, envelopes: list[Envelope]) -> None:
    async with EnvelopePool() as workers:
        workers.expect(len(envelopes))
        waiting = asyncio.create_task(workers.open(one.keys, envelopes))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await workers.open(one.keys, envelopes) == open_envelopes(one.keys, envelopes)
        assert workers._starting is not None
        assert len(await workers._starting) == 2


@pytest.mark.usefixtures("_at_once")
async def test_what_no_frame_can_carry_is_opened_here(one: Made, envelopes: list[Envelope]) -> None:
    odd = replace(one.envelope, cfrags=(b"", *one.envelope.cfrags[:2]))
    async with EnvelopePool() as workers:
        workers.expect(2)
        both = [one.envelope, odd]
        assert [unwrapped.holds for unwrapped in await workers.open(one.keys, both)] == [
            (True, True, True),
            (False, True, True),
        ]


async def test_few_records_start_no_process(one: Made, envelopes: list[Envelope]) -> None:
    async with EnvelopePool() as workers:
        workers.expect(len(envelopes))
        assert workers._starting is None
        assert await workers.open(one.keys, envelopes) == open_envelopes(one.keys, envelopes)


@pytest.mark.skipif(sys.platform != "linux", reason="what a process shows of itself is in /proc")
@pytest.mark.usefixtures("_at_once")
async def test_a_worker_leaves_no_image_and_has_the_key_from_its_pipe_alone(one: Made) -> None:
    async with EnvelopePool() as workers:
        workers.expect(1)
        await workers.open(one.keys, [one.envelope] * 2)
        assert workers._starting is not None
        for worker in await workers._starting:
            process = Path("/proc") / str(worker._process.pid)
            assert "Max core file size        0                    0" in (process / "limits").read_text()
            # What cannot be dumped belongs to root, whoever runs it; so the kernel shows that the wish was heard.
            assert (process / "environ").stat().st_uid == 0
            if os.geteuid() == 0:
                secret = one.keys.receiving_key.reveal()
                for place in ("environ", "cmdline"):
                    said = (process / place).read_bytes()
                    assert secret not in said
                    assert secret.hex().encode() not in said
