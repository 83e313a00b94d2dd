"""Migrations, by way of a small example, on a real server."""

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from shared.db import migrate
from shared.db.engine import violated_constraint
from shared.errors import DatabaseUnavailable

EXAMPLE = Path(__file__).parent / "example_migrations"
FreshDatabase = Callable[..., Awaitable[str]]


COLUMN = '''"""A column."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("notes", sa.Column("kind", sa.Text, nullable=False, server_default="plain"))
'''
INDEX = '''"""An index on it, built while others write."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_notes_kind", "notes", postgresql_concurrently=True, if_exists=True)
        op.create_index("ix_notes_kind", "notes", ["kind"], postgresql_concurrently=True)
'''


@pytest.fixture
def next_release(tmp_path: Path) -> Path:
    """The migrations of the example's next release."""
    folder = tmp_path / "next"
    shutil.copytree(EXAMPLE, folder)
    (folder / "versions" / "0003_kind.py").write_text(COLUMN, "utf-8")
    (folder / "versions" / "0004_kind_index.py").write_text(INDEX, "utf-8")
    return folder


async def run_migrate(url: str | None, *arguments: str, script_location: Path = EXAMPLE) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if "DATABASE_URL" not in name}
    if url is not None:
        environment["PCEHR_DATABASE_URL"] = url
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "shared.db.migrate",
        "registry",
        "--script-location",
        str(script_location),
        *arguments,
        cwd=Path(__file__).parents[3],
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_upgrade_reaches_the_head_and_may_be_repeated(fresh_database: FreshDatabase) -> None:
    url = await fresh_database()
    assert not await migrate.is_at_head("example", url, script_location=EXAMPLE)
    for _ in range(2):
        await migrate.upgrade("example", url, script_location=EXAMPLE)
        assert await migrate.is_at_head("example", url, script_location=EXAMPLE)
    await migrate.check_models("example", url, script_location=EXAMPLE)


async def test_a_table_that_differs_from_its_model_is_found(fresh_database: FreshDatabase) -> None:
    url = await fresh_database("example", script_location=EXAMPLE)
    connection = await asyncpg.connect(url)
    await connection.execute("ALTER TABLE notes DROP COLUMN body")
    await connection.close()
    with pytest.raises(CommandError, match="body"):
        await migrate.check_models("example", url, script_location=EXAMPLE)


async def test_two_replicas_that_migrate_at_once_both_succeed(fresh_database: FreshDatabase) -> None:
    url = await fresh_database()
    outcomes = await asyncio.gather(*(run_migrate(url) for _ in range(3)))
    assert outcomes == [(0, "")] * 3
    assert await run_migrate(url, "--check") == (0, "")


async def test_migrations_at_once_stay_out_of_the_way_of_an_index_built_concurrently(
    fresh_database: FreshDatabase, next_release: Path
) -> None:
    url = await fresh_database()
    outcomes = await asyncio.gather(*(run_migrate(url, script_location=next_release) for _ in range(3)))
    assert outcomes == [(0, "")] * 3
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_notes_kind'::regclass")
    await connection.close()


async def test_a_database_of_a_newer_release_is_refused_and_stays_as_it_is(
    fresh_database: FreshDatabase, next_release: Path
) -> None:
    url = await fresh_database()
    await migrate.upgrade("example", url, script_location=next_release)
    status, output = await run_migrate(url)
    assert status == 2
    assert output == "registry: The tables are of a newer release (revision 0004); nothing was changed.\n"
    assert (await run_migrate(url, "--check"))[0] == 1
    assert await migrate.is_at_head("example", url, script_location=next_release)


async def test_a_table_in_use_is_given_up_soon_and_nothing_is_changed(
    fresh_database: FreshDatabase, next_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "TABLE_LOCK_SECONDS", 1)
    url = await fresh_database("example", script_location=EXAMPLE)
    other = await asyncpg.connect(url)
    async with other.transaction():
        await other.execute("SELECT FROM notes")
        with pytest.raises(DBAPIError, match="lock timeout"):
            await migrate.upgrade("example", url, script_location=next_release)
    await other.close()
    assert await migrate.is_at_head("example", url, script_location=EXAMPLE)
    await migrate.upgrade("example", url, script_location=next_release)


