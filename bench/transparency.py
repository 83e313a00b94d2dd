"""What the transparency log costs: `python -m bench.transparency [--largest 1000000]`.

Measured on a real Postgres of its own with the code of the services: appending events one transaction at a time and
in batches, sequencing, and proofs, with trees of 10^3 to 10^6 leaves. Leaves before those measured are put into the
table by one statement each thousand, with the same rows that the service would have made, and sequenced by it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from client.embedded.postgres import EmbeddedPostgres
from shared.crypto.signing import SigningKey
from shared.db import log, migrate
from shared.db.engine import Database
from shared.did import did_from_key
from shared.transparency.checkpoints import verify_checkpoint
from shared.transparency.merkle import leaf_hash, needed_for_root, root_of, verify_consistency, verify_inclusion

MIGRATIONS = Path(__file__).parents[1] / "tests" / "services" / "log" / "migrations"
KEY = SigningKey(bytes(range(32)))
SUBJECTS = [did_from_key(bytes(SigningKey(number.to_bytes(32, "big")).verify_key)) for number in range(1, 257)]
NOW = 1_760_000_000
SIZES = (
    "SELECT relname, pg_total_relation_size(oid) FROM pg_class"
    " WHERE relname LIKE 'log%' AND relkind = 'r' ORDER BY 2 DESC"
)
SAMPLE = 1_000
"""Events, rows or proofs that one figure is taken over."""


@dataclass
class Figures:
    """Of one size; times in microseconds for each event or proof, bytes as they are."""

    leaves: int
    through_per_second: float
    append_one_us: float
    append_batch_us: float
    sequence_us: float
    sequence_one_us: float
    inclusion_us: float
    inclusion_200_us: float
    inclusion_hashes: float
    inclusion_bytes: float
    verify_inclusion_us: float
    consistency_us: float
    consistency_hashes: float
    verify_consistency_us: float
    bytes_per_event: float


NAMES = {
    "leaves": "leaves",
    "through_per_second": "events a second through append and sequencer at once",
    "append_one_us": "append, one event a transaction, 8 writers: µs/event",
    "append_batch_us": "append, 50 events a transaction: µs/event",
    "sequence_us": "sequence alone, 100 to 500 rows a run: µs/event",
    "sequence_one_us": "sequence alone, 1 row a run: µs/run",
    "inclusion_us": "prove one inclusion (database and all): µs",
    "inclusion_200_us": "prove 200 at once: µs/proof",
    "inclusion_hashes": "hashes of an inclusion proof",
    "inclusion_bytes": "bytes of an inclusion proof",
    "verify_inclusion_us": "verify an inclusion: µs",
    "consistency_us": "prove consistency from half the size: µs",
    "consistency_hashes": "hashes of that proof",
    "verify_consistency_us": "verify it: µs",
    "bytes_per_event": "bytes in Postgres for each event, indexes included",
}


def event(number: int) -> log.NewEvent:
    """As a disclosure has it; the subjects take turns."""
    subject = SUBJECTS[number % len(SUBJECTS)]
    return log.NewEvent(subject=subject, at=NOW, event="disclosure", actor=SUBJECTS[0], grant="A" * 43)


async def timed(work: Awaitable[Any]) -> float:
    started = time.perf_counter()
    await work
    return (time.perf_counter() - started) * 1e6


def median_of(work: Callable[[], object], times: int = 200) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append((time.perf_counter() - started) * 1e6)
    return statistics.median(taken)


async def append_one_by_one(database: Database, count: int) -> None:
    async def write(writer: int) -> None:
        for number in range(writer, count, 8):
            async with database.transaction() as session:
                await log.append_event(session, event(number))

    await asyncio.gather(*(write(writer) for writer in range(8)))


async def append_and_sequence(database: Database, store: log.Log, count: int) -> None:
    """Until every event has its place under a signed checkpoint."""
    writing = asyncio.create_task(append_one_by_one(database, count))
    placed = 0
    while placed < count:
        placed += await store.sequence(publish=True)
    await writing


async def append_in_batches(database: Database, count: int) -> None:
    for start in range(0, count, 50):
        async with database.transaction() as session:
            await log.append_events(session, [event(number) for number in range(start, start + 50)])


async def fill(database: Database, store: log.Log, size: int) -> None:
    """Bring the tree to `size` leaves with events that have all columns, without their chains being computed."""
    async with database.transaction() as session:
        have = int(await session.scalar(sa.text("SELECT count(*) FROM log_entries")) or 0)
    while have < size:
        count = min(5_000, size - have)
        async with database.transaction() as session:
            ids = await log.append(
                session, [b"f" * 24 + number.to_bytes(8, "big") for number in range(have, have + count)]
            )
            await session.execute(
                sa.text(
                    "INSERT INTO log_events (subject, n, entry, actor, salt, text)"
                    " SELECT :subject || (id % 256), id, id, :subject, sha256(id::text::bytea), repeat('e', 330)"
                    " FROM unnest(CAST(:ids AS bigint[])) AS w (id)"
                ),
                {"subject": SUBJECTS[0][:-3], "ids": ids},
            )
        have += count
        while await store.sequence(publish=True):
            pass


async def measure(database: Database, store: log.Log, size: int) -> Figures:
    await fill(database, store, size - 4 * SAMPLE // 10 if size <= SAMPLE else size - 2 * SAMPLE)
    async with database.transaction() as session:
        await session.execute(sa.text("ANALYZE"))
    count = 100 if size <= SAMPLE else SAMPLE // 2
    append_one = await timed(append_one_by_one(database, count)) / count
    sequence = await timed(store.sequence(publish=True)) / count
    through = count / await timed(append_and_sequence(database, store, count)) * 1e6
    append_batch = await timed(append_in_batches(database, count)) / count
    await store.sequence(publish=True)
    ones = []
    for number in range(20):
        async with database.transaction() as session:
            await log.append_event(session, event(number))
        ones.append(await timed(store.sequence(publish=True)))
    await fill(database, store, size)
    note = verify_checkpoint(await store.checkpoint(), store.origin)
    async with database.transaction() as session:
        rows = await session.execute(
            sa.text("SELECT index, data FROM log_entries WHERE index % :step = 0 ORDER BY index LIMIT 200"),
            {"step": max(note.size // 200, 1)},
        )
        leaves = [(int(index), leaf_hash(bytes(data))) for index, data in rows]
    proving = [await timed(store.inclusion([leaf], note.size)) for _, leaf in leaves[:50]]
    started = time.perf_counter()
    proven = await store.inclusion([leaf for _, leaf in leaves], note.size)
    proving_all = (time.perf_counter() - started) * 1e6 / len(leaves)
    paths = [path for _, path in proven.items]
    index, path = proven.items[0]
    half = note.size // 2 + 1
    proving_consistency = [await timed(store.consistency(half, note.size)) for _ in range(20)]
    consistent = await store.consistency(half, note.size)
    async with database.transaction() as session:
        old_root = root_of(half, await log.tree.nodes(session, needed_for_root(half)))
        total = sum(octets for _, octets in await session.execute(sa.text(SIZES)))
    return Figures(
        leaves=note.size,
        through_per_second=through,
        append_one_us=append_one,
        append_batch_us=append_batch,
        sequence_us=sequence,
        sequence_one_us=statistics.median(ones),
        inclusion_us=statistics.median(proving),
        inclusion_200_us=proving_all,
        inclusion_hashes=statistics.mean(len(item) for item in paths),
        inclusion_bytes=statistics.mean(32 * len(item) for item in paths),
        verify_inclusion_us=median_of(lambda: verify_inclusion(leaves[0][1], index, note.size, path, note.root)),
        consistency_us=statistics.median(proving_consistency),
        consistency_hashes=len(consistent),
        verify_consistency_us=median_of(lambda: verify_consistency(half, old_root, note.size, note.root, consistent)),
        bytes_per_event=total / note.size,
    )


def table(figures: list[Figures]) -> str:
    """One line for each figure, one column for each size, and the last column over the first."""
    width = max(map(len, NAMES.values()))
    lines = []
    for field in fields(Figures):
        values = [getattr(figure, field.name) for figure in figures]
        ratio = f"{values[-1] / values[0]:>10,.2f}" if field.name != "leaves" else f"{'ratio':>10}"
        columns = "".join(f"{value:>14,.0f}" if value >= 100 else f"{value:>14,.1f}" for value in values)
        lines.append(f"{NAMES[field.name]:<{width}}{columns}{ratio}")
    return "\n".join(lines)


async def run(folder: Path, largest: int) -> None:
    async with EmbeddedPostgres(folder / "postgres") as server:
        figures = []
        await server.create_role_and_database("log", "bench")
        url = server.url_for("log", "bench")
        await migrate.upgrade("log", url, script_location=MIGRATIONS)
        database = Database(url, application_name="bench", pool_size=10)
        store = log.Log(database, key=KEY, kind="records")
        size = 1_000
        while size <= largest:
            figures.append(await measure(database, store, size))
            print(f"{size:,} leaves measured", flush=True)
            size *= 10
        async with database.transaction() as session:
            sizes = await session.execute(sa.text(SIZES))
            print("".join(f"{name}: {octets / size * 10:,.0f} bytes for each leaf\n" for name, octets in sizes), end="")
        await database.dispose()
    print(table(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--largest", type=int, default=1_000_000, help="leaves of the largest tree")
    largest = parser.parse_args().largest
    with tempfile.TemporaryDirectory(prefix="pcehr-bench-") as folder:
        # Postgres may run as another user than who measures.
        Path(folder).chmod(0o711)
        asyncio.run(run(Path(folder), largest))


if __name__ == "__main__":
    main()
