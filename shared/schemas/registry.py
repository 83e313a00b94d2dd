"""Bodies of the registry."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from shared import wire
from shared.schemas.common import Body, Cursor
from shared.schemas.examples import example
from shared.statements import KeyEntry, ScopeKey
from shared.tokens import ASSERTION_TYPE_URN, MAX_TOKEN_CHARS

MAX_SCOPE_KEYS = 200
MAX_ORIGIN = 200
"""Characters of a log's name."""

KeyEntryToken = Annotated[
    str, Field(min_length=100, max_length=KeyEntry.max_size, description="A compact JWS of type `pcehr-key-entry+jwt`.")
]
ScopeKeyToken = Annotated[
    str, Field(min_length=100, max_length=ScopeKey.max_size, description="A compact JWS of type `pcehr-scope-key+jwt`.")
]


class PatientSignUp(Body):
    """A patient's first key-entry. The signature is the proof that the keys are the patient's."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"key_entry": example("patient_key_entry")}]})
    key_entry: KeyEntryToken


class RecipientSignUp(Body):
    """A recipient's first key-entry: a doctor, a hospital, an insurer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"key_entry": example("recipient_key_entry")}]})
    key_entry: KeyEntryToken


class ProxySignUp(Body):
    """A proxy's first key-entry. Only proxies that the operator has named are admitted."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"key_entry": example("proxy_key_entry")}]})
    key_entry: KeyEntryToken


class KeyRotation(Body):
    """The next key-entry of a party, signed by the identity key of the entry before."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"key_entry": example("recipient_rotation")}]})
    key_entry: KeyEntryToken


class Party(Body):
    """A party with its whole chain of keys, oldest entry first. The chain proves itself; verify it."""

    did: wire.Did = Field(examples=[example("recipient_did")])
    role: wire.Role
    seq: int = Field(ge=0, description="The number of the newest key-entry.")
    name: str | None = None
    organisation: str | None = None
    endpoint: str | None = Field(default=None, description="Where a proxy is reached.")
    entries: list[str] = Field(max_length=1_000, description="Compact JWS, type `pcehr-key-entry+jwt`.")


class PartyPage(Body):
    """One page of the directory."""

    items: list[Party] = Field(max_length=100)
    next: Cursor | None = None


class ScopeKeysIn(Body):
    """A batch of scope-keys of the calling patient; all are accepted or none."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"scope_keys": [example("scope_key")]}]})
    scope_keys: list[ScopeKeyToken] = Field(min_length=1, max_length=MAX_SCOPE_KEYS)


class ScopeKeyPage(Body):
    """Scope-keys of one patient, by scope and epoch."""

    items: list[str] = Field(max_length=MAX_SCOPE_KEYS, description="Compact JWS, type `pcehr-scope-key+jwt`.")
    next: Cursor | None = None


class TokenRequest(BaseModel):
    """RFC 6749 section 4.4.2 with a client assertion (RFC 7523 section 2.2). Other parameters are ignored."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "grant_type": "client_credentials",
                    "client_assertion_type": ASSERTION_TYPE_URN,
                    "client_assertion": "eyJhbGciOiJFZERTQSIs….eyJhdWQiOiJodHRwOi8v….c2lnbmF0dXJl…",
                    "resource": "urn:pcehr:registry",
                }
            ]
        },
    )

    grant_type: str = Field(max_length=100, description="Always `client_credentials`.")
    client_assertion_type: str = Field(max_length=100, description=f"Always `{ASSERTION_TYPE_URN}`.")
    client_assertion: str = Field(
        max_length=MAX_TOKEN_CHARS,
        description="A JWT signed with the party's current identity key; good for five minutes and one use.",
    )
    client_id: str | None = Field(default=None, max_length=100, description="The party's DID, should a client send it.")
    resource: str | None = Field(
        default=None,
        max_length=200,
        description="The service the token is for: `urn:pcehr:registry` (also where nothing is named),"
        " `urn:pcehr:records`, or the DID of a proxy.",
    )


class TokenResponse(Body):
    """RFC 6749 section 5.1."""

    access_token: str
    token_type: str = Field(examples=["Bearer"])
    expires_in: int = Field(description="Seconds.", examples=[300])


class Jwks(Body):
    """RFC 7517: the keys that access tokens are signed with."""

    keys: list[dict[str, Any]]


class AuthorizationServer(Body):
    """RFC 8414: what an OAuth client needs to know of the token endpoint."""

    issuer: str
    token_endpoint: str
    jwks_uri: str
    grant_types_supported: list[str] = Field(max_length=1)
    response_types_supported: list[str] = Field(max_length=0, description="None: there is no authorization endpoint.")
    token_endpoint_auth_methods_supported: list[str] = Field(max_length=1)
    token_endpoint_auth_signing_alg_values_supported: list[str] = Field(max_length=1)


class Discovery(Body):
    """Where the parts of this platform are, and its defaults."""

    issuer: str
    token_endpoint: str
    jwks_uri: str
    records_url: str
    threshold: int = Field(ge=1, le=wire.MAX_SHARES, description="Threshold that clients use unless told otherwise.")
    registry_log: str = Field(max_length=MAX_ORIGIN, description="The origin of this registry's log, with its key.")
    records_log: str = Field(max_length=MAX_ORIGIN, description="The origin of the records service's log.")
    witness_faults: int = Field(
        ge=0, le=wire.MAX_SHARES, description="How many of the witnesses may lie; a client may assume more."
    )
