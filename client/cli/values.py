"""What people type on the command line, turned into values of the protocol."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from client.cli.failures import AmbiguousId, InvalidValue
from client.errors import ClientError
from shared.did import key_from_did
from shared.errors import Malformed
from shared.wire import MAX_TIME, Label

_SPAN = re.compile(r"([1-9][0-9]{0,4})([hdwmy])")
_SPANS = {
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
    "m": timedelta(days=30),
    "y": timedelta(days=365),
}

E = TypeVar("E", bound=StrEnum)

_LABEL: TypeAdapter[str] = TypeAdapter(Label)


def expiry(text: str | None, now: int) -> int | None:
    """Seconds since the epoch for `12h`, `30d`, `2w`, `6m`, `1y`, or the end of a day such as `2027-01-31`.

    A date is read in the time zone of this machine. Raises `InvalidValue` for anything else and for what is past.
    """
    if text is None:
        return None
    span = _SPAN.fullmatch(text.strip().lower())
    if span is not None:
        end = now + int(span[1]) * int(_SPANS[span[2]].total_seconds())
    else:
        try:
            day = datetime.strptime(text.strip(), "%Y-%m-%d").astimezone()
            end = int((day + timedelta(days=1)).timestamp())
        except (ValueError, OverflowError):
            raise InvalidValue(
                f"'{text}' is neither a span such as 30d, 12h or 1y nor a day such as 2027-01-31."
            ) from None
    if end <= now:
        raise InvalidValue(f"{text} is over already; name a day that is still to come.")
    if end > MAX_TIME:
        raise InvalidValue(f"{text} is later than any time here may be; name an earlier end.")
    return end


def choices(kind: type[E], texts: Iterable[str]) -> list[E]:
    """Members of an enumeration from what was typed, in any case; also several with commas between them."""
    found: list[E] = []
    for text in (part.strip() for typed in texts for part in typed.split(",")):
        member = next((known for known in kind if known.value.lower() == text.lower()), None)
        if member is None:
            raise InvalidValue(f"'{text}' is none of {', '.join(known.value for known in kind)}.")
        if member not in found:
            found.append(member)
    return found


def names(texts: Iterable[str] | None) -> list[str] | None:
    """Names given one by one or with commas between them; None where there are none."""
    found = [part.strip() for typed in texts or () for part in typed.split(",") if part.strip()]
    return list(dict.fromkeys(found)) or None


def label(typed: str) -> str:
    """A name that others are to read, in Unicode's normalization form C; raises `InvalidValue` for what is none."""
    try:
        return _LABEL.validate_python(unicodedata.normalize("NFC", typed.strip()))
    except ValidationError:
        raise InvalidValue("A name has 1 to 120 characters, none of which is invisible or a control.") from None


def full_id(typed: str, known: Iterable[str], missing: type[ClientError]) -> str:
    """The one id that is or begins like what was typed; a leading hyphen may be left out.

    Raises `AmbiguousId` for several, `missing` for none.
    """
    wanted = typed.strip().rstrip("…")
    found = [identifier for identifier in dict.fromkeys(known) if _begins(identifier, wanted)]
    if wanted in found:
        return wanted
    if not wanted or not found:
        raise missing(f"No id here begins with '{typed}'.")
    if len(found) > 1:
        raise AmbiguousId(f"{len(found)} ids begin with '{typed}'.")
    return found[0]


def _begins(identifier: str, wanted: str) -> bool:
    return identifier.startswith(wanted) or identifier.lstrip("-").startswith(wanted.lstrip("-"))


def party_id(typed: str) -> str:
    """A DID as it was typed or pasted; raises `InvalidValue` for anything that is none."""
    text = typed.strip()
    try:
        key_from_did(text)
    except Malformed:
        raise InvalidValue(f"'{text[:80]}' is no id of a party; it looks like did:key:z6Mk…") from None
    return text
