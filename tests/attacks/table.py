"""The table of attacks: who lies, what it does, who notices, and by what name.

Each attack is one script that is run twice: once with the lie, when the codes named here must come up, and once as a
control with nobody lying, when none may.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.attacks.stage import Stage

Script = Callable[["Stage"], Awaitable[Sequence[str]]]
"""Runs the attack; the codes that were noticed, besides the code of what it raises."""

REGISTRY = "registry"
RECORDS = "records service"
PROXY = "proxy"

PATIENT = "patient"
RECIPIENT = "recipient"
AUTHOR = "author"
WITNESS = "witness"


@dataclass(frozen=True)
class Group:
    """Attacks of one kind."""

    letter: str
    title: str


KEYS = Group("K", "Swapping, hiding and rolling back keys")
LOGS = Group("L", "Forking, rewinding and replacing a log")
WITNESSES = Group("W", "Misusing a witness")
RECORDS_AT_REST = Group("R", "Swapping and rolling back records")
DISCLOSURES = Group("D", "Disclosures, re-encryptions and their receipts")
CONSENTS = Group("C", "Requests, grants and revocations")
EVENTS = Group("E", "The patient's log: hiding, changing and inventing events")
NOTICES = Group("N", "Notices that lie")
GROUPS = (KEYS, LOGS, WITNESSES, RECORDS_AT_REST, DISCLOSURES, CONSENTS, EVENTS, NOTICES)


@dataclass(frozen=True)
class Attack:
    """One line of the table. `codes` all come up; where there are none, the lie has no effect and the script says so
    by what it asserts."""

    id: str
    group: Group
    liar: str
    does: str
    codes: tuple[str, ...]
    noticed_by: str
    script: Script


TABLE: list[Attack] = []


def attack(
    group: Group, liar: str, does: str, *codes: str, by: str, where: list[Attack] | None = None
) -> Callable[[Script], Script]:
    """Put a script into the table, under the next number of its group."""
    table = TABLE if where is None else where

    def enter(script: Script) -> Script:
        number = sum(one.group is group for one in table) + 1
        table.append(Attack(f"{group.letter}{number:02}", group, liar, does, codes, by, script))
        return script

    return enter
