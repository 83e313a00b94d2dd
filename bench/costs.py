"""What a patient, a record, a grant and an event cost: `python -m bench.costs [--records 100000]`.

Bytes in Postgres, indexes included, from tables filled with strangers' rows of true sizes; what is written to the log
of Postgres and how often it is forced to disk for one call of the routes that do most of the work, with everything that
follows from the call (deliveries, the services' own logs and their cosignatures); and the processor's time for one
re-encryption. docs/scaling.md is made from these.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import asyncpg

from bench.caller import Caller
from bench.filled_platform import FilledPlatform, filled_platform
from bench.populate import Strangers, rows_of
from bench.routes import OPERATIONS
from client.embedded.postgres import EmbeddedPostgres
from shared.crypto.umbral import KfragSigner, SecretKey, encrypt, generate_kfrags, reencrypt

CALLS = 20
SETTLING = 3.0
"""Seconds after which nothing follows from a call any more."""
WRITING = (
    "registry POST /v1/patients",
    "registry POST /v1/oauth/token",
    "records POST /v1/records",
    "records POST /v1/disclosure-requests",
    "records POST /v1/grants",
    "records POST /v1/revocations",
    "records POST /v1/disclosures",
    "records GET /v1/records",
    "records GET /v1/me/records",
)
_WRITTEN = """
SELECT wal_bytes::bigint AS octets, (SELECT sum(fsyncs)::bigint FROM pg_stat_io WHERE object = 'wal') AS syncs
FROM pg_stat_wal
"""


async def tables(platform: FilledPlatform) -> None:
    """Print rows, and bytes for each, of the tables of each service."""
    for name in ("registry", "records", "proxy-1"):
        print(f"\n{name}")
        found = await rows_of(platform.databases[name])
        for table, (rows, octets) in sorted(found.items(), key=lambda one: -one[1][1]):
            print(f"  {table:22} {rows:>10,} rows {octets / rows:>10,.0f} bytes each")
        print(f"  {'all':22} {sum(octets for _, octets in found.values()):>10,} bytes")


async def writing(server: EmbeddedPostgres, caller: Caller) -> None:
    """Print what one call of each route writes."""
    connection = await asyncpg.connect(server.superuser_url)
    await asyncio.sleep(SETTLING)
    for operation in OPERATIONS:
        if operation.name not in WRITING:
            continue
        requests = [await operation.prepare(caller) for _ in range(CALLS)]
        await asyncio.sleep(SETTLING)
        before = await _written(connection)
        for request in requests:
            await caller.done(request)
        await asyncio.sleep(SETTLING)
        octets, syncs = (after - was for after, was in zip(await _written(connection), before, strict=True))
        print(f"  {operation.name:40} {octets / CALLS:>10,.0f} bytes {syncs / CALLS:>6.1f} syncs")
    await connection.close()


async def _written(connection: asyncpg.Connection) -> tuple[int, int]:
    row = await connection.fetchrow(_WRITTEN)
    return row["octets"], row["syncs"]


def arithmetic() -> float:
    """Processor seconds of one re-encryption of one capsule at one proxy."""
    patient, recipient, signer = SecretKey.generate(), SecretKey.generate(), KfragSigner(SecretKey.generate())
    capsule, _ = encrypt(patient.public_key(), b"key")
    [kfrag] = generate_kfrags(patient, recipient.public_key(), signer, 1, 1)
    started = time.process_time()
    for _ in range(200):
        reencrypt(capsule, kfrag)
    return (time.process_time() - started) / 200


async def run(size: Strangers) -> None:
    print(f"one re-encryption: {arithmetic() * 1e6:,.0f} µs of one processor")
    with tempfile.TemporaryDirectory(prefix="pcehr-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # noqa: ASYNC240  Nothing else runs here yet.
        async with (
            EmbeddedPostgres(folder / "postgres") as server,
            filled_platform(folder / "home", server, size) as platform,
            Caller(platform) as caller,
        ):
            print(f"filled in {platform.filling:,.0f} s")
            await tables(platform)
            await caller.settle()
            print("\none call, and what follows from it, at all services together")
            await writing(server, caller)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--records", type=int, default=100_000, help="records of strangers; a tenth as many grants")
    records = parser.parse_args().records
    asyncio.run(run(Strangers(records=records, grants=records // 10)))


if __name__ == "__main__":
    main()
