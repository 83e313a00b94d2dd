"""One root error: a stable code, the HTTP status it maps to, and a sentence that may be shown to anybody.

Every refusal of the platform is a subclass of `PcehrError`. The sentence (`detail`) never holds key
material, plaintext or the text of another exception; what an operator needs beyond it goes to the audit log.
A single handler (`shared.web.problems`) turns it into an RFC 9457 problem.
"""

from __future__ import annotations

from typing import ClassVar


class PcehrError(Exception):
    """Root of every refusal.

    `code` is stable and is what programs match on, `status` is an HTTP status, `title` says the same thing
    for every occurrence, and `detail` says what is particular about this one and what to do next.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "The request could not be completed."
    retry_after: ClassVar[int | None] = None

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.title
        super().__init__(self.detail)


class Malformed(PcehrError):
    """The bytes are not the one canonical form of anything this version accepts."""

    code = "malformed"
    status = 400
    title = "The input is not in the canonical form this interface accepts."


class TooLarge(PcehrError):
    code = "too_large"
    status = 413
    title = "The input is larger than this interface accepts."


class Unauthenticated(PcehrError):
    """No access token, or one that does not verify; the answer never says which check failed."""

    code = "unauthenticated"
    status = 401
    title = "A valid access token for this service is needed."


class Forbidden(PcehrError):
    code = "forbidden"
    status = 403
    title = "You are not allowed to do this."


class NotFound(PcehrError):
    """Also the answer where saying 'forbidden' would tell that the thing exists."""

    code = "not_found"
    status = 404
    title = "There is nothing here that you may see."


class QuotaExceeded(Forbidden):
    """What a platform keeps for one party is bounded; this would be beyond it."""

    code = "quota_exceeded"
    title = "This platform keeps no more of this kind for one party."


class TooManyRequests(PcehrError):
    """`seconds` until the next request would be taken."""

    code = "too_many_requests"
    status = 429
    title = "Too many requests in a short time. Nothing was done; repeat the request when Retry-After has passed."

    def __init__(self, seconds: int = 1) -> None:
        super().__init__(f"Too many requests in a short time. Nothing was done; repeat the request in {seconds} s.")
        # The root class has one pause for each class; here it belongs to this one occurrence.
        vars(self).update(retry_after=seconds)


class Conflict(PcehrError):
    code = "conflict"
    status = 409
    title = "This contradicts what is already there."


class Refused(PcehrError):
    """Well-formed and authentic, but a rule of the protocol forbids it."""

    code = "refused"
    status = 422
    title = "A rule of the protocol forbids this."


class Unavailable(PcehrError):
    """Something this service needs is away; nothing was changed and the request may be repeated as it is."""

    code = "unavailable"
    status = 503
    title = "A part of the platform is away at the moment. Nothing was changed; try again."
    retry_after = 2


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"
    title = "The database is away at the moment. Nothing was acknowledged; try again."


class RegistryUnavailable(Unavailable):
    code = "registry_unavailable"
    title = "The registry is away at the moment, so keys cannot be checked. Nothing was changed; try again."
