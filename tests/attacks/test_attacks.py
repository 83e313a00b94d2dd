"""Every attack of the table is noticed and named; its control run, the same script with nobody lying, is quiet."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from shared.errors import PcehrError
from tests.attacks.all_attacks import TABLE
from tests.attacks.lying import Lie
from tests.attacks.operators import Operators
from tests.attacks.stage import Cast, Stage
from tests.attacks.table import EVENTS, Attack


async def noticed(
    attack: Attack, *, lying: bool, cast: Cast, operators: Operators, folder: Path
) -> tuple[list[str], Lie]:
    """The codes that come up in one run."""
    lie = Lie(idle=not lying)
    async with AsyncExitStack() as stack:
        try:
            return list(await attack.script(Stage(cast, operators, lie, folder, stack))), lie
        except PcehrError as error:
            return [error.code], lie


# The patient's log grows with every other attack, and checking it takes longer then: these come first.
IN_TURN = sorted(TABLE, key=lambda attack: (attack.group is not EVENTS, attack.id))


@pytest.mark.parametrize("lying", [False, True], ids=["control", "attack"])
@pytest.mark.parametrize("attack", IN_TURN, ids=lambda attack: attack.id)
async def test_an_attack_is_noticed_and_named_and_nothing_else_is(
    *, attack: Attack, lying: bool, cast: Cast, operators: Operators, folder: Path
) -> None:
    codes, lie = await noticed(attack, lying=lying, cast=cast, operators=operators, folder=folder)
    assert bool(lie.told) == lying
    if lying and attack.codes:
        assert set(attack.codes) <= set(codes), codes
    else:
        assert codes == []
