"""Refusals of the cryptographic layer.

Two HTTP statuses are used: 400 for bytes that are not the one accepted form of anything, 422 for objects that are
well formed and do not hold. The public sentence is the same for every cause of one class, because a message that
tells *which* check failed around key material helps only an attacker; the cause goes to the audit log.
"""

from __future__ import annotations

from shared.errors import Malformed, PcehrError, Refused


class MalformedKeyMaterial(Malformed):
    """An undecodable or non-canonical key, capsule, fragment or signature (status 400)."""

    code = "malformed_key_material"
    title = "The key material is not in the one form this version accepts."


class InvalidThreshold(Refused):
    """The threshold `t` and the number of shares `n` break `1 <= t <= n <= 64`."""

    code = "invalid_threshold"
    title = "The threshold must be at least one and at most the number of shares, of which there may be 64."


class KeyFragRejected(Refused):
    """A re-encryption key share that is not what its signer and the named keys say it is."""

    code = "kfrag_rejected"
    title = "The re-encryption key share does not hold."


class CapsuleFragRejected(Refused):
    """A re-encryption whose proof does not hold for this capsule and these keys."""

    code = "cfrag_rejected"
    title = "The re-encryption does not hold."


class SharesDoNotCombine(Refused):
    """Capsule fragments that are each valid, but too few, repeated, or not of one set."""

    code = "shares_do_not_combine"
    title = "The re-encryptions do not combine."


class DecryptionFailed(Refused):
    """An authenticated decryption that did not authenticate."""

    code = "decryption_failed"
    title = "The data could not be decrypted."


class ContextMismatch(Refused):
    """An envelope that opens, but was made for another record, patient, version, scope, epoch or author."""

    code = "context_mismatch"
    title = "The envelope belongs to another record."


class CommitmentMismatch(Refused):
    """A content key that is not the one the author committed to in the manifest."""

    code = "commitment_mismatch"
    title = "The content key is not the one the author committed to."


class PayloadTruncated(Refused):
    """A payload that ends before its end."""

    code = "payload_truncated"
    title = "The payload ends too early."


class PayloadCorrupt(Refused):
    """A payload with a changed, moved, added or badly padded part."""

    code = "payload_corrupt"
    title = "The payload is not what its author wrote."


class BadSignature(Refused):
    """An Ed25519 signature that does not verify under the given key."""

    code = "bad_signature"
    title = "The signature does not verify."


class EngineUnavailable(PcehrError):  # Refusals are named for what happened.
    """The Umbral implementation that was asked for is unknown or not installed: a fault of the deployment."""

    code = "engine_unavailable"
    status = 500
    title = "No usable Umbral implementation is configured."
