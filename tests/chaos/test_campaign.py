"""kill -9 of every process at random points of the whole flow under load."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from client.embedded.platform import EmbeddedPlatform
from tests.chaos.campaign import Campaign
from tests.chaos.conftest import WHOLE
from tests.chaos.household import STEPS
from tests.chaos.plan import VICTIMS, plan_of

KILLS = int(os.environ.get("PCEHR_CHAOS_KILLS", "1000" if WHOLE else "50"))
SEED = os.environ.get("PCEHR_CHAOS_SEED", "the seed of every run")
SHOWN = WHOLE or "PCEHR_CHAOS_KILLS" in os.environ
"""Whether each kill is shown; whoever chose their number waits for them."""
HOUSEHOLDS = 3 if WHOLE else 2
EFFECTS = {"blob", "disclosure", "erasure", "grant", "key_entry", "records", "request", "revocation", "scope_keys"}
NAMES = [step.__name__ for step in STEPS]


def test_a_seed_gives_one_plan_with_every_victim() -> None:
    plan = plan_of(SEED, 50, NAMES)
    assert plan == plan_of(SEED, 50, NAMES)
    assert plan != plan_of(f"{SEED}, and another", 50, NAMES)
    assert {kill.victim for kill in plan} == set(VICTIMS)
    assert all(kill.step in NAMES for kill in plan)


@pytest.mark.timeout(900 + 20 * KILLS)
async def test_nothing_acknowledged_is_lost_and_nothing_is_there_twice(
    platform: EmbeddedPlatform, chaos_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("client.embedded.platform.WATCH_SECONDS", 0.1)
    campaign = Campaign(platform, chaos_home, households=HOUSEHOLDS)

    def say(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"  {line}\n")
            sys.stdout.flush()

    outcome = await campaign.run(plan_of(SEED, KILLS, NAMES), say if SHOWN else lambda _: None)
    with capsys.disabled():
        sys.stdout.write(f"\nseed {SEED!r}: {outcome}\n")
    assert outcome.problems == []
    assert outcome.missed == []
    acknowledged = {kind for kind, count in outcome.entries.items() if count >= HOUSEHOLDS}
    assert acknowledged >= EFFECTS, "the load must have gone on, or nothing has been shown"
