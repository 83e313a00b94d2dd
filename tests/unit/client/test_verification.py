"""Attacks by the services on what a client reads; each is refused and named. One test for each refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from client.errors import (
    CommitmentMismatch,
    ContextMismatch,
    DecryptionFailed,
    KeyChainRolledBack,
    PayloadCorrupt,
    ReceiptInvalid,
    RecordRolledBack,
    RecordSwapped,
    StatementForged,
    UnauthorisedAuthor,
    VerificationFailed,
    WrongAnswer,
)
from client.records import open_header, open_record, open_record_to_file, unwrap_as_owner
from client.sealed import GrantContent, RequestContent, open_grant, open_request, seal_content
from client.verification import (
    VerifiedVersion,
    check_authority,
    check_chain,
    check_grant,
    check_history,
    check_receipt,
    check_record,
    check_request,
    check_scope_key,
    check_version,
    entry_index,
    verifying,
)
from shared import statements as st
from shared.crypto.errors import MalformedKeyMaterial
from shared.crypto.record import RecordKey
from shared.encoding import b64url, from_b64url
from shared.identity import ChainRolledBack
from shared.wire import REGISTRY_AUDIENCE, Action, Purpose, Role
from tests.unit.client.parties import NOW, RECORD, Party, grant_to, id_of, manifest_of, sealed, shown


@pytest.fixture(scope="module")
def patient() -> Party:
    return Party(Role.PATIENT)


@pytest.fixture(scope="module")
def author() -> Party:
    return Party(Role.RECIPIENT)


@pytest.fixture(scope="module")
def proxy() -> Party:
    return Party(Role.PROXY)


def flipped(text: str) -> str:
    data = bytearray(from_b64url(text))
    data[len(data) // 2] ^= 1
    return b64url(bytes(data))


# --- a record at rest -----------------------------------------------------------------------------------------------


def test_a_record_opens(patient: Party, tmp_path: Path) -> None:
    record = check_record(shown(sealed(patient, tmp_path)), patient=patient.party, author=patient.party)
    key = unwrap_as_owner(record, patient.keyring.delegating("allergies", 0))
    opened = open_record(record, key, scope="allergies")
    assert opened.body == b"penicillin"
    assert opened.header.title == "A title"
    assert (opened.record_id, opened.version, opened.epoch, opened.author) == (RECORD, 1, 0, patient.did)
    assert opened.patient == patient.did


@pytest.mark.parametrize("part", ["wrapped_key", "header", "body"])
def test_a_changed_part_is_record_swapped(patient: Party, tmp_path: Path, part: str) -> None:
    record = sealed(patient, tmp_path)
    changed = shown(record, **{part: flipped(getattr(record.upload, part))})
    with pytest.raises(RecordSwapped):
        check_record(changed, patient=patient.party, author=patient.party)


@pytest.mark.parametrize("part", ["capsule", "wrapped_key", "header", "body"])
def test_a_part_of_another_record_is_record_swapped(patient: Party, tmp_path: Path, part: str) -> None:
    record, other = sealed(patient, tmp_path), sealed(patient, tmp_path)
    changed = shown(record, **{part: getattr(other.upload, part)})
    with pytest.raises(RecordSwapped):
        check_record(changed, patient=patient.party, author=patient.party)


def test_another_patients_record_is_record_swapped(patient: Party, tmp_path: Path) -> None:
    other = Party(Role.PATIENT)
    with pytest.raises(RecordSwapped):
        check_record(shown(sealed(other, tmp_path)), patient=patient.party, author=other.party)


def test_a_manifest_signed_by_somebody_else_is_refused(patient: Party, author: Party, tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed) as refusal:
        check_record(shown(sealed(patient, tmp_path)), patient=patient.party, author=author.party)
    assert refusal.value.code == "wrong_signer"


def test_a_changed_manifest_is_bad_signature(patient: Party, tmp_path: Path) -> None:
    record = sealed(patient, tmp_path)
    other = sealed(patient, tmp_path, record_id="0198f000-0000-7000-8000-000000000002")
    signature = record.upload.manifest.rpartition(".")[2]
    forged = other.upload.manifest.rpartition(".")[0] + "." + signature
    with pytest.raises(StatementForged):
        check_record(shown(other, manifest=forged), patient=patient.party, author=patient.party)


def test_an_envelope_of_another_context_is_context_mismatch(patient: Party, author: Party, tmp_path: Path) -> None:
    """An author takes another's capsule and wrapped key and signs them as a record of its own."""
    record = sealed(patient, tmp_path)
    claims = st.claims_of(record.manifest) | {"version": 2, "prev": record.manifest_id, "jti": st.new_jti()}
    again = st.Manifest.model_validate(claims)
    forged = st.sign(again, patient.keyring.identity(0))
    moved = check_record(shown(record, manifest=forged), patient=patient.party, author=patient.party)
    with pytest.raises(ContextMismatch):
        unwrap_as_owner(moved, patient.keyring.delegating("allergies", 0))


