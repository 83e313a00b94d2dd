"""What somebody without a right to it would try: requests that the client's own roles would not even send.

They go to the services as they are, so that the refusals are the services' and not this program's politeness.
"""

from __future__ import annotations

from collections.abc import Sequence

from client.disclosure import request_reencryption
from client.reports import HeldGrant, ListedRecord
from client.session import Session


async def demand_disclosure(session: Session, grant: HeldGrant, records: Sequence[ListedRecord]) -> None:
    """Ask the records service to have these records re-encrypted, under a grant that may be somebody else's."""
    request = await request_reencryption(session, grant, records)
    await session.platform.disclose(await session.credentials(), request.token, [])


async def take_record(session: Session, record_id: str) -> None:
    """Ask the records service for one record by its id."""
    await session.platform.record_versions(await session.credentials(), record_id)
