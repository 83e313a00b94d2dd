"""What a proxy refuses, beyond what `shared` does. docs/spec.md section 8 names the status of each."""

from __future__ import annotations

from shared.errors import Conflict, Forbidden, NotFound, Refused, Unavailable

_ENDED = "The grant has ended."
_REVOKED = "The patient has revoked the grant."


class NotForThisProxy(Refused):
    code = "not_for_this_proxy"
    title = "The grant does not name this proxy."


class GrantExpired(Refused):
    """On the way in: a share of a grant that has ended is not taken (status 422)."""

    code = "grant_expired"
    title = _ENDED


class GrantEnded(Forbidden):
    """On the way out: a share of a grant that has ended is not used (status 403)."""

    code = "grant_expired"
    title = _ENDED


class GrantRevoked(Conflict):
    """On the way in: a share of a revoked grant is not taken (status 409)."""

    code = "grant_revoked"
    title = _REVOKED


class GrantTakenBack(Forbidden):
    """On the way out: a share of a revoked grant is not used (status 403)."""

    code = "grant_revoked"
    title = _REVOKED


class GrantNotYetValid(Forbidden):
    code = "grant_not_yet_valid"
    title = "The grant has not begun yet."


class UnknownGrant(NotFound):
    code = "unknown_grant"
    title = "This proxy holds no share of such a grant."


class NotGranted(Forbidden):
    code = "not_granted"
    title = "The grant was not given to the issuer of the request."


class CapsuleNotGranted(Forbidden):
    code = "capsule_not_granted"
    title = "The grant does not cover a capsule that was asked for."


class CapsuleMismatch(Refused):
    code = "capsule_mismatch"
    title = "The capsules sent are not those that the request names, in its order."


class JtiReused(Conflict):
    code = "jti_reused"
    title = "The issuer has used the jti of this statement in another one."


class ShareUnreadable(Unavailable):
    """A kfrag at rest does not decrypt: another seed than the one it was stored under, or a damaged database.

    The caller learns only that the proxy cannot serve; its operator finds the reason in the log.
    """


class Overloaded(Unavailable):
    title = "The proxy has as much work as it can hold. Nothing was changed; try again."


class WorkerLost(Unavailable):
    """A worker process died under a batch."""


class NotEnrolled(Unavailable):
    title = "The registry has not accepted this proxy yet."
