"""Which tables a service needs, and that it is not ready on older ones."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from shared.db import migrate
from shared.db.engine import Database
from shared.db.schema import newest_in, newest_revision
from shared.errors import DatabaseUnavailable

EXAMPLE = Path(__file__).parent / "example_migrations"
SERVICES = Path(__file__).parents[3] / "services"
FreshDatabase = Callable[..., Awaitable[str]]


@pytest.mark.parametrize("service", migrate.SERVICES)
def test_the_revisions_are_one_line_of_numbers_and_the_files_are_named_after_them(service: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(SERVICES / service / "migrations"))
    config.set_main_option("path_separator", "os")
    scripts = list(reversed(list(ScriptDirectory.from_config(config).walk_revisions())))
    assert [script.revision for script in scripts] == [f"{number:04}" for number in range(1, len(scripts) + 1)]
    assert [script.down_revision for script in scripts] == [None, *(script.revision for script in scripts[:-1])]
    assert [Path(script.path).name[:5] for script in scripts] == [f"{script.revision}_" for script in scripts]
    assert newest_revision(service) == scripts[-1].revision


def test_a_folder_without_migrations_needs_no_revision_that_could_be_told(tmp_path: Path) -> None:
    (tmp_path / "notes.py").touch()
    with pytest.raises(ValueError, match="no migrations"):
        newest_in(tmp_path)


@pytest.fixture
async def database_needing() -> AsyncIterator[Callable[[str, str], Database]]:
    made: list[Database] = []

    def make(url: str, needs: str) -> Database:
        made.append(Database(url, application_name="test", needs=needs))
        return made[-1]

    yield make
    for database in made:
        await database.dispose()


@pytest.mark.parametrize("needs", ["0001", "0002"])
async def test_a_service_is_ready_on_its_own_tables_and_on_newer_ones(
    fresh_database: FreshDatabase, database_needing: Callable[[str, str], Database], needs: str
) -> None:
    url = await fresh_database("example", script_location=EXAMPLE)
    await database_needing(url, needs).check()


async def test_a_service_is_not_ready_on_older_tables_until_the_migration_has_run(
    fresh_database: FreshDatabase, database_needing: Callable[[str, str], Database]
) -> None:
    url = await fresh_database("example", script_location=EXAMPLE)
    database = database_needing(url, "0003")
    with pytest.raises(DatabaseUnavailable, match="older release"):
        await database.check()
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE alembic_version SET version_num = '0003'")
    await connection.close()
    await database.check()


async def test_a_service_is_not_ready_without_tables_until_the_migration_has_run(
    fresh_database: FreshDatabase, database_needing: Callable[[str, str], Database]
) -> None:
    url = await fresh_database()
    database = database_needing(url, newest_in(EXAMPLE / "versions"))
    with pytest.raises(DatabaseUnavailable):
        await database.check()
    await migrate.upgrade("example", url, script_location=EXAMPLE)
    await database.check()


async def test_a_service_is_not_ready_when_no_revision_is_noted(
    fresh_database: FreshDatabase, database_needing: Callable[[str, str], Database]
) -> None:
    url = await fresh_database("example", script_location=EXAMPLE)
    connection = await asyncpg.connect(url)
    await connection.execute("DELETE FROM alembic_version")
    await connection.close()
    with pytest.raises(DatabaseUnavailable, match="older release"):
        await database_needing(url, "0001").check()