def test_a_key_the_author_did_not_commit_to_is_commitment_mismatch(patient: Party, tmp_path: Path) -> None:
    record = sealed(patient, tmp_path)
    claims = st.claims_of(record.manifest) | {"commitment": b64url(RecordKey.generate().commitment)}
    forged = st.sign(st.Manifest.model_validate(claims), patient.keyring.identity(0))
    verified = check_record(shown(record, manifest=forged), patient=patient.party, author=patient.party)
    with pytest.raises(CommitmentMismatch):
        unwrap_as_owner(verified, patient.keyring.delegating("allergies", 0))


def test_an_envelope_for_another_key_does_not_open(patient: Party, tmp_path: Path) -> None:
    verified = check_record(shown(sealed(patient, tmp_path)), patient=patient.party, author=patient.party)
    with pytest.raises(DecryptionFailed):
        unwrap_as_owner(verified, patient.keyring.delegating("allergies", 1))


def test_a_size_that_does_not_fit_the_length_is_payload_corrupt(patient: Party, tmp_path: Path) -> None:
    record = sealed(patient, tmp_path)
    claims = st.claims_of(record.manifest) | {"size": record.manifest.size + 16}
    forged = st.sign(st.Manifest.model_validate(claims), patient.keyring.identity(0))
    verified = check_record(shown(record, manifest=forged, body=None), patient=patient.party, author=patient.party)
    key = unwrap_as_owner(verified, patient.keyring.delegating("allergies", 0))
    with pytest.raises(PayloadCorrupt):
        open_header(verified, key)


def test_a_body_that_was_not_fetched_is_said_so(patient: Party, tmp_path: Path) -> None:
    verified = check_record(shown(sealed(patient, tmp_path), body=None), patient=patient.party, author=patient.party)
    key = unwrap_as_owner(verified, patient.keyring.delegating("allergies", 0))
    with pytest.raises(DecryptionFailed):
        open_record(verified, key, scope="allergies")


# --- large bodies, in constant memory ---------------------------------------------------------------------------------


def large(patient: Party, folder: Path) -> tuple[Any, Path, Path]:
    source = folder / "source"
    source.write_bytes(bytes(range(256)) * 2000)
    record = sealed(patient, folder, body=source)
    assert record.upload.body is None
    assert record.blob is not None
    return record, record.blob, source


def test_a_large_body_goes_from_file_to_file(patient: Party, tmp_path: Path) -> None:
    record, blob, source = large(patient, tmp_path)
    verified = check_record(shown(record), patient=patient.party, author=patient.party)
    key = unwrap_as_owner(verified, patient.keyring.delegating("allergies", 0))
    opened = open_record_to_file(verified, key, scope="allergies", ciphertext=blob, destination=tmp_path / "out")
    assert opened.path == tmp_path / "out"
    assert (tmp_path / "out").read_bytes() == source.read_bytes()
    assert open_record(verified.with_body(blob.read_bytes()), key, scope="x").body == source.read_bytes()


