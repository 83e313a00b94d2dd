"""The sealed part of a request or a grant: what only its addressee may read (docs/spec.md section 4).

Umbral encryption to a receiving key; the plaintext repeats `iss`, `aud` and `jti` of the statement around it, so that
nobody can wrap another's sealed text into a statement of their own.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import Field, ValidationError

from client.errors import ContextMismatch
from client.verification import verifying
from shared import wire
from shared.crypto import umbral
from shared.crypto.umbral import Capsule, PublicKey, SecretKey
from shared.encoding import b64url, canonical_json, from_b64url, from_canonical_json
from shared.errors import Malformed
from shared.statements import DisclosureRequest, Grant
from shared.wire import WireModel

MAX_REASON = 1_000

ScopeName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]


class _Around(WireModel):
    iss: wire.Did
    aud: wire.Did
    jti: wire.Jti


class GrantContent(_Around):
    """The names of a grant's scopes, each once, in the order in which their ids first occur in the grant."""

    scopes: Annotated[list[ScopeName], Field(min_length=1, max_length=wire.MAX_SCOPES)]


class RequestContent(_Around):
    """The names of the scopes asked for, and why."""

    scopes: Annotated[list[ScopeName], Field(min_length=1, max_length=wire.MAX_SCOPES)]
    reason: Annotated[str, Field(max_length=MAX_REASON)]


C = TypeVar("C", bound=_Around)


def seal_content(content: _Around, key: PublicKey) -> str:
    """`capsule || ciphertext` in base64url."""
    capsule, ciphertext = umbral.encrypt(key, canonical_json(content.model_dump(mode="json")))
    return b64url(bytes(capsule) + ciphertext)


def open_request(statement: DisclosureRequest, key: SecretKey) -> RequestContent:
    """What a request says to the patient; raises `ContextMismatch` or another `VerificationFailed`."""
    return _open(statement, RequestContent, key)


def open_grant(statement: Grant, key: SecretKey) -> GrantContent:
    """What a grant says to the recipient; raises `ContextMismatch` or another `VerificationFailed`."""
    return _open(statement, GrantContent, key)


def _open(statement: DisclosureRequest | Grant, kind: type[C], key: SecretKey) -> C:
    with verifying():
        data = from_b64url(statement.sealed)
        capsule = Capsule.from_bytes(data[: umbral.CAPSULE_SIZE])
        plaintext = umbral.decrypt_original(key, capsule, data[umbral.CAPSULE_SIZE :])
        members = from_canonical_json(plaintext)
        try:
            content = kind.model_validate(members)
        except ValidationError:
            raise Malformed("The sealed part is not of the form that this version knows.") from None
        if (content.iss, content.aud, content.jti) != (statement.iss, statement.aud, statement.jti):
            raise ContextMismatch("The sealed part was made for another statement.")
        return content
