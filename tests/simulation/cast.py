"""A real grant with its real statements, made once for each (t, n); in the simulation shares are only tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from services.proxy.domain import StoredGrant, limits_of
from services.records.domain import ScopeEntry, Terms
from shared.statements import Grant, ReencryptionRequest, verify_under
from shared.wire import REENCRYPTION_LIFETIME, Role
from tests.services.signing_parties import NOW, TestParty, random_hash

CAPSULES = 3


@dataclass(frozen=True)
class Cast:
    """What everybody knows of one grant: `requests` holds a re-encryption request for each capsule."""

    grant: Grant
    stored: StoredGrant
    terms: Terms
    revoked_terms: Terms
    requests: tuple[ReencryptionRequest, ...]
    proxies: tuple[str, ...]


@cache
def cast(threshold: int, shares: int) -> Cast:
    """A grant to read one scope, shared out between so many proxies."""
    patient, recipient = TestParty(Role.PATIENT), TestParty(Role.RECIPIENT)
    proxies = [TestParty(Role.PROXY) for _ in range(shares)]
    signed = patient.grant(recipient, proxies=proxies, threshold=threshold)
    grant = verify_under(signed.token, Grant, patient.did, [bytes(patient.identity_key().verify_key)]).payload
    requests = []
    for _ in range(CAPSULES):
        token = recipient.reencryption_request(signed.id, [(0, random_hash())], lifetime=REENCRYPTION_LIFETIME)
        key = bytes(recipient.identity_key().verify_key)
        requests.append(verify_under(token, ReencryptionRequest, recipient.did, [key]).payload)
    terms = [
        Terms(
            id=signed.id,
            patient=patient.did,
            recipient=recipient.did,
            actions=frozenset(grant.actions),
            not_before=grant.nbf,
            expires_at=grant.exp,
            threshold=threshold,
            stored=0,
            revoked=revoked,
            scopes=(ScopeEntry(0, grant.scopes[0].scope, 0, limited=False),),
        )
        for revoked in (False, True)
    ]
    return Cast(
        grant=grant,
        stored=StoredGrant(patient.did, signed.id, recipient.did, grant.nbf, grant.exp, limits_of(grant)),
        terms=terms[0],
        revoked_terms=terms[1],
        requests=tuple(requests),
        proxies=tuple(proxy.did for proxy in proxies),
    )


BEGINNING = NOW
"""When a simulation begins, in seconds since the epoch; its own time counts from there."""