@pytest.mark.parametrize("how", ["change", "cut", "append"])
def test_a_large_body_that_was_changed_is_record_swapped(patient: Party, tmp_path: Path, how: str) -> None:
    record, blob, _ = large(patient, tmp_path)
    data = blob.read_bytes()
    blob.write_bytes({"change": b"x" + data[1:], "cut": data[:-1], "append": data + b"x"}[how])
    verified = check_record(shown(record), patient=patient.party, author=patient.party)
    key = unwrap_as_owner(verified, patient.keyring.delegating("allergies", 0))
    with pytest.raises(RecordSwapped):
        open_record_to_file(verified, key, scope="allergies", ciphertext=blob, destination=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RecordSwapped):
        verified.with_body(blob.read_bytes())


# --- who may write ------------------------------------------------------------------------------------------------


def by_author(patient: Party, author: Party, folder: Path, grant: str, **placement: Any) -> st.Verified[st.Manifest]:
    record = sealed(patient, folder, author=author, grant=id_of(grant), **placement)
    return st.verify_stored(record.upload.manifest, st.Manifest, author.party)


def test_an_author_with_a_grant_is_accepted(patient: Party, author: Party, tmp_path: Path) -> None:
    grant = grant_to(patient, author)
    record = sealed(patient, tmp_path, author=author, grant=id_of(grant))
    verified = check_record(shown(record, authority=grant), patient=patient.party, author=author.party)
    assert verified.manifest.payload.iss == author.did


def test_the_patient_needs_no_grant(patient: Party) -> None:
    assert check_authority(manifest_of(patient), None, patient=patient.party) is None


def test_an_author_without_a_grant_is_unauthorised(patient: Party, author: Party, tmp_path: Path) -> None:
    manifest = by_author(patient, author, tmp_path, grant_to(patient, author))
    with pytest.raises(UnauthorisedAuthor):
        check_authority(manifest, None, patient=patient.party)


def test_a_grant_forged_by_the_author_is_unauthorised(patient: Party, author: Party, tmp_path: Path) -> None:
    genuine = grant_to(patient, author)
    forged = genuine.rpartition(".")[0] + "." + b64url(author.keyring.identity(0).sign(b"x"))
    with pytest.raises(UnauthorisedAuthor):
        check_authority(by_author(patient, author, tmp_path, forged), forged, patient=patient.party)


def test_a_grant_by_another_patient_is_unauthorised(patient: Party, author: Party, tmp_path: Path) -> None:
    other = Party(Role.PATIENT)
    grant = grant_to(other, author)
    with pytest.raises(UnauthorisedAuthor):
        check_authority(by_author(patient, author, tmp_path, grant), grant, patient=patient.party)


def test_a_grant_to_somebody_else_is_unauthorised(patient: Party, author: Party, tmp_path: Path) -> None:
    grant = grant_to(patient, Party(Role.RECIPIENT))
    with pytest.raises(UnauthorisedAuthor):
        check_authority(by_author(patient, author, tmp_path, grant), grant, patient=patient.party)


def test_another_grant_than_the_one_named_is_unauthorised(patient: Party, author: Party, tmp_path: Path) -> None:
    named, other = grant_to(patient, author), grant_to(patient, author)
    with pytest.raises(UnauthorisedAuthor):
        check_authority(by_author(patient, author, tmp_path, named), other, patient=patient.party)


@pytest.mark.parametrize(
    ("actions", "placement"),
    [((Action.AMEND,), {}), ((Action.APPEND,), {"version": 2, "prev": "A" * 43})],
)
def test_a_grant_for_the_other_action_is_unauthorised(
    patient: Party, author: Party, tmp_path: Path, actions: tuple[Action, ...], placement: dict[str, Any]
) -> None:
    grant = grant_to(patient, author, actions=actions)
    with pytest.raises(UnauthorisedAuthor):
        check_authority(by_author(patient, author, tmp_path, grant, **placement), grant, patient=patient.party)


