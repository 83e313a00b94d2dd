"""Transactions on a real server, including one that goes away."""

# ruff: noqa: PT012  What raises here is the end of a whole `async with` block, so that is what stands in `raises`.

import asyncio
import os
import signal
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from client.embedded.postgres import EmbeddedPostgres
from shared.db.engine import Database, violated_constraint
from shared.errors import DatabaseUnavailable

SECRET = "the-parameter-that-nobody-may-see"

FreshDatabase = Callable[[], Awaitable[str]]


@pytest.fixture
async def url(fresh_database: FreshDatabase) -> str:
    url = await fresh_database()
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE notes (id text CONSTRAINT pk_notes PRIMARY KEY, n int CHECK (n > 0))")
    await connection.close()
    return url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url, application_name="test", pool_size=2, pool_timeout=0.3)
    yield database
    await database.dispose()


async def seen_from_outside(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [row["id"] for row in await connection.fetch("SELECT id FROM notes ORDER BY id")]
    finally:
        await connection.close()


def everything_shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)


async def test_the_commit_has_happened_when_the_block_is_left(database: Database, url: str) -> None:
    async with database.transaction() as session:
        await session.execute(text("INSERT INTO notes VALUES ('a', 1)"))
        assert await seen_from_outside(url) == []
    assert await seen_from_outside(url) == ["a"]


async def test_an_error_rolls_back(database: Database, url: str) -> None:
    with pytest.raises(LookupError):
        async with database.transaction() as session:
            await session.execute(text("INSERT INTO notes VALUES ('a', 1)"))
            raise LookupError
    assert await seen_from_outside(url) == []


async def test_cancelling_rolls_back_and_gives_the_connection_back(database: Database, url: str) -> None:
    inserted = asyncio.Event()

    async def work() -> None:
        async with database.transaction() as session:
            await session.execute(text("INSERT INTO notes VALUES ('a', 1)"))
            inserted.set()
            await session.execute(text("SELECT pg_sleep(30)"))

    for _ in range(4):
        task = asyncio.create_task(work())
        await inserted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await seen_from_outside(url) == []
    await database.check()


async def test_a_reading_sees_at_each_statement_what_is_committed(database: Database) -> None:
    count = text("SELECT count(*) FROM notes")
    async with database.reading() as reading:
        assert await reading.scalar(count) == 0
        async with database.transaction() as session:
            await session.execute(text("INSERT INTO notes VALUES ('a', 1)"))
            assert await reading.scalar(count) == 0
        assert await reading.scalar(count) == 1


async def test_a_reading_holds_no_transaction_open(database: Database, url: str) -> None:
    connection = await asyncpg.connect(url)
    async with database.reading() as reading:
        pid = await reading.scalar(text("SELECT pg_backend_pid()"))
        assert await connection.fetchval("SELECT state FROM pg_stat_activity WHERE pid = $1", pid) == "idle"
    await connection.close()


async def test_the_connection_of_a_reading_serves_transactions_afterwards(url: str) -> None:
    database = Database(url, application_name="test", pool_size=1)
    async with database.reading() as reading:
        pid = await reading.scalar(text("SELECT pg_backend_pid()"))
    with pytest.raises(LookupError):
        async with database.transaction() as session:
            assert await session.scalar(text("SELECT pg_backend_pid()")) == pid
            await session.execute(text("INSERT INTO notes VALUES ('a', 1)"))
            raise LookupError
    await database.dispose()
    assert await seen_from_outside(url) == []


async def test_a_connection_lost_while_nobody_used_it_is_replaced_unnoticed(url: str) -> None:
    database = Database(url, application_name="test", pool_size=1)
    async with database.transaction() as session:
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
    connection = await asyncpg.connect(url)
    await connection.execute("SELECT pg_terminate_backend($1)", pid)
    while await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await connection.close()
    for block in (database.transaction, database.reading):
        async with block() as session:
            assert await session.scalar(text("SELECT pg_backend_pid()")) != pid
    await database.dispose()


