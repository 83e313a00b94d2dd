"""Every SQL statement of the records service, by what it is about; one `Repository` is one transaction, or one look."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from services.records.models import Usage
from services.records.repository.deliveries import Deliveries
from services.records.repository.grants import Grants
from services.records.repository.journal import Journal
from services.records.repository.notices import Notices
from services.records.repository.reading import Reading
from services.records.repository.requests import Requests
from services.records.repository.writing import Writing
from shared.db.engine import Database
from shared.db.quotas import Bound, Quotas


class Repository:
    """What can be read and written in one transaction.

    Locks are taken in one order wherever several are needed: statements, the id of a grant, requests, grants, floors,
    heads of records, usage, outbox, chains of events, notices; rows of one table by key.
    """

    def __init__(self, session: AsyncSession, bounds: Mapping[str, Bound]) -> None:
        self.quotas = Quotas(session, Usage, bounds)
        self.journal = Journal(session)
        self.writing = Writing(session)
        self.reading = Reading(session)
        self.requests = Requests(session)
        self.grants = Grants(session)
        self.deliveries = Deliveries(session)
        self.notices = Notices(session)


class Store:
    """Opens transactions on the service's database; `kick` is called after one that put something into the log, and
    `bounds` are those of what is kept for one party (`services.records.quotas`)."""

    def __init__(self, database: Database, kick: Callable[[], None], bounds: Mapping[str, Bound]) -> None:
        self._bounds = bounds
        self._database = database
        self._kick = kick

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Repository]:
        """One transaction, committed before the block is left; raises `DatabaseUnavailable`."""
        async with self._database.transaction() as session:
            repository = Repository(session, self._bounds)
            yield repository
        if repository.journal.logged:
            self._kick()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Repository]:
        """For what changes nothing and locks nothing; raises `DatabaseUnavailable`."""
        async with self._database.reading() as session:
            yield Repository(session, self._bounds)