def test_a_grant_on_another_scope_is_unauthorised(patient: Party, author: Party, tmp_path: Path) -> None:
    key = patient.keyring.delegating("medications", 0).public_key().b64
    entry = st.GrantScope(scope=patient.keyring.scope_id("medications"), epoch=0, delegating_key=key)
    grant = grant_to(patient, author, scopes=(entry,))
    with pytest.raises(UnauthorisedAuthor):
        check_authority(by_author(patient, author, tmp_path, grant), grant, patient=patient.party)


@pytest.mark.parametrize("window", [(NOW - 9000, NOW - 1000), (NOW + 1000, NOW + 9000)])
def test_a_grant_that_did_not_hold_then_is_unauthorised(
    patient: Party, author: Party, tmp_path: Path, window: tuple[int, int]
) -> None:
    grant = grant_to(patient, author, nbf=window[0], exp=window[1])
    with pytest.raises(UnauthorisedAuthor):
        check_authority(by_author(patient, author, tmp_path, grant), grant, patient=patient.party)


# --- versions -----------------------------------------------------------------------------------------------------


def test_a_chain_of_versions_is_accepted(patient: Party) -> None:
    first = manifest_of(patient)
    check_chain([first, manifest_of(patient, version=2, prev=first.id)], complete=True)
    check_chain([], complete=True)


def test_a_version_that_does_not_follow_is_rolled_back(patient: Party) -> None:
    other = manifest_of(patient)
    with pytest.raises(RecordRolledBack):
        check_chain([manifest_of(patient), manifest_of(patient, version=2, prev=other.id)], complete=False)


def test_a_missing_version_is_rolled_back(patient: Party) -> None:
    first = manifest_of(patient)
    third = manifest_of(patient, version=3, prev=first.id)
    check_chain([first, third], complete=False)
    for versions in ([first, third], [third]):
        with pytest.raises(RecordRolledBack):
            check_chain(versions, complete=True)


def test_versions_of_two_records_or_out_of_order_are_a_wrong_answer(patient: Party) -> None:
    first = manifest_of(patient)
    second = manifest_of(patient, version=2, prev=first.id)
    other = manifest_of(patient, version=2, prev=first.id, record="0198f000-0000-7000-8000-000000000002")
    for versions in ([first, other], [second, first], [first, first]):
        with pytest.raises(WrongAnswer):
            check_chain(versions, complete=False)


# --- who may write over what ------------------------------------------------------------------------------------


def entry_of(patient: Party, scope: str, *capsules: str) -> st.GrantScope:
    return st.GrantScope(
        scope=patient.keyring.scope_id(scope),
        epoch=0,
        delegating_key=patient.keyring.delegating(scope, 0).public_key().b64,
        capsules=capsules or None,
    )


class Chain:
    """Versions of one record, each by the patient or by an author under a grant on some scopes."""

    def __init__(self, patient: Party) -> None:
        self.patient = patient
        self.versions: list[VerifiedVersion] = []

    def add(
        self, author: Party | None = None, scope: str = "allergies", *, may: tuple[st.GrantScope, ...] = ()
    ) -> st.Verified[st.Manifest]:
        grant = None
        if author is not None:
            entries = may or (entry_of(self.patient, scope),)
            grant = st.verify_stored(grant_to(self.patient, author, scopes=entries), st.Grant, self.patient.party)
        number = len(self.versions) + 1
        record = manifest_of(
            self.patient,
            author=author,
            scope=self.patient.keyring.scope_id(scope),
            version=number,
            prev=self.versions[-1].manifest.id if self.versions else None,
            capsule=b64url(number.to_bytes(32, "big")),
            grant=grant.id if grant else None,
        )
        self.versions.append(VerifiedVersion(record, grant))
        return record


@pytest.fixture
def chain(patient: Party) -> Chain:
    return Chain(patient)


def check_as_everybody(versions: list[VerifiedVersion]) -> None:
    for complete in (True, False):
        check_history(versions, complete=complete)


