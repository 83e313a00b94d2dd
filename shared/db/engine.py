"""One service's way to its Postgres: transactions that commit before they return, and one word for 'it is away'.

Whatever means that Postgres is away becomes `DatabaseUnavailable`, which carries neither SQL nor a parameter nor the
server's text. The pool replaces lost connections by itself, so that a service recovers without a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import QueuePool

from shared.errors import DatabaseUnavailable

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 30.0
POOL_SECONDS = 5.0
CHECK_SECONDS = 2.0
IDLE_IN_TRANSACTION_SECONDS = 60

_AWAY_STATES = (
    "08",  # connection exception
    "53",  # insufficient resources: disk full, out of memory, too many connections
    "57P",  # shutting down, crashed, cannot connect now, database dropped
    "58",  # an error of the system below Postgres, such as an I/O error
    "25006",  # read-only: a standby, or the primary after a failover
    "57014",  # cancelled: in this service only by the statement time-out
    "25P03",  # the connection was ended since it was idle in a transaction
    "40P01",  # undone to end a deadlock: the same transaction, begun anew, may well succeed
    "40001",  # undone since it could not be put into an order with others; likewise
)


@dataclass(frozen=True)
class PoolUse:
    """How the connections of a pool are used: now, and since the start how many had to `wait` and how many in vain."""

    size: int
    open: int
    in_use: int
    waiting: int
    waits: int
    timeouts: int


class Database:
    """A bounded pool of connections to one database.

    `url` is a libpq URI (`postgresql://` or `postgres://`, with parameters such as `sslmode`); SQLAlchemy's spelling
    `postgresql+asyncpg://` is taken too. `pool_size` is the most connections ever open. All times are in seconds:
    `connect_timeout` for a new connection, `command_timeout` for one statement, `pool_timeout` for a free connection.
    Nothing connects until the first use. Raises ValueError for another kind of URL, without repeating it.

    `needs` is the oldest revision of the tables that the service can work with (`shared.db.schema`); without it
    `check` looks at no tables.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        application_name: str,
        needs: str | None = None,
        connect_timeout: float = CONNECT_SECONDS,
        command_timeout: float = COMMAND_SECONDS,
        pool_timeout: float = POOL_SECONDS,
    ) -> None:
        self._needs = needs
        self._engine = new_engine(
            url,
            application_name=application_name,
            connect_timeout=connect_timeout,
            command_timeout=command_timeout,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout,
        )
        event.listen(self._engine.sync_engine, "checkout", _refuse_lost)
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        alone = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._sessions_without_transaction = async_sessionmaker(alone, expire_on_commit=False)
        self._size = pool_size
        self._places = asyncio.Semaphore(pool_size)
        self._pool_timeout = pool_timeout
        self._waiting = self._waits = self._timeouts = 0

    @property
    def pool_use(self) -> PoolUse:
        pool = cast("QueuePool", self._engine.sync_engine.pool)
        in_use = pool.checkedout()
        return PoolUse(self._size, in_use + pool.checkedin(), in_use, self._waiting, self._waits, self._timeouts)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session in one transaction: committed when the block ends, rolled back when it raises.

        The block is left only after Postgres has acknowledged the commit, so what follows it may be told to others.
        Raises DatabaseUnavailable when Postgres is away, before or during the block or at its end. If the connection
        was lost during the commit itself, nobody knows whether it happened: statements must bear being repeated.
        """
        async with _saying_when_away(), self._place(), self._sessions() as session:
            await _connected(session)
            yield session
            await session.commit()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session without a transaction around it, for statements that change nothing and lock nothing.

        Each sees what is committed when it begins, as it would in `transaction` (Postgres's "read committed"), and the
        two round trips that begin and end a transaction are saved. Raises DatabaseUnavailable as `transaction` does.
        """
        async with _saying_when_away(), self._place(), self._sessions_without_transaction() as session:
            await _connected(session)
            yield session

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A turn at a connection, in the order of asking; raises DatabaseUnavailable after `pool_timeout`.

        Whoever comes later could take a connection from SQLAlchemy's pool in front of those who wait for one; with many
        requests at once some of them would wait until they are refused.
        """
        has_to_wait = self._places.locked()
        self._waits += has_to_wait
        self._waiting += has_to_wait
        try:
            async with asyncio.timeout(self._pool_timeout):
                await self._places.acquire()
        except TimeoutError:
            self._timeouts += 1
            raise DatabaseUnavailable from None
        finally:
            self._waiting -= has_to_wait
        try:
            yield
        finally:
            self._places.release()

    async def check(self) -> None:
        """For readiness: raises DatabaseUnavailable unless the database answers within `CHECK_SECONDS`, with tables of
        the revision needed or a newer one.

        Newer ones are fine, since a release's migrations leave what the release before them needs: while a platform
        is brought up to date, the old services go on serving.
        """
        question = "SELECT version_num FROM alembic_version" if self._needs else "SELECT ''"
        try:
            async with asyncio.timeout(CHECK_SECONDS), self.transaction() as session:
                applied = await session.scalar(text(question))
        except (SQLAlchemyError, TimeoutError, asyncpg.PostgresError):
            # A wrong password, a missing database or one without tables is no reason to try again, but it is no
            # readiness either.
            raise DatabaseUnavailable from None
        if (applied or "") < (self._needs or ""):
            raise DatabaseUnavailable("The tables are of an older release than this service.")

    async def dispose(self) -> None:
        """Close all connections; call it once, when the service stops."""
        await self._engine.dispose()


def new_engine(
    url: str,
    *,
    application_name: str,
    connect_timeout: float = CONNECT_SECONDS,
    command_timeout: float = COMMAND_SECONDS,
    **options: Any,
) -> AsyncEngine:
    """An engine over asyncpg that shows no parameter in its errors and knows when Postgres is away.

    `options` go to SQLAlchemy's `create_async_engine`. Raises ValueError for a URL that is not Postgres's.
    """
    dsn = libpq_url(url)

    async def connect(**_ignored: object) -> Any:
        # asyncpg reads the URL itself, so that libpq's parameters (sslmode, target_session_attrs …) mean what they
        # mean elsewhere, and the password does not lie about in an engine's repr.
        return await asyncpg.connect(
            dsn,
            timeout=connect_timeout,
            # The server gives up first, and with it the lock it waits for; the client's own time-out is for a server
            # that no longer answers at all.
            command_timeout=command_timeout + 1,
            server_settings={
                "application_name": application_name,
                "timezone": "UTC",
                "statement_timeout": f"{int(command_timeout * 1000)}ms",
                "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
            },
        )

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        echo=False,
        echo_pool=False,
        hide_parameters=True,
        **options,
    )
    event.listen(engine.sync_engine, "handle_error", _on_error)
    return engine


def violated_constraint(error: BaseException) -> str | None:
    """The name of the unique constraint (or unique index) that an IntegrityError is about, else None."""
    if not isinstance(error, IntegrityError) or getattr(error.orig, "sqlstate", None) != "23505":
        return None
    name: str | None = getattr(error.orig.__cause__, "constraint_name", None) if error.orig is not None else None
    return name


@asynccontextmanager
async def _saying_when_away() -> AsyncIterator[None]:
    """Turns whatever means that Postgres is away into DatabaseUnavailable."""
    try:
        yield
    except SQLAlchemyError as error:
        if means_away(error):
            raise DatabaseUnavailable from None
        raise
    except DatabaseUnavailable:
        # Raised by a listener below, from an exception that holds the statement.
        raise DatabaseUnavailable from None


def _refuse_lost(connection: Any, _record: object, _proxy: object) -> None:
    """Have the pool open a new connection in the place of one that is known to be lost.

    Asking the server instead would cost every transaction a round trip, and tell no more: a connection can be lost
    right after the answer as well, and what is lost in a transaction is DatabaseUnavailable either way.
    """
    if connection.driver_connection.is_closed():
        raise DisconnectionError


async def _connected(session: AsyncSession) -> None:
    """Take a connection now: errors of connecting arrive raw, and here they cannot be the caller's own OSError."""
    try:
        await session.connection()
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        raise DatabaseUnavailable from None
    except asyncpg.PostgresError as error:
        if means_away(error):
            raise DatabaseUnavailable from None
        raise


