"""Statements: who may say what, and every way a statement is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from shared import jose, wire
from shared import statements as st
from shared.crypto.errors import BadSignature
from shared.did import key_id
from shared.encoding import b64url, from_b64url
from shared.errors import Malformed, PcehrError, TooLarge
from shared.identity import VerifiedParty, verify_chain
from tests.unit.protocol.parties import NOW, SeededParty

ALICE = SeededParty(1)
BOB = SeededParty(2, wire.Role.RECIPIENT)


@pytest.fixture(scope="module")
def alice() -> VerifiedParty:
    return verify_chain(ALICE.did, ALICE.chain())


@pytest.fixture(scope="module")
def alice_rotated() -> VerifiedParty:
    return verify_chain(ALICE.did, ALICE.chain(2))


def signed(claims: dict[str, Any], *, party: SeededParty = ALICE, typ: str = st.Denial.typ, seq: int = 0) -> str:
    key = party.identity(seq)
    return jose.sign(claims, key=key, kid=key_id(party.did, bytes(key.verify_key)), typ=typ)


def with_header(token: str, header: bytes) -> str:
    """Replace the header and sign again, so that nothing but the header is wrong."""
    signing_input = f"{b64url(header)}.{token.split('.')[1]}"
    return f"{signing_input}.{b64url(ALICE.identity().sign(signing_input.encode()))}"


def test_a_statement_verifies_and_keeps_its_exact_string(alice: VerifiedParty) -> None:
    token = st.sign(ALICE.denial(), ALICE.identity())
    verified = st.verify_fresh(token, st.Denial, alice, now=NOW)
    assert verified.token == token
    assert verified.payload.reason is wire.DenialReason.TOO_BROAD
    assert len(from_b64url(verified.id)) == 32


def test_the_id_does_not_depend_on_the_signature(alice: VerifiedParty) -> None:
    token = st.sign(ALICE.denial(), ALICE.identity())
    other = token.rpartition(".")[0] + "." + b64url(bytes(64))
    assert (
        jose.parse(other, typ=st.Denial.typ, max_size=5000).id == st.verify_fresh(token, st.Denial, alice, now=NOW).id
    )


def test_another_partys_signature_is_wrong_signer(alice: VerifiedParty) -> None:
    token = st.sign(BOB.denial(iss=BOB.did, aud=ALICE.did), BOB.identity())
    with pytest.raises(st.WrongSigner):
        st.verify_fresh(token, st.Denial, alice, now=NOW)


def test_a_kid_of_the_issuer_with_anothers_key_is_wrong_signer(alice: VerifiedParty) -> None:
    key = BOB.identity()
    token = jose.sign(
        st.claims_of(ALICE.denial()), key=key, kid=key_id(ALICE.did, bytes(key.verify_key)), typ=st.Denial.typ
    )
    with pytest.raises(st.WrongSigner):
        st.verify_fresh(token, st.Denial, alice, now=NOW)


def test_speaking_in_anothers_name_under_ones_own_key_is_wrong_signer() -> None:
    bob = verify_chain(BOB.did, BOB.chain())
    token = signed(st.claims_of(ALICE.denial()), party=BOB)
    with pytest.raises(st.WrongSigner):
        st.verify_fresh(token, st.Denial, bob, now=NOW)


def test_a_rotated_away_key_is_wrong_signer_for_new_statements(alice_rotated: VerifiedParty) -> None:
    token = st.sign(ALICE.denial(), ALICE.identity(0))
    with pytest.raises(st.WrongSigner):
        st.verify_fresh(token, st.Denial, alice_rotated, now=NOW)


def test_a_rotated_away_key_still_verifies_stored_statements(alice_rotated: VerifiedParty) -> None:
    token = st.sign(ALICE.denial(), ALICE.identity(0))
    assert st.verify_stored(token, st.Denial, alice_rotated).payload.iss == ALICE.did


def test_a_changed_payload_is_bad_signature(alice: VerifiedParty) -> None:
    head, _, tail = st.sign(ALICE.denial(), ALICE.identity()).split(".")
    other = st.sign(ALICE.denial(), ALICE.identity()).split(".")[1]
    with pytest.raises(BadSignature):
        st.verify_fresh(f"{head}.{other}.{tail}", st.Denial, alice, now=NOW)


def test_a_statement_of_another_kind_is_malformed(alice: VerifiedParty) -> None:
    token = st.sign(ALICE.denial(), ALICE.identity())
    with pytest.raises(Malformed):
        st.verify_fresh(token, st.Revocation, alice, now=NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "Ed25519"},
        {"typ": "JWT"},
        {"extra": 1},
        {"crit": ["exp"]},
        {"kid": 7},
        {"kid": "did:key:zNo"},
    ],
    ids=str,
)
def test_a_header_other_than_the_one_accepted_is_malformed(alice: VerifiedParty, change: dict[str, Any]) -> None:
    token = st.sign(ALICE.denial(), ALICE.identity())
    header = json.loads(from_b64url(token.split(".")[0])) | change
    wrong = with_header(token, json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
    with pytest.raises(Malformed):
        st.verify_fresh(wrong, st.Denial, alice, now=NOW)


def test_a_header_that_is_not_canonical_is_malformed(alice: VerifiedParty) -> None:
    token = st.sign(ALICE.denial(), ALICE.identity())
    header = json.loads(from_b64url(token.split(".")[0]))
    with pytest.raises(Malformed):
        st.verify_fresh(with_header(token, json.dumps(header).encode()), st.Denial, alice, now=NOW)


def test_an_unknown_member_is_malformed(alice: VerifiedParty) -> None:
    with pytest.raises(Malformed):
        st.verify_fresh(signed(st.claims_of(ALICE.denial()) | {"more": 1}), st.Denial, alice, now=NOW)


def test_a_null_member_is_malformed() -> None:
    claims = st.claims_of(st.KeyEntry(**ALICE.key_entry_claims())) | {"name": None}
    with pytest.raises(Malformed):
        verify_chain(ALICE.did, [signed(claims, typ=st.KeyEntry.typ)])


def test_a_missing_member_is_malformed(alice: VerifiedParty) -> None:
    claims = st.claims_of(ALICE.denial())
    del claims["request"]
    with pytest.raises(Malformed):
        st.verify_fresh(signed(claims), st.Denial, alice, now=NOW)


def test_a_number_as_text_is_malformed(alice: VerifiedParty) -> None:
    with pytest.raises(Malformed):
        st.verify_fresh(signed(st.claims_of(ALICE.denial()) | {"iat": str(NOW)}), st.Denial, alice, now=NOW)


def test_an_overlong_statement_is_too_large(alice: VerifiedParty) -> None:
    with pytest.raises(TooLarge):
        st.verify_fresh("a" * (st.Denial.max_size + 1), st.Denial, alice, now=NOW)


def test_a_statement_with_two_parts_is_malformed(alice: VerifiedParty) -> None:
    with pytest.raises(Malformed):
        st.verify_fresh("a.b", st.Denial, alice, now=NOW)


def test_a_statement_from_the_future_is_refused_beyond_the_skew(alice: VerifiedParty) -> None:
    token = st.sign(ALICE.denial(iat=NOW + wire.SKEW_SECONDS), ALICE.identity())
    st.verify_fresh(token, st.Denial, alice, now=NOW)
    with pytest.raises(st.StatementFromTheFuture):
        st.verify_fresh(token, st.Denial, alice, now=NOW - 1)


def test_a_lapsed_statement_is_refused_beyond_the_skew(alice: VerifiedParty) -> None:
    token = st.sign(ALICE.reencryption_request(), ALICE.identity())
    st.verify_fresh(token, st.ReencryptionRequest, alice, now=NOW + 300 + wire.SKEW_SECONDS - 1)
    with pytest.raises(st.StatementExpired):
        st.verify_fresh(token, st.ReencryptionRequest, alice, now=NOW + 300 + wire.SKEW_SECONDS)


def test_a_wrong_audience_is_refused(alice: VerifiedParty) -> None:
    verified = st.verify_fresh(st.sign(ALICE.denial(), ALICE.identity()), st.Denial, alice, now=NOW)
    st.expect_audience(verified, SeededParty(2).did)
    with pytest.raises(st.WrongAudience):
        st.expect_audience(verified, ALICE.did)


def test_a_reencryption_request_may_not_live_longer_than_five_minutes() -> None:
    with pytest.raises(ValidationError):
        ALICE.reencryption_request(exp=NOW + 301)


def test_a_capsule_may_not_stand_twice_in_a_reencryption_request() -> None:
    with pytest.raises(ValidationError):
        ALICE.reencryption_request(capsules=(st.WantedCapsule(entry=0, capsule=b64url(bytes(32))),) * 2)


def test_a_patients_key_entry_may_not_carry_a_name() -> None:
    with pytest.raises(ValidationError):
        st.KeyEntry(**ALICE.key_entry_claims(name="Demo Patient"))


def grant_claims(**overrides: Any) -> dict[str, Any]:
    proxy = SeededParty(3, wire.Role.PROXY)
    claims: dict[str, Any] = {
        "iss": ALICE.did,
        "aud": BOB.did,
        "iat": NOW,
        "jti": st.new_jti(),
        "nbf": NOW,
        "exp": NOW + 60,
        "patient_entry": b64url(bytes(32)),
        "recipient_entry": b64url(bytes(32)),
        "actions": (wire.Action.READ,),
        "purpose": wire.Purpose.TREAT,
        "scopes": (st.GrantScope(scope=b64url(bytes(16)), epoch=0, delegating_key=b64url(bytes(33))),),
        "shares": st.GrantShares(threshold=1, proxies=(st.GrantProxy(did=proxy.did, kfrags=(b64url(bytes(32)),)),)),
        "sealed": "AAAA",
    }
    return claims | overrides


def test_a_consistent_grant_is_accepted() -> None:
    assert st.Grant(**grant_claims()).shares is not None


@pytest.mark.parametrize("threshold", [0, 2, 17])
def test_a_threshold_out_of_range_is_refused(threshold: int) -> None:
    with pytest.raises(ValidationError):
        st.Grant(**grant_claims(shares={"threshold": threshold, "proxies": grant_claims()["shares"].proxies}))


@pytest.mark.parametrize(
    "change",
    [
        {"shares": None},
        {"actions": (wire.Action.APPEND,)},
        {"actions": (wire.Action.READ, wire.Action.READ)},
        {"actions": (wire.Action.READ, wire.Action.AMEND)},
        {"actions": ()},
        {"exp": NOW},
        {"scopes": ()},
        {"scopes": grant_claims()["scopes"] * 2},
        {"scopes": grant_claims()["scopes"] * 65},
        {"shares": st.GrantShares(threshold=1, proxies=grant_claims()["shares"].proxies * 2)},
    ],
    ids=[
        "read without shares",
        "shares without read",
        "repeated action",
        "unsorted actions",
        "no action",
        "ends before it begins",
        "no scope",
        "scope twice",
        "too many scopes",
        "proxy twice",
    ],
)
def test_an_inconsistent_grant_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        st.Grant(**grant_claims(**change))


def test_every_kind_has_its_own_type_and_a_bound() -> None:
    assert len({kind.typ for kind in st.KINDS}) == len(st.KINDS)
    assert all(0 < kind.max_size <= 262_144 for kind in st.KINDS)


@settings(max_examples=300)
@given(
    some.one_of(
        some.text(max_size=300), some.from_regex(r"[A-Za-z0-9_-]{1,80}(\.[A-Za-z0-9_-]{1,80}){2}", fullmatch=True)
    )
)
def test_hostile_text_raises_nothing_but_our_own_errors(text: str) -> None:
    party = verify_chain(ALICE.did, _CHAIN)
    with pytest.raises(PcehrError):
        st.verify_fresh(text, st.Denial, party, now=NOW)


@settings(max_examples=200)
@given(some.data())
def test_one_flipped_bit_never_verifies(data: some.DataObject) -> None:
    party = verify_chain(ALICE.did, _CHAIN)
    token = bytearray(_TOKEN.encode())
    token[data.draw(some.integers(0, len(token) - 1))] ^= 1 << data.draw(some.integers(0, 6))
    with pytest.raises(PcehrError):
        st.verify_fresh(token.decode("latin-1"), st.Denial, party, now=NOW)


_CHAIN = ALICE.chain()
_TOKEN = st.sign(ALICE.denial(), ALICE.identity())
