"""docs/attacks.md, written from the table: `python -m tests.attacks.document`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.attacks.all_attacks import TABLE
from tests.attacks.table import GROUPS, Attack

PATH = Path(__file__).parents[2] / "docs" / "attacks.md"

_HEAD = """\
# Attacks

What dishonest services try, and by what name it comes to light. Each line is a script in `tests/attacks`, run against
real processes: once with the lie, when all the codes in its line must come up, and once without, when none may. The
liar has what the operator has: the keys of logs, the seeds of proxies, the databases; some have a stolen key besides.
This page is written from the table of these scripts (`python -m tests.attacks.document`), and a test holds it to that.
What the codes of an audit mean, and what to do about each, is in [audit.md](audit.md); what is not promised is in
[threat-model.md](threat-model.md).
"""


def text_of(table: Sequence[Attack]) -> str:
    """The whole page."""
    parts = [_HEAD]
    for group in GROUPS:
        parts.append(
            f"\n## {group.title}\n\n| | who lies | what it does | who notices | as |\n| --- | --- | --- | --- | --- |\n"
        )
        for one in table:
            if one.group is group:
                codes = ", ".join(f"`{code}`" for code in one.codes) or "no effect"
                parts.append(f"| {one.id} | {one.liar} | {one.does} | {one.noticed_by} | {codes} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PATH.write_text(text_of(TABLE), "utf-8")