async def test_the_callers_own_os_error_is_not_blamed_on_postgres(database: Database) -> None:
    with pytest.raises(FileNotFoundError):
        async with database.transaction():
            raise FileNotFoundError
    with pytest.raises(TimeoutError):
        async with database.transaction():
            raise TimeoutError


async def test_a_unique_violation_names_its_constraint_and_shows_no_value(database: Database) -> None:
    with pytest.raises(IntegrityError) as caught:
        async with database.transaction() as session:
            for _ in range(2):
                await session.execute(text("INSERT INTO notes VALUES (:id, 1)"), {"id": SECRET})
    assert violated_constraint(caught.value) == "pk_notes"
    assert SECRET not in everything_shown(caught.value)


async def test_a_failed_check_is_no_unique_violation_and_shows_no_value(database: Database) -> None:
    with pytest.raises(IntegrityError) as caught:
        async with database.transaction() as session:
            await session.execute(text("INSERT INTO notes VALUES (:id, -1)"), {"id": SECRET})
    assert violated_constraint(caught.value) is None
    assert SECRET not in everything_shown(caught.value)


async def test_a_mistake_in_sql_is_not_called_away(database: Database) -> None:
    with pytest.raises(ProgrammingError):
        async with database.transaction() as session:
            await session.execute(text("SELECT * FROM nowhere"))


async def test_whoever_waits_for_a_connection_gets_it_before_whoever_asks_later(url: str) -> None:
    """Otherwise, with many requests at once, some would wait until they are refused."""
    database = Database(url, application_name="test", pool_size=1)
    order: list[str] = []
    go_on = asyncio.Event()

    async def twice() -> None:
        async with database.reading():
            await go_on.wait()
        async with database.reading():
            order.append("again")

    async def once(name: str) -> None:
        async with database.transaction():
            order.append(name)

    tasks = [asyncio.create_task(twice())]
    for name in ("second", "third"):
        await asyncio.sleep(0.05)
        tasks.append(asyncio.create_task(once(name)))
    await asyncio.sleep(0.05)
    assert (database.pool_use.in_use, database.pool_use.waiting) == (1, 2)
    go_on.set()
    await asyncio.gather(*tasks)
    await database.dispose()
    assert order == ["second", "third", "again"]


async def test_a_pool_that_is_used_up_is_unavailable_and_recovers(database: Database) -> None:
    async with database.transaction(), database.transaction():
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction():
                pass
        with pytest.raises(DatabaseUnavailable):
            await database.check()
    await database.check()


async def test_a_statement_that_takes_too_long_is_unavailable(url: str) -> None:
    database = Database(url, application_name="test", command_timeout=0.2)
    with pytest.raises(DatabaseUnavailable) as caught:
        async with database.transaction() as session:
            await session.execute(text("SELECT pg_sleep(30), :secret ::text"), {"secret": SECRET})
    shown = everything_shown(caught.value)
    assert SECRET not in shown
    assert "canceling statement" not in shown
    await database.check()
    await database.dispose()


