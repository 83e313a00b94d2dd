"""The header of a record: what its author says of the body, encrypted with it (docs/spec.md section 5)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from shared.errors import Malformed
from shared.wire import WireModel

MAX_TITLE = 300

_Text = Annotated[str, Field(min_length=1, max_length=1_000)]


class RecordHeader(WireModel):
    """Members of the header; `length` is the true length of the body in bytes."""

    length: Annotated[int, Field(ge=0, le=2**40)]
    media_type: Annotated[str, Field(min_length=1, max_length=200)]
    resource_type: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    title: Annotated[str, Field(min_length=1, max_length=MAX_TITLE)] | None = None
    date: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    full_url: _Text | None = None
    filename: Annotated[str, Field(min_length=1, max_length=255)] | None = None

    def to_json(self) -> dict[str, Any]:
        """The members as they are encrypted: absent ones are left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_json(cls, members: dict[str, Any]) -> RecordHeader:
        """Parse decrypted members; raises `Malformed` for unknown, null or ill-typed ones."""
        try:
            header = cls.model_validate(members)
        except ValidationError:
            raise Malformed("The header of the record has members that this version does not know.") from None
        if header.to_json() != members:
            raise Malformed("The header of the record has members that are null.")
        return header
