"""New databases for a platform in this process, and what its clients say to nobody while they wait."""

from __future__ import annotations

import pytest

from tests.conftest import FreshDatabases
from tests.consent_model.platform import PROXIES


@pytest.fixture(scope="module")
async def consent_databases(fresh_database: FreshDatabases) -> dict[str, str]:
    found = {name: await fresh_database(name) for name in ("registry", "records")}
    return found | {host: await fresh_database("proxy") for host in PROXIES}
