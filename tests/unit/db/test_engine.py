"""What the engine decides without a server."""

import socket

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from shared.db.engine import Database, means_away, violated_constraint
from shared.errors import DatabaseUnavailable


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
async def test_urls_of_postgres_are_accepted(scheme: str) -> None:
    database = Database(f"{scheme}://someone:secret@127.0.0.1:1/nothing", application_name="test")
    with pytest.raises(DatabaseUnavailable):
        await database.check()
    await database.dispose()


@pytest.mark.parametrize("url", ["mysql://someone:hunter2@host/db", "hunter2", ""])
def test_another_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="postgresql://") as caught:
        Database(url, application_name="test")
    assert "hunter2" not in str(caught.value)


async def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://someone:secret@127.0.0.1:{silent.getsockname()[1]}/nothing"
        database = Database(url, application_name="test", connect_timeout=0.2)
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction():
                pass
        await database.dispose()


class StateError(Exception):
    """Stands for an error of the driver's that has a SQLSTATE."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    "state", ["08006", "53100", "53300", "57P01", "57P02", "57P03", "58030", "25006", "25P03", "40P01", "40001"]
)
def test_states_that_mean_away(state: str) -> None:
    assert means_away(DBAPIError(None, None, StateError(state)))


@pytest.mark.parametrize("state", ["23505", "42601", "22001", "28P01"])
def test_states_that_do_not_mean_away(state: str) -> None:
    assert not means_away(DBAPIError(None, None, StateError(state)))


def test_only_a_unique_violation_names_a_constraint() -> None:
    assert violated_constraint(ValueError()) is None
    assert violated_constraint(IntegrityError(None, None, StateError("23503"))) is None
