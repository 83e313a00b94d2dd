"""Some rounds of each race, and a service with a race in it; `make races` plays hundreds."""

from __future__ import annotations

import pytest

from tests.races.rounds import RACES, Range
from tests.races.running import shooting_range

ROUNDS = 2
TRIES = 3


@pytest.mark.timeout(900)
@pytest.mark.parametrize("race", RACES)
async def test_every_outcome_is_explained_by_some_order(ready: Range, race: str) -> None:
    answers = {operation.answer for _ in range(ROUNDS) for operation in await RACES[race](ready)}
    # In twenty rounds there was a winner and somebody who came too late.
    assert "ok" in answers
    assert answers - {"ok"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("fault", "race", "told"),
    [
        ("without_second_look", "revoke against disclose", "the log has another order"),
        ("without_lock_on_requests", "approve twice", "no order explains"),
    ],
)
async def test_a_service_with_a_race_in_it_is_found_out(fault: str, race: str, told: str) -> None:
    async with shooting_range(seed=2, records=f"tests.races.faulty:{fault}") as faulty:
        with pytest.raises(AssertionError, match=told):
            await again_and_again(faulty, race)


async def again_and_again(faulty: Range, race: str) -> None:
    for _ in range(TRIES):
        await RACES[race](faulty)
