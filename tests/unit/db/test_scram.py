"""Names and passwords that the embedded server refuses before it is asked."""

import pytest

from client.embedded.postgres import create_role_and_database, scram_verifier

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


@pytest.mark.parametrize("password", ["", "pässword", "line\nbreak", "nul\0"])
def test_a_password_that_is_not_printable_ascii_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        scram_verifier(password)


def test_a_verifier_is_salted_and_does_not_hold_the_password() -> None:
    first, second = scram_verifier("correct horse"), scram_verifier("correct horse")
    assert first != second
    assert first.startswith("SCRAM-SHA-256$4096:")
    assert "correct" not in first


@pytest.mark.parametrize("name", ["", "Upper", "1st", 'a"b', "a" * 64, "pg_evil", "postgres", "template1", "a;b"])
async def test_a_name_that_is_unsafe_or_reserved_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name is"):
        await create_role_and_database(NOWHERE, name, "secret")
