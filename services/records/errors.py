"""Refusals of the records service; the codes are those of docs/spec.md."""

from __future__ import annotations

from shared.errors import Conflict, Forbidden, NotFound, PcehrError, Refused, Unavailable


class JtiReused(Conflict):
    code = "jti_reused"
    title = "This issuer has used the statement's jti for another statement."


class RecordSwapped(Refused):
    code = "record_swapped"
    title = "The parts of the record are not those that its manifest names."


class BlobMissing(Refused):
    code = "blob_missing"
    title = "The record's body has not been uploaded by its author; put it under /v1/blobs first."


class BlobMismatch(Refused):
    code = "blob_mismatch"
    title = "The body does not have the SHA-256 it was uploaded under; nothing was kept."


class VersionConflict(Conflict):
    code = "version_conflict"
    title = "The record has another newest version than the one this version follows; fetch it and try again."


class StaleEpoch(Conflict):
    code = "stale_epoch"
    title = "The scope has moved on to a later epoch; seal the record to the scope's newest key."


class NotGranted(Forbidden):
    code = "not_granted"
    title = "No grant that holds at the moment allows this."


class StaleKeyEntry(Conflict):
    code = "stale_key_entry"
    title = "A key-entry named in the statement is not the party's newest one; fetch the party anew and sign again."


class TooManyStreams(PcehrError):
    code = "too_many_streams"
    status = 429
    title = "Too many event streams of yours, or of everybody, are open here; close one or come back later."
    retry_after = 30


class AlreadyAnswered(Conflict):
    code = "already_answered"
    title = "The disclosure request has been answered already."


class WiderThanRequested(Refused):
    code = "wider_than_requested"
    title = "The grant allows another purpose, or more actions, than were asked for."


class SharesMismatch(Refused):
    code = "shares_mismatch"
    title = "There must be one sealed share for each proxy that the grant names, and none else."


class GrantAlreadyRevoked(Conflict):
    """A grant that arrives after its revocation."""

    code = "grant_revoked"
    title = "The grant has been revoked already."


class UnknownGrant(NotFound):
    code = "unknown_grant"
    title = "No grant of this id is known."


class GrantNotYetValid(Forbidden):
    code = "grant_not_yet_valid"
    title = "The grant does not hold yet."


class GrantExpired(Forbidden):
    code = "grant_expired"
    title = "The grant has ended."


class GrantRevoked(Forbidden):
    """A disclosure under a grant that has been revoked."""

    code = "grant_revoked"
    title = "The grant has been revoked."


class CapsuleNotGranted(Forbidden):
    code = "capsule_not_granted"
    title = "The grant does not cover one of the capsules asked for."


class NotEnoughProxies(Unavailable):
    code = "not_enough_proxies"
    title = "Fewer proxies than the grant's threshold gave a good answer; nothing was disclosed. Try again."
