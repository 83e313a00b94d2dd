"""Runs of the machine against services that run in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from unittest import mock

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.consent_model.controls import Fault
from tests.consent_model.machine import ConsentMachine, of
from tests.consent_model.platform import Databases, running


@dataclass(frozen=True)
class Figures:
    """How much has been looked at."""

    steps: int
    questions: int


@contextmanager
def platform(databases: Databases) -> Iterator[type[ConsentMachine]]:
    """A machine with a platform of its own behind it."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        services = runner.run(stack.enter_async_context(running(databases)))
        try:
            yield of(services, runner)
        finally:
            runner.run(stack.aclose())


def run(machine: type[ConsentMachine], *, runs: int, steps: int, with_seed: int, shrink: bool = False) -> Figures:
    """So many runs of so many steps; raises what the first disagreement raises, with the steps that lead to it."""
    before = Figures(machine.steps, machine.questions)
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]
    run_state_machine_as_test(
        seed(with_seed)(machine),
        settings=settings(
            max_examples=runs,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=False,
            phases=phases,
            report_multiple_bugs=False,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
        _min_steps=steps,
    )
    return Figures(machine.steps - before.steps, machine.questions - before.questions)


@contextmanager
def planted(faults: Sequence[Fault]) -> Iterator[None]:
    """The services with these rules in the place of their own."""
    with ExitStack() as stack:
        for fault in faults:
            stack.enter_context(mock.patch.object(fault.module, fault.name, fault.replacement))
        yield