def refused_to_everybody(versions: list[VerifiedVersion]) -> None:
    for complete in (True, False):
        with pytest.raises(UnauthorisedAuthor):
            check_history(versions, complete=complete)


def test_an_amendment_within_the_scope_holds(chain: Chain, author: Party) -> None:
    chain.add()
    chain.add(author)
    check_as_everybody(chain.versions)


def test_an_amendment_of_a_record_of_another_scope_is_unauthorised(chain: Chain, author: Party) -> None:
    chain.add(scope="mental-health")
    chain.add(author, "allergies")
    refused_to_everybody(chain.versions)


def test_an_amendment_that_moves_a_record_needs_both_scopes(chain: Chain, patient: Party, author: Party) -> None:
    chain.add(scope="medications")
    chain.add(author, "allergies", may=(entry_of(patient, "allergies"), entry_of(patient, "medications")))
    check_as_everybody(chain.versions)


def test_a_second_amendment_does_not_make_good_the_first(chain: Chain, author: Party) -> None:
    """Looked at alone, it follows a version in a scope that the author may amend."""
    chain.add(scope="mental-health")
    chain.add(author, "allergies")
    chain.add(author, "allergies")
    refused_to_everybody(chain.versions)


def test_nobody_else_can_build_on_an_unauthorised_amendment(chain: Chain, author: Party) -> None:
    chain.add(scope="mental-health")
    chain.add(author, "allergies")
    chain.add(Party(Role.RECIPIENT), "allergies")
    refused_to_everybody(chain.versions)


def test_a_grant_limited_to_the_record_may_amend_it_again_and_again(
    chain: Chain, patient: Party, author: Party
) -> None:
    first = chain.add()
    limited = (entry_of(patient, "allergies", first.payload.capsule),)
    chain.add(author, may=limited)
    chain.add(author, may=limited)
    check_as_everybody(chain.versions)


def test_a_grant_limited_to_another_record_is_unauthorised(chain: Chain, patient: Party, author: Party) -> None:
    chain.add()
    chain.add(author, may=(entry_of(patient, "allergies", b64url(bytes(32))),))
    refused_to_everybody(chain.versions)


def test_the_capsule_of_the_amendment_itself_lists_nothing(chain: Chain, patient: Party, author: Party) -> None:
    """An author who copies a capsule that its grant lists cannot make another record the one that is listed."""
    chain.add()
    chain.add(author, may=(entry_of(patient, "allergies", b64url((2).to_bytes(32, "big"))),))
    refused_to_everybody(chain.versions)


def test_a_list_under_another_scope_of_the_grant_does_not_count(chain: Chain, patient: Party, author: Party) -> None:
    first = chain.add(scope="medications")
    may = (entry_of(patient, "allergies", first.payload.capsule), entry_of(patient, "medications", b64url(bytes(32))))
    chain.add(author, "allergies", may=may)
    refused_to_everybody(chain.versions)


def test_the_patient_may_move_a_record_anywhere(chain: Chain, author: Party) -> None:
    chain.add(author, "medications")
    chain.add(scope="allergies")
    chain.add(author, "allergies")
    check_as_everybody(chain.versions)


def test_a_recipient_may_begin_with_a_version_of_the_patients(chain: Chain, author: Party) -> None:
    chain.add(scope="mental-health")
    chain.add(scope="allergies")
    chain.add(author, "allergies")
    check_history(chain.versions[1:], complete=False)
    with pytest.raises(RecordRolledBack):
        check_history(chain.versions[1:], complete=True)


def test_a_recipient_may_not_begin_with_somebody_elses_amendment(chain: Chain, author: Party) -> None:
    chain.add(scope="mental-health")
    chain.add(author, "allergies")
    chain.add(author, "allergies")
    with pytest.raises(RecordRolledBack):
        check_history(chain.versions[1:], complete=False)


def test_a_recipient_may_not_be_shown_a_history_with_gaps(chain: Chain, author: Party) -> None:
    chain.add()
    chain.add(scope="mental-health")
    chain.add(author)
    with pytest.raises(RecordRolledBack):
        check_history([chain.versions[0], chain.versions[2]], complete=False)


