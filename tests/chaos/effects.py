"""What the platform has, read past its services: straight from the tables of each, and from the folder of blobs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from client.embedded.platform import EmbeddedPlatform
from shared.encoding import b64url
from shared.transparency.merkle import EMPTY_ROOT, leaf_hash, node_hash

_ROWS = {
    "registry": {
        "key_entry": "SELECT id FROM key_entries",
        "scope_keys": "SELECT id FROM scope_keys",
        "statement": "SELECT id FROM statements",
        "leaf": "SELECT substring(data FROM 33) FROM log_entries",
    },
    "records": {
        "version": "SELECT manifest_id FROM record_versions",
        "request": "SELECT id FROM disclosure_requests",
        "grant": "SELECT id FROM grants",
        "statement": "SELECT id FROM statements",
    },
    "proxy": {"grant": "SELECT id FROM grants", "statement": "SELECT id FROM statements"},
}
"""How each kind of effect is counted; every query gives ids of statements, in bytes or as text."""

_EVENTS = (
    "SELECT e.subject, e.n, e.text, l.data FROM log_events e LEFT JOIN log_entries l ON l.id = e.entry"
    " ORDER BY e.subject, e.n"
)

_STANDING_STILL = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND state LIKE 'idle in transaction%' AND state_change < now() - interval '20 s'"
)


@dataclass(frozen=True)
class LoggedOnce:
    """An event as the tables have it: the commitment in base64url, the event's members, or None once it is erased."""

    service: str
    subject: str
    n: int
    commitment: str
    event: dict[str, Any] | None


@dataclass
class Effects:
    """Everything that the comparison looks at."""

    rows: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """How many rows there are, by service, kind and statement."""
    events: list[LoggedOnce] = field(default_factory=list)
    receipts: list[tuple[str, str]] = field(default_factory=list)
    """Receipts that the records service keeps, as (proxy, token)."""
    proxies: dict[str, str] = field(default_factory=dict)
    """The service's name of each proxy by its DID."""
    grants_of_request: Counter[str] = field(default_factory=Counter)
    unsettled: list[str] = field(default_factory=list)
    """What still waits: messages in the outbox, grants without all receipts, rows without a place in the tree,
    transactions that stand still."""
    broken_trees: list[str] = field(default_factory=list)


async def effects_of(platform: EmbeddedPlatform) -> Effects:
    """Raises asyncpg's errors and OSError while Postgres is away."""
    found = Effects(proxies={did: name for name, did in platform.proxy_dids.items()})
    for name in platform.urls:
        connection = await asyncpg.connect((platform.home / "secrets" / name / "pcehr_database_url").read_text())
        try:
            await _one_service(found, name, connection)
        finally:
            await connection.close()
    for path in (platform.home / "blobs").glob("??/*"):
        if b64url(hashlib.sha256(path.read_bytes()).digest()) == path.name:
            found.rows["records", "blob", path.name] += 1
    return found


async def _one_service(found: Effects, name: str, connection: asyncpg.Connection) -> None:
    kind = name.partition("-")[0]
    # One snapshot for all that is read of a service while others write.
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for what, query in _ROWS[kind].items():
            found.rows.update((name, what, _text(row[0])) for row in await connection.fetch(query))
        if kind != "registry":
            for subject, n, text, data in await connection.fetch(_EVENTS):
                event = None if text is None else json.loads(text)
                found.events.append(LoggedOnce(name, subject, n, "" if data is None else b64url(data), event))
        if kind == "records":
            await _consents(found, connection)
        await _tree(found, name, connection)
        if stuck := await connection.fetchval(_STANDING_STILL):
            found.unsettled.append(f"{name}: {stuck} transactions stand still")


async def _consents(found: Effects, connection: asyncpg.Connection) -> None:
    if waiting := await connection.fetchval("SELECT count(*) FROM outbox"):
        found.unsettled.append(f"records: {waiting} messages in the outbox")
    rows = await connection.fetch(
        "SELECT g.id, p.proxy, p.stored, p.erased, r.id IS NOT NULL AS revoked FROM grants g"
        " JOIN grant_proxies p ON p.grant_id = g.id"
        " LEFT JOIN revocations r ON r.grant_id = g.id AND r.issuer = g.patient"
    )
    asked = "SELECT request, count(*) FROM grants WHERE request IS NOT NULL GROUP BY request"
    found.grants_of_request.update({_text(request): count for request, count in await connection.fetch(asked)})
    for row in rows:
        found.receipts += [(row["proxy"], token) for token in (row["stored"], row["erased"]) if token is not None]
        if (row["erased"] if row["revoked"] else row["stored"]) is None:
            found.unsettled.append(f"records: grant {_text(row['id'])} waits for {found.proxies[row['proxy']]}")


async def _tree(found: Effects, name: str, connection: asyncpg.Connection) -> None:
    """The tree from its leaves on, by RFC 6962, against the newest checkpoint published."""
    rows = await connection.fetch('SELECT "index", data, leaf FROM log_entries ORDER BY "index" NULLS LAST')
    placed = [row for row in rows if row["index"] is not None]
    if [row["index"] for row in placed] != list(range(len(placed))):
        found.broken_trees.append(f"{name}: the places of the leaves have gaps")
    if any(leaf_hash(row["data"]) != row["leaf"] for row in placed):
        found.broken_trees.append(f"{name}: a leaf is not the hash of its data")
    newest = await connection.fetchrow("SELECT size, root FROM log_checkpoints WHERE published ORDER BY size DESC")
    size = 0 if newest is None else newest["size"]
    if newest is not None and root_of([row["leaf"] for row in placed[:size]]) != newest["root"]:
        found.broken_trees.append(f"{name}: the root published is not that of the leaves")
    if size != len(rows):
        found.unsettled.append(f"{name}: {len(rows) - size} entries are under no published checkpoint")
    if await connection.fetchval("SELECT count(*) FROM log_evidence"):
        found.broken_trees.append(f"{name}: the log contradicts what it signed")


def root_of(leaves: list[bytes]) -> bytes:
    """The root of a tree (RFC 6962 section 2.1) by its definition, in another way than the services compute it."""
    if not leaves:
        return EMPTY_ROOT
    level = leaves
    while len(level) > 1:
        pairs = [node_hash(*level[at : at + 2]) for at in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def _text(value: Any) -> str:
    return "" if value is None else b64url(value) if isinstance(value, bytes) else str(value)
