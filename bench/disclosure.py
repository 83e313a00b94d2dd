"""What writing events costs a disclosure: `python -m bench.disclosure`.

One run on real processes over loopback and real Postgres with fsync. In turns, so that a noisy machine disturbs all
alike, it measures the disclosure of one record, 2 of 3 proxies, as the recipient's client sees it, and one transaction
on the records service's database that does nothing but append an event. Opening waits for three of these, one after the
other: that of the listing, the proxies' (written side by side), and that of the disclosure.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from client.embedded.platform import EmbeddedPlatform
from shared.db.engine import Database
from shared.db.log import NewEvent, append_event
from shared.schemas.records import GrantState
from tests.e2e.actors import ActorMaker, grant_in_state, granted, note

ROUNDS = 200


async def seconds_of(act: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await act()
    return time.perf_counter() - started


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pcehr-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # noqa: ASYNC240  Nothing else runs here yet.
        async with EmbeddedPlatform(folder / "home", base_port=None) as platform:
            maker = ActorMaker(platform.registry_url, folder)
            owner, reader = await maker.patient(), await maker.recipient()
            await owner.patient.add_records([note("no known allergies")])
            grant = await granted(owner, reader, scopes=["allergies"])
            await grant_in_state(owner, grant.id, GrantState.COMPLETE)
            url = (folder / "home" / "secrets" / "records" / "pcehr_database_url").read_text()
            database = Database(url, application_name="bench")

            async def disclose() -> None:
                assert len((await reader.recipient.fetch(grant.id)).opened) == 1

            async def append() -> None:
                async with database.transaction() as session:
                    await append_event(session, NewEvent(owner.did, int(time.time()), "log_read", actor=owner.did))

            for warm_up in (disclose, append):
                await warm_up()
            disclosures, events = [], []
            for _ in range(ROUNDS):
                disclosures.append(await seconds_of(disclose))
                events.append(await seconds_of(append))
            await database.dispose()
            await maker.close()
    whole, one = statistics.median(disclosures), statistics.median(events)
    print(f"{'list and open one record, 2 of 3, p50':40} {whole * 1000:8.2f} ms")
    print(f"{'one event in a transaction, p50':40} {one * 1000:8.2f} ms")
    print(f"{'three events / the whole disclosure':40} {3 * one / whole:8.2f}")


if __name__ == "__main__":
    asyncio.run(main())