def test_what_the_patient_has_amended_since_counts_for_recipients_alone(chain: Chain, author: Party) -> None:
    """The patient's client does not write over such a version; to the patient it is shown wherever it stands."""
    chain.add(scope="mental-health")
    chain.add(author, "allergies")
    chain.add(scope="allergies")
    check_history(chain.versions, complete=False)
    with pytest.raises(UnauthorisedAuthor):
        check_history(chain.versions, complete=True)


def test_a_version_is_checked_by_itself(patient: Party, author: Party, tmp_path: Path) -> None:
    grant = grant_to(patient, author)
    record = sealed(patient, tmp_path, author=author, grant=id_of(grant))
    version = check_version(record.upload.manifest, grant, patient=patient.party, author=author.party)
    assert version.authority is not None
    assert version.authority.id == id_of(grant)
    other = Party(Role.PATIENT)
    with pytest.raises(RecordSwapped):
        check_version(record.upload.manifest, grant, patient=other.party, author=author.party)
    with pytest.raises(UnauthorisedAuthor):
        check_version(record.upload.manifest, None, patient=patient.party, author=author.party)


# --- grants, requests, scope-keys ---------------------------------------------------------------------------------


def test_a_grant_is_checked(patient: Party, author: Party) -> None:
    grant = grant_to(patient, author)
    checked = check_grant(grant, grant_id=id_of(grant), patient=patient.party, recipient=author.party)
    assert checked.recipient_entry.id == author.party.current.id


def test_another_grant_than_the_one_asked_for_is_a_wrong_answer(patient: Party, author: Party) -> None:
    grant = grant_to(patient, author)
    with pytest.raises(WrongAnswer):
        check_grant(grant, grant_id="A" * 43, patient=patient.party, recipient=author.party)
    other = Party(Role.RECIPIENT)
    with pytest.raises(WrongAnswer):
        check_grant(grant, grant_id=id_of(grant), patient=patient.party, recipient=other.party)


@pytest.mark.parametrize("member", ["patient_entry", "recipient_entry"])
def test_a_grant_that_names_a_foreign_key_entry_is_refused(patient: Party, author: Party, member: str) -> None:
    members: dict[str, Any] = {member: "A" * 43}
    grant = grant_to(patient, author, **members)
    with pytest.raises(ContextMismatch):
        check_grant(grant, grant_id=id_of(grant), patient=patient.party, recipient=author.party)


def test_a_grant_by_a_recipient_is_refused(author: Party) -> None:
    giver = Party(Role.RECIPIENT)
    grant = grant_to(giver, author)
    with pytest.raises(ContextMismatch):
        check_grant(grant, grant_id=id_of(grant), patient=giver.party, recipient=author.party)


def request_to(patient: Party, recipient: Party, text: str, **members: Any) -> str:
    claims: dict[str, Any] = {
        "exp": NOW + 500,
        "actions": (Action.READ,),
        "purpose": Purpose.TREAT,
        "recipient_entry": recipient.party.current.id,
        "patient_entry": patient.party.current.id,
        "sealed": text,
    }
    return recipient.sign(st.DisclosureRequest, patient.did, **(claims | members))


def content_for(patient: Party, recipient: Party, jti: str) -> str:
    content = RequestContent(iss=recipient.did, aud=patient.did, jti=jti, scopes=["allergies"], reason="why")
    return seal_content(content, patient.keyring.receiving(0).public_key())


def test_a_request_opens(patient: Party, author: Party) -> None:
    jti = st.new_jti()
    token = request_to(patient, author, content_for(patient, author, jti), jti=jti)
    checked = check_request(token, request_id=id_of(token), patient=patient.party, recipient=author.party)
    content = open_request(checked.statement.payload, patient.keyring.receiving(0))
    assert (content.scopes, content.reason) == (["allergies"], "why")


