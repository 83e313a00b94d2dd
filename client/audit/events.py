"""What the services call what they do (docs/spec.md section 13), and what people call it."""

from __future__ import annotations

DONE = "done"

GRANTED = "granted"
REVOKED = "revoked"
DISCLOSED = "disclosed"
STORED = "stored"
REENCRYPTED = "reencrypted"
ERASED = "erased"
LOG_ERASED = "log_erased"

WORDS = {
    "requested": "asked for disclosure",
    "denied": "you refused a request",
    GRANTED: "you gave a grant",
    REVOKED: "you ended a grant",
    DISCLOSED: "records disclosed",
    "listed": "records listed",
    "record_read": "a record's versions looked at",
    "body_read": "an encrypted body fetched",
    "record_written": "a record written",
    STORED: "a share stored",
    REENCRYPTED: "re-encrypted",
    ERASED: "a share erased",
    "log_read": "the log was read",
    LOG_ERASED: "texts of the log erased",
}

PURPOSES = {
    "TREAT": "treatment",
    "ETREAT": "emergency treatment",
    "HPAYMT": "payment",
    "HOPERAT": "healthcare operations",
    "HRESCH": "research",
    "PUBHLTH": "public health",
    "PATRQT": "at the patient's request",
    "FAMRQT": "at the family's request",
}
"""Purposes of use in words; the codes are HL7's (v3 ActReason)."""


def words_for(event: str) -> str:
    """What people call an event; one that this version does not know keeps its name."""
    return WORDS.get(event, event.replace("_", " "))


def purpose_in_words(code: str) -> str:
    """What people call a purpose of use."""
    return PURPOSES.get(code, code)
