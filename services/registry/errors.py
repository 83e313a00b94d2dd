"""What the registry refuses, beyond the refusals that all services share."""

from __future__ import annotations

from shared.errors import Conflict, Forbidden, PcehrError, Refused
from shared.tokens import InvalidClient


class WrongRole(Refused):
    """A key-entry was posted to the route of another role, or an id was used for what its role cannot do."""

    code = "wrong_role"
    title = "The key-entry is of another role than this route registers."


class ProxyNotAdmitted(Forbidden):
    code = "proxy_not_admitted"
    title = "The operator of this registry has not admitted a proxy of this id."


class AlreadyRegistered(Conflict):
    code = "already_registered"
    title = "This id is registered already, with another first key-entry."


class StaleKeyEntry(Conflict):
    """The chain has moved on: fetch it, and sign the entry that comes after its newest one."""

    code = "stale_key_entry"
    title = "The chain of keys has another entry in this place already."


class JtiReused(Conflict):
    code = "jti_reused"
    title = "This jti was used before, in another statement of the same issuer."


class EpochGap(Conflict):
    code = "epoch_gap"
    title = "A scope begins with epoch 0, and each later epoch follows the one before."


class ScopeKeyExists(Conflict):
    code = "scope_key_exists"
    title = "Another delegating key is published for this scope and epoch."


class InvalidTokenRequest(PcehrError):
    """RFC 6749 section 5.2 gives this code of ours the status 400 at the token endpoint."""

    code = "invalid_request"
    status = 400
    title = "A parameter of the token request is missing, repeated, too long, or not form-encoded."


class UnsupportedGrantType(PcehrError):
    code = "unsupported_grant_type"
    status = 400
    title = "The only grant type of this token endpoint is client_credentials."


class InvalidTarget(PcehrError):
    """RFC 8707 section 2."""

    code = "invalid_target"
    status = 400
    title = "No tokens are given for this resource."


class UsedAssertion(InvalidClient):
    """An assertion that was used before. Outside it looks like every other `invalid_client`."""
