"""Whoever writes under a grant writes before it is ended; what is dated later is refused by those who know its end."""

from __future__ import annotations

import pytest

from client.errors import UnauthorisedAuthor
from client.verification import check_authority
from shared import statements as st
from shared.wire import SKEW_SECONDS, Role
from tests.unit.client.parties import NOW, Party, grant_to, id_of, manifest_of


@pytest.fixture
def patient() -> Party:
    return Party(Role.PATIENT)


@pytest.fixture
def author() -> Party:
    return Party(Role.RECIPIENT)


def written(patient: Party, author: Party, grant: str) -> st.Verified[st.Manifest]:
    """A manifest by the author, dated `NOW`."""
    like = manifest_of(patient).payload.model_dump(exclude={"iss", "aud", "iat", "jti", "grant"})
    return author.verified(st.Manifest, patient.did, **like, grant=id_of(grant))


@pytest.mark.parametrize("before", [SKEW_SECONDS + 1, 400, NOW])
def test_what_is_dated_after_the_end_is_unauthorised(patient: Party, author: Party, before: int) -> None:
    grant = grant_to(patient, author)
    with pytest.raises(UnauthorisedAuthor, match="ended"):
        check_authority(
            written(patient, author, grant), grant, patient=patient.party, ended={id_of(grant): NOW - before}
        )


@pytest.mark.parametrize("after", [-SKEW_SECONDS, 0, 400])
def test_what_is_dated_before_the_end_stays_authorised(patient: Party, author: Party, after: int) -> None:
    grant = grant_to(patient, author)
    ended = {id_of(grant): NOW + after}
    held = check_authority(written(patient, author, grant), grant, patient=patient.party, ended=ended)
    assert held is not None
    assert held.id == id_of(grant)


def test_the_end_of_another_grant_is_of_no_consequence(patient: Party, author: Party) -> None:
    grant, other = grant_to(patient, author), grant_to(patient, author)
    assert check_authority(written(patient, author, grant), grant, patient=patient.party, ended={id_of(other): 0})


def test_the_patient_needs_no_grant(patient: Party) -> None:
    assert check_authority(manifest_of(patient), None, patient=patient.party, ended={"A" * 43: 0}) is None
