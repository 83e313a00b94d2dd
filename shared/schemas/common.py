"""Bodies that all services share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from shared import wire

MAX_PAGE = 100


class Body(BaseModel):
    """Base of request and response bodies: frozen and closed to members it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(BaseModel):
    """An RFC 9457 problem. `code` is stable; programs match on it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:pcehr:problem:statement_expired",
                    "title": "The statement has lapsed; sign a new one.",
                    "status": 422,
                    "detail": "The statement has lapsed; sign a new one.",
                    "code": "statement_expired",
                }
            ]
        }
    )

    type: str = Field(description="A URN that names the kind of problem.")
    title: str = Field(description="The same sentence for every problem of this kind.")
    status: int = Field(description="The HTTP status code.", ge=400, le=599)
    detail: str = Field(description="What is particular about this occurrence, and what to do next.")
    code: str = Field(description="A stable short name of the kind.")
    errors: list[FieldError] | None = Field(default=None, description="Which members of the request are wrong.")
    trace_id: str | None = Field(default=None, description="What to quote to whoever runs the platform; tells nothing.")


class FieldError(BaseModel):
    """One member of a request that does not fit the schema. The value itself is never repeated."""

    place: str
    problem: str


class Accepted(Body):
    """A statement was accepted, now or at some time before: the same statement gets the same answer."""

    id: wire.Hash = Field(description="The statement's id: SHA-256 of its signing input.")
    kind: str = Field(description="The statement's type.", examples=["pcehr-grant+jwt"])
    received_at: wire.Time = Field(description="When it was first accepted, seconds since the epoch.")


Cursor = Annotated[str, Field(max_length=256, pattern=r"^[A-Za-z0-9_-]+$")]
"""An opaque position in a list, taken from the `next` of the page before."""


def statement_field(kind: str, max_size: int, description: str) -> str:
    """A required field that carries one signed statement in compact form."""
    field: str = Field(
        min_length=100,
        max_length=max_size,
        pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$",
        description=f"{description} A compact JWS of type `{kind}`.",
    )
    return field


Problem.model_rebuild()
