"""What was before the version of a record that is shown, and whether its author was allowed to write over it.

Lists and disclosures show one version of each record. The manifests before it are asked for where it takes them to
judge that version, once for each version: what has been checked is remembered with the newest version seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from client.errors import RecordRolledBack, ServiceRefused, VerificationFailed
from client.reading import author_of, problem_of
from client.reports import Problem
from client.session import Session
from client.verification import VerifiedRecord, VerifiedVersion, check_history, check_version
from shared.identity import VerifiedParty
from shared.schemas.records import PastVersion

_AT_ONCE = 8
"""Histories asked for at the same time."""


async def check_histories(
    session: Session, checked: Sequence[VerifiedRecord | Problem], patient: VerifiedParty
) -> list[VerifiedRecord | Problem]:
    """The same records in order, with a problem in place of each that its history does not bear out.

    Raises what concerns all of them: outages. A version that bears out is not remembered here, since it may still not
    open.
    """
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(record: VerifiedRecord | Problem) -> VerifiedRecord | Problem:
        if isinstance(record, Problem) or not _needs_history(session, record, patient):
            return record
        async with gate:
            try:
                await check_before(session, record, patient)
            except VerificationFailed as failed:
                return problem_of(failed, record_id=record.manifest.payload.record)
        return record

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(record)) for record in checked]
    except BaseExceptionGroup as failures:
        # One outage is what a caller can act on; the others are of the same kind.
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def check_before(session: Session, record: VerifiedRecord, patient: VerifiedParty) -> None:
    """Raise a `VerificationFailed` unless the versions before this one are shown and let its author write it."""
    payload = record.manifest.payload
    who = await session.credentials()
    try:
        shown = await session.platform.record_history(who, payload.record, payload.version)
    except ServiceRefused as refused:
        if refused.status != 404:
            raise
        raise RecordRolledBack("The versions before this one are not shown.") from None
    versions = [await _past_version(session, one, patient) for one in shown]
    own = patient.did == session.did
    await asyncio.to_thread(check_history, [*versions, record.as_version], complete=own)


def _needs_history(session: Session, record: VerifiedRecord, patient: VerifiedParty) -> bool:
    payload = record.manifest.payload
    if payload.version == 1 or session.state.has_seen(record.manifest):
        return False
    # To anybody else the patient vouches for what was before; the patient's own client looks for itself.
    return payload.iss != patient.did or patient.did == session.did


async def _past_version(session: Session, shown: PastVersion, patient: VerifiedParty) -> VerifiedVersion:
    author = await author_of(session, shown.manifest)
    if isinstance(author, VerificationFailed):
        raise author
    ended = session.state.consents.ended()
    return check_version(shown.manifest, shown.authority, patient=patient, author=author, ended=ended)
