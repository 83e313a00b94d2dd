"""A few runs of the machine, and some planted faults that it must find; `make fuzz-consent` runs many more of both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.consent_model.controls import CONTROLS, Control
from tests.consent_model.machine import ConsentMachine
from tests.consent_model.running import planted, platform, run

RUNS, STEPS = 2, 20
TRIES = 12
"""Runs in which a planted fault must show."""


@pytest.fixture(scope="module")
def machine(consent_databases: dict[str, str]) -> Iterator[type[ConsentMachine]]:
    with platform(consent_databases) as made:
        yield made


@pytest.mark.timeout(900)
def test_the_platform_and_the_model_agree(machine: type[ConsentMachine]) -> None:
    figures = run(machine, runs=RUNS, steps=STEPS, with_seed=1)
    assert figures.steps >= RUNS * STEPS
    assert figures.questions >= figures.steps


@pytest.mark.timeout(900)
@pytest.mark.parametrize("control", [one for one in CONTROLS if one.quick], ids=lambda control: control.name)
def test_a_planted_fault_is_found(machine: type[ConsentMachine], control: Control) -> None:
    with planted(control.faults), pytest.raises(AssertionError, match="the model says"):
        run(machine, runs=TRIES, steps=STEPS, with_seed=2)
