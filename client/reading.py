"""Reading records from the records service: authors resolved, everything verified, large bodies by way of files."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from client.errors import (
    BodyTooLarge,
    ClientError,
    ServiceRefused,
    UnauthorisedAuthor,
    UnexpectedAnswer,
    VerificationFailed,
)
from client.records import open_record, open_record_to_file
from client.reports import OpenedRecord, Problem, RecordSummary
from client.session import Session
from client.verification import VerifiedRecord, check_record
from shared.crypto.record import RecordKey
from shared.errors import PcehrError
from shared.identity import VerifiedParty
from shared.jose import parse
from shared.schemas.records import RecordOut
from shared.statements import Manifest

MAX_IN_MEMORY = 256 * 1024 * 1024
"""Bytes of ciphertext up to which a body is held in memory; larger ones need a folder to go to."""

Author = VerifiedParty | VerificationFailed


async def check_all(
    session: Session, unverified: Sequence[RecordOut], patient: VerifiedParty
) -> list[VerifiedRecord | Problem]:
    """Each record verified, or the reason why it is not, in order. Raises what concerns all of them: outages."""
    authors = await _authors_of(session, unverified)
    ended = session.state.consents.ended()
    checked = await asyncio.to_thread(_check_all, unverified, patient, authors, ended)
    # The patient's own records prove how far a scope has come; what others write proves nothing of that.
    own = [one for one in checked if isinstance(one, VerifiedRecord) and one.manifest.payload.iss == patient.did]
    for scope_id, epoch in {record.scope_entry for record in own}:
        session.state.raise_epoch(patient.did, scope_id, epoch)
    return checked


async def open_whole(
    session: Session, record: VerifiedRecord, key: RecordKey, *, scope: str, large_to: Path | None = None
) -> OpenedRecord:
    """Header and body of a record.

    A body that does not come with the record is fetched to a file first. With `large_to` it is decrypted to a file
    in that folder, named by the record's id; without, it is held in memory, up to `MAX_IN_MEMORY`.
    """
    (opened,) = await open_all(session, [(record, key, scope)], large_to=large_to)
    if isinstance(opened, ClientError):
        raise opened
    return opened


async def open_all(
    session: Session, records: Sequence[tuple[VerifiedRecord, RecordKey, str]], *, large_to: Path | None = None
) -> list[OpenedRecord | ClientError]:
    """`open_whole` for records with their keys and the names of their scopes, in order; an error in place of one that
    does not open."""
    inline = [one for one in records if one[0].body is not None]
    opened = iter(await asyncio.to_thread(_open_inline, inline))
    found: list[OpenedRecord | ClientError] = []
    for record, key, scope in records:
        if record.body is not None:
            found.append(next(opened))
            continue
        try:
            found.append(await _open_blob(session, record, key, scope, large_to))
        except ClientError as error:
            found.append(error)
    return found


def unverified_summary(unverified: RecordOut, problem: Problem) -> RecordSummary:
    """What the service claims of a record that does not verify, so that its owner can see which one it is.

    Raises `UnexpectedAnswer` where there is not even a claim.
    """
    claim = _claim(unverified)
    if claim is None:
        raise UnexpectedAnswer("The records service shows something that is not a record.")
    claimed, manifest_id = claim
    return summary_of(claimed, manifest_id, scope=None, problem=problem)


def summary_of(manifest: Manifest, manifest_id: str, *, scope: str | None, problem: Problem | None) -> RecordSummary:
    """A summary without a header; `dataclasses.replace` puts one in."""
    return RecordSummary(
        record_id=manifest.record,
        version=manifest.version,
        scope=scope,
        scope_id=manifest.scope,
        epoch=manifest.epoch,
        author=manifest.iss,
        written_at=manifest.iat,
        size=manifest.size,
        manifest_id=manifest_id,
        header=None,
        problem=problem,
        capsule=manifest.capsule,
    )


def problem_of(
    error: PcehrError, *, record_id: str | None = None, grant_id: str | None = None, proxy: str | None = None
) -> Problem:
    """An error as a value, for a list of what was left out."""
    return Problem(code=error.code, detail=error.detail, record_id=record_id, grant_id=grant_id, proxy=proxy)


async def author_of(session: Session, manifest: str) -> Author:
    """The author that a manifest names, or why there is none to be found. Raises what concerns all: outages."""
    try:
        return await session.issuer_of(manifest, Manifest)
    except VerificationFailed as failed:
        return failed
    except ServiceRefused as refused:
        # One record by somebody who does not exist must not stand in the way of all others.
        if refused.code != "unknown_party":
            raise
        return UnauthorisedAuthor("The registry does not know the author.")


async def _authors_of(session: Session, unverified: Sequence[RecordOut]) -> dict[str, Author]:
    """The author of each record by the manifest's text, or why it could not be found."""
    authors: dict[str, Author] = {}
    by_header: dict[str, VerifiedParty] = {}
    for record in unverified:
        # The header names the author's key, and nothing else of a manifest says whose it is to be held against. What is
        # wrong with one manifest is not held against the others with its header.
        header = record.manifest.partition(".")[0]
        author: Author = by_header.get(header) or await author_of(session, record.manifest)
        if isinstance(author, VerifiedParty):
            by_header[header] = author
        authors[record.manifest] = author
    return authors


