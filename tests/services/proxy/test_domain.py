"""The rules by themselves: which refusal comes first, and what is exactly at a bound."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as some

from services.proxy import domain
from services.proxy.domain import StoredGrant
from services.proxy.errors import CapsuleNotGranted, GrantEnded, GrantNotYetValid, GrantTakenBack, NotGranted
from shared import statements as st
from shared.crypto.errors import KeyFragRejected
from shared.errors import Malformed, PcehrError
from shared.wire import SKEW_SECONDS, Role
from tests.services.signing_parties import NOW, TestParty, random_hash

RECIPIENT = TestParty(Role.RECIPIENT)
STRANGER = TestParty(Role.RECIPIENT)
LISTED = random_hash()


def _grant(recipient: TestParty = RECIPIENT, nbf: int = NOW, exp: int = NOW + 100) -> StoredGrant:
    return StoredGrant("patient", random_hash(), recipient.did, nbf, exp, (None, frozenset({LISTED})))


def _request(entry: int = 0, capsule: str = LISTED) -> st.ReencryptionRequest:
    return st.ReencryptionRequest(
        **RECIPIENT.common("urn:pcehr:proxies"),
        exp=NOW + 60,
        grant=random_hash(),
        capsules=(st.WantedCapsule(entry=entry, capsule=capsule),),
    )


@pytest.mark.parametrize(
    ("grant", "revoked", "request_", "refusal"),
    [
        (_grant(STRANGER, NOW + 1, NOW + 2), True, _request(9), NotGranted),
        (_grant(nbf=NOW + 1), True, _request(9), GrantNotYetValid),
        (_grant(exp=NOW), True, _request(9), GrantEnded),
        (_grant(), True, _request(9), GrantTakenBack),
        (_grant(), False, _request(2), CapsuleNotGranted),
        (_grant(), False, _request(1, random_hash()), CapsuleNotGranted),
    ],
)
def test_the_first_refusal_is_the_one_given(
    grant: StoredGrant, revoked: bool, request_: st.ReencryptionRequest, refusal: type[PcehrError]
) -> None:
    with pytest.raises(refusal):
        domain.check_use(grant, request_, now=NOW, revoked=revoked)


def test_a_use_at_the_bounds_of_the_window() -> None:
    domain.check_use(_grant(nbf=NOW, exp=NOW + 1), _request(1), now=NOW, revoked=False)


def test_a_request_lapses_after_its_grace() -> None:
    request = _request()
    domain.check_not_lapsed(request, request.exp + SKEW_SECONDS - 1)
    with pytest.raises(st.StatementExpired):
        domain.check_not_lapsed(request, request.exp + SKEW_SECONDS)


@given(some.integers(0, 5), some.binary(max_size=4 * 260))
def test_a_share_is_split_into_exactly_what_the_grant_names_or_refused(extra: int, data: bytes) -> None:
    kfrags = [data[start : start + 260] for start in range(0, len(data) - 259, 260)]
    hashes = [domain.fingerprint(kfrag) for kfrag in kfrags]
    assert domain.split_share(b"".join(kfrags), hashes) == kfrags
    for opened, named in ((b"".join(kfrags) + bytes(extra + 1), hashes), (b"".join(kfrags), [*hashes, random_hash()])):
        with pytest.raises(KeyFragRejected):
            domain.split_share(opened, named)


@given(some.integers(0, 2**63 - 1))
def test_cursors_round_trip(seq: int) -> None:
    assert domain.number_of(domain.cursor_of(seq)) == seq


@given(some.text(max_size=20))
def test_a_cursor_is_ours_or_malformed(text: str) -> None:
    with suppress(Malformed):
        assert domain.cursor_of(domain.number_of(text)) == text
