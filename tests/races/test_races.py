"""Some rounds of each race, and a service with a race in it; `make races` plays hundreds."""

from __future__ import annotations

import pytest

from tests.races.history import Unexplained
from tests.races.rounds import RACES, Range
from tests.races.running import shooting_range

ROUNDS = 3
TRIES = 3


@pytest.mark.timeout(900)
@pytest.mark.parametrize("race", RACES)
async def test_every_outcome_is_explained_by_some_order(ready: Range, race: str) -> None:
    answers = {operation.answer for _ in range(ROUNDS) for operation in await RACES[race](ready)}
    # In twenty rounds there was a winner and somebody who came too late.
    assert "ok" in answers
    assert answers - {"ok"}


@pytest.mark.timeout(900)
async def test_a_service_without_its_last_look_is_found_out() -> None:
    async with shooting_range(seed=2, records="tests.races.faulty:without_second_look") as faulty:
        with pytest.raises(Unexplained):
            await again_and_again(faulty)


async def again_and_again(faulty: Range) -> None:
    for _ in range(TRIES):
        await faulty.revoke_against_disclose()
