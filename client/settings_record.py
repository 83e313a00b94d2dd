"""The patient's own settings, kept as a record like any other (docs/spec.md section 3).

Its id is derived from the seed and its scope is `pcehr-settings`, so that the recovery words alone bring it back. It
holds the names of scopes of the patient's own making, which no server knows, and the patient's filing rules.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError

from client.errors import VerificationFailed
from client.records import NewRecord
from client.reports import Override, Settings
from shared.encoding import canonical_json, from_canonical_json
from shared.errors import Malformed
from shared.wire import WireModel

SETTINGS_SCOPE = "pcehr-settings"
MEDIA_TYPE = "application/vnd.pcehr.settings+json"
MAX_SCOPES = 10_000
MAX_OVERRIDES = 10_000

_Text = Annotated[str, Field(min_length=1, max_length=400)]


class _Scope(WireModel):
    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
    title: _Text


class _Override(WireModel):
    scope: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
    resource_type: _Text | None = None
    system: _Text | None = None
    code: _Text | None = None


class _Contents(WireModel):
    v: Literal[1]
    scopes: Annotated[list[_Scope], Field(max_length=MAX_SCOPES)]
    overrides: Annotated[list[_Override], Field(max_length=MAX_OVERRIDES)]


def to_record(settings: Settings) -> NewRecord:
    """The record that holds these settings; raises pydantic's ValidationError for texts that are empty or too long."""
    contents = _Contents(
        v=1,
        scopes=[_Scope(name=name, title=title) for name, title in sorted(settings.scopes.items())],
        overrides=[
            _Override(scope=rule.scope, resource_type=rule.resource_type, system=rule.system, code=rule.code)
            for rule in settings.overrides
        ],
    )
    body = canonical_json(contents.model_dump(mode="json", exclude_none=True))
    return NewRecord(body=body, media_type=MEDIA_TYPE, scope=SETTINGS_SCOPE, title="Settings")


def from_body(body: bytes) -> Settings:
    """Parse the body of the settings record; raises `VerificationFailed` for one that this version did not write."""
    try:
        from_canonical_json(body)
        contents = _Contents.model_validate_json(body)
    except (Malformed, ValidationError):
        raise VerificationFailed("The settings record is not in the form this version writes.") from None
    return Settings(
        scopes={scope.name: scope.title for scope in contents.scopes},
        overrides=tuple(
            Override(scope=rule.scope, resource_type=rule.resource_type, system=rule.system, code=rule.code)
            for rule in contents.overrides
        ),
    )