def _claim(unverified: RecordOut) -> tuple[Manifest, str] | None:
    """What a manifest says and its id, none of it verified; None for something that is no manifest."""
    try:
        jws = parse(unverified.manifest, typ=Manifest.typ, max_size=Manifest.max_size)
        return Manifest.model_validate_json(jws.unverified_payload), jws.id
    except (PcehrError, ValidationError):
        return None


def _check_all(
    unverified: Sequence[RecordOut], patient: VerifiedParty, authors: Mapping[str, Author], ended: Mapping[str, int]
) -> list[VerifiedRecord | Problem]:
    checked: list[VerifiedRecord | Problem] = []
    for record in unverified:
        author = authors[record.manifest]
        try:
            if isinstance(author, VerificationFailed):
                raise author
            checked.append(check_record(record, patient=patient, author=author, ended=ended))
        except ClientError as error:
            claim = _claim(record)
            # Not verified, and yet the only way to say which record it is.
            checked.append(problem_of(error, record_id=claim[0].record if claim else None))
    return checked


async def _open_blob(
    session: Session, record: VerifiedRecord, key: RecordKey, scope: str, large_to: Path | None
) -> OpenedRecord:
    payload = record.manifest.payload
    if large_to is None and payload.size > MAX_IN_MEMORY:
        raise BodyTooLarge
    with tempfile.TemporaryDirectory(prefix="pcehr-") as folder:
        ciphertext = Path(folder) / "ciphertext"
        await session.platform.get_blob(await session.credentials(), payload.body, ciphertext, size=payload.size)
        if large_to is not None:
            # Named by the manifest: records of two patients may carry the same id.
            destination = large_to / record.manifest.id
            return await asyncio.to_thread(
                open_record_to_file, record, key, scope=scope, ciphertext=ciphertext, destination=destination
            )
        # Plaintext stays out of temporary files: a small enough body is decrypted in memory.
        data = await asyncio.to_thread(ciphertext.read_bytes)
        return await asyncio.to_thread(_open_in_memory, record, data, key, scope)


def _open_inline(records: Sequence[tuple[VerifiedRecord, RecordKey, str]]) -> list[OpenedRecord | ClientError]:
    found: list[OpenedRecord | ClientError] = []
    for record, key, scope in records:
        try:
            found.append(open_record(record, key, scope=scope))
        except ClientError as error:
            found.append(error)
    return found


def _open_in_memory(record: VerifiedRecord, ciphertext: bytes, key: RecordKey, scope: str) -> OpenedRecord:
    return open_record(record.with_body(ciphertext), key, scope=scope)