async def test_an_index_that_was_given_up_half_way_is_built_when_the_migration_runs_again(
    fresh_database: FreshDatabase, next_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "TABLE_LOCK_SECONDS", 1)
    (next_release / "versions" / "0004_kind_index.py").rename(next_release / "later.py")
    url = await fresh_database()
    await migrate.upgrade("example", url, script_location=next_release)
    (next_release / "later.py").rename(next_release / "versions" / "0004_kind_index.py")
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_notes_kind')"
    other = await asyncpg.connect(url)
    async with other.transaction():
        await other.execute("INSERT INTO notes (id, body) VALUES ('a', 'in the way')")
        with pytest.raises(DBAPIError, match="lock timeout"):
            await migrate.upgrade("example", url, script_location=next_release)
        assert await other.fetchval(valid) is False
    await migrate.upgrade("example", url, script_location=next_release)
    assert await other.fetchval(valid) is True
    await other.close()


async def test_check_says_by_its_exit_status_whether_the_database_is_at_head(fresh_database: FreshDatabase) -> None:
    url = await fresh_database()
    status, output = await run_migrate(url, "--check")
    assert status == 1
    assert "not at head" in output
    # Nothing was changed by asking.
    assert not await migrate.is_at_head("example", url, script_location=EXAMPLE)


async def test_several_databases_whose_urls_stand_in_files_until_one_cannot_be_upgraded(
    fresh_database: FreshDatabase, tmp_path: Path
) -> None:
    urls = {"registry": await fresh_database(), "proxy": await fresh_database(), "records": await fresh_database()}
    for name in ("registry", "records"):
        (tmp_path / name).write_text(f"{urls[name]}\n")

    async def migrated(*services: str) -> int:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shared.db.migrate", *(f"{name}={tmp_path / name}" for name in services)),
            cwd=Path(__file__).parents[3],
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait()

    assert await migrated("registry", "proxy", "records") == 2
    assert [await migrate.is_at_head(name, urls[name]) for name in ("registry", "records")] == [True, False]
    (tmp_path / "proxy").write_text(urls["proxy"])
    assert await migrated("registry", "proxy", "records") == 0
    assert [await migrate.is_at_head(name, url) for name, url in urls.items()] == [True] * 3


async def test_no_url_and_no_server_are_said_without_a_trace() -> None:
    status, output = await run_migrate(None)
    assert (status, output) == (2, "Set PCEHR_DATABASE_URL to the URL of the database.\n")
    status, output = await run_migrate("postgresql://someone:hunter2@127.0.0.1:1/nothing", "--check")
    assert status == 2
    assert "hunter2" not in output
    assert "Traceback" not in output


async def test_a_server_that_is_away_is_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable):
        await migrate.upgrade("example", "postgresql://someone:x@127.0.0.1:1/nothing", script_location=EXAMPLE)


async def test_a_lock_that_is_not_given_back_is_not_waited_for_forever(
    fresh_database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 1)
    url = await fresh_database()
    other = await asyncpg.connect(url)
    await other.execute("SELECT pg_advisory_lock($1)", migrate._LOCK_KEY)
    with pytest.raises(DatabaseUnavailable, match="Another migration"):
        await migrate.upgrade("example", url, script_location=EXAMPLE)
    await other.close()
    await migrate.upgrade("example", url, script_location=EXAMPLE)


async def test_a_migration_that_fails_leaves_nothing_behind(fresh_database: FreshDatabase) -> None:
    url = await fresh_database()
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE tags (other int)")
    with pytest.raises(Exception, match="already exists"):
        await migrate.upgrade("example", url, script_location=EXAMPLE)
    assert await connection.fetchval("SELECT to_regclass('notes')") is None
    await connection.close()


@pytest.mark.parametrize("service", ["../etc", "Registry", "", "no_such_service"])
async def test_a_service_without_migrations_is_refused(service: str) -> None:
    with pytest.raises(ValueError, match=r"lower-case|no migrations"):
        await migrate.upgrade(service, "postgresql://nowhere/nothing")


async def test_a_migrated_copy_belongs_to_its_new_role(fresh_database: FreshDatabase) -> None:
    urls = [await fresh_database("example", script_location=EXAMPLE) for _ in range(2)]
    assert len(set(urls)) == 2
    for url in urls:
        connection = await asyncpg.connect(url)
        await connection.execute("INSERT INTO notes VALUES ('a', 'b')")
        await connection.execute("ALTER TABLE notes ADD COLUMN more text")
        await connection.close()


def test_an_error_of_another_kind_violates_no_constraint() -> None:
    assert violated_constraint(DatabaseUnavailable()) is None
