"""The leaves (docs/spec.md section 11): labelled statement ids in the registry's log, hidden events in the others."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from shared.did import key_from_did
from shared.encoding import b64url, canonical_json, from_b64url, from_canonical_json, sha256
from shared.errors import Malformed, TooLarge
from shared.wire import MAX_CAPSULES, Did, Hash, Time, WireModel

SALT_SIZE = 32
LABEL_SIZE = 32
KEY_ENTRY_SIZE = 64
MAX_EVENT_BYTES = 16_384
MAX_EVENT_NUMBER = 2**53 - 1
"""The largest integer that canonical JSON holds (RFC 8785)."""

_LABEL = b"pcehr/v1/label\x00"
_EVENT = b"pcehr/v1/event\x00"

Word = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9_-]*$")]
"""What happened, or how it ended: a word for programs."""


class Event(WireModel):
    """One thing that a service did or refused, in the chain of the party whose log it stands in.

    `n` counts from 1; `prev` is the commitment of the event before and absent from the first only. `outcome` is
    `done` or the code of the refusal. `capsules` are hashes, in the order of the request.
    """

    v: Literal[1] = 1
    subject: Did
    n: Annotated[int, Field(ge=1, le=MAX_EVENT_NUMBER)]
    prev: Hash | None = None
    at: Time
    event: Word
    outcome: Word
    actor: Did | None = None
    grant: Hash | None = None
    statement: Hash | None = None
    capsules: Annotated[tuple[Hash, ...], Field(min_length=1, max_length=MAX_CAPSULES)] | None = None

    @model_validator(mode="after")
    def _chained(self) -> Self:
        if (self.n == 1) != (self.prev is None):
            raise ValueError("every event but the first names the one before")
        return self

    def canonical(self) -> bytes:
        """The canonical JSON (RFC 8785) that the commitment is over; members that are not known are absent."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))


def key_label(did: str) -> bytes:
    """The label of a party's key-entries, 32 bytes; raises `Malformed` for what is no DID."""
    key_from_did(did)
    return sha256(_LABEL + did.encode("ascii"))


def scope_label(did: str, scope_id: str) -> bytes:
    """The label of the keys of a party's scope, 32 bytes; DID and scope id (22 characters) go in as text.

    Raises `Malformed` for what is no DID or no scope id.
    """
    key_from_did(did)
    from_b64url(scope_id, 16)
    return sha256(_LABEL + did.encode("ascii") + b"\x00" + scope_id.encode("ascii"))


def key_entry_data(label: bytes, statement_id: str) -> bytes:
    """The data of a leaf of the registry's log: the label and the 32 bytes of the statement's id; 64 bytes.

    Raises `Malformed`.
    """
    if len(label) != LABEL_SIZE:
        raise Malformed("A label has 32 bytes.")
    return label + from_b64url(statement_id, 32)


def split_key_entry(data: bytes) -> tuple[bytes, str]:
    """The label and the statement's id that a leaf of the registry's log holds; raises `Malformed`."""
    if len(data) != KEY_ENTRY_SIZE:
        raise Malformed("A leaf of the registry's log has 64 bytes.")
    return data[:LABEL_SIZE], b64url(data[LABEL_SIZE:])


def commitment(salt: bytes, canonical: bytes) -> bytes:
    """SHA-256("pcehr/v1/event" 00 || salt || event), 32 bytes: the data of a leaf that stands for an event.

    `salt` has 32 random bytes; without it nobody can test a guess. Raises `Malformed` for another length.
    """
    if len(salt) != SALT_SIZE:
        raise Malformed("The salt of an event has 32 bytes.")
    return sha256(_EVENT + salt + canonical)


def parse_event(text: str | bytes) -> Event:
    """The event whose canonical JSON this is; raises `TooLarge` and `Malformed` for anything else.

    Compare the commitment before: nothing in an event is signed.
    """
    if len(text) > MAX_EVENT_BYTES:
        raise TooLarge("An event is longer than any that this version writes.")
    try:
        data = text.encode("utf-8") if isinstance(text, str) else text
        from_canonical_json(data)
        event = Event.model_validate_json(data)
    except (UnicodeError, ValidationError):
        raise Malformed("The value is not an event.") from None
    if event.canonical() != data:  # A null for an absent member would be a second spelling.
        raise Malformed("The value is not the canonical form of an event.")
    return event
