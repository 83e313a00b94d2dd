"""Every key allows that the rows of a service are spread over several machines by whom they belong to.

A unique key can be kept on one machine for all only if it holds the column that rows are spread by. What does not is
named here, with the reason; docs/scaling.md says what that means for an installation that is spread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from shared.db import migrate

FreshDatabase = Callable[[str], Awaitable[str]]

SPREAD_BY = {
    "registry": {
        "parties": "did",
        "key_entries": "did",
        "scope_keys": "patient",
        "statements": "issuer",
        "assertions": "client",
        "audit": "did",
        "usage": "party",
    },
    "records": {
        "known_parties": "did",
        "statements": "issuer",
        "records": "patient",
        "record_versions": "patient",
        "blobs": "owner",
        "scope_floors": "patient",
        "disclosure_requests": "patient",
        "grants": "patient",
        "grant_scopes": "patient",
        "grant_capsules": "patient",
        "grant_proxies": "patient",
        "outbox": "patient",
        "revocations": "issuer",
        "disclosed": "patient",
        "notices": "party",
        "notice_heads": "party",
        "log_heads": "subject",
        "log_events": "subject",
        "usage": "party",
    },
    "proxy": {
        "known_parties": "did",
        "grants": "patient",
        "kfrags": "patient",
        "tombstones": "issuer",
        "statements": "issuer",
        "answers": "statement",
        "log_heads": "subject",
        "log_events": "subject",
        "usage": "party",
    },
}
"""The column that holds the party each row belongs to; of an answer, the id of the statement it is asked for by."""

_ONE_TREE = "A service's log is one sequence of everything; it is what cannot be spread (docs/scaling.md)."
_FEW = "A few rows, which every machine may have."

NOT_SPREAD = {
    "log_entries": _ONE_TREE,
    "log_nodes": _ONE_TREE,
    "log_checkpoints": _ONE_TREE,
    "log_evidence": _ONE_TREE,
    "alembic_version": _FEW,
    "own_entries": _FEW,
    "witnessed_logs": _FEW,
}
"""Tables whose rows belong to nobody, and why."""

_BY_GRANT = (
    "Found by the grant's id, SHA-256 of a statement that names the patient: it is one patient's without any key saying"
    " so. The patient's column is not in the table yet."
)

WITHOUT_THE_PARTY = {
    ("records", "records", "id"): (
        "That the id is unique across patients is wanted: nobody may hang a version beside another's record."
    ),
    ("records", "disclosure_requests", "id"): (
        "SHA-256 of a statement that names the patient, so that the key says no more than (patient, id) would. Denials"
        " and grants name the request alone."
    ),
    ("records", "grants", "id"): (
        "SHA-256 of a statement that names the patient, so that the key says no more than (patient, id) would."
        " Revocations, re-encryption requests and manifests name the grant alone."
    ),
    ("records", "grant_scopes", "grant_id, entry"): _BY_GRANT,
    ("records", "grant_capsules", "grant_id, entry, capsule_hash"): _BY_GRANT,
    ("records", "grant_proxies", "grant_id, proxy"): _BY_GRANT,
    ("records", "outbox", "grant_id, proxy, kind"): _BY_GRANT,
    (
        "records",
        "outbox",
        "id",
    ): "A queue, whose rows go when they are delivered; each machine may have one of its own.",
    ("proxy", "grants", "id"): (
        "Re-encryption requests name the grant alone. A proxy is one share of many, and more proxies are how they are"
        " spread."
    ),
}
"""Unique keys that do not hold the column, and why not."""

_KEYS = """
SELECT c.relname AS table, array_agg(a.attname::text ORDER BY k.place) AS columns
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (number, place)
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
WHERE i.indisunique AND c.relnamespace = 'public'::regnamespace
GROUP BY c.relname, i.indexrelid
"""


async def keys_of(url: str) -> set[tuple[str, str]]:
    """Table and columns of every unique key."""
    connection = await asyncpg.connect(url)
    try:
        return {(row["table"], ", ".join(row["columns"])) for row in await connection.fetch(_KEYS)}
    finally:
        await connection.close()


@pytest.mark.parametrize("service", migrate.SERVICES)
async def test_every_unique_key_holds_the_party_or_there_is_a_reason(
    fresh_database: FreshDatabase, service: str
) -> None:
    without = {
        (service, table, columns)
        for table, columns in await keys_of(await fresh_database(service))
        if table not in NOT_SPREAD and SPREAD_BY[service][table] not in columns.split(", ")
    }
    assert without == {key for key in WITHOUT_THE_PARTY if key[0] == service}


@pytest.mark.parametrize("service", migrate.SERVICES)
async def test_every_table_has_a_key_and_a_party_or_a_reason(fresh_database: FreshDatabase, service: str) -> None:
    url = await fresh_database(service)
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    tables = {row["tablename"] for row in rows}
    assert tables == {table for table, _ in await keys_of(url)}
    assert tables - set(NOT_SPREAD) == set(SPREAD_BY[service])
