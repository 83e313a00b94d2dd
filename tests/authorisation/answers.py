"""What an answer holds of a patient's: everything in it, statements opened, is searched for things of the patient's."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

import httpx

from shared.encoding import b64url, sha256
from tests.authorisation.cast import Cast
from tests.services.signing_parties import SealedRecord, TestParty

_STATEMENT = re.compile(r"[A-Za-z0-9_-]{16,}\.([A-Za-z0-9_-]{16,})\.[A-Za-z0-9_-]{64,}")


def text_of(response: httpx.Response, body: bytes) -> str:
    """Headers and body as one text; a body that is no text in base64url, and the claims of every statement in clear."""
    headers = "\n".join(f"{name}: {value}" for name, value in response.headers.multi_items())
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = b64url(body)
    return f"{headers}\n{opened(text)}"


def opened(text: str) -> str:
    """The text, and the claims of every statement in it in clear."""
    claims = [base64.urlsafe_b64decode(found + "=" * (-len(found) % 4)) for found in _STATEMENT.findall(text)]
    return "\n".join([text, *(claim.decode("utf-8", "replace") for claim in claims)])


def things_of_the_patient(cast: Cast) -> set[str]:
    """Ids, statements, keys and ciphertexts: none of them is in a refusal."""
    owner = cast.owner
    scopes = {owner.scope_id(name) for name in ("allergies", "medications")}
    return {owner.did, owner.entries[0], owner.entry_id, *scopes, *private_things(cast)}


def private_things(cast: Cast) -> set[str]:
    """Of these, those that no list shows anybody but the patient and whom the patient has told."""
    found: set[str] = set()
    for record in (cast.allergy, cast.pills):
        found |= set(_things_of(record))
    grants = [*cast.own_grants.values(), *(case.grant for case in cast.cases.values())]
    found |= {text for grant in grants for text in (grant.id, grant.token)}
    requests = [case for case in cast.cases.values() if case.request is not None]
    return found | {text for case in requests for text in (case.request_id, case.request or "")}


def own_things(cast: Cast, caller: TestParty) -> set[str]:
    """Of the private things, those that the caller knows: its grant, its requests, and what it has named itself."""
    own = cast.own_grants.get(caller.did)
    found = set() if own is None else {own.id, own.token}
    for case in cast.cases.values():
        if case.recipient is caller and case.request is not None:
            found |= {case.request, case.request_id}
    sent = "\n".join(cast.sent[caller.did])
    return found | {thing for thing in private_things(cast) if thing in sent}


def _things_of(record: SealedRecord) -> Iterator[str]:
    yield from (record.record, record.id, record.manifest, record.capsule_hash, b64url(sha256(record.body)))
    yield from (b64url(record.capsule), b64url(record.wrapped_key), b64url(record.header), b64url(record.body))
