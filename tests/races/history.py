"""Whether what several clients saw at once can be explained by one order.

A history is a set of operations, each with the moment before its request was sent and the moment after its answer was
read, on the clock of one process. It is *linearizable* (Herlihy and Wing, 1990) with respect to a sequential
specification if the operations can be put in one order such that

  1  an operation that had been answered before another was sent comes before it, and
  2  each answer is the one that the specification gives at that place of the order.

So: a disclosure that is acknowledged may come before a revocation that was under way at the same time, whichever of
the two was answered first; but none that was sent after the revocation was acknowledged, and none after one that was
refused because of it. The specification is a function from state and operation to the next state, or None where this
answer is impossible in that state.

The search is that of Wing and Gong (1993) with one short cut: an operation that may come next and changes nothing is
put next at once. That loses no order where what has been done once stays done, as in all specifications here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class Operation:
    """What was asked, `kind` of `what`, and what was answered: `ok` or the code of the refusal, and a detail."""

    kind: str
    what: str
    began: float
    ended: float
    answer: str
    detail: Hashable = None


class Unexplained(AssertionError):
    """No order explains the history."""


def explain(
    history: Sequence[Operation], state: S, step: Callable[[S, Operation], S | None]
) -> tuple[list[Operation], S]:
    """An order that explains the history, and the state that it ends in; raises `Unexplained`."""
    operations = sorted(history, key=lambda operation: operation.began)
    dead: set[tuple[frozenset[int], S]] = set()

    def search(left: frozenset[int], state: S) -> tuple[list[int], S] | None:
        order: list[int] = []
        while True:
            if not left:
                return order, state
            first_end = min(operations[one].ended for one in left)
            enabled = [one for one in sorted(left) if operations[one].began <= first_end]
            idle = [one for one in enabled if step(state, operations[one]) == state]
            if not idle:
                break
            order += idle
            left -= frozenset(idle)
        if (left, state) in dead:
            return None
        for one in enabled:
            following = step(state, operations[one])
            if following is not None and (rest := search(left - {one}, following)) is not None:
                return [*order, one, *rest[0]], rest[1]
        dead.add((left, state))
        return None

    found = search(frozenset(range(len(operations))), state)
    if found is None:
        start = min(operation.began for operation in operations)
        told = "\n".join(
            f"  {operation.began - start:.4f} to {operation.ended - start:.4f} s  {operation.kind} {operation.what}:"
            f" {operation.answer} {operation.detail or ''}"
            for operation in operations
        )
        raise Unexplained(f"no order explains\n{told}")
    return [operations[one] for one in found[0]], found[1]
