"""Turns whatever went wrong into a code, a sentence, and what to do next. No traceback reaches a person.

`PCEHR_DEBUG=1` shows the traceback besides, for whoever looks for a defect; it may show what should stay private.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text
from typer.exceptions import TyperException

from client.cli.output import Output, one_line, write_document
from client.errors import ClientError, hint_for
from shared.errors import PcehrError

HINTS = {
    "already_running": "Open another terminal and use the platform that runs, or stop it there with Ctrl-C.",
    "broken_home": "Look at that path; nothing was changed.",
    "embedded_postgres": "The sentence above says what to change; then repeat `pcehr up`.",
    "home_mismatch": "Start it as it was set up: `pcehr up` without --port, --proxies and --postgres.",
    "keystore_missing": "Make one with `pcehr init patient` or `pcehr init recipient`, or bring one back with"
    " `pcehr restore`.",
    "grant_expired": "Ask the patient for a new grant: pcehr requests new PATIENT …",
    "grant_revoked": "Ask the patient for a new grant: pcehr requests new PATIENT …",
    "not_enough_proxies": "Nothing was disclosed. `pcehr status` shows which proxies are away; repeat this when they"
    " are back.",
    "not_granted": "Look at what has been granted: pcehr grants. Ask for more: pcehr requests new PATIENT …",
    "port_taken": "`ss -ltnp` shows which program has the port.",
    "registry_unavailable": "`pcehr status` shows which part of the platform is away; nothing was changed.",
    "service_not_started": "Read the log named above; `pcehr up` tries again.",
    "service_unreachable": "Start the platform with `pcehr up`, or name another registry with --registry URL.",
    "too_few_proxies": "`pcehr proxies list` shows which there are, and which of them are pinned.",
    "unauthorised_author": "Do not rely on it, and tell the patient, who can still read what was there before:"
    " pcehr records show ID --version N",
    "unknown_grant": "`pcehr grants` lists them.",
    "unknown_record": "`pcehr records list` lists them.",
    "unknown_request": "`pcehr requests list` lists them.",
    "unknown_scope": "`pcehr scopes` lists them; `pcehr scopes add NAME` makes a new one.",
    "usage": "Add --help to the command to see how it is used.",
    "wrong_role": "Use a profile of the other role: --profile NAME.",
}
"""What to do next, by code, in words of the command line; `client.errors.hint_for` knows the rest."""


_NO_ROOM = (
    "no_room",
    "There is no room left on the disk.",
    "Make room on it, and repeat the command: what was acknowledged before stays, and nothing was begun without being"
    " written down.",
)
_NO_PLACE = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EROFS: (
        "read_only",
        "The disk can only be read.",
        "Make it writable, or name another folder for your data with PCEHR_HOME; then repeat the command.",
    ),
}
"""What the operating system refuses whatever the path is: code, detail and what to do next."""

INTERRUPTED = 130
"""Exit status after Ctrl-C or SIGTERM, and where somebody did not confirm."""


class AmbiguousId(ClientError):
    code = "ambiguous_id"
    status = 422
    title = "Several ids begin like this."
    advice = "Type more characters of the id."


class GrantRevoked(ClientError):
    code = "grant_revoked"
    status = 403
    title = "The patient has ended this grant; what was not disclosed before stays closed."


class GrantExpired(ClientError):
    code = "grant_expired"
    status = 403
    title = "The grant has ended."


class PassphraseNeeded(ClientError):
    code = "passphrase_needed"
    status = 422
    title = "The passphrase of this profile is needed, and there is no terminal to ask for it."
    advice = "Set PCEHR_PASSPHRASE, or name a file with --passphrase-file."


class UnknownContact(ClientError):
    code = "unknown_contact"
    status = 404
    title = "There is no contact of this name."
    advice = "`pcehr contacts list` shows them."


class ContactExists(ClientError):
    code = "contact_exists"
    status = 409
    title = "Somebody else has this name among your contacts."
    advice = "Choose another name, or take the old one away first: pcehr contacts remove NAME"


class UnknownProxy(ClientError):
    code = "unknown_proxy"
    status = 404
    title = "There is no such proxy."
    advice = "`pcehr proxies list` shows them."


class UnreadableFile(ClientError):
    code = "unreadable_file"
    status = 422
    title = "A file cannot be read or written."
    advice = "Check the path and its permissions."


class InvalidValue(ClientError):
    code = "invalid_value"
    status = 422
    title = "A value given on the command line cannot be used."
    advice = "Add --help to the command to see what it accepts."


@dataclass(frozen=True)
class Failure:
    """What is shown of an error, and the exit status: 1, or 2 for a mistake in how the command was typed."""

    code: str
    detail: str
    hint: str
    status: int = 1


def describe(error: BaseException) -> Failure:
    """The failure to show for any exception. Texts of unexpected exceptions are left out, since they may be private."""
    if isinstance(error, BaseExceptionGroup):
        return describe(error.exceptions[0])
    if isinstance(error, PcehrError):
        return Failure(error.code, error.detail, HINTS.get(error.code) or hint_for(error))
    if isinstance(error, TyperException):
        return Failure("usage", error.format_message(), HINTS["usage"], error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", "Interrupted.", "Repeat the command; what was done stays done.", INTERRUPTED)
    if isinstance(error, OSError) and error.errno in _NO_PLACE:
        code, detail, hint = _NO_PLACE[error.errno]
        return Failure(code, detail if error.filename is None else f"{error.filename}: {detail}", hint)
    if isinstance(error, OSError) and error.filename is not None:
        return Failure(
            "unreadable_file", f"{error.filename}: {error.strerror}.", "Check the path and its permissions.", 1
        )
    return Failure(
        "internal_error",
        f"An unexpected error: {type(error).__name__} at {_place(error)}.",
        "Repeat the command with PCEHR_DEBUG=1 to see all of it; please report it, without the health data in it.",
    )


def show(output: Output, error: BaseException) -> int:
    """Print the failure and return the exit status."""
    failure = describe(error)
    if output.as_json:
        write_document({"error": {"code": failure.code, "detail": failure.detail, "hint": failure.hint}})
    else:
        # Details and codes are often a service's own words.
        code = one_line(failure.code)
        output.err.print(Text.assemble(("Error: ", "bold red"), _lines(failure.detail), (f"  [{code}]", "dim")))
        output.err.print(Text.assemble(("Next: ", "bold"), one_line(failure.hint)))
    if os.environ.get("PCEHR_DEBUG") == "1":
        sys.stderr.write(_lines("".join(traceback.format_exception(error))))
    return failure.status


def _lines(detail: str) -> str:
    """A detail may end with the last lines of a log of this machine; what a service says has no lines of its own."""
    return "\n".join(one_line(line) for line in detail.split("\n"))


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    frame = frames[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
