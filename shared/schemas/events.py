"""Bodies of the routes by which a party reads its own log and has it erased, at the records service and at proxies."""

from __future__ import annotations

from typing import Annotated, Protocol

from pydantic import ConfigDict, Field

from shared import wire
from shared.encoding import b64url, sha256
from shared.schemas.common import Body, Cursor
from shared.schemas.examples import example

MAX_EVENT = 16_384
"""Characters of an event's canonical text."""

_EVENT = (
    '{"actor":"' + example("recipient_did") + '","at":1767225600,"event":"request","n":1,"outcome":"done",'
    '"statement":"' + b64url(sha256(b"example")) + '","subject":"' + example("patient_did") + '","v":1}'
)


class Logged(Protocol):
    """An event in its subject's chain, as a service has it."""

    @property
    def n(self) -> int: ...
    @property
    def commitment(self) -> bytes: ...
    @property
    def salt(self) -> bytes | None: ...
    @property
    def text(self) -> str | None: ...


class LogEventOut(Body):
    """One event of the caller's log. The leaf that stands for it in the tree is the hash of `commitment`, which is
    SHA-256("pcehr/v1/event" 00 || salt || event); check it, and the proof of inclusion, before believing it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "n": 1,
                    "commitment": b64url(sha256(b"commitment")),
                    "event": _EVENT,
                    "salt": b64url(sha256(b"salt")),
                }
            ]
        }
    )
    n: int = Field(ge=1, le=2**53 - 1, description="The event's number among the caller's, from 1 without a gap.")
    commitment: wire.Hash = Field(description="What the log holds of the event: the data of its leaf.")
    event: Annotated[str, Field(max_length=MAX_EVENT)] | None = Field(
        default=None, description="The event in canonical JSON; absent once erased."
    )
    salt: wire.Key32 | None = Field(default=None, description="32 bytes; absent once erased.")

    @classmethod
    def of(cls, event: Logged) -> LogEventOut:
        """An event as its subject is shown it."""
        salt = None if event.salt is None else b64url(event.salt)
        return cls(n=event.n, commitment=b64url(event.commitment), event=event.text, salt=salt)


class LogEventPage(Body):
    """One page of the caller's log, newest first."""

    items: list[LogEventOut] = Field(max_length=100)
    next: Cursor | None = None


class ErasureIn(Body):
    """A statement by which the caller has the texts of its events erased."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"statement": example("log_erasure")}]})
    statement: str = Field(min_length=100, max_length=2_048, description="JWS, `pcehr-log-erasure+jwt`.")