def test_anothers_sealed_text_in_ones_own_request_is_context_mismatch(patient: Party, author: Party) -> None:
    thief = Party(Role.RECIPIENT)
    jti = st.new_jti()
    token = request_to(patient, thief, content_for(patient, author, jti), jti=jti)
    checked = check_request(token, request_id=id_of(token), patient=patient.party, recipient=thief.party)
    with pytest.raises(ContextMismatch):
        open_request(checked.statement.payload, patient.keyring.receiving(0))


def test_an_earlier_sealed_text_in_a_new_request_is_context_mismatch(patient: Party, author: Party) -> None:
    token = request_to(patient, author, content_for(patient, author, st.new_jti()))
    checked = check_request(token, request_id=id_of(token), patient=patient.party, recipient=author.party)
    with pytest.raises(ContextMismatch):
        open_request(checked.statement.payload, patient.keyring.receiving(0))


def test_a_grants_sealed_names_of_another_grant_are_context_mismatch(patient: Party, author: Party) -> None:
    content = GrantContent(iss=patient.did, aud=author.did, jti=st.new_jti(), scopes=["allergies"])
    text = seal_content(content, author.keyring.receiving(0).public_key())
    grant = st.verify_stored(grant_to(patient, author, sealed=text), st.Grant, patient.party)
    with pytest.raises(ContextMismatch):
        open_grant(grant.payload, author.keyring.receiving(0))


@pytest.mark.parametrize("text", [b64url(bytes(200)), b64url(b"x"), "AAAA"])
def test_sealed_text_that_is_none_is_refused(patient: Party, author: Party, text: str) -> None:
    token = request_to(patient, author, text)
    checked = check_request(token, request_id=id_of(token), patient=patient.party, recipient=author.party)
    with pytest.raises(VerificationFailed):
        open_request(checked.statement.payload, patient.keyring.receiving(0))


def test_a_request_to_somebody_else_is_a_wrong_answer(patient: Party, author: Party) -> None:
    other = Party(Role.PATIENT)
    token = request_to(other, author, b64url(bytes(200)))
    with pytest.raises(WrongAnswer):
        check_request(token, request_id=id_of(token), patient=patient.party, recipient=author.party)


def test_a_scope_key_by_somebody_else_is_refused(patient: Party) -> None:
    other = Party(Role.PATIENT)
    members: dict[str, Any] = {
        "scope": patient.keyring.scope_id("allergies"),
        "epoch": 0,
        "delegating_key": other.keyring.delegating("allergies", 0).public_key().b64,
    }
    with pytest.raises(VerificationFailed):
        check_scope_key(other.sign(st.ScopeKey, REGISTRY_AUDIENCE, **members), patient.party)
    with pytest.raises(VerificationFailed):
        check_scope_key(patient.sign(st.ScopeKey, REGISTRY_AUDIENCE, signer=other, **members), patient.party)
    assert check_scope_key(patient.sign(st.ScopeKey, REGISTRY_AUDIENCE, **members), patient.party)


def test_a_scope_key_that_is_no_point_is_refused(patient: Party) -> None:
    token = patient.sign(
        st.ScopeKey,
        REGISTRY_AUDIENCE,
        scope=patient.keyring.scope_id("allergies"),
        epoch=0,
        delegating_key=b64url(b"\x02" + b"\xff" * 32),
    )
    with pytest.raises(VerificationFailed) as refusal:
        check_scope_key(token, patient.party)
    assert refusal.value.code == "malformed_key_material"


def reading(patient: Party, author: Party, proxy: Party, *capsules: str) -> st.Grant:
    share = st.GrantProxy(did=proxy.did, kfrags=("A" * 43,))
    grant = grant_to(
        patient,
        author,
        actions=(Action.READ,),
        shares=st.GrantShares(threshold=1, proxies=(share,)),
        scopes=(entry_of(patient, "allergies", *capsules),),
    )
    return st.verify_stored(grant, st.Grant, patient.party).payload


