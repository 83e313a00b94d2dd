"""The atoms of the wire: constrained strings and numbers that statements and schemas are built of.

Binary values stay base64url text in the models, because what is signed and stored is exactly that text.
"""

from __future__ import annotations

import unicodedata
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from shared.did import key_from_did
from shared.encoding import from_b64url
from shared.plain_text import unfit

MAX_SCOPES = 64
MAX_SHARES = 16
MAX_CAPSULES = 200
MAX_CAPSULE_LIST = 1000
MAX_EPOCH = 1_000_000
MAX_TIME = 253_402_300_799
"""The last second of the year 9999, beyond which neither RFC 3339 nor Python's `datetime` can write a time."""
SKEW_SECONDS = 60
REENCRYPTION_LIFETIME = 300

REGISTRY_AUDIENCE = "urn:pcehr:registry"
RECORDS_AUDIENCE = "urn:pcehr:records"
PROXIES_AUDIENCE = "urn:pcehr:proxies"


def _base64url_of(size: int) -> AfterValidator:
    def check(text: str) -> str:
        from_b64url(text, size)
        return text

    return AfterValidator(check)


def _base64url(text: str) -> str:
    from_b64url(text)
    return text


def _label(text: str) -> str:
    if any(True for _ in unfit(text)):
        raise ValueError("a name has no control, format, private or unassigned characters")
    if text != text.strip():
        raise ValueError("a name neither begins nor ends with a blank")
    if not unicodedata.is_normalized("NFC", text):
        raise ValueError("a name is in Unicode's normalization form C")
    return text


def _did(text: str) -> str:
    key_from_did(text)
    return text


B64 = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$"), AfterValidator(_base64url)]
"""Canonical base64url without padding, any length; always used with a maximum length beside it."""

Jti = Annotated[str, StringConstraints(min_length=22, max_length=22), _base64url_of(16)]
"""16 random bytes that make a statement unique to its issuer."""

Hash = Annotated[str, StringConstraints(min_length=43, max_length=43), _base64url_of(32)]
"""SHA-256, 32 bytes; also the id of a statement."""

Key32 = Annotated[str, StringConstraints(min_length=43, max_length=43), _base64url_of(32)]
"""An Ed25519 or X25519 public key, or a key commitment, 32 bytes."""

Key33 = Annotated[str, StringConstraints(min_length=44, max_length=44), _base64url_of(33)]
"""A compressed secp256k1 point: delegating, receiving or verifying key, 33 bytes."""

Signature = Annotated[str, StringConstraints(min_length=86, max_length=86), _base64url_of(64)]
"""An Ed25519 signature, 64 bytes."""

ScopeId = Annotated[str, StringConstraints(min_length=22, max_length=22), _base64url_of(16)]
"""What servers see of a scope: 16 bytes derived from the patient's seed and the scope's name."""

CapsuleB64 = Annotated[str, StringConstraints(min_length=131, max_length=131), _base64url_of(98)]
WrappedKeyB64 = Annotated[str, StringConstraints(min_length=139, max_length=139), _base64url_of(104)]
CfragB64 = Annotated[str, StringConstraints(min_length=479, max_length=479), _base64url_of(359)]

Did = Annotated[str, StringConstraints(min_length=50, max_length=64), AfterValidator(_did)]
"""did:key of an Ed25519 key: `did:key:z6Mk…`."""

RecordId = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[78][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
]
"""A UUID of version 7 (RFC 9562), or of version 8 where the client derives it from its seed."""

Epoch = Annotated[int, Field(ge=0, le=MAX_EPOCH)]
Time = Annotated[int, Field(ge=0, le=MAX_TIME)]
"""Whole seconds since the Unix epoch, UTC."""

Label = Annotated[
    str, StringConstraints(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f]+$"), AfterValidator(_label)
]
"""A name that people read: at most 120 characters, none of which `shared.plain_text` finds unfit, in normalization form
C (UAX #15), and without blanks at either end."""


class Role(StrEnum):
    """What a party is; it never changes over the life of a party."""

    PATIENT = "patient"
    RECIPIENT = "recipient"
    PROXY = "proxy"


class Action(StrEnum):
    """What a grant allows."""

    READ = "read"
    APPEND = "append"
    AMEND = "amend"


class Purpose(StrEnum):
    """Purpose of use, from HL7 v3 ActReason (code system http://terminology.hl7.org/CodeSystem/v3-ActReason)."""

    TREAT = "TREAT"
    ETREAT = "ETREAT"
    HPAYMT = "HPAYMT"
    HOPERAT = "HOPERAT"
    HRESCH = "HRESCH"
    PUBHLTH = "PUBHLTH"
    PATRQT = "PATRQT"
    FAMRQT = "FAMRQT"


class DenialReason(StrEnum):
    """Why a patient refuses a request; the default says nothing."""

    UNSPECIFIED = "unspecified"
    UNKNOWN_RECIPIENT = "unknown-recipient"
    TOO_BROAD = "too-broad"
    WRONG_PURPOSE = "wrong-purpose"


class WireModel(BaseModel):
    """Base of everything on the wire: frozen, strict about types, and closed to members it does not know."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


ReceiptAct = Literal["stored", "reencrypted", "erased"]
