"""Bodies of a re-encryption proxy."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from shared import wire
from shared.schemas.common import Body
from shared.schemas.examples import example
from shared.statements import Grant, Receipt, ReencryptionRequest, Revocation

MAX_SEALED_SHARE = 30_000
"""Characters; 64 kfrags of 260 bytes and the overhead of a sealed box, in base64url."""


class KfragsIn(Body):
    """A grant and this proxy's share of it, sealed to this proxy."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"grant": example("grant"), "sealed": example("sealed_share")}]}
    )
    grant: str = Field(min_length=100, max_length=Grant.max_size, description="Compact JWS, type `pcehr-grant+jwt`.")
    sealed: Annotated[wire.B64, Field(max_length=MAX_SEALED_SHARE)] = Field(
        description="The kfrags for the grant's scopes, in its order, 260 bytes each, in a sealed box to this proxy."
    )


class ReencryptionIn(Body):
    """A recipient's signed request, with the capsules it names, in its order."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"request": example("reencryption_request"), "capsules": [example("capsule")]}]}
    )
    request: str = Field(
        min_length=100,
        max_length=ReencryptionRequest.max_size,
        description="Compact JWS, type `pcehr-reencryption-request+jwt`.",
    )
    capsules: list[wire.CapsuleB64] = Field(min_length=1, max_length=wire.MAX_CAPSULES)


class RevocationIn(Body):
    """A patient's revocation."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"revocation": example("revocation")}]})
    revocation: str = Field(
        min_length=100, max_length=Revocation.max_size, description="Compact JWS, type `pcehr-revocation+jwt`."
    )


class ReceiptOut(Body):
    """What the proxy did, signed by the proxy."""

    receipt: str = Field(max_length=Receipt.max_size, description="Compact JWS, type `pcehr-receipt+jwt`.")


class ReencryptionOut(ReceiptOut):
    """The cfrags, in the order of the capsules asked for, and the receipt that lists their hashes."""

    cfrags: list[wire.CfragB64] = Field(max_length=wire.MAX_CAPSULES)


class Identity(Body):
    """Who this proxy is."""

    did: wire.Did
    entries: list[str] = Field(description="Its chain of keys, oldest first.")
    engine: str = Field(description="The Umbral implementation at work.", examples=["umbral-pre"])