def _on_error(context: ExceptionContext) -> None:
    """For every error that Postgres or its connection gives.

    An OSError or a time-out is recognised here and not in `transaction`, where it might as well come from the
    caller's block, say from writing a file.
    """
    error = context.original_exception
    # asyncpg gives InternalClientError when the connection is lost at an unlucky moment of the protocol.
    if isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError):
        # Nothing is known about what such a connection would answer next.
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False
        raise DatabaseUnavailable from None
    # Postgres's detail shows values ("Key (id)=(…) already exists"), which must not reach a log.
    for shown in (error, context.sqlalchemy_exception):
        if shown is not None and shown.args and isinstance(shown.args[0], str):
            shown.args = (shown.args[0].partition("\nDETAIL:")[0], *shown.args[1:])
    cause = error.__cause__
    if isinstance(cause, asyncpg.PostgresError):
        cause.detail = None


def means_away(error: BaseException) -> bool:
    """Whether an error of SQLAlchemy's or asyncpg's means that Postgres cannot serve at the moment."""
    if isinstance(error, PoolTimeoutError):
        return True
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        state = getattr(error.orig, "sqlstate", None)
        return _is_away_state(state) or isinstance(error.orig, OSError | TimeoutError)
    return _is_away_state(getattr(error, "sqlstate", None))


def _is_away_state(state: object) -> bool:
    return isinstance(state, str) and state.startswith(_AWAY_STATES)


def libpq_url(url: str) -> str:
    """The URL as asyncpg takes it; raises ValueError for one that is not Postgres's, without repeating it."""
    scheme = urlsplit(url).scheme
    if scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        # The URL holds a password and is therefore not shown.
        raise ValueError("a database URL must begin with postgresql://")
    return "postgresql" + url[len(scheme) :]
