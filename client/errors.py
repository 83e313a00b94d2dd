"""What can go wrong on the client's side, each with a stable code and one sentence of what to do next.

    ClientError              root; every one has `code`, `detail` and `hint`
      ServiceRefused         a service answered with a problem (RFC 9457); its code is kept
      ServiceUnreachable     nobody answered, or not in time; nothing is known of the effect, repeating is safe
      UnexpectedAnswer       an answer that does not have the shape the contract gives it
      VerificationFailed     what a service handed over does not hold; its subclasses carry the codes of
                             docs/spec.md sections 5 and 9
      the rest               the local side: words, keystore, state, and requests that make no sense

`hint_for` gives the sentence for any error of the platform, whichever side it was raised on.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from shared.errors import PcehrError


class ClientError(PcehrError):
    """Root of the client's own errors. `status` means nothing here; `code` and `detail` do."""

    code = "client_error"
    status = 500
    title = "The client could not do this."
    advice: ClassVar[str | None] = None

    @property
    def hint(self) -> str:
        """One sentence for people: what to do next."""
        return self.advice or HINTS.get(self.code, "Run the command again with --help to see what it expects.")


class ServiceRefused(ClientError):
    """A service answered with a problem. `code` and `status` are the service's own."""

    code = "service_refused"
    title = "A service refused the request."

    def __init__(self, code: str, status: int, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        # The root class has one code for each class; here the service's own code belongs to this one occurrence.
        vars(self).update(code=code, status=status, retry_after=retry_after)

    @property
    def hint(self) -> str:
        if self.status >= 500:
            return HINTS.get(self.code, "Nothing was changed; try again in a moment.")
        return HINTS.get(self.code, "The service's sentence says what it refuses; change that and try again.")


class InsecureAddress(ClientError):
    """A service would have to be asked without TLS, which the owner of this machine forbids."""

    code = "insecure_address"
    status = 422
    title = "A service is to be asked by http, and PCEHR_REQUIRE_HTTPS is set."
    advice = "Name the platform by its https address, or ask whoever runs it why there is none."


class ServiceUnreachable(ClientError):
    """No answer, also after repeating. Every operation may be repeated as it is."""

    code = "service_unreachable"
    status = 503
    title = "A part of the platform could not be reached."
    advice = "Check that the platform is running and that its address is right, then repeat the command."


class UnexpectedAnswer(ClientError):
    code = "unexpected_answer"
    status = 502
    title = "A service sent an answer that is not what the contract says."
    advice = "Check that client and platform are of the same version."


class AnswerTooLarge(UnexpectedAnswer):
    code = "answer_too_large"
    title = "A service sent more than it was asked for."


class VerificationFailed(ClientError):
    """Something a service handed over does not hold. Nothing of it was used."""

    code = "verification_failed"
    status = 422
    title = "What the service handed over does not verify."
    advice = "Do not rely on this data; tell whoever runs the platform, and give them the code."

    @classmethod
    def from_refusal(cls, refusal: PcehrError) -> VerificationFailed:
        """The same refusal as raised by the shared code, with its code kept, as a verification failure."""
        if isinstance(refusal, VerificationFailed):
            return refusal
        return cls.from_code(refusal.code, refusal.detail)

    @classmethod
    def from_code(cls, code: str, detail: str) -> VerificationFailed:
        """The verification failure of this code; of the general kind, with the code kept, where there is none."""
        failed = _BY_CODE.get(code, VerificationFailed)(detail)
        if failed.code != code:
            vars(failed).update(code=code)
        return failed


REFUSALS = (ServiceRefused, ServiceUnreachable, UnexpectedAnswer, VerificationFailed)
"""What a service can do to whoever asks it: refuse, stay away, talk nonsense, or lie."""


class RecordSwapped(VerificationFailed):
    code = "record_swapped"
    title = "A part of the record is not the one its author signed for."


class RecordRolledBack(VerificationFailed):
    code = "record_rolled_back"
    title = "An older or different version of the record than the one already seen was presented."
    advice = "The service shows an old state; a newer version of this record exists. Tell whoever runs the platform."


class UnauthorisedAuthor(VerificationFailed):
    code = "unauthorised_author"
    title = "The author of the record was not allowed by the patient to write it."


class ContextMismatch(VerificationFailed):
    code = "context_mismatch"
    title = "The encrypted part belongs to another record or statement."


class CommitmentMismatch(VerificationFailed):
    code = "commitment_mismatch"
    title = "The content key is not the one the author committed to."


class PayloadCorrupt(VerificationFailed):
    code = "payload_corrupt"
    title = "The body of the record is not what its author wrote."


class PayloadTruncated(VerificationFailed):
    code = "payload_truncated"
    title = "The body of the record ends before its end."


class DecryptionFailed(VerificationFailed):
    code = "decryption_failed"
    title = "The record could not be decrypted."


class StatementForged(VerificationFailed):
    code = "bad_signature"
    title = "A signature does not verify."


class KeyChainRolledBack(VerificationFailed):
    code = "key_chain_rolled_back"
    title = "A shorter or different chain of keys than the one already seen was presented."
    advice = (
        "The registry shows an old or a false state of that party's keys; do not share anything until it is settled."
    )


class NotInLog(VerificationFailed):
    """A service's log does not hold what the service shows."""

    code = "not_in_log"
    title = "What the service shows is not in its log."
    advice = (
        "It may have been made up for you alone: share nothing on the strength of it, compare the fingerprint with the"
        " other side, and tell whoever runs the platform."
    )

    @classmethod
    def of(cls, did: str) -> NotInLog:
        """The failure that names the party whose keys are meant."""
        return cls(f"The registry's log does not hold the keys that the registry shows for {did}.")


class LogReplaced(VerificationFailed):
    code = "log_replaced"
    title = "The service shows another log than the one known for it."
    advice = (
        "A log that loses its key begins anew, and everybody is told. If you were not, trust nothing it shows; if you"
        " were, and believe it, start over with an empty state."
    )


class TooFewWitnesses(VerificationFailed):
    code = "not_enough_cosignatures"
    title = "Too few of your witnesses, the proxies you have pinned, vouch for this state of the log."
    advice = (
        "Keys that you know already go on working; new ones are accepted when enough proxies are back. Try again later;"
        " `pcehr proxies pin` chooses others if some of yours are gone for good."
    )


class WitnessesOutOfDate(VerificationFailed):
    code = "checkpoint_stale"
    title = "The witnesses' word for this state of the log is not of today."
    advice = "Check the clock of this machine; if it is right, the registry may be withholding newer keys."


class LogContradicted(VerificationFailed):
    """A service's log is not the one it was before. Its own signatures prove it; `evidence` is the file with them."""

    code = "log_forked"
    title = "The log does not extend what it was before: its history has been rewritten."
    advice = "Trust nothing this service shows, and tell whoever runs it."
    evidence: Path | None = None

    @classmethod
    def of(cls, code: str, detail: str, evidence: Path | None) -> LogContradicted:
        """The failure of this code, with the file in which the contradicting checkpoints are."""
        failed = cls(detail)
        failed.evidence = evidence
        vars(failed).update(code=code)
        return failed

    @property
    def hint(self) -> str:
        if self.evidence is None:
            return super().hint
        return f"Keep {self.evidence} and show it to others: each checkpoint in it bears the log's own signature."


class ScopeKeyRolledBack(VerificationFailed):
    code = "scope_key_rolled_back"
    title = "An older key of the scope than the one already seen was presented."
    advice = (
        "The registry shows an old state; writing now could reach somebody whose access was ended. Try again later."
    )


class ReceiptInvalid(VerificationFailed):
    code = "receipt_invalid"
    title = "A proxy's receipt does not belong to what was asked of it."


class WrongAnswer(VerificationFailed):
    code = "wrong_answer"
    title = "The service answered with something other than what was asked for."


class SharesDoNotCombine(VerificationFailed):
    code = "shares_do_not_combine"
    title = "The re-encryptions verify and yet do not combine."
    advice = "The shares were made wrongly: ask the patient to end this grant and to give it anew."


class LyingProxy(VerificationFailed):
    """A proxy's re-encryption does not verify; `did` names the proxy."""

    code = "cfrag_rejected"
    title = "A proxy's re-encryption does not verify."
    advice = "The request was or can be repeated without this proxy; tell whoever runs the platform which one it is."

    def __init__(self, did: str, detail: str | None = None) -> None:
        super().__init__(detail or f"The re-encryption by {did} does not verify.")
        self.did = did


class InvalidWords(ClientError):
    code = "invalid_words"
    status = 400
    title = "These are not 24 recovery words: a word is misspelled, missing or out of order."
    advice = "Compare the words with your note one by one; their last word checks the others."


class WrongPassphrase(ClientError):
    code = "wrong_passphrase"
    status = 403
    title = "The passphrase does not open this keystore."
    advice = "Type the passphrase again; if it is lost, restore from the 24 recovery words."


class KeystoreMissing(ClientError):
    code = "keystore_missing"
    status = 404
    title = "There is no keystore here."
    advice = "Sign up first, or restore from the 24 recovery words."


class KeystoreExists(ClientError):
    code = "keystore_exists"
    status = 409
    title = "There is a keystore already, and it is never overwritten."
    advice = "Use another profile, or move the old keystore away if you have its recovery words."


class KeystoreDamaged(ClientError):
    code = "keystore_damaged"
    status = 422
    title = "The keystore is not in the form this version writes."
    advice = "Restore from the 24 recovery words, or from a backup of the file."


class KeystoreExposed(ClientError):
    code = "keystore_exposed"
    status = 403
    title = "The keystore can be read by other users of this machine."
    advice = "Take the permission away (chmod 600) and, if others use this machine, choose a new passphrase."


class StateDamaged(ClientError):
    code = "state_damaged"
    status = 422
    title = "The profile's state file is not in the form this version writes."
    advice = "Move the file away: the profile works without it, but what it had seen of others must be seen anew."


class StateBusy(ClientError):
    code = "state_busy"
    status = 503
    title = "Other commands of this profile keep changing what this one has to compare with."
    advice = "Repeat the command when the others are done."


class InvalidSetting(ClientError):
    code = "invalid_setting"
    status = 400
    title = "A setting in the environment is not what it must be."


class InvalidProfile(ClientError):
    code = "invalid_profile"
    status = 400
    title = "A profile's name has small letters, digits and hyphens only, at most 64."
    advice = "Choose another name for the profile."


class NotSignedUp(ClientError):
    code = "not_signed_up"
    status = 404
    title = "The platform does not know this party yet."
    advice = "Sign up first."


class WrongRole(ClientError):
    code = "wrong_role"
    status = 422
    title = "This party has another role."
    advice = "Use a profile of the role this command is for."


class UnknownScope(ClientError):
    code = "unknown_scope"
    status = 404
    title = "There is no such scope."
    advice = "List your scopes and use one of the names there."


class UnknownRequest(ClientError):
    code = "unknown_request"
    status = 404
    title = "There is no such request."
    advice = "List the inbox and use an id from there."


class UnknownGrant(ClientError):
    code = "unknown_grant"
    status = 404
    title = "There is no such grant."
    advice = "List the grants and use an id from there."


class UnknownRecord(ClientError):
    code = "unknown_record"
    status = 404
    title = "There is no such record."
    advice = "List the records and use an id from there."


class WiderThanRequested(ClientError):
    code = "wider_than_requested"
    status = 422
    title = "A request can be narrowed when it is approved, never widened."
    advice = "Approve what was asked or less; to give more, share it without a request."


class TooManyScopeEntries(ClientError):
    code = "too_many_scope_entries"
    status = 422
    title = "One grant covers at most 64 pairs of scope and epoch."
    advice = "Give fewer scopes in one grant, or make several grants."


class TooFewProxies(ClientError):
    code = "too_few_proxies"
    status = 422
    title = "There are fewer proxies than the threshold asks for."
    advice = "Wait until the platform's proxies have signed up, or name a lower threshold."


class InvalidRecord(ClientError):
    code = "invalid_record"
    status = 422
    title = "This record cannot be stored."


class GrantEnded(ClientError):
    """A held grant that its patient has revoked, or that has expired; the code says which."""

    code = "grant_revoked"
    status = 403
    title = "The patient has ended this grant."


class GrantOver(GrantEnded):
    code = "grant_expired"
    title = "This grant has expired."


class GrantPending(ClientError):
    code = "grant_pending"
    status = 503
    title = "Too few proxies have their share of this grant yet."
    advice = "Try again in a moment; the platform keeps delivering the shares."


class InvalidRequest(ClientError):
    code = "invalid_disclosure_request"
    status = 422
    title = "This request for disclosure makes no sense."
    advice = "A request names at least one scope and one action, and a short reason."


class BodyTooLarge(ClientError):
    code = "body_too_large"
    status = 413
    title = "The body of this record is too large to be held in memory."
    advice = "Name a folder for large bodies; they are then written to files there."


class InvalidGrant(ClientError):
    code = "invalid_grant"
    status = 422
    title = "This grant makes no sense."
    advice = "A grant names at least one scope and one action, and ends in the future."


class SharesUndelivered(ClientError):
    code = "shares_undelivered"
    status = 409
    title = "Proxies still wait for their share of a grant, and would refuse it after a change of keys."
    advice = "Wait until `grants` shows these as complete, revoke them, or insist and give them anew afterwards."


HINTS: dict[str, str] = {
    "unauthenticated": "Check the clock of this machine, and that this profile has signed up on this platform.",
    "invalid_client": "Check the clock of this machine, and that this profile has signed up on this platform.",
    "statement_expired": "Check the clock of this machine and repeat the command.",
    "statement_from_the_future": "Check the clock of this machine and repeat the command.",
    "wrong_signer": "The keys were rotated elsewhere; repeat the command, and restore from the words if it stays.",
    "stale_key_entry": "The other side has changed its keys; repeat the command.",
    "stale_epoch": "The scope has a newer key; repeat the command.",
    "epoch_gap": "The scope has another newest key; repeat the command.",
    "scope_key_exists": "The registry has another key for this scope; check that these are the right recovery words.",
    "version_conflict": "Somebody has changed this record in the meantime; read it again and repeat the change.",
    "not_granted": "Ask the patient for a grant that covers this.",
    "grant_expired": "The grant has ended; ask the patient for a new one.",
    "grant_not_yet_valid": "The grant begins later; try again then.",
    "grant_revoked": "The patient has ended this grant; what was not disclosed before stays closed.",
    "capsule_not_granted": "The grant is limited to other records; ask the patient for a wider one.",
    "unknown_grant": "List the grants and use an id from there; a grant given a moment ago may need a few seconds.",
    "already_answered": "This request has an answer already; look at the grants.",
    "already_registered": "This party has signed up before; restore it instead of signing up anew.",
    "not_enough_proxies": "Too few proxies answered, so nothing was disclosed; try again in a moment.",
    "unknown_party": "Check the id; the other side must have signed up on this same platform.",
    "not_found": "Check the id; what you may not see looks exactly like what does not exist.",
    "forbidden": "Use a profile that owns this, or ask the patient for a grant.",
    "wider_than_requested": WiderThanRequested.advice or "",
    "database_unavailable": "Nothing was changed; try again in a moment.",
    "registry_unavailable": "Nothing was changed; try again in a moment.",
    "unavailable": "Nothing was changed; try again in a moment.",
    "not_in_log_yet": "New keys need the word of most proxies; try again when enough of them are back.",
    "too_large": "Send less at once.",
    "too_many_requests": "Wait as long as it says, then repeat the command; what was done before stays done.",
    "quota_exceeded": "Remove or end what is not needed any more, or ask whoever runs the platform for more room.",
    "broken_key_chain": "That party's keys do not form a chain; do not share anything with it.",
    "malformed_key_material": "Key material is damaged; check that client and platform are of the same version.",
}
"""What to do next, by code; for refusals of services and of the shared code."""

_BY_CODE: dict[str, type[VerificationFailed]] = {
    kind.code: kind
    for kind in (
        RecordSwapped,
        RecordRolledBack,
        UnauthorisedAuthor,
        ContextMismatch,
        CommitmentMismatch,
        PayloadCorrupt,
        PayloadTruncated,
        DecryptionFailed,
        StatementForged,
        KeyChainRolledBack,
        NotInLog,
        LogReplaced,
        TooFewWitnesses,
        WitnessesOutOfDate,
        SharesDoNotCombine,
    )
}


def hint_for(error: PcehrError) -> str:
    """One sentence of what to do next, for an error of either side."""
    if isinstance(error, ClientError):
        return error.hint
    return HINTS.get(error.code, "The sentence above says what is refused; change that and try again.")
