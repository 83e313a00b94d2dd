"""What Postgres would do for a statement, and whether that grows with what belongs to others."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.services.plans.issued import Issued, Place

MOST_ROWS = 1_000
"""Rows that one step may touch for a caller who owns some dozens; a scan of a filled table touches far more."""

_INDEX_SCANS = {"Index Scan", "Index Only Scan", "Bitmap Index Scan"}


@dataclass(frozen=True)
class Fault:
    """A step of a plan that reads what it does not want."""

    place: Place
    why: str
    sql: str

    def __str__(self) -> str:
        return f"{self.place}: {self.why}\n    {' '.join(self.sql.split())[:600]}"


@dataclass(frozen=True)
class Tables:
    """What a plan is judged by: tables that grow, and indexes that hold but a part of their table's rows."""

    growing: frozenset[str]
    partial_indexes: frozenset[str]

    @classmethod
    async def of(cls, connection: asyncpg.Connection, small: Collection[str]) -> Tables:
        """All tables of a database but those named as small."""
        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        partial = await connection.fetch(
            "SELECT indexrelid::regclass::text AS name FROM pg_index WHERE indpred IS NOT NULL"
        )
        return cls(frozenset(row["tablename"] for row in names) - set(small), frozenset(row["name"] for row in partial))


async def faults_of(connection: asyncpg.Connection, issued: Issued, tables: Tables) -> list[Fault]:
    """What is wrong with the plans of a statement: the one for its arguments, that for any, and what came of it.

    Postgres takes the second kind for a prepared statement once it has seen a few. Statements that only read or change
    rows are run as well, in a transaction that is rolled back.
    """
    if issued.sql.startswith("SET "):
        return []
    found = {f"for these arguments: {why}" for why in _whys(await _plan(connection, issued), tables)}
    found |= {f"for any arguments: {why}" for why in _whys(await _generic_plan(connection, issued), tables)}
    if issued.sql.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE")):
        analysed = await _plan(connection, issued, "ANALYZE, TIMING OFF, BUFFERS OFF, ")
        found |= {f"when run: {why}" for step, _ in _steps(analysed) if (why := _touches_too_much(step))}
    return [Fault(issued.place, why, issued.sql) for why in sorted(found)]


async def _plan(connection: asyncpg.Connection, issued: Issued, options: str = "") -> Mapping[str, Any]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        answer = await connection.fetchval(f"EXPLAIN ({options}FORMAT JSON) {issued.sql}", *issued.arguments)
    finally:
        await transaction.rollback()
    return _top(answer)


async def _generic_plan(connection: asyncpg.Connection, issued: Issued) -> Mapping[str, Any]:
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute(f"PREPARE asked AS {issued.sql}")
    try:
        arguments = ", ".join(["NULL"] * len(issued.arguments))
        answer = await connection.fetchval(
            f"EXPLAIN (FORMAT JSON) EXECUTE asked{f'({arguments})' if arguments else ''}"
        )
    finally:
        await connection.execute("DEALLOCATE asked; RESET plan_cache_mode")
    return _top(answer)


def _top(answer: str) -> Mapping[str, Any]:
    plan: Mapping[str, Any] = json.loads(answer)[0]["Plan"]
    return plan


def _steps(plan: Mapping[str, Any], above: str = "") -> Iterator[tuple[Mapping[str, Any], str]]:
    """Every step of a plan, with the kind of the step above it."""
    yield plan, above
    for step in plan.get("Plans", ()):
        yield from _steps(step, plan["Node Type"])


def _whys(plan: Mapping[str, Any], tables: Tables) -> Iterator[str]:
    for step, above in _steps(plan):
        if step["Node Type"] == "Seq Scan" and step["Relation Name"] in tables.growing:
            yield f"reads the whole of {step['Relation Name']}"
        elif (
            step["Node Type"] in _INDEX_SCANS
            and "Index Cond" not in step
            and step["Index Name"] not in tables.partial_indexes
            and (above != "Limit" or "Filter" in step)
            and step.get("Relation Name") in {None, *tables.growing}
        ):
            yield f"walks the whole of {step['Index Name']}"


def _touches_too_much(step: Mapping[str, Any]) -> str | None:
    rows = (step["Actual Rows"] + step.get("Rows Removed by Filter", 0)) * step["Actual Loops"]
    if rows <= MOST_ROWS:
        return None
    return f"{step['Node Type']} on {step.get('Relation Name', 'what is below it')} touches {rows:,.0f} rows"