def test_a_record_outside_the_grant_is_a_wrong_answer(patient: Party, author: Party, proxy: Party) -> None:
    whole, listed = (
        reading(patient, author, proxy),
        reading(patient, author, proxy, manifest_of(patient).payload.capsule),
    )
    narrow = reading(patient, author, proxy, b64url(bytes(31) + b"x"))
    for grant in (whole, listed):
        assert entry_index(grant, manifest_of(patient).payload) == 0
    for grant, manifest in ((narrow, manifest_of(patient)), (whole, manifest_of(patient, epoch=1))):
        with pytest.raises(WrongAnswer):
            entry_index(grant, manifest.payload)


def test_a_record_to_be_amended_need_not_have_the_capsule_that_is_listed(patient: Party, author: Party) -> None:
    """The list says which record it is, by any of its versions; nothing is opened under such a grant."""
    limited = entry_of(patient, "allergies", b64url(bytes(31) + b"x"))
    grant = st.verify_stored(grant_to(patient, author, scopes=(limited,)), st.Grant, patient.party).payload
    assert entry_index(grant, manifest_of(patient).payload) == 0
    with pytest.raises(WrongAnswer):
        entry_index(grant, manifest_of(patient, epoch=1).payload)


# --- receipts -----------------------------------------------------------------------------------------------------


RECEIPT: dict[str, Any] = {"act": "erased", "statement": "A" * 43, "grant": "E" * 43, "seq": 1}


def test_a_receipt_is_checked(patient: Party, proxy: Party) -> None:
    token = proxy.sign(st.Receipt, patient.did, **RECEIPT)
    check_receipt(token, proxy.party, act="erased", statement="A" * 43, grant="E" * 43, audience=patient.did)


@pytest.mark.parametrize(
    "change",
    [{"act": "stored"}, {"statement": "E" * 43}, {"grant": "A" * 43}],
)
def test_a_receipt_for_something_else_is_invalid(patient: Party, proxy: Party, change: dict[str, Any]) -> None:
    token = proxy.sign(st.Receipt, patient.did, **(RECEIPT | change))
    with pytest.raises(ReceiptInvalid):
        check_receipt(token, proxy.party, act="erased", statement="A" * 43, grant="E" * 43, audience=patient.did)


def test_a_receipt_to_somebody_else_or_by_somebody_else_is_invalid(patient: Party, proxy: Party, author: Party) -> None:
    other = Party(Role.PROXY)
    tokens = [
        (proxy.sign(st.Receipt, author.did, **RECEIPT), proxy),
        (other.sign(st.Receipt, patient.did, **RECEIPT), proxy),
        (author.sign(st.Receipt, patient.did, **RECEIPT), author),
    ]
    for token, signer in tokens:
        with pytest.raises(ReceiptInvalid):
            check_receipt(token, signer.party, act="erased", statement="A" * 43, grant="E" * 43, audience=patient.did)


def test_a_receipt_for_other_cfrags_is_invalid(patient: Party, proxy: Party) -> None:
    members = RECEIPT | {"act": "reencrypted", "cfrags": ("A" * 43,)}
    token = proxy.sign(st.Receipt, patient.did, **members)
    expected: dict[str, Any] = {"statement": "A" * 43, "grant": "E" * 43, "audience": patient.did}
    check_receipt(token, proxy.party, act="reencrypted", cfrags=["A" * 43], **expected)
    for cfrags in (["E" * 43], [], ["A" * 43, "A" * 43]):
        with pytest.raises(ReceiptInvalid):
            check_receipt(token, proxy.party, act="reencrypted", cfrags=cfrags, **expected)


# --- codes --------------------------------------------------------------------------------------------------------


def test_refusals_of_shared_code_keep_their_code() -> None:
    with pytest.raises(KeyChainRolledBack), verifying():
        raise ChainRolledBack
    with pytest.raises(VerificationFailed) as refusal, verifying():
        raise MalformedKeyMaterial
    assert refusal.value.code == "malformed_key_material"
    assert refusal.value.hint
    assert VerificationFailed.from_refusal(refusal.value) is refusal.value