async def test_read_only_is_unavailable(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction() as session:
            await session.execute(text("SET TRANSACTION READ ONLY"))
            await session.execute(text("INSERT INTO notes VALUES ('a', 1)"))


async def test_a_wrong_password_is_not_ready(url: str) -> None:
    database = Database(url.replace("@", "x@"), application_name="test")
    with pytest.raises(DatabaseUnavailable):
        await database.check()
    await database.dispose()


async def test_times_are_utc_and_the_application_has_a_name(database: Database) -> None:
    async with database.transaction() as session:
        assert (await session.execute(text("SHOW timezone"))).scalar_one() == "UTC"
        assert (await session.execute(text("SHOW application_name"))).scalar_one() == "test"


async def test_stopped_postgres_is_unavailable_and_the_same_database_recovers(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        await server.create_role_and_database("notes", "secret")
        url = server.url_for("notes", "secret")
        database = Database(url, application_name="test")
        async with database.transaction() as session:
            await session.execute(text("CREATE TABLE notes (id text PRIMARY KEY)"))

        # Gone in the middle of a transaction.
        with pytest.raises(DatabaseUnavailable) as caught:
            async with database.transaction() as session:
                await session.execute(text("INSERT INTO notes VALUES (:id)"), {"id": SECRET})
                await server.stop()
                await session.execute(text("INSERT INTO notes VALUES (:id)"), {"id": SECRET + "2"})
        shown = everything_shown(caught.value)
        assert SECRET not in shown
        assert "sqlalchemy.exc" not in shown
        assert "administrator command" not in shown

        # Gone before the transaction.
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction():
                pass
        with pytest.raises(DatabaseUnavailable):
            await database.check()

        await server.start()
        await database.check()
        async with database.transaction() as session:
            await session.execute(text("INSERT INTO notes VALUES ('after')"))
        assert await seen_from_outside(url) == ["after"]

        # Gone at the commit.
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction() as session:
                await session.execute(text("INSERT INTO notes VALUES ('lost')"))
                await server.stop()
        await server.start()
        await database.check()
        assert await seen_from_outside(url) == ["after"]
        await database.dispose()


async def test_killed_postgres_is_unavailable_to_every_pooled_connection(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        await server.create_role_and_database("notes", "secret")
        database = Database(server.url_for("notes", "secret"), application_name="test", pool_size=5)

        async def hold(ready: asyncio.Barrier) -> None:
            async with database.transaction() as session:
                await session.execute(text("SELECT 1"))
                await ready.wait()
                await session.execute(text("SELECT pg_sleep(30)"))

        barrier = asyncio.Barrier(6)
        holders = [asyncio.create_task(hold(barrier)) for _ in range(5)]
        await barrier.wait()
        signal_all(server.pid, signal.SIGKILL)
        results = await asyncio.gather(*holders, return_exceptions=True)
        assert [type(result) for result in results] == [DatabaseUnavailable] * 5
        while server.running:  # noqa: ASYNC110  The kernel's doing, of which no event tells.
            await asyncio.sleep(0.01)
        await server.start()
        await asyncio.gather(*(database.check() for _ in range(5)))
        await database.dispose()


async def test_whatever_moment_postgres_is_killed_the_answer_is_unavailable(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        await server.create_role_and_database("notes", "secret")
        url = server.url_for("notes", "secret")
        database = Database(url, application_name="test")
        async with database.transaction() as session:
            await session.execute(text("CREATE TABLE notes (id text PRIMARY KEY)"))
        acknowledged: list[str] = []

        async def insert(prefix: str) -> None:
            for number in range(1_000_000):
                async with database.transaction() as session:
                    await session.execute(text("INSERT INTO notes VALUES (:id)"), {"id": f"{prefix}-{number}"})
                acknowledged.append(f"{prefix}-{number}")

        for attempt in range(4):
            writers = [asyncio.create_task(insert(f"{attempt}-{writer}")) for writer in range(8)]
            await asyncio.sleep(0.15)
            signal_all(server.pid, signal.SIGKILL)
            results = await asyncio.gather(*writers, return_exceptions=True)
            assert [result for result in results if not isinstance(result, DatabaseUnavailable)] == []
            while server.running:  # noqa: ASYNC110  The kernel's doing, of which no event tells.
                await asyncio.sleep(0.01)
            await server.start()
        assert set(acknowledged) <= set(await seen_from_outside(url))
        await database.dispose()


async def test_frozen_postgres_is_given_up_in_time(postgres_dir: Path) -> None:
    async with EmbeddedPostgres(postgres_dir) as server:
        await server.create_role_and_database("notes", "secret")
        database = Database(
            server.url_for("notes", "secret"), application_name="test", command_timeout=0.3, connect_timeout=0.5
        )
        await database.check()
        signal_all(server.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(20):
                for _ in range(2):
                    with pytest.raises(DatabaseUnavailable):
                        async with database.transaction() as session:
                            await session.execute(text("SELECT 1"))
        finally:
            signal_all(server.pid, signal.SIGCONT)
        await database.check()
        await database.dispose()


def signal_all(postmaster: int, number: signal.Signals) -> None:
    """Backends lead process groups of their own, hence each child is signalled."""
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    for pid in (postmaster, *map(int, children)):
        os.kill(pid, number)


async def test_a_serialization_failure_is_to_be_repeated(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction() as session:
            await session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))
