"""Records as an author makes them and as a reader opens them: plain values and pure functions (docs/spec.md section 5).

A body may be bytes or a file. Whatever its size it is encrypted and decrypted in pieces of 64 KiB; ciphertexts of up
to 74 000 bytes travel inside the record, larger ones by way of a file of ciphertext.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO

from pydantic import ValidationError
from uuid6 import uuid7

from client.errors import DecryptionFailed, InvalidRecord, PayloadCorrupt, RecordSwapped
from client.files import atomic_file
from client.header import RecordHeader
from client.keyring import check_scope_name
from client.reports import OpenedRecord
from client.verification import VerifiedRecord, verifying
from shared import statements
from shared.crypto.record import RecordContext, RecordKey, body_ciphertext_size
from shared.crypto.signing import SigningKey
from shared.crypto.umbral import Capsule, PublicKey, SecretKey
from shared.encoding import b64url, from_b64url, sha256
from shared.schemas.records import MAX_INLINE_BODY, RecordIn
from shared.statements import Manifest, new_jti

__all__ = [
    "NewRecord",
    "OpenedRecord",
    "Placement",
    "SealedRecord",
    "open_record",
    "open_record_to_file",
    "seal_record",
]

_PIECE = 65_536


@dataclass(frozen=True)
class NewRecord:
    """What somebody wants to store. `scope` is the scope's name; `date` is FHIR's date or dateTime."""

    body: bytes | Path = field(repr=False)
    media_type: str
    scope: str
    title: str | None = None
    date: str | None = None
    resource_type: str | None = None
    full_url: str | None = None
    filename: str | None = None

    def __post_init__(self) -> None:
        check_scope_name(self.scope)

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)

    def header(self) -> RecordHeader:
        """The header that goes with it; raises `InvalidRecord` for a member that is too long or empty."""
        try:
            return RecordHeader(
                length=self.length,
                media_type=self.media_type,
                resource_type=self.resource_type,
                title=self.title,
                date=self.date,
                full_url=self.full_url,
                filename=self.filename,
            )
        except ValidationError as error:
            place = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise InvalidRecord(f"The record's {place} is empty or too long.") from None


@dataclass(frozen=True)
class Placement:
    """Where a new version goes: whose record, which version of it, and the delegating key to encrypt to."""

    patient: str
    scope_id: str
    epoch: int
    delegating_key: PublicKey
    record_id: str
    version: int = 1
    prev: str | None = None
    grant: str | None = None


@dataclass(frozen=True)
class SealedRecord:
    """A version ready to be sent. Sending the same one again has no second effect."""

    upload: RecordIn
    manifest: Manifest
    manifest_id: str
    scope: str
    blob: Path | None
    """The file of ciphertext, where it does not travel inside `upload`."""


def new_record_id() -> str:
    """A UUID of version 7 (RFC 9562 section 5.7)."""
    return str(uuid7())


def seal_record(
    record: NewRecord, placement: Placement, *, author: str, key: SigningKey, now: int, folder: Path
) -> SealedRecord:
    """Encrypt a record and sign its manifest as `author`, with `key`, at time `now`.

    A large ciphertext is written to a new file in `folder`, which the caller removes. Raises `InvalidRecord`.
    """
    header = record.header()
    context = RecordContext(
        patient=placement.patient,
        record=placement.record_id,
        version=placement.version,
        scope=placement.scope_id,
        epoch=placement.epoch,
        author=author,
    )
    record_key = RecordKey.generate()
    capsule, wrapped_key = record_key.wrap(placement.delegating_key, context)
    sealed_header = record_key.encrypt_header(header.to_json(), context)
    size = body_ciphertext_size(header.length)
    body: bytes | None = None
    blob: Path | None = None
    with _pieces(record.body) as pieces:
        ciphertext = record_key.encrypt_body(pieces, header.length, context)
        if size <= MAX_INLINE_BODY:
            body = b"".join(ciphertext)
            digest = sha256(body)
        else:
            blob, digest = _write_blob(ciphertext, folder)
    manifest = Manifest(
        iss=author,
        aud=placement.patient,
        iat=now,
        jti=new_jti(),
        record=placement.record_id,
        version=placement.version,
        prev=placement.prev,
        scope=placement.scope_id,
        epoch=placement.epoch,
        capsule=b64url(capsule.hash),
        wrapped_key=b64url(sha256(wrapped_key)),
        header=b64url(sha256(sealed_header)),
        body=b64url(digest),
        size=size,
        commitment=b64url(record_key.commitment),
        grant=placement.grant,
    )
    token = statements.sign(manifest, key)
    return SealedRecord(
        upload=RecordIn(
            manifest=token,
            capsule=capsule.b64,
            wrapped_key=b64url(wrapped_key),
            header=b64url(sealed_header),
            body=None if body is None else b64url(body),
        ),
        manifest=manifest,
        manifest_id=b64url(sha256(token.rpartition(".")[0].encode("ascii"))),
        scope=record.scope,
        blob=blob,
    )


def unwrap_as_owner(record: VerifiedRecord, delegating_key: SecretKey) -> RecordKey:
    """The content key of a record, by the delegating key itself; raises a `VerificationFailed`."""
    with verifying():
        capsule = Capsule.from_bytes(record.capsule)
        key = RecordKey.unwrap_original(delegating_key, capsule, record.wrapped_key, record.context)
        key.check_commitment(from_b64url(record.manifest.payload.commitment, 32))
        return key


def key_from_envelope(record: VerifiedRecord, content: bytes) -> RecordKey:
    """The content key of a record, out of its envelope (`client.envelopes`); raises a `VerificationFailed`."""
    with verifying():
        key = RecordKey.from_envelope(content, record.context)
        key.check_commitment(from_b64url(record.manifest.payload.commitment, 32))
        return key


def open_header(record: VerifiedRecord, key: RecordKey) -> RecordHeader:
    """The header, which must fit the size of the body that the manifest names."""
    with verifying():
        header = RecordHeader.from_json(key.decrypt_header(record.header, record.context))
        if body_ciphertext_size(header.length) != record.manifest.payload.size:
            raise PayloadCorrupt("The length in the header does not fit the size in the manifest.")
        return header


def open_record(record: VerifiedRecord, key: RecordKey, *, scope: str) -> OpenedRecord:
    """Decrypt header and body of a record whose ciphertext came along. `scope` is the name to show.

    Raises `PayloadCorrupt`, `PayloadTruncated` or another `VerificationFailed`.
    """
    header = open_header(record, key)
    if record.body is None:
        raise DecryptionFailed("The body of the record has not been fetched.")
    with verifying():
        body = b"".join(key.decrypt_body([record.body], header.length, record.context))
    return _opened(record, header, body, scope, None)


def open_record_to_file(
    record: VerifiedRecord, key: RecordKey, *, scope: str, ciphertext: Path, destination: Path
) -> OpenedRecord:
    """Decrypt a body from one file to another in constant memory; the other appears only if all of it holds.

    The hash of the ciphertext is checked in a first pass, so that a swapped body is named as such.
    """
    header = open_header(record, key)
    check_blob(record, ciphertext)
    with verifying(), ciphertext.open("rb") as source, atomic_file(destination) as target:
        for piece in key.decrypt_body(_read(source), header.length, record.context):
            target.write(piece)
    return _opened(record, header, b"", scope, destination)


def check_blob(record: VerifiedRecord, ciphertext: Path) -> None:
    """Raise `RecordSwapped` unless the file is the ciphertext that the manifest names."""
    hasher = hashlib.sha256()
    with ciphertext.open("rb") as source:
        for piece in _read(source):
            hasher.update(piece)
    payload = record.manifest.payload
    if b64url(hasher.digest()) != payload.body or ciphertext.stat().st_size != payload.size:
        raise RecordSwapped("The body of the record is not the one its author signed for.")


def _opened(record: VerifiedRecord, header: RecordHeader, body: bytes, scope: str, path: Path | None) -> OpenedRecord:
    payload = record.manifest.payload
    return OpenedRecord(
        record_id=payload.record,
        version=payload.version,
        scope=scope,
        epoch=payload.epoch,
        author=payload.iss,
        header=header,
        body=body,
        manifest=record.manifest,
        path=path,
    )


@contextlib.contextmanager
def _pieces(body: bytes | Path) -> Iterator[Iterable[bytes]]:
    if isinstance(body, bytes):
        yield [body]
        return
    with body.open("rb") as file:
        yield _read(file)


def _read(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _write_blob(ciphertext: Iterable[bytes], folder: Path) -> tuple[Path, bytes]:
    hasher = hashlib.sha256()
    with NamedTemporaryFile(dir=folder, suffix=".ciphertext", delete=False) as file:
        for piece in ciphertext:
            hasher.update(piece)
            file.write(piece)
    return Path(file.name), hasher.digest()
